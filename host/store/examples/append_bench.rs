//! How close appending comes to the database under it.
//!
//! In one run, side by side and alternating: bare prepared inserts of the same rows into the same tables and indexes with
//! the same settings (`bare`), and [`host_append`] with many clients of 100 tenants at once (`store`). Both sync every
//! transaction to the disk before anything is answered; the bare side writes as many events per transaction as the
//! store's group commit did just before. The bare side's events and hashes are made beforehand, the store's clients make
//! theirs while the clock runs.
//!
//! `cargo run --release -p bulkhead-store --example append_bench [SECONDS] [CLIENTS] [EVENTS PER CALL]`
//!
//! [`host_append`]: bulkhead_store::log::Log::host_append

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_store::catalogue::Tenants as _;
use bulkhead_store::leases::Leases as _;
use bulkhead_store::log::Log as _;
use bulkhead_store::log::NewEvent;
use bulkhead_store::sqlite::Options;
use bulkhead_store::sqlite::Sqlite;
use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::params;

const TENANTS: i64 = 100;
const PAYLOAD: usize = 1_024;
/// Each side's share of the seconds is cut into so many turns.
const TURNS: u32 = 4;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Events and the time they took.
#[derive(Default)]
struct Rate {
    events: u64,
    time: Duration,
}

impl Rate {
    fn add(&mut self, events: u64, time: Duration) {
        self.events += events;
        self.time += time;
    }

    fn per_second(&self) -> f64 {
        self.events as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

fn event(tenant: TenantId, payload: &Bytes, shards: u16) -> NewEvent {
    let id = uuid::Uuid::new_v4().to_string();
    let recorded = Timestamp(1_800_000_000_000_000);
    let shard = Shard::of(tenant, &id, shards, 1);
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
    NewEvent { tenant, shard, recorded, lineage: Lineage { hops: 0, budget: 1_000 }, event }
}

struct Bare {
    conn: Connection,
    position: i64,
}

impl Bare {
    /// The tables come from the store itself.
    async fn open(path: &Path) -> Result<Self, Failure> {
        Sqlite::open(Options::new(path)).await?.close().await;
        let conn = Connection::open(path)?;
        for (name, value) in [
            ("synchronous", "FULL"),
            ("wal_autocheckpoint", "2048"),
            ("journal_size_limit", "134217728"),
            ("cache_size", "-262144"),
            ("temp_store", "MEMORY"),
        ] {
            conn.pragma_update(None, name, value)?;
        }
        let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        assert_eq!(mode, "wal", "the same journal as the store's");
        Ok(Self { conn, position: 0 })
    }

    fn turn(&mut self, time: Duration, group: usize, payload: &Bytes) -> Result<Rate, Failure> {
        let mut keys =
            self.conn.prepare("INSERT INTO event_keys (tenant, key, pos) VALUES (?,?,?) ON CONFLICT DO NOTHING")?;
        let mut events = self.conn.prepare(
            "INSERT INTO events (pos, tenant, shard, recorded, time, hops, budget, id, source, kind, subject, key, \
             correlation, causation, content_type, attributes, hash, data) \
             VALUES (?,?,?,?,NULL,?,?,?,?,?,?,?,NULL,NULL,NULL,NULL,?,?)",
        )?;
        let mut rate = Rate::default();
        while rate.time < time {
            let made: Vec<_> = (0..group)
                .map(|at| {
                    let new = event(TenantId(1 + at as i64 % TENANTS), payload, 16);
                    let (key, hash) = (new.event.event_key(), new.event.integrity());
                    (new, key, hash)
                })
                .collect();
            let begin = Instant::now();
            self.conn.execute_batch("BEGIN IMMEDIATE")?;
            for (new, key, hash) in &made {
                self.position += 1;
                keys.execute(params![new.tenant.0, &key.0[..], self.position])?;
                let event = &new.event;
                events.execute(params![
                    self.position,
                    new.tenant.0,
                    new.shard.0,
                    new.recorded.0,
                    new.lineage.hops,
                    new.lineage.budget,
                    event.id,
                    event.source,
                    event.kind,
                    event.subject,
                    event.key,
                    &hash[..],
                    &event.data[..],
                ])?;
            }
            self.conn.execute_batch("COMMIT")?;
            rate.add(made.len() as u64, begin.elapsed());
        }
        Ok(rate)
    }
}

/// Clients that each wait for their answer before they append again; says how many events a transaction held.
async fn store_turn(
    store: &Sqlite,
    tenants: &[TenantId],
    time: Duration,
    clients: usize,
    per_call: usize,
) -> Result<(usize, Rate), Failure> {
    let payload = payload();
    let (begin, before) = (Instant::now(), store.transactions());
    let shards = store.host_shards();
    let mut tasks = Vec::new();
    for client in 0..clients {
        let (store, tenant, payload) = (store.clone(), tenants[client % tenants.len()], payload.clone());
        tasks.push(tokio::spawn(async move {
            let mut events = 0;
            while begin.elapsed() < time {
                let made = (0..per_call).map(|_| event(tenant, &payload, shards)).collect();
                events += store.host_append(made).await?.len() as u64;
            }
            Ok::<_, bulkhead_store::Error>(events)
        }));
    }
    let mut events = 0;
    for task in tasks {
        events += task.await??;
    }
    let mut rate = Rate::default();
    rate.add(events, begin.elapsed());
    let transactions = (store.transactions() - before).max(1);
    Ok(((events / transactions).max(1) as usize, rate))
}

fn payload() -> Bytes {
    let mut payload = br#"{"order":1,"note":""#.to_vec();
    payload.resize(PAYLOAD - 2, b'x');
    payload.extend_from_slice(b"\"}");
    Bytes::from(payload)
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |usual: usize| arguments.next().map_or(Ok(usual), |text| text.parse());
    let (seconds, clients, per_call) = (argument(20)?, argument(512)?, argument(1)?);
    let turn = Duration::from_secs(seconds as u64) / (2 * TURNS);
    let folder = tempfile::TempDir::new()?;
    let mut bare = Bare::open(&folder.path().join("bare.db")).await?;
    let store = Sqlite::open(Options::new(folder.path().join("store.db"))).await?;
    let mut tenants = Vec::new();
    for number in 0..TENANTS {
        let name = format!("tenant-{number}");
        tenants.push(store.operator_create_tenant(&name, &name, Timestamp(0)).await?.id);
    }
    println!(
        "{PAYLOAD}-byte events, {TENANTS} tenants, {clients} clients, {per_call} event(s) a call, synchronous=FULL"
    );
    let store = Arc::new(store);
    let (mut of_bare, mut of_store) = (Rate::default(), Rate::default());
    for number in 1..=TURNS {
        let (group, now) = store_turn(&store, &tenants, turn, clients, per_call).await?;
        let below = bare.turn(turn, group, &payload())?;
        println!(
            "turn {number}: {group:5} events a transaction   bare {:8.0}/s   store {:8.0}/s   {:3.0} %",
            below.per_second(),
            now.per_second(),
            100.0 * now.per_second() / below.per_second()
        );
        of_store.add(now.events, now.time);
        of_bare.add(below.events, below.time);
    }
    println!(
        "all:                                  bare {:8.0}/s   store {:8.0}/s   {:3.0} %",
        of_bare.per_second(),
        of_store.per_second(),
        100.0 * of_store.per_second() / of_bare.per_second()
    );
    store.close().await;
    Ok(())
}
