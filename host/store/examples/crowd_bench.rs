//! What tenants cost others that have nothing to do with them, on both stores.
//!
//! `cargo run --release -p bulkhead-store --example crowd_bench [due|idle|all] [ROWS] [TENANTS]`
//!
//! - `due`: one tenant has ROWS (1,000,000) deliveries due to a sink that is left out, as behind an open breaker; another
//!   one's are made one at a time. The time of one look, and from the commit to the look that brings the delivery, looks
//!   following each other.
//! - `idle`: TENANTS (10,000) whose events are all worked off, and one with a backlog of 100,000. The time of what every
//!   node asks each second, and of what a scrape asks.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::Delivery;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_services::Database;
use bulkhead_services::Postgres as Cluster;
use bulkhead_services::PostgresOptions;
use bulkhead_store::Store;
use bulkhead_store::log::Appended;
use bulkhead_store::log::NewEvent;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::postgres::migrate;
use bulkhead_store::sqlite::Sqlite;
use bulkhead_store::work::BatchLimits;
use bulkhead_store::work::Commit;
use bulkhead_store::work::Committed;
use bulkhead_store::work::NewDelivery;
use bytes::Bytes;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const SHARDS: u16 = 16;
const LEASE: Duration = Duration::from_secs(3_600);
/// What the delivering service asks for at a time.
const FETCH: u32 = 128;
/// Looks, and deliveries of the other tenant, of which the middle and the last but few are told.
const ROUNDS: usize = 20;
const BACKLOG: usize = 100_000;

/// A store of either kind, and a way to put rows into it while it is closed.
enum Ground {
    Sqlite(tempfile::TempDir),
    // In this order, so that the database is dropped while its server runs.
    Postgres { database: Database, _server: Box<Cluster> },
}

impl Ground {
    async fn postgres() -> Result<Self, Failure> {
        let cluster =
            Cluster::start(PostgresOptions { shared_buffers: "1GB".to_owned(), ..PostgresOptions::default() })?;
        let database = cluster.database()?;
        migrate(database.owner_url(), database.host_url(), SHARDS).await?;
        Ok(Self::Postgres { database, _server: Box::new(cluster) })
    }

    async fn open(&self) -> Result<Store, Failure> {
        Ok(match self {
            Self::Sqlite(folder) => {
                let options = bulkhead_store::sqlite::Options::new(folder.path().join("store.db"));
                Arc::new(Sqlite::open(options).await?)
            }
            Self::Postgres { database, .. } => {
                Arc::new(Postgres::open(bulkhead_store::postgres::Options::new(database.host_url())).await?)
            }
        })
    }

    /// Does `work` with a store that is closed afterwards.
    async fn with<T>(&self, work: impl AsyncFnOnce(Store) -> Result<T, Failure>) -> Result<T, Failure> {
        match self {
            Self::Sqlite(folder) => {
                let options = bulkhead_store::sqlite::Options::new(folder.path().join("store.db"));
                let store = Sqlite::open(options).await?;
                let done = work(Arc::new(store.clone())).await;
                store.close().await;
                done
            }
            Self::Postgres { .. } => work(self.open().await?).await,
        }
    }

