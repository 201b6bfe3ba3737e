//! What retention costs those who append and commit meanwhile, on SQLite.
//!
//! A store with many old events that are worked off, each with a run. Then the same load twice: clients that append, and
//! a worker that commits a run for every event; first by themselves, then beside retention, which takes slices with rests
//! between as the keeper does, for as long as there is something to take.
//!
//! `cargo run --release -p bulkhead-store --example retention_bench [OLD EVENTS] [CLIENTS] [SECONDS ALONE]`

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_store::catalogue::Tenants as _;
use bulkhead_store::leases::Leases as _;
use bulkhead_store::log::Log as _;
use bulkhead_store::log::NewEvent;
use bulkhead_store::sqlite::Options;
use bulkhead_store::sqlite::Sqlite;
use bulkhead_store::upkeep::Expiry;
use bulkhead_store::upkeep::Mark;
use bulkhead_store::upkeep::Upkeep as _;
use bulkhead_store::work::BatchLimits;
use bulkhead_store::work::Commit;
use bulkhead_store::work::RunRecord;
use bulkhead_store::work::RunState;
use bulkhead_store::work::Work as _;
use bytes::Bytes;

const TENANTS: i64 = 100;
const PAYLOAD: usize = 1_024;
const OLD: Timestamp = Timestamp(1_800_000_000_000_000);
const YOUNG: Timestamp = Timestamp(1_900_000_000_000_000);
/// As the keeper rests.
const REST: u32 = 4;
const LIMITS: BatchLimits = BatchLimits { events: 256, bytes: 4 << 20, due: 0 };

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Lanes = Arc<Vec<(TenantId, Shard, Fence)>>;
type Stop = Arc<AtomicBool>;

fn event(lane: (TenantId, Shard, Fence), payload: &Bytes, recorded: Timestamp) -> NewEvent {
    let id = uuid::Uuid::new_v4().to_string();
    let event = Event {
        correlation: id.clone(),
        id,
        source: "/shop/eu".into(),
        kind: "shop.order.created".into(),
        subject: Some("order/1".into()),
        time: recorded,
        key: Some("1".into()),
        causation: None,
        content_type: "application/json".into(),
        data: payload.clone(),
        attributes: Vec::new(),
    };
    NewEvent { tenant: lane.0, shard: lane.1, recorded, lineage: Lineage { hops: 0, budget: 1_000 }, event }
}

fn done(event: &Logged) -> RunRecord {
    RunRecord {
        position: event.position,
        event: event.event.event_key(),
        rule: "rule".into(),
        rule_set: 1,
        plugin: Some(("plugin".into(), 1)),
        state: RunState::Done,
        attempt: 1,
        code: String::new(),
        reason: String::new(),
        fuel: 10_000,
        duration: Duration::from_micros(50),
        ended: OLD,
        effects: 0,
        logs: Vec::new(),
    }
}

/// Works off what there is in a lane; says how much that was.
async fn work_off(store: &Sqlite, (tenant, shard, fence): (TenantId, Shard, Fence)) -> Result<u64, Failure> {
    let batch = store.read_batch(tenant, shard, OLD, LIMITS).await?;
    let Some(last) = batch.events.last() else { return Ok(0) };
    let commit = Commit {
        tenant,
        shard,
        fence,
        cursor_from: batch.cursor,
        cursor_to: last.position,
        turn: Some(batch.turn),
        now: OLD,
        settings: batch.settings,
        reads: Vec::new(),
        writes: Vec::new(),
        emits: Vec::new(),
        emits_unmatched: false,
        deliveries: Vec::new(),
        timers: Vec::new(),
        runs: batch.events.iter().map(done).collect(),
        recordings: bulkhead_store::recordings::Recorded::default(),
        unfinished: Vec::new(),
        usage: Vec::new(),
    };
    store.commit(commit).await?;
    Ok(batch.events.len() as u64)
}

