//! Dispatch's side of the log: what is there to do, and the one commit that ends a batch.
//!
//! A tenant's progress through a shard is a cursor. It moves only in [`Work::commit`], together with the effects of
//! what was worked off. A run that did not end has a row among the unfinished:
//!
//! ```text
//!            ┌──────────── Retry(due) ◀─┐ resume, redrive, or the one before it ended
//!  attempt ──┤                          │
//!            ├──▶ Held     (its rule or plugin is paused)
//!            ├──▶ Parked   (a person must look)
//!  not begun └──▶ Blocked  (an earlier run of its rule and key is unfinished)
//! ```

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::Delivery;
use bulkhead_domain::effect::LogLine;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::event::Draft;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::EventKey;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::log::NewEvent;
use crate::recordings::Recorded;

/// How much one batch may hold.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// New events.
    pub events: u32,
    /// Bytes of their payloads; one event is always read, however large.
    pub bytes: usize,
    /// Unfinished runs that are due.
    pub due: u32,
}

/// What there is to do for one tenant in one shard.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Everything up to here is worked off.
    pub cursor: Position,
    /// New events beyond the cursor, in order.
    pub events: Vec<Logged>,
    /// Unfinished runs whose time has come, in log order per (rule, key); a due head of a key is followed by the
    /// runs that are blocked behind it, as far as the limit allows.
    pub due: Vec<Due>,
    /// The (rule, ordering key) pairs that have an unfinished run: later runs of them must wait behind it.
    pub blocked: HashSet<(String, String)>,
    /// The lane's turn: every commit raises it.
    pub turn: i64,
    /// The version of the tenant's settings; a new number means that rules, plugins, sinks or switches changed.
    pub settings: i64,
    /// More events stand beyond this batch.
    pub more: bool,
}

/// An unfinished run with its event.
#[derive(Debug, Clone)]
pub struct Due {
    /// The run.
    pub run: Unfinished,
    /// Its event.
    pub event: Logged,
}

/// Why an unfinished run waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// For its next attempt, at this time.
    Retry(Timestamp),
    /// Behind an earlier unfinished run of its rule and key.
    Blocked,
    /// For its rule or plugin to be resumed.
    Held,
    /// For a person.
    Parked,
}

/// A run that must happen again, or has not begun because of another.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfinished {
    /// Its event's place.
    pub position: Position,
    /// Its event's name, for the run's id.
    pub event: EventKey,
    /// Its rule.
    pub rule: String,
    /// The ordering key, where the rule asks for order.
    pub key: Option<String>,
    /// What it waits for.
    pub waiting: Waiting,
    /// Attempts made.
    pub attempts: u32,
    /// The last failure's code; empty if there was none.
    pub code: String,
    /// The last failure's reason.
    pub reason: String,
    /// The plugin of the step that failed, or that it is held for.
    pub plugin: Option<String>,
    /// The share of the event's budget that the run has.
    pub lineage: Lineage,
    /// The rule set that first matched.
    pub rule_set: i64,
    /// When it became unfinished.
    pub since: Timestamp,
    /// When this row last changed.
    pub updated: Timestamp,
    /// The versions of plugins that it began with. Kept while it waits for its next attempt by itself: who redrives a
    /// parked run has mended something, so it begins anew.
    pub pins: BTreeMap<String, u32>,
}

/// How an attempt left its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Its effects are committed.
    Done,
    /// It will be tried again.
    Retrying,
    /// It waits for a person.
    Parked,
    /// It was let go, by its rule or by a person.
    Dropped,
}

/// A record of an ended attempt; append-only.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// Its event's place.
    pub position: Position,
    /// Its event's name.
    pub event: EventKey,
    /// Its rule.
    pub rule: String,
    /// The rule set that it ran under.
    pub rule_set: i64,
    /// The plugin and version of its last plugin step.
    pub plugin: Option<(String, u32)>,
    /// How it left the run.
    pub state: RunState,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The failure's code; empty if it was done.
    pub code: String,
    /// The failure's reason.
    pub reason: String,
    /// Fuel used by all its plugin steps.
    pub fuel: u64,
    /// Time in plugin steps.
    pub duration: Duration,
    /// When it ended.
    pub ended: Timestamp,
    /// Effects committed with it.
    pub effects: u32,
    /// What its plugins wrote.
    pub logs: Vec<LogLine>,
}

/// A change to the unfinished runs of the batch's shard.
#[derive(Debug, Clone, PartialEq)]
pub enum UnfinishedChange {
    /// The run is unfinished, so.
    Put(Unfinished),
    /// The run is over. If it had a key, the next run behind it becomes due at once.
    End {
        /// Its event's place.
        position: Position,
        /// Its rule.
        rule: String,
    },
}

