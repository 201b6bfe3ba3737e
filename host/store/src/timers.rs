//! Timers: events that will be appended at a time.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use crate::Result;

/// What firing timers did.
#[derive(Debug, Clone, Default)]
pub struct Fired {
    /// How many fired.
    pub count: u64,
    /// Where their events were appended.
    pub woken: Vec<(TenantId, Shard)>,
    /// When the next one is due.
    pub next_due: Option<Timestamp>,
}

/// A timer as people see it.
#[derive(Debug, Clone)]
pub struct TimerView {
    /// Its id; the event's too.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// When.
    pub due: Timestamp,
    /// The event's type.
    pub kind: String,
}

/// Firing timers.
#[async_trait]
pub trait Timers: Send + Sync {
    /// Moves due timers of all tenants into the log: the timer goes and the event is there in one transaction.
    async fn host_fire_timers(&self, now: Timestamp, limit: u32) -> Result<Fired>;

    /// The tenant's timers, soonest first.
    async fn timers(&self, tenant: TenantId, limit: u32) -> Result<Vec<TimerView>>;
}
