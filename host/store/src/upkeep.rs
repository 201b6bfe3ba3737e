//! Upkeep: what a store needs to have done now and then, and what it gives up because it is too old.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use crate::Result;

/// The code of runs and deliveries that were parked for longer than such are kept.
pub const EXPIRED: &str = "retention:expired";

/// What is older than is kept. None keeps everything of the kind.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    /// Events accepted before this go, each with its runs, its key among those that tell duplicates, and its deliveries.
    /// One stays for as long as it is not worked off, or has a run or a delivery that is not over; where events lie in
    /// segments, such a one keeps its whole segment.
    pub events: Option<Timestamp>,
    /// Runs and deliveries parked before this end as dropped, with the code [`EXPIRED`].
    pub parked: Option<Timestamp>,
    /// Lines of usage of days before this one's go.
    pub usage: Option<Timestamp>,
    /// The time.
    pub now: Timestamp,
}

/// How far a pass through the store has come. A pass begins with the default one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mark {
    /// At parked runs.
    #[default]
    Runs,
    /// At parked deliveries.
    Deliveries,
    /// At events; beyond this position, or this segment.
    Events(i64),
    /// At keys of events whose segment is gone, from this block of the table on.
    Keys(i64),
    /// At deliveries of such events.
    Leftovers(i64),
    /// At lines of usage.
    Usage,
}

/// What a slice of a pass took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    /// Runs that were parked for too long.
    pub expired_runs: u64,
    /// Deliveries that were.
    pub expired_deliveries: u64,
    /// Events; of a segment, about as many.
    pub events: u64,
    /// Ended attempts; of a segment, about as many.
    pub runs: u64,
    /// Keys that told duplicates.
    pub keys: u64,
    /// Deliveries.
    pub deliveries: u64,
    /// Lines of usage.
    pub usage: u64,
    /// Segments of events and runs.
    pub segments: u64,
    /// Where runs became due because one before them ended.
    pub woken: Vec<(TenantId, Shard)>,
}

impl Retired {
    /// Adds what another slice took away.
    pub fn add(&mut self, more: Self) {
        self.expired_runs += more.expired_runs;
        self.expired_deliveries += more.expired_deliveries;
        self.events += more.events;
        self.runs += more.runs;
        self.keys += more.keys;
        self.deliveries += more.deliveries;
        self.usage += more.usage;
        self.segments += more.segments;
        self.woken.extend(more.woken);
    }
}

/// See the module's text.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Does what is due: makes room for events to come, and folds together what was only added. Any node may do it at any
    /// time; the keeper does every 20 seconds.
    async fn host_tidy(&self) -> Result<()>;

    /// Takes a slice of what is too old away: so little that nobody else's write waits for long, and without waiting for
    /// anybody else. Says what went, and where the pass goes on; none if it is over.
    ///
    /// What could not be taken because somebody was in the way stays for the next pass. Several nodes may do it at once
    /// without harm, and without use.
    async fn host_retire(&self, expiry: &Expiry, mark: Mark) -> Result<(Retired, Option<Mark>)>;

    /// When the oldest event was accepted that is kept; where events lie in segments, when the oldest one was begun.
    async fn host_oldest_event(&self) -> Result<Option<Timestamp>>;
}