    /// Runs a script, one for each kind, as the tables' owner.
    fn script(&self, sqlite: &str, postgres: &str) -> Result<(), Failure> {
        match self {
            Self::Sqlite(folder) => {
                rusqlite::Connection::open(folder.path().join("store.db"))?.execute_batch(sqlite)?;
            }
            Self::Postgres { database, .. } => {
                bulkhead_services::sql(database.owner_url(), &format!("SET search_path = bulkhead;\n{postgres}"))?;
            }
        }
        Ok(())
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let part = words.next().unwrap_or_else(|| "all".to_owned());
    let rows = words.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let tenants = words.next().map_or(Ok(10_000), |text| text.parse())?;
    let grounds = [("SQLite", Ground::Sqlite(tempfile::TempDir::new()?)), ("Postgres", Ground::postgres().await?)];
    for (name, ground) in &grounds {
        if part != "idle" {
            due(name, ground, rows).await?;
        }
        if part != "due" {
            idle(name, ground, tenants).await?;
        }
    }
    Ok(())
}

async fn due(name: &str, ground: &Ground, rows: usize) -> Result<(), Failure> {
    let (noisy, other) = ground
        .with(async |store| {
            let noisy = store.operator_create_tenant("ten_noisy", "noisy", NOW).await?.id;
            Ok((noisy, store.operator_create_tenant("ten_other", "other", NOW).await?.id))
        })
        .await?;
    let (id, home, now) = (noisy.0, Shard::of(noisy, "", SHARDS, 1).0, NOW.0);
    ground.script(
        &format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {rows})
             INSERT INTO deliveries (seq, tenant, id, sink, pos, rule, state, due, attempts, code, reason, created,
                                     updated, content_type, body)
             SELECT n, {id}, 'noisy-' || n, 'down', 1, 'rule', 0, {now} - 1000000 - {rows} + n, 0, '', '', {now}, {now},
                    'application/json', x'7b7d' FROM n"
        ),
        &format!(
            "INSERT INTO deliveries (seq, tenant, shard, id, sink, pos, rule, state, due, attempts, code, reason,
                                     created, updated, content_type, body)
             SELECT nextval('numbers'), {id}, {home}, 'noisy-' || n, 'down', 1, 'rule', 0,
                    {now} - 1000000 - {rows} + n, 0, '', '', {now}, {now}, 'application/json', '\\x7b7d'
             FROM generate_series(1, {rows}) AS n;
             VACUUM ANALYZE deliveries;"
        ),
    )?;
    let (looks, waits) = ground
        .with(async |store| {
            let shards: Vec<Shard> = (0..SHARDS).map(Shard).collect();
            let without = [(noisy, "down".to_owned())];
            let mut looks = Vec::new();
            for _ in 0..ROUNDS {
                let begin = Instant::now();
                store.host_due_deliveries(NOW, FETCH, &shards, &without, &[]).await?;
                looks.push(begin.elapsed());
            }
            let held = store.host_acquire("node", LEASE, u16::MAX).await?;
            let home = Shard::of(other, "", SHARDS, 1);
            let fence = held.iter().find(|(shard, _)| *shard == home).ok_or("the shard is not held")?.1;
            let mut waits = Vec::new();
            for number in 0..ROUNDS {
                deliver(&store, other, fence, number).await?;
                let begin = Instant::now();
                loop {
                    let (due, _) = store.host_due_deliveries(NOW, FETCH, &shards, &without, &[]).await?;
                    if let Some(due) = due.first() {
                        let delivered = bulkhead_store::deliveries::Settlement {
                            tenant: other,
                            id: due.delivery.id.clone(),
                            settled: bulkhead_store::deliveries::Settled::Delivered,
                            attempts: 1,
                            code: String::new(),
                            reason: String::new(),
                            at: NOW,
                        };
                        waits.push(begin.elapsed());
                        store.host_settle(vec![delivered]).await?;
                        break;
                    }
                }
            }
            Ok((looks, waits))
        })
        .await?;
    println!("{name}: {rows} deliveries due behind a sink that is left out");
    println!("  one look: {}", told(looks));
    println!("  another tenant's, from its commit until a look brings it: {}", told(waits));
    Ok(())
}

/// Commits a delivery of a tenant.
async fn deliver(store: &Store, tenant: TenantId, fence: Fence, number: usize) -> Result<(), Failure> {
    let appended = store.host_append(vec![event(tenant, &number.to_string())]).await?.remove(0);
    let (Appended::Accepted(position) | Appended::Duplicate(position)) = appended;
    let shard = Shard::of(tenant, "", SHARDS, 1);
    let limits = BatchLimits { events: 1, bytes: 1 << 20, due: 1 };
    let from = store.read_batch(tenant, shard, NOW, limits).await?.cursor;
    let delivery = Delivery {
        id: format!("other-{number}"),
        sink: "up".to_owned(),
        content_type: "application/json".to_owned(),
        body: Bytes::from_static(b"{}"),
        attributes: Vec::new(),
    };
    let mut commit = commit(tenant, fence, from, position);
    commit.deliveries.push(NewDelivery { delivery, position, rule: "rule".to_owned(), key: None, created: NOW });
    match store.commit(commit).await? {
        Committed::Done { .. } => Ok(()),
        other => Err(format!("the commit was to be done, not {other:?}").into()),
    }
}

