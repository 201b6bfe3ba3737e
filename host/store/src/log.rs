//! The log: events are appended once, and read in order.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::EventKey;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use crate::Result;

/// An event that is to be appended.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Whose.
    pub tenant: TenantId,
    /// Where to: [`Shard::of`] the tenant and the event's ordering key (else its id).
    pub shard: Shard,
    /// When the host accepted it.
    pub recorded: Timestamp,
    /// How it descends.
    pub lineage: Lineage,
    /// The event.
    pub event: Event,
}

/// What became of one event of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is durable, here.
    Accepted(Position),
    /// The same (source, id) was accepted before, or stands earlier in the same append; it is here.
    Duplicate(Position),
}

/// Which events of a tenant are wanted.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Exactly this type.
    pub kind: Option<String>,
    /// Exactly this ordering key (`partitionkey`).
    pub key: Option<String>,
    /// Exactly this subject.
    pub subject: Option<String>,
    /// Exactly this correlation id.
    pub correlation: Option<String>,
    /// Recorded at or after.
    pub since: Option<Timestamp>,
    /// Recorded before.
    pub until: Option<Timestamp>,
    /// Oldest first; else newest first.
    pub ascending: bool,
    /// Beyond this position, in the direction of the order.
    pub after: Option<Position>,
    /// At most this many.
    pub limit: u32,
}

/// Bytes of payloads that [`Log::tail`] gives at a time; one event is always given, however large.
pub const TAIL_BYTES: usize = 256 << 10;

/// The next events of a tenant's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Those that were wanted, oldest first.
    pub events: Vec<Logged>,
    /// Everything up to here was looked at.
    pub reached: Position,
    /// A limit was reached: there may be more.
    pub more: bool,
}

/// Appending and reading events.
#[async_trait]
pub trait Log: Send + Sync {
    /// Appends events of any tenants in one durable transaction, in order; the answers are in the same order.
    /// Concurrent calls share a transaction. When this returns, the accepted events survive a power cut.
    async fn host_append(&self, events: Vec<NewEvent>) -> Result<Vec<Appended>>;

    /// Every event of the tenant with this id (one per source), newest first.
    async fn events_by_id(&self, tenant: TenantId, id: &str) -> Result<Vec<Logged>>;

    /// The event with this key, if there is one.
    async fn event_by_key(&self, tenant: TenantId, key: EventKey) -> Result<Option<Logged>>;

    /// Events by query.
    async fn events(&self, tenant: TenantId, query: &EventQuery) -> Result<Vec<Logged>>;

    /// The events that were recorded beyond `after`, oldest first, for live streams: looks at up to `limit` of them, and
    /// leaves those out that are not of type `kind`, if one is given. Bounded by [`TAIL_BYTES`], too. Never passes a
    /// position below which an append may still become visible.
    async fn tail(&self, tenant: TenantId, after: Position, kind: Option<&str>, limit: u32) -> Result<Tail>;

    /// The position up to which [`Log::tail`] would read now.
    async fn head(&self, tenant: TenantId) -> Result<Position>;
}
