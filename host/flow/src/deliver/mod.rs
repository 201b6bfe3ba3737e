//! Deliver: takes due deliveries from the outbox, makes attempts, and settles how they ended.
//!
//! ```text
//! outbox ──host_due_deliveries──▶ waiting (per sink, few) ──▶ attempt ──verdict──▶ host_settle
//!                                     ▲                          │
//!                                     └─ breaker, fair shares ───┘
//! ```
//!
//! The outbox is the authority. What waits here is a handful per sink, taken again if it waits too long; losing all of it
//! costs nothing. A crash between an attempt and its settling repeats the attempt under the same id.
//!
//! A sink's trouble stays its own: each has a bound on attempts under way and a [`breaker`], each tenant has a share of
//! the slots, and who has none under way goes first. Deliveries with a key come one at a time by the store's contract: the
//! next of a key is not due before the one ahead of it is settled.
//!
//! Does not: decide when the next attempt is (`policy::verdict`), know what a receiver is (`sink`), or let anything out
//! by itself (`egress`).
//!
//! Reading order: [`Options`], [`SinkDirectory`], [`Handle`], [`Deliver`], `board`, [`breaker`], `attempt`.

mod attempt;
mod board;
pub mod breaker;
mod handle;
mod service;

use std::time::Duration;

use async_trait::async_trait;
use bulkhead_domain::id::TenantId;

pub use crate::deliver::handle::BreakerView;
pub use crate::deliver::handle::Handle;
pub use crate::deliver::handle::TestError;
pub use crate::deliver::handle::Tested;
pub use crate::deliver::service::Deliver;
use crate::sink::ResolvedSink;

/// Where sinks are found. The cache of tenants' settings implements it.
#[async_trait]
pub trait SinkDirectory: Send + Sync + 'static {
    /// The tenant's sink of this name as it is now, with its secrets opened; none if the tenant has no such sink. An
    /// error is the store's trouble: the delivery waits and no attempt is counted.
    async fn sink(&self, tenant: TenantId, name: &str) -> bulkhead_store::Result<Option<ResolvedSink>>;
}

/// Bounds and pace.
#[derive(Debug, Clone)]
pub struct Options {
    /// Attempts under way at a time. They mostly wait for others, so there may be many; each holds a body in memory.
    pub running_max: usize,
    /// Of these, so many of one tenant.
    pub tenant_running_max: usize,
    /// The last so many are only for tenants that have none under way.
    pub reserve: usize,
    /// Deliveries taken from the outbox at a time.
    pub fetch: u32,
    /// The longest time between two looks into the outbox.
    pub look: Duration,
    /// After a stop, so long for what is under way to end and be settled.
    pub grace: Duration,
    /// When a sink is left alone for a while.
    pub breaker: breaker::BreakerOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            running_max: 256,
            tenant_running_max: 64,
            reserve: 32,
            fetch: 128,
            look: Duration::from_secs(1),
            grace: Duration::from_secs(15),
            breaker: breaker::BreakerOptions::default(),
        }
    }
}
