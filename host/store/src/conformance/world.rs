//! What cases have at hand: a store that can be restarted, tenants, events and commits with few words.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::Delivery;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;

use crate::Result;
use crate::Store;
use crate::log::Appended;
use crate::log::NewEvent;
use crate::recordings::Recorded;
use crate::work::Batch;
use crate::work::BatchLimits;
use crate::work::Commit;
use crate::work::Committed;
use crate::work::NewDelivery;
use crate::work::RunRecord;
use crate::work::RunState;
use crate::work::Unfinished;
use crate::work::UnfinishedChange;
use crate::work::Waiting;

/// Where the store of one case lives.
#[async_trait]
pub trait Ground: Send {
    /// Opens the store. What was written before is in it.
    async fn open(&mut self) -> Store;

    /// Closes it, as at an orderly end.
    async fn close(&mut self);

    /// Ends the segment that events are written to, as the end of a day does, where the backend has segments.
    async fn turn_over(&mut self) {}
}

/// The node that cases work as.
const NODE: &str = "node";
/// Longer than any case takes.
const LEASE: Duration = Duration::from_secs(3_600);

/// The moment at which cases begin, and so many seconds later.
pub(super) const fn at(seconds: i64) -> Timestamp {
    Timestamp(1_800_000_000_000_000 + seconds * 1_000_000)
}

/// As much as there is.
pub(super) const ALL: BatchLimits = BatchLimits { events: 10_000, bytes: 1 << 30, due: 10_000 };

/// See the module's text.
pub struct World {
    ground: Box<dyn Ground>,
    pub(super) store: Store,
    fences: HashMap<Shard, Fence>,
}

impl World {
    /// Opens the store and takes all its shards.
    pub async fn on(mut ground: Box<dyn Ground>) -> Self {
        let store = ground.open().await;
        let mut world = Self { ground, store, fences: HashMap::new() };
        world.lease().await;
        world
    }

    /// Ends the case.
    pub async fn close(mut self) {
        self.ground.close().await;
    }

    async fn lease(&mut self) {
        let held = self.store.host_acquire(NODE, LEASE, u16::MAX).await.expect("because nobody else is there");
        self.fences = held.into_iter().collect();
    }

    /// Closes the store and opens it again.
    pub(super) async fn restart(&mut self) {
        self.ground.close().await;
        self.store = self.ground.open().await;
        self.lease().await;
    }

    /// What is written from now on is in another segment, where there are such.
    pub(super) async fn turn_over(&mut self) {
        self.ground.turn_over().await;
    }

    /// All shards, in order.
    pub(super) fn shards(&self) -> Vec<Shard> {
        (0..self.store.host_shards()).map(Shard).collect()
    }

    pub(super) fn fence(&self, shard: Shard) -> Fence {
        self.fences[&shard]
    }

    pub(super) async fn tenant(&self, name: &str) -> Result<TenantId> {
        Ok(self.store.operator_create_tenant(&format!("ten_{name}"), name, at(0)).await?.id)
    }

    /// Where all events go that ask for nothing else.
    pub(super) fn home(&self, tenant: TenantId) -> Shard {
        Shard::of(tenant, "", self.store.host_shards(), 1)
    }

    /// An event in the tenant's home.
    pub(super) fn event(&self, tenant: TenantId, id: &str) -> NewEvent {
        let event = Event {
            id: id.to_owned(),
            source: "/source".to_owned(),
            kind: "test.happened".to_owned(),
            subject: None,
            time: at(0),
            key: None,
            correlation: id.to_owned(),
            causation: None,
            content_type: "application/json".to_owned(),
            data: Bytes::from_static(b"{}"),
            attributes: Vec::new(),
        };
        NewEvent {
            tenant,
            shard: self.home(tenant),
            recorded: at(0),
            lineage: Lineage { hops: 0, budget: 1_000 },
            event,
        }
    }

    /// The same with an ordering key.
    pub(super) fn keyed(&self, tenant: TenantId, id: &str, key: &str) -> NewEvent {
        let mut new = self.event(tenant, id);
        new.event.key = Some(key.to_owned());
        new
    }

    /// Appends events that are all new; gives them as the log has them.
    pub(super) async fn append(&self, events: Vec<NewEvent>) -> Result<Vec<Logged>> {
        let appended = self.store.host_append(events.clone()).await?;
        assert_eq!(appended.len(), events.len(), "an answer for each event");
        let logged = events.into_iter().zip(appended).map(|(new, appended)| {
            let position = accepted(appended);
            let NewEvent { shard, recorded, lineage, event, .. } = new;
            Logged { position, shard, recorded, lineage, event }
        });
        Ok(logged.collect())
    }

    /// Appends one event with a key for each id.
    pub(super) async fn append_keyed(&self, tenant: TenantId, key: &str, ids: &[&str]) -> Result<Vec<Logged>> {
        self.append(ids.iter().map(|id| self.keyed(tenant, id, key)).collect()).await
    }

    pub(super) async fn batch(&self, tenant: TenantId, now: Timestamp) -> Result<Batch> {
        self.store.read_batch(tenant, self.home(tenant), now, ALL).await
    }

