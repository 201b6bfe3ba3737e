//! Shard leases: who may work on a shard, until when, and the fence that shuts out whoever comes late.

use std::time::Duration;

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Shard;

use crate::Result;

/// Leases. Times are the database's own.
#[async_trait]
pub trait Leases: Send + Sync {
    /// How many shards the store was made with. Fixed for its life.
    fn host_shards(&self) -> u16;

    /// Takes every shard that is free, expired, or already this node's (then it is renewed with the same fence), up to
    /// `at_most` in all. A shard taken from another has a fence greater than any before.
    async fn host_acquire(&self, node: &str, ttl: Duration, at_most: u16) -> Result<Vec<(Shard, Fence)>>;

    /// Gives this node's shards back at once, and the node itself up.
    async fn host_release(&self, node: &str) -> Result<()>;

    /// Gives some of this node's shards back at once, for others to take.
    async fn host_hand_over(&self, node: &str, shards: &[Shard]) -> Result<()>;

    /// The store's own time, by which leases run out. Nodes that go by it agree on what is due, whatever their clocks say.
    async fn host_now(&self) -> Result<Timestamp>;

    /// The nodes that are at work, by name: those that acquired lately enough for their leases to last.
    async fn host_nodes(&self) -> Result<Vec<String>>;
}
