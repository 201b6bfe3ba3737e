//! What an event costs the store from append to commit: append a batch, read it, commit it with one finished run and
//! one state write per event. First one tenant by itself, then sixteen at once, which share the disk's syncs.
//!
//! `cargo run --release -p bulkhead-store --example commit_bench [SECONDS]`

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_store::catalogue::Tenants as _;
use bulkhead_store::leases::Leases as _;
use bulkhead_store::log::Log as _;
use bulkhead_store::log::NewEvent;
use bulkhead_store::recordings::Recorded;
use bulkhead_store::sqlite::Options;
use bulkhead_store::sqlite::Sqlite;
use bulkhead_store::work::BatchLimits;
use bulkhead_store::work::Commit;
use bulkhead_store::work::Committed;
use bulkhead_store::work::RunRecord;
use bulkhead_store::work::RunState;
use bulkhead_store::work::StateRead;
use bulkhead_store::work::UsageDelta;
use bulkhead_store::work::Work as _;
use bytes::Bytes;

const BATCH: usize = 256;
const PLUGIN: PluginId = PluginId(1);
/// Keys of state that a tenant's events touch in turn.
const KEYS: usize = 10_000;
const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const LIMITS: BatchLimits = BatchLimits { events: BATCH as u32, bytes: 4 << 20, due: 64 };

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Default)]
struct Spent {
    events: u32,
    append: Duration,
    read: Duration,
    commit: Duration,
}

fn event(tenant: TenantId, shard: Shard) -> NewEvent {
    let id = uuid::Uuid::new_v4().to_string();
    let event = Event {
        correlation: id.clone(),
        id,
        source: "/shop/eu".into(),
        kind: "shop.order.created".into(),
        subject: None,
        time: NOW,
        key: None,
        causation: None,
        content_type: "application/json".into(),
        data: Bytes::from(vec![b'1'; 1_024]),
        attributes: Vec::new(),
    };
    NewEvent { tenant, shard, recorded: NOW, lineage: Lineage { hops: 0, budget: 1_000 }, event }
}

fn run(event: &Logged) -> RunRecord {
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

/// One tenant's batches, one after another.
async fn tenant(
    store: Sqlite,
    tenant: TenantId,
    fences: HashMap<Shard, Fence>,
    time: Duration,
) -> Result<Spent, Failure> {
    let begin = Instant::now();
    let shard = Shard::of(tenant, "", store.host_shards(), 1);
    let (mut spent, mut versions, mut turn) = (Spent::default(), HashMap::new(), 0);
    while begin.elapsed() < time {
        let events: Vec<_> = (0..BATCH).map(|_| event(tenant, shard)).collect();
        let since = Instant::now();
        store.host_append(events).await?;
        spent.append += since.elapsed();
        let since = Instant::now();
        let batch = store.read_batch(tenant, shard, NOW, LIMITS).await?;
        spent.read += since.elapsed();
        let keys: Vec<_> = (0..batch.events.len()).map(|at| format!("order-{}", (turn + at) % KEYS)).collect();
        turn += batch.events.len();
        let usage = UsageDelta { plugin: "counter".into(), rule: "count-orders".into(), ..UsageDelta::default() };
        let commit = Commit {
            tenant,
            shard,
            fence: fences[&shard],
            cursor_from: batch.cursor,
            cursor_to: batch.events.last().map_or(Position::ZERO, |event| event.position),
            now: NOW,
            turn: None,
            settings: i64::MAX,
            reads: keys
                .iter()
                .map(|key| StateRead::Key {
                    plugin: PLUGIN,
                    key: key.clone(),
                    version: versions.get(key).copied().unwrap_or_default(),
                })
                .collect(),
            writes: keys
                .iter()
                .map(|key| StateWrite {
                    plugin: PLUGIN,
                    key: key.clone(),
                    value: Some(Bytes::from_static(b"{\"count\":1,\"sum\":42.5}")),
                    expires: None,
                })
                .collect(),
            emits: Vec::new(),
            emits_unmatched: false,
            deliveries: Vec::new(),
            timers: Vec::new(),
            runs: batch.events.iter().map(run).collect(),
            unfinished: Vec::new(),
            usage: vec![usage],
            recordings: Recorded::default(),
        };
        let since = Instant::now();
        let committed = store.commit(commit).await?;
        spent.commit += since.elapsed();
        let Committed::Done { version, .. } = committed else { return Err(format!("{committed:?}").into()) };
        versions.extend(keys.into_iter().map(|key| (key, version)));
        spent.events += u32::try_from(batch.events.len())?;
    }
    Ok(spent)
}

/// Processor time that the process has used.
fn processor() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').ok_or("no name in stat")?.1;
    let ticks: u64 = after.split_whitespace().skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum();
    // Linux counts in hundredths of a second.
    Ok(Duration::from_millis(ticks * 10))
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let seconds: u64 = std::env::args().nth(1).map_or(Ok(10), |text| text.parse())?;
    let folder = tempfile::TempDir::new()?;
    let store = Sqlite::open(Options::new(folder.path().join("store.db"))).await?;
    let fences: HashMap<_, _> =
        store.host_acquire("bench", Duration::from_secs(3_600), u16::MAX).await?.into_iter().collect();
    println!("batches of {BATCH} events of 1 KiB, a run and a state write each, synchronous=FULL");
    for tenants in [1_u32, 16] {
        let (begin, used) = (Instant::now(), processor()?);
        let before = store.transactions();
        let mut tasks = Vec::new();
        for number in 0..tenants {
            let name = format!("tenant-{tenants}-{number}");
            let id = store.operator_create_tenant(&name, &name, NOW).await?.id;
            tasks.push(tokio::spawn(tenant(store.clone(), id, fences.clone(), Duration::from_secs(seconds) / 2)));
        }
        let mut all = Spent::default();
        for task in tasks {
            let spent = task.await??;
            all.events += spent.events;
            all.append += spent.append;
            all.read += spent.read;
            all.commit += spent.commit;
        }
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(all.events.max(1));
        println!(
            "{tenants:2} tenant(s): {:6.0} events/s, {:5.1} µs an event by the clock, {:5.1} µs of processor time; {} \
             transactions; waited per event: append {:.1}, read {:.1}, commit {:.1} µs",
            f64::from(all.events) / begin.elapsed().as_secs_f64(),
            each(begin.elapsed()),
            each(processor()?.saturating_sub(used)),
            store.transactions() - before,
            each(all.append),
            each(all.read),
            each(all.commit)
        );
    }
    store.close().await;
    Ok(())
}
