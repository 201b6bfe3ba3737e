//! Recordings of calls of plugins. They are written by commits alone, see [`crate::work::Commit::recordings`].
//!
//! The store does not look into a recording: what is in it is the business of whoever makes and reads it.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::EventKey;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;

use crate::Result;

/// The recordings of a batch, and how much a tenant may have of them.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// New ones.
    pub new: Vec<NewRecording>,
    /// Recordings of failures that the tenant keeps, these included, and as many of successes: one kind does not push the
    /// other out. Older ones go.
    pub count_max: u32,
    /// Bytes of each kind.
    pub bytes_max: u64,
}

/// A recording that a commit adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecording {
    /// Which call it is of.
    pub of: Recorder,
    /// The recording.
    pub body: Bytes,
}

/// Which call a recording is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorder {
    /// The event's place.
    pub position: Position,
    /// The event's name.
    pub event: EventKey,
    /// The rule.
    pub rule: String,
    /// Which attempt of the run, from 1.
    pub attempt: u32,
    /// The step, from 0.
    pub step: u32,
    /// Which document at that step, from 0.
    pub item: u32,
    /// The plugin.
    pub plugin: String,
    /// Its version.
    pub version: u32,
    /// The failure's code; empty if it was done.
    pub code: String,
    /// When.
    pub recorded: Timestamp,
}

/// A recording without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Tells recordings of a tenant apart; newer ones have greater ones.
    pub number: i64,
    /// Which call it is of.
    pub of: Recorder,
    /// Bytes of its body.
    pub size: u64,
}

impl Head {
    /// The run.
    #[must_use]
    pub fn run(&self) -> RunId {
        RunId::of(self.of.event, &self.of.rule)
    }
}

/// Reading recordings.
#[async_trait]
pub trait Recordings: Send + Sync {
    /// Recordings of a run, newest first.
    async fn recordings_of(&self, tenant: TenantId, run: RunId) -> Result<Vec<Head>>;

    /// Recordings of a plugin's calls, newest first, before a number.
    async fn recordings(&self, tenant: TenantId, plugin: &str, before: Option<i64>, limit: u32) -> Result<Vec<Head>>;

    /// The body of a recording; none if it is gone.
    async fn recording(&self, tenant: TenantId, number: i64) -> Result<Option<Bytes>>;

    /// Deletes recordings of all tenants that were made before, at most `limit`; says how many.
    async fn host_expire_recordings(&self, before: Timestamp, limit: u32) -> Result<u64>;
}
