//! Idle: whether the store stays as fast while strangers keep the server from removing dead rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::Delivery;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_services::sql;
use bulkhead_store::deliveries::Deliveries as _;
use bulkhead_store::deliveries::Settled;
use bulkhead_store::deliveries::Settlement;
use bulkhead_store::leases::Leases as _;
use bulkhead_store::log::Log as _;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::timers::Timers as _;
use bulkhead_store::upkeep::Upkeep as _;
use bulkhead_store::work::Batch;
use bulkhead_store::work::Commit;
use bulkhead_store::work::Committed;
use bulkhead_store::work::NewDelivery;
use bulkhead_store::work::TimerChange;
use bulkhead_store::work::Unfinished;
use bulkhead_store::work::UnfinishedChange;
use bulkhead_store::work::Waiting;
use bulkhead_store::work::Work as _;
use bytes::Bytes;
use sqlx::Connection as _;
use sqlx::PgConnection;

use crate::Failure;
use crate::Ground;
use crate::load::BATCH;
use crate::load::LIMITS;
use crate::load::Lane;
use crate::load::NODE;
use crate::load::event;
use crate::load::fences;
use crate::load::payload;
use crate::load::tenants;

const TENANTS: usize = 8;
/// Of each batch, so many events make a delivery, set a timer, and fail once.
const DELIVERIES: usize = 16;
const TIMERS: usize = 1;
const RETRIES: usize = 2;
/// How often a rate is printed.
const LOOK: Duration = Duration::from_secs(10);

/// What strangers leave open. The second has a number of its own, and so has not ended for anybody.
const STRANGERS: [&str; 2] = [
    "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM bulkhead.state_values",
    "BEGIN; CREATE TABLE public.strange (a INT); INSERT INTO public.strange VALUES (1)",
];

/// What a run has beside appends and commits.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Open transactions of others.
    pub strangers: bool,
    /// Deliveries, timers and retries.
    pub queues: bool,
}