/// The load until `stop`; prints its rates under a name.
async fn load(store: &Sqlite, lanes: &Lanes, clients: usize, stop: Stop, name: &str) {
    let (began, committed) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let times = Arc::new(Mutex::new(Vec::new()));
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let (store, lanes, stop) = (store.clone(), Arc::clone(lanes), Arc::clone(&stop));
        let (payload, times) = (payload.clone(), Arc::clone(&times));
        tasks.spawn(async move {
            let mut own = Vec::new();
            for lane in lanes.iter().copied().cycle().skip(client) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let event = event(lane, &payload, YOUNG);
                let asked = Instant::now();
                store.host_append(vec![event]).await.expect("because the store works");
                own.push(asked.elapsed());
            }
            times.lock().expect("because nobody panicked with it").extend(own);
        });
    }
    let (worker, worked, at_work, until) = (store.clone(), Arc::clone(&committed), Arc::clone(lanes), stop);
    tasks.spawn(async move {
        for lane in at_work.iter().copied().cycle() {
            if until.load(Ordering::Relaxed) {
                break;
            }
            worked.fetch_add(work_off(&worker, lane).await.expect("because the store works"), Ordering::Relaxed);
        }
    });
    while let Some(ended) = tasks.join_next().await {
        ended.expect("because no client panics");
    }
    let seconds = began.elapsed().as_secs_f64();
    let mut times = std::mem::take(&mut *times.lock().expect("because nobody panicked with it"));
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!(
        "{name}: {:.0} events/s appended, {:.0} events/s committed; an append takes p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}, \
         at most {:.1?}",
        times.len() as f64 / seconds,
        committed.load(Ordering::Relaxed) as f64 / seconds,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

/// Takes everything old away.
async fn retire(store: &Sqlite) -> Result<(), Failure> {
    let expiry = Expiry { events: Some(Timestamp(OLD.0 + 1)), parked: None, usage: None, now: YOUNG };
    let (began, mut mark, mut slices, mut events) = (Instant::now(), Some(Mark::default()), Vec::new(), 0);
    while let Some(at) = mark {
        let slice = Instant::now();
        let (retired, next) = store.host_retire(&expiry, at).await?;
        let took = slice.elapsed();
        if retired.events > 0 {
            slices.push(took);
            events += retired.events;
        }
        mark = next;
        tokio::time::sleep((took * REST).clamp(Duration::from_millis(5), Duration::from_secs(5))).await;
    }
    slices.sort_unstable();
    let at = |part: f64| slices[((slices.len() - 1) as f64 * part) as usize];
    println!(
        "retention: {events} events in {:.1?}; of {} slices, p50 {:.1?}, p99 {:.1?}, with the wait for the writer and its \
         sync",
        began.elapsed(),
        slices.len(),
        at(0.5),
        at(0.99)
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut next = |usual: u64| numbers.next().transpose().map(|number| number.unwrap_or(usual));
    let (old, clients, alone) = (next(300_000)?, next(64)?, next(20)?);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.db");
    let store = Sqlite::open(Options::new(&path)).await?;
    let fences: std::collections::HashMap<_, _> =
        store.host_acquire("bench", Duration::from_secs(3_600), u16::MAX).await?.into_iter().collect();
    let mut lanes = Vec::new();
    for at in 0..TENANTS {
        let tenant = store.operator_create_tenant(&format!("ten_{at}"), &format!("t{at}"), OLD).await?.id;
        let shard = Shard::of(tenant, "", store.host_shards(), 1);
        lanes.push((tenant, shard, fences[&shard]));
    }
    let lanes: Lanes = Arc::new(lanes);
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    for chunk in 0..old / 1_000 {
        let some = lanes.iter().flat_map(|lane| (0..10).map(|_| event(*lane, &payload, OLD)));
        store.host_append(some.collect()).await?;
        if chunk % 20 == 19 {
            for lane in lanes.iter() {
                work_off(&store, *lane).await?;
            }
        }
    }
    for lane in lanes.iter() {
        while work_off(&store, *lane).await? > 0 {}
    }
    let size = || std::fs::metadata(&path).map(|file| file.len() >> 20);
    println!("{old} events of {PAYLOAD} bytes and their runs, {} MiB", size()?);
    let clients = usize::try_from(clients)?;

    let stop = Stop::default();
    let timer = Arc::clone(&stop);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(alone)).await;
        timer.store(true, Ordering::Relaxed);
    });
    load(&store, &lanes, clients, stop, "alone").await;

    let stop = Stop::default();
    let (retention, ended) = (store.clone(), Arc::clone(&stop));
    let retention = tokio::spawn(async move {
        let done = retire(&retention).await;
        ended.store(true, Ordering::Relaxed);
        done
    });
    load(&store, &lanes, clients, stop, "beside retention").await;
    retention.await??;
    println!("afterwards: {} MiB", size()?);
    store.close().await;
    Ok(())
}