fn commit(tenant: TenantId, fence: Fence, cursor_from: Position, cursor_to: Position) -> Commit {
    Commit {
        tenant,
        shard: Shard::of(tenant, "", SHARDS, 1),
        fence,
        cursor_from,
        cursor_to,
        now: NOW,
        turn: None,
        settings: i64::MAX,
        reads: Vec::new(),
        writes: Vec::new(),
        emits: Vec::new(),
        emits_unmatched: false,
        deliveries: Vec::new(),
        timers: Vec::new(),
        runs: Vec::new(),
        recordings: bulkhead_store::recordings::Recorded::default(),
        unfinished: Vec::new(),
        usage: Vec::new(),
    }
}

async fn idle(name: &str, ground: &Ground, count: usize) -> Result<(), Failure> {
    // The tables are made when a store is opened first.
    ground.with(async |store| Ok(store.operator_tenants().await?)).await?;
    ground.script(
        &format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {count})
             INSERT INTO tenants (uid, name, state, settings, rule_set, created)
             SELECT 'ten_idle' || n, 'idle' || n, 0, 0, 0, 0 FROM n"
        ),
        &format!(
            "INSERT INTO tenants (uid, name, state, settings, rule_set, created)
             SELECT 'ten_idle' || n, 'idle' || n, 0, 0, 0, 0 FROM generate_series(1, {count}) AS n;"
        ),
    )?;
    let busy = ground
        .with(async |store| {
            for round in 0..2 {
                for some in store.operator_tenants().await?.chunks(500) {
                    store.host_append(some.iter().map(|one| event(one.id, &format!("idle {round}"))).collect()).await?;
                }
            }
            Ok(store.operator_create_tenant("ten_busy", "busy", NOW).await?.id)
        })
        .await?;
    ground.script(
        "UPDATE progress SET cursor = head",
        "INSERT INTO progress (tenant, shard, turn, cursor)
         SELECT tenant, shard, nextval('numbers'), max(pos) FROM events GROUP BY 1, 2;
         VACUUM ANALYZE;",
    )?;
    ground
        .with(async |store| {
            for round in 0..BACKLOG / 500 {
                store.host_append((0..500).map(|at| event(busy, &format!("busy {round} {at}"))).collect()).await?;
            }
            println!("{name}: {count} idle tenants, one with {BACKLOG} events unread");
            let shards: Vec<Shard> = (0..SHARDS).map(Shard).collect();
            let mut times = [const { Vec::new() }; 3];
            for _ in 0..20 {
                let begin = Instant::now();
                let lanes = store.host_backlog(NOW, &shards).await?;
                times[0].push(begin.elapsed());
                if lanes.len() != 1 {
                    return Err(format!("one lane has a backlog, not {}", lanes.len()).into());
                }
                let begin = Instant::now();
                store.host_due(NOW, &shards).await?;
                times[1].push(begin.elapsed());
                let begin = Instant::now();
                store.host_depths().await?;
                times[2].push(begin.elapsed());
            }
            let [backlog, due, depths] = times;
            println!("  lanes with a backlog: {}", told(backlog));
            println!("  lanes with runs that are due: {}", told(due));
            println!("  depths of all tenants: {}", told(depths));
            Ok(())
        })
        .await
}

fn event(tenant: TenantId, id: &str) -> NewEvent {
    let event = Event {
        id: id.to_owned(),
        source: "/bench".to_owned(),
        kind: "bench.happened".to_owned(),
        subject: None,
        time: NOW,
        key: None,
        correlation: id.to_owned(),
        causation: None,
        content_type: "application/json".to_owned(),
        data: Bytes::from_static(b"{}"),
        attributes: Vec::new(),
    };
    let shard = Shard::of(tenant, "", SHARDS, 1);
    NewEvent { tenant, shard, recorded: NOW, lineage: Lineage { hops: 0, budget: 1_000 }, event }
}

/// The middle one and the one that 95 of 100 are below.
fn told(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    format!("p50 {:.2?}, p95 {:.2?}", at(50), at(95))
}
