//! Load: events, and what a batch of them leaves behind.

use std::collections::HashMap;
use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_store::catalogue::Tenants as _;
use bulkhead_store::leases::Leases as _;
use bulkhead_store::log::NewEvent;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::recordings::Recorded;
use bulkhead_store::work::Batch;
use bulkhead_store::work::BatchLimits;
use bulkhead_store::work::Commit;
use bulkhead_store::work::RunRecord;
use bulkhead_store::work::RunState;
use bulkhead_store::work::StateRead;
use bulkhead_store::work::UsageDelta;
use bytes::Bytes;

use crate::Failure;

/// Events of a full batch.
pub const BATCH: usize = 256;
pub const LIMITS: BatchLimits = BatchLimits { events: BATCH as u32, bytes: 4 << 20, due: 64 };
pub const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
/// The node.
pub const NODE: &str = "bench";
/// Bytes of an event's payload, where nothing else is asked for.
pub const PAYLOAD: usize = 1_024;
const PLUGIN: PluginId = PluginId(1);
/// Keys of state that a tenant's events touch in turn.
const KEYS: usize = 10_000;

/// One of so many bytes.
pub fn payload(bytes: usize) -> Bytes {
    let mut payload = br#"{"order":1,"note":""#.to_vec();
    payload.resize(bytes.saturating_sub(2).max(payload.len()), b'x');
    payload.extend_from_slice(b"\"}");
    Bytes::from(payload)
}

pub fn event(tenant: TenantId, payload: &Bytes) -> NewEvent {
    let id = uuid::Uuid::new_v4().to_string();
    let event = Event {
        correlation: id.clone(),
        id,
        source: "/shop/eu".into(),
        kind: "shop.order.created".into(),
        subject: Some("order/1".into()),
        time: NOW,
        key: Some("1".into()),
        causation: None,
        content_type: "application/json".into(),
        data: payload.clone(),
        attributes: Vec::new(),
    };
    NewEvent {
        tenant,
        shard: Shard::of(tenant, "", 16, 1),
        recorded: NOW,
        lineage: Lineage { hops: 0, budget: 1_000 },
        event,
    }
}

pub async fn tenants(store: &Postgres, count: usize) -> Result<Vec<TenantId>, Failure> {
    let mut tenants = Vec::new();
    for number in 0..count {
        let name = format!("tenant-{number}");
        tenants.push(store.operator_create_tenant(&name, &name, NOW).await?.id);
    }
    Ok(tenants)
}

pub async fn fences(store: &Postgres) -> Result<HashMap<Shard, Fence>, Failure> {
    Ok(store.host_acquire(NODE, Duration::from_secs(3_600), u16::MAX).await?.into_iter().collect())
}

/// One tenant's work: which keys its events touch, and the versions that they have.
#[derive(Default)]
pub struct Lane {
    next: usize,
    keys: Vec<String>,
    versions: HashMap<String, i64>,
}

impl Lane {
    /// What a batch leaves behind: for each event a run that is done and a write to a key that it read, and a write to
    /// one key that every batch writes.
    pub fn commit(&mut self, tenant: TenantId, fence: Fence, batch: &Batch) -> Commit {
        let usage = UsageDelta { plugin: "counter".into(), rule: "count-orders".into(), ..UsageDelta::default() };
        self.keys = (0..batch.events.len()).map(|at| format!("order-{}", (self.next + at) % KEYS)).collect();
        self.keys.push("total".to_owned());
        self.next += batch.events.len();
        Commit {
            tenant,
            shard: Shard::of(tenant, "", 16, 1),
            fence,
            cursor_from: batch.cursor,
            cursor_to: batch.events.last().map_or(batch.cursor, |event| event.position),
            turn: Some(batch.turn),
            now: NOW,
            settings: i64::MAX,
            reads: self.keys.iter().map(|key| self.read(key)).collect(),
            writes: self.keys.iter().map(|key| write(key)).collect(),
            emits: Vec::new(),
            emits_unmatched: false,
            deliveries: Vec::new(),
            timers: Vec::new(),
            runs: batch.events.iter().map(run).collect(),
            unfinished: Vec::new(),
            usage: vec![usage],
            recordings: Recorded::default(),
        }
    }

    fn read(&self, key: &str) -> StateRead {
        let version = self.versions.get(key).copied().unwrap_or_default();
        StateRead::Key { plugin: PLUGIN, key: key.to_owned(), version }
    }

    /// The commit was applied.
    pub fn done(&mut self, version: i64) {
        self.versions.extend(self.keys.drain(..).map(|key| (key, version)));
    }
}

fn write(key: &str) -> StateWrite {
    let value = Some(Bytes::from_static(b"{\"count\":1,\"sum\":42.5}"));
    StateWrite { plugin: PLUGIN, key: key.to_owned(), value, expires: None }
}

pub fn run(event: &Logged) -> RunRecord {
    RunRecord {
        position: event.position,
        event: event.event.event_key(),
        rule: "count-orders".into(),
        rule_set: 1,
        plugin: Some(("counter".into(), 1)),
        state: RunState::Done,
        attempt: 1,
        code: String::new(),
        reason: String::new(),
        fuel: 20_000,
        duration: Duration::from_micros(5),
        ended: NOW,
        effects: 1,
        logs: Vec::new(),
    }
}