/// A read that the batch's effects depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateRead {
    /// A key had this version (0: it was not there).
    Key {
        /// Whose state.
        plugin: PluginId,
        /// The key.
        key: String,
        /// Its version.
        version: i64,
    },
    /// A listing gave these keys.
    Keys {
        /// Whose state.
        plugin: PluginId,
        /// The prefix asked for.
        prefix: String,
        /// The cursor asked for.
        after: Option<String>,
        /// The limit asked for.
        limit: u32,
        /// What came.
        keys: Vec<String>,
    },
}

/// A delivery that a commit adds.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDelivery {
    /// What and where to.
    pub delivery: Delivery,
    /// The event that caused it.
    pub position: Position,
    /// The rule that caused it.
    pub rule: String,
    /// Deliveries of one sink with the same key follow each other; none where the rule asks for no order.
    pub key: Option<String>,
    /// When it was made; due at once.
    pub created: Timestamp,
}

/// A change to timers that a commit makes.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are the large one, so a box would only cost")]
#[derive(Debug, Clone)]
pub enum TimerChange {
    /// Sets one. With a name it replaces the plugin's timer of that name.
    Set {
        /// The plugin that set it.
        plugin: PluginId,
        /// Its name.
        name: Option<String>,
        /// When the event is appended.
        due: Timestamp,
        /// The event; its id is the timer's id, its `recorded` is set when it fires.
        event: NewEvent,
    },
    /// Takes one back, by name or id; nothing happens if it is not there.
    Cancel {
        /// The plugin that set it.
        plugin: PluginId,
        /// Its name or id.
        timer: String,
    },
}

/// What a batch used, per plugin and rule.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UsageDelta {
    /// The plugin's name; empty for what no plugin used.
    pub plugin: String,
    /// The rule.
    pub rule: String,
    /// Attempts.
    pub attempts: u64,
    /// Runs done.
    pub done: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Fuel.
    pub fuel: u64,
    /// Microseconds in plugin steps.
    pub micros: u64,
    /// Events emitted.
    pub emitted: u64,
    /// Deliveries made.
    pub deliveries: u64,
    /// What the plugin counted itself, by unit.
    pub units: BTreeMap<String, f64>,
}

/// Everything that a batch did: applied as a whole, or not at all.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Whose.
    pub tenant: TenantId,
    /// Where.
    pub shard: Shard,
    /// The right to commit.
    pub fence: Fence,
    /// The cursor as the batch found it.
    pub cursor_from: Position,
    /// The cursor as the batch leaves it, what it emits left aside.
    pub cursor_to: Position,
    /// The lane's turn as the batch found it; none lets any count. A batch that moves no cursor is told by this alone from
    /// one that was applied without its node having heard of it.
    pub turn: Option<i64>,
    /// When.
    pub now: Timestamp,
    /// The version of the tenant's settings that it ran under. Runs are held only under the present ones: whoever resumes
    /// a rule or plugin in between has looked for held runs already. Else it is a conflict.
    pub settings: i64,
    /// What it read.
    pub reads: Vec<StateRead>,
    /// What it writes to state; at most one write per plugin and key.
    pub writes: Vec<StateWrite>,
    /// Events it emits. Their ids are derived and the fence makes this happen once, so they are not deduplicated,
    /// except against an event of the same source and id that is already there (which is then left alone).
    pub emits: Vec<NewEvent>,
    /// No rule takes any of the emitted events, under the settings that the batch ran under: they are worked off with this
    /// commit if they are in its lane, nothing else stands before them there, and the settings are still the present ones.
    /// Else they wait for their turn as others do.
    pub emits_unmatched: bool,
    /// Deliveries it makes.
    pub deliveries: Vec<NewDelivery>,
    /// Timers it changes, in order.
    pub timers: Vec<TimerChange>,
    /// Attempts that ended.
    pub runs: Vec<RunRecord>,
    /// Changes to unfinished runs, in order.
    pub unfinished: Vec<UnfinishedChange>,
    /// What it used.
    pub usage: Vec<UsageDelta>,
    /// Calls of plugins that it recorded.
    pub recordings: Recorded,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// It is durable.
    Done {
        /// The shards into which events were emitted that are to be worked off, or in which runs became due.
        woken: Vec<Shard>,
        /// When the next unfinished run that this commit put becomes due.
        next_due: Option<Timestamp>,
        /// The version that the written keys now have (the same for all of one commit).
        version: i64,
    },
    /// The shard belongs to somebody else now, or the cursor is not where the batch found it. Nothing changed.
    Fenced,
    /// Something it read has changed. Nothing changed; run the batch again.
    Conflict,
}

/// Which runs are wanted, newest event first.
#[derive(Debug, Clone, Default)]
pub struct RunQuery {
    /// Of this event.
    pub position: Option<Position>,
    /// Of this rule.
    pub rule: Option<String>,
    /// Of this plugin.
    pub plugin: Option<String>,
    /// Left in this state.
    pub state: Option<RunState>,
    /// Before this position.
    pub before: Option<Position>,
    /// At most this many.
    pub limit: u32,
}