    /// A commit that moves the home's cursor over everything, and does nothing else yet.
    pub(super) async fn commit(&self, tenant: TenantId) -> Result<Commit> {
        let batch = self.batch(tenant, at(0)).await?;
        let to = batch.events.last().map_or(batch.cursor, |event| event.position);
        Ok(self.commit_of(tenant, batch.cursor, to))
    }

    pub(super) fn commit_of(&self, tenant: TenantId, from: Position, to: Position) -> Commit {
        let shard = self.home(tenant);
        Commit {
            tenant,
            shard,
            fence: self.fence(shard),
            cursor_from: from,
            cursor_to: to,
            now: at(0),
            // As if it had looked at this very moment.
            turn: None,
            settings: i64::MAX,
            reads: Vec::new(),
            writes: Vec::new(),
            emits: Vec::new(),
            emits_unmatched: false,
            deliveries: Vec::new(),
            timers: Vec::new(),
            runs: Vec::new(),
            unfinished: Vec::new(),
            usage: Vec::new(),
            recordings: Recorded::default(),
        }
    }

    /// Commits, which has to work; gives the version of what was written.
    pub(super) async fn done(&self, commit: Commit) -> Result<i64> {
        match self.store.commit(commit).await? {
            Committed::Done { version, .. } => Ok(version),
            other => panic!("the commit was to be done, not {other:?}"),
        }
    }

    /// Moves the cursor over everything and changes unfinished runs.
    pub(super) async fn change(&self, tenant: TenantId, changes: Vec<UnfinishedChange>) -> Result<()> {
        let mut commit = self.commit(tenant).await?;
        commit.unfinished = changes;
        self.done(commit).await?;
        Ok(())
    }

    /// Writes keys of a plugin's state; no value deletes.
    pub(super) async fn write(&self, tenant: TenantId, plugin: PluginId, keys: &[(&str, Option<&str>)]) -> Result<i64> {
        let mut commit = self.commit(tenant).await?;
        commit.writes = keys.iter().map(|(key, value)| write(plugin, key, *value)).collect();
        self.done(commit).await
    }

    /// The events of what is due in the home, in order.
    pub(super) async fn due(&self, tenant: TenantId, now: Timestamp) -> Result<Vec<String>> {
        Ok(self.batch(tenant, now).await?.due.into_iter().map(|due| due.event.event.id).collect())
    }
}

pub(super) fn accepted(appended: Appended) -> Position {
    match appended {
        Appended::Accepted(position) => position,
        Appended::Duplicate(position) => panic!("a new event was taken for a duplicate of {position:?}"),
    }
}

pub(super) fn write(plugin: PluginId, key: &str, value: Option<&str>) -> StateWrite {
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    StateWrite { plugin, key: key.to_owned(), value, expires: None }
}

/// An unfinished run of a rule over an event; its key is the event's.
pub(super) fn unfinished(event: &Logged, rule: &str, waiting: Waiting) -> Unfinished {
    Unfinished {
        position: event.position,
        event: event.event.event_key(),
        rule: rule.to_owned(),
        key: event.event.ordering_key().map(str::to_owned),
        waiting,
        attempts: 1,
        code: "plugin:trap".to_owned(),
        reason: "it trapped".to_owned(),
        plugin: Some("plugin".to_owned()),
        lineage: Lineage { hops: 0, budget: 1_000 },
        rule_set: 1,
        since: at(0),
        updated: at(0),
        pins: std::collections::BTreeMap::new(),
    }
}

pub(super) fn put(event: &Logged, rule: &str, waiting: Waiting) -> UnfinishedChange {
    UnfinishedChange::Put(unfinished(event, rule, waiting))
}

pub(super) fn end(event: &Logged, rule: &str) -> UnfinishedChange {
    UnfinishedChange::End { position: event.position, rule: rule.to_owned() }
}

pub(super) fn record(event: &Logged, rule: &str, state: RunState, attempt: u32) -> RunRecord {
    let failed = state != RunState::Done;
    RunRecord {
        position: event.position,
        event: event.event.event_key(),
        rule: rule.to_owned(),
        rule_set: 1,
        plugin: Some(("plugin".to_owned(), 2)),
        state,
        attempt,
        code: if failed { "plugin:trap".to_owned() } else { String::new() },
        reason: if failed { "it trapped".to_owned() } else { String::new() },
        fuel: 1_000,
        duration: Duration::from_micros(70),
        ended: at(1),
        effects: 1,
        logs: Vec::new(),
    }
}

/// A delivery that an event's rule makes.
pub(super) fn delivery(event: &Logged, id: &str, sink: &str, key: Option<&str>) -> NewDelivery {
    NewDelivery {
        delivery: Delivery {
            id: id.to_owned(),
            sink: sink.to_owned(),
            content_type: "application/json".to_owned(),
            body: Bytes::from_static(b"{\"a\":1}"),
            attributes: vec![("x-a".to_owned(), "1".to_owned())],
        },
        position: event.position,
        rule: "rule".to_owned(),
        key: key.map(str::to_owned),
        created: at(0),
    }
}