pub async fn run(time: Duration, bytes: usize, Kind { strangers, queues }: Kind) -> Result<(), Failure> {
    let ground = Ground::new().await?;
    let store = ground.store().await?;
    let fences = fences(&store).await?;
    let tenants = tenants(&store, TENANTS).await?;
    println!(
        "idle: {TENANTS} tenants, batches of {BATCH} events of {bytes} bytes, a run and a state write each{}; {}",
        if queues {
            format!("; {DELIVERIES} deliveries, {TIMERS} timer and {RETRIES} retries a batch")
        } else {
            String::new()
        },
        if strangers { "beside a stranger's snapshot and a stranger's write" } else { "alone" }
    );
    let events = Arc::new(AtomicU64::new(0));
    let warm = Instant::now() + LOOK;
    let end = warm + time;
    let mut tasks = Vec::new();
    for tenant in &tenants {
        let fence = fences[&Shard::of(*tenant, "", 16, 1)];
        tasks.push(tokio::spawn(lane(store.clone(), *tenant, fence, end, queues, payload(bytes), Arc::clone(&events))));
    }
    tasks.push(tokio::spawn(deliver(store.clone(), end)));
    tasks.push(tokio::spawn(keep(store.clone(), end)));
    // Connections, statements and the first pages are there before the clock starts.
    tokio::time::sleep_until(warm.into()).await;
    let mut open = Vec::new();
    for script in STRANGERS.iter().filter(|_| strangers) {
        let mut stranger = PgConnection::connect(ground.database.owner_url()).await?;
        sqlx::raw_sql(*script).execute(&mut stranger).await?;
        open.push(stranger);
    }
    let mut rates = Vec::new();
    let mut used = processor(ground.cluster.pid()?)?;
    while Instant::now() + LOOK <= end {
        let (before, since) = (events.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(LOOK).await;
        // None ends before its time, unless the store failed.
        if let Some(at) = tasks.iter().position(|task| task.is_finished() && Instant::now() < end) {
            tasks.swap_remove(at).await??;
        }
        let done = events.load(Ordering::Relaxed) - before;
        let now = processor(ground.cluster.pid()?)?;
        let rate = done as f64 / since.elapsed().as_secs_f64();
        let each = now.saturating_sub(used).as_secs_f64() * 1e6 / done.max(1) as f64;
        println!("  {:4} s: {rate:6.0} events/s, {each:5.0} µs of processor time an event", (rates.len() + 1) * 10);
        rates.push((rate, each));
        used = now;
    }
    for task in tasks {
        task.await??;
    }
    let third = rates.len().div_ceil(3).clamp(1, 6);
    let mean = |some: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| some.iter().map(of).sum::<f64>() / some.len() as f64;
    let (first, last) = (&rates[..third], &rates[rates.len() - third..]);
    println!(
        "  first {0} s: {1:.0} events/s, {2:.0} µs of processor time; last {0} s: {3:.0} events/s, {4:.0} µs; {5:.0} % of \
         the rate",
        third * 10,
        mean(first, |rate| rate.0),
        mean(first, |rate| rate.1),
        mean(last, |rate| rate.0),
        mean(last, |rate| rate.1),
        100.0 * mean(last, |rate| rate.0) / mean(first, |rate| rate.0)
    );
    let dead = "SELECT relname, n_live_tup, n_dead_tup, n_tup_upd, n_tup_hot_upd, n_tup_del,
                       pg_size_pretty(pg_table_size(relid)), pg_size_pretty(pg_indexes_size(relid))
                FROM pg_stat_user_tables WHERE schemaname = 'bulkhead' AND n_tup_ins + n_tup_upd > 0
                ORDER BY n_dead_tup DESC LIMIT 10;";
    println!("  table | live | dead | updates | of them in place | deletes | table | indexes");
    for line in sql(ground.database.owner_url(), dead)?.lines() {
        println!("  {line}");
    }
    drop(open);
    store.close().await;
    Ok(())
}

/// One tenant's batches, one after another.
async fn lane(
    store: Postgres,
    tenant: TenantId,
    fence: Fence,
    end: Instant,
    queues: bool,
    payload: Bytes,
    count: Arc<AtomicU64>,
) -> Result<(), Failure> {
    let shard = Shard::of(tenant, "", 16, 1);
    let mut lane = Lane::default();
    while Instant::now() < end {
        let events = (0..BATCH).map(|_| event(tenant, &payload)).collect();
        store.host_append(events).await?;
        let batch = store.read_batch(tenant, shard, now(), LIMITS).await?;
        let mut commit = lane.commit(tenant, fence, &batch);
        if queues {
            more(&mut commit, &batch);
        }
        let Committed::Done { version, .. } = store.commit(commit).await? else { return Err("not committed".into()) };
        lane.done(version);
        count.fetch_add(batch.events.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Deliveries, timers, runs that fail once, and the ends of those that failed before.
fn more(commit: &mut Commit, batch: &Batch) {
    commit.deliveries = batch
        .events
        .iter()
        .take(DELIVERIES)
        .map(|event| NewDelivery {
            delivery: Delivery {
                id: format!("d-{}", event.position.0),
                sink: "sink".into(),
                content_type: "application/json".into(),
                body: Bytes::from_static(b"{\"order\":1}"),
                attributes: Vec::new(),
            },
            position: event.position,
            rule: "count-orders".into(),
            // Every second in a line of its own.
            key: (event.position.0 % 2 == 0).then(|| format!("order-{}", event.position.0 % 50)),
            created: now(),
        })
        .collect();
    let timer = || TimerChange::Set {
        plugin: PluginId(1),
        name: None,
        due: now(),
        event: event(commit.tenant, &Bytes::from_static(b"{}")),
    };
    commit.timers = std::iter::repeat_with(timer).take(TIMERS).collect();
    let failed = batch.events.iter().take(RETRIES).map(|event| {
        UnfinishedChange::Put(Unfinished {
            position: event.position,
            event: event.event.event_key(),
            rule: "count-orders".into(),
            key: Some("order-1".into()),
            waiting: Waiting::Retry(now()),
            attempts: 1,
            code: "plugin:trap".into(),
            reason: "it trapped".into(),
            plugin: Some("counter".into()),
            lineage: event.lineage,
            rule_set: 1,
            since: now(),
            updated: now(),
            pins: std::collections::BTreeMap::new(),
        })
    });
    let ended =
        batch.due.iter().map(|due| UnfinishedChange::End { position: due.run.position, rule: due.run.rule.clone() });
    commit.unfinished = ended.chain(failed).collect();
}

/// The outbox's worker: everything arrives at once.
async fn deliver(store: Postgres, end: Instant) -> Result<(), Failure> {
    let shards: Vec<Shard> = (0..16).map(Shard).collect();
    while Instant::now() < end {
        let (due, _) = store.host_due_deliveries(now(), 256, &shards, &[], &[]).await?;
        if due.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let settled = due.into_iter().map(|due| Settlement {
            tenant: due.tenant,
            id: due.delivery.id,
            settled: Settled::Delivered,
            attempts: 1,
            code: String::new(),
            reason: String::new(),
            at: now(),
        });
        store.host_settle(settled.collect()).await?;
    }
    Ok(())
}

/// The keeper's round: leases, timers, what is due, upkeep.
async fn keep(store: Postgres, end: Instant) -> Result<(), Failure> {
    let shards: Vec<Shard> = (0..16).map(Shard).collect();
    let mut tidied = Instant::now();
    while Instant::now() < end {
        store.host_acquire(NODE, Duration::from_secs(3_600), u16::MAX).await?;
        store.host_fire_timers(now(), 500).await?;
        store.host_due(now(), &shards).await?;
        store.host_backlog(now(), &shards).await?;
        if tidied.elapsed() > Duration::from_secs(20) {
            store.host_tidy().await?;
            tidied = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Queues are ordered by the time, so it has to go on.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Processor time that this process, the server and its children have used.
fn processor(server: u32) -> Result<Duration, Failure> {
    let mut ticks = 0;
    let mut children = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((_, after)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<u64> = after.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        let (parent, own, gone) = (fields[1], fields[11] + fields[12], fields[13] + fields[14]);
        if pid == server {
            ticks += own + gone;
        } else if pid == std::process::id() {
            ticks += own;
        } else if parent == u64::from(server) {
            children.insert(pid, own);
        }
    }
    // Linux counts in hundredths of a second.
    Ok(Duration::from_millis((ticks + children.values().sum::<u64>()) * 10))
}