/// Which parked runs are meant.
#[derive(Debug, Clone, Default)]
pub struct ParkedFilter {
    /// These runs; empty means any.
    pub runs: Vec<RunId>,
    /// Of this rule.
    pub rule: Option<String>,
    /// With this ordering key.
    pub key: Option<String>,
    /// Of this plugin.
    pub plugin: Option<String>,
    /// With this code.
    pub code: Option<String>,
}

/// A run as people see it: its last attempt, and what it waits for.
#[derive(Debug, Clone)]
pub struct RunView {
    /// Its event's id.
    pub event_id: String,
    /// When its event was accepted.
    pub recorded: Timestamp,
    /// Its last ended attempt; none if it has not begun (blocked or held from the start).
    pub record: Option<RunRecord>,
    /// What it waits for; none once it is over.
    pub unfinished: Option<Unfinished>,
}

/// What is to be resumed.
#[derive(Debug, Clone)]
pub enum Held {
    /// Runs held for this rule.
    Rule(String),
    /// Runs held for this plugin.
    Plugin(String),
}

/// Working off the log.
#[async_trait]
pub trait Work: Send + Sync {
    /// Every (tenant, shard) with events beyond the cursor or unfinished runs that are due, without a cap: in these shards,
    /// of tenants that are active.
    async fn host_backlog(&self, now: Timestamp, shards: &[Shard]) -> Result<Vec<(TenantId, Shard)>>;

    /// Every (tenant, shard) that has unfinished runs due at `now`, and when the next one after that is due: in these
    /// shards, of tenants that are active. It costs as much as there are such, however many runs are due in one.
    async fn host_due(&self, now: Timestamp, shards: &[Shard]) -> Result<(Vec<(TenantId, Shard)>, Option<Timestamp>)>;

    /// What there is to do.
    async fn read_batch(&self, tenant: TenantId, shard: Shard, now: Timestamp, limits: BatchLimits) -> Result<Batch>;

    /// Applies a batch as a whole, or not at all.
    async fn commit(&self, commit: Commit) -> Result<Committed>;

    /// Runs by query, newest event first.
    async fn runs(&self, tenant: TenantId, query: &RunQuery) -> Result<Vec<RunView>>;

    /// Every attempt of one run, oldest first, with logs.
    async fn attempts(&self, tenant: TenantId, run: RunId) -> Result<Vec<RunRecord>>;

    /// Parked runs by filter, newest first, beyond a position.
    async fn parked(
        &self,
        tenant: TenantId,
        filter: &ParkedFilter,
        before: Option<Position>,
        limit: u32,
    ) -> Result<Vec<RunView>>;

    /// Makes parked runs due, in order, with their attempts counted anew. Says how many, and in which shards.
    async fn redrive(&self, tenant: TenantId, filter: &ParkedFilter, now: Timestamp) -> Result<(u64, Vec<Shard>)>;

    /// Ends parked runs as dropped; the next behind each becomes due. Says how many, and in which shards.
    async fn discard(&self, tenant: TenantId, filter: &ParkedFilter, now: Timestamp) -> Result<(u64, Vec<Shard>)>;

    /// Makes held runs due, in order. Says how many, and in which shards.
    async fn resume_held(&self, tenant: TenantId, held: &Held, now: Timestamp) -> Result<(u64, Vec<Shard>)>;

    /// Events beyond the tenant's cursors and runs that are held, counted up to `limit`.
    async fn backlog(&self, tenant: TenantId, limit: u64) -> Result<u64>;

    /// How much is unfinished and unread, for metrics and for "why does it wait".
    async fn host_depths(&self) -> Result<Vec<Depth>>;
}

/// How much waits in one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Whose.
    pub tenant: TenantId,
    /// Events beyond the cursors.
    pub backlog: u64,
    /// Runs waiting for their next attempt or behind another.
    pub waiting: u64,
    /// Runs held.
    pub held: u64,
    /// Runs parked.
    pub parked: u64,
}

/// Makes the event that a draft becomes; used for emitted events and timers alike.
#[must_use]
pub fn emitted(
    id: String,
    source: &str,
    draft: Draft,
    parent: &Logged,
    now: Timestamp,
) -> bulkhead_domain::event::Event {
    bulkhead_domain::event::Event {
        id,
        source: source.to_owned(),
        kind: draft.kind,
        subject: draft.subject,
        time: now,
        key: draft.key,
        correlation: parent.event.correlation.clone(),
        causation: Some(parent.event.id.clone()),
        content_type: draft.content_type,
        data: draft.data,
        attributes: draft.attributes,
    }
}
