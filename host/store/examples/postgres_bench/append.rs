//! Append: bare inserts of the same rows beside the store's own.
//!
//! The bare side has a plain table of the same columns, indexes and partitions, without functions, policies, positions to
//! give out or duplicates to look for. It writes as many events per transaction as the store's group commit did just
//! before, from as many connections, each with one statement; its events and hashes are made beforehand. The store's
//! clients make theirs while the clock runs.

use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::TenantId;
use bulkhead_services::sql;
use bulkhead_store::log::Log as _;
use bulkhead_store::log::NewEvent;
use bulkhead_store::postgres::Options;
use bulkhead_store::postgres::Postgres;
use sqlx::Connection as _;
use sqlx::PgConnection;

use crate::Failure;
use crate::Ground;
use crate::load::PAYLOAD;
use crate::load::event;
use crate::load::payload;
use crate::load::tenants;

const TENANTS: usize = 100;
/// Each side's time is cut into so many turns.
const TURNS: u32 = 4;

/// The same tables without anything of ours.
const TABLES: &str = "
    CREATE SCHEMA bare;
    CREATE TABLE bare.events (LIKE bulkhead.events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)
        PARTITION BY RANGE (pos);
    CREATE TABLE bare.events_0 PARTITION OF bare.events FOR VALUES FROM (0) TO (4294967296);
    CREATE TABLE bare.event_keys (LIKE bulkhead.event_keys INCLUDING ALL);";

/// Events alone.
const EVENTS: &str = "
    INSERT INTO bare.events (pos, tenant, shard, recorded, hops, budget, id, source, kind, subject, key, hash, data)
    SELECT * FROM unnest($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], $7::TEXT[],
                         $8::TEXT[], $9::TEXT[], $10::TEXT[], $11::TEXT[], $12::BYTEA[], $13::BYTEA[])";

/// Events and the keys by which duplicates would be found.
const EVENTS_AND_KEYS: &str = "
    WITH known AS (
        INSERT INTO bare.event_keys (tenant, key, pos) SELECT * FROM unnest($2::BIGINT[], $14::UUID[], $1::BIGINT[])
    )
    INSERT INTO bare.events (pos, tenant, shard, recorded, hops, budget, id, source, kind, subject, key, hash, data)
    SELECT * FROM unnest($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], $7::TEXT[],
                         $8::TEXT[], $9::TEXT[], $10::TEXT[], $11::TEXT[], $12::BYTEA[], $13::BYTEA[])";

/// Events and the time they took.
#[derive(Default, Clone, Copy)]
struct Rate {
    events: u64,
    time: Duration,
}

impl Rate {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.time += other.time;
    }

    fn per_second(&self) -> f64 {
        self.events as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

pub async fn run(time: Duration) -> Result<(), Failure> {
    for (clients, per_call) in [(512, 1), (64, 16)] {
        beside(time / TURNS, clients, per_call).await?;
    }
    Ok(())
}

async fn beside(turn: Duration, clients: usize, per_call: usize) -> Result<(), Failure> {
    let ground = Ground::new().await?;
    let store = ground.store().await?;
    sql(ground.database.owner_url(), TABLES)?;
    let tenants = tenants(&store, TENANTS).await?;
    let writers = Options::new("").appenders;
    println!(
        "append: {PAYLOAD}-byte events, {TENANTS} tenants, {clients} clients, {per_call} event(s) a call, {writers} connections"
    );
    let (mut of_store, mut of_both, mut of_events) = (Rate::default(), Rate::default(), Rate::default());
    let mut position = 0;
    for number in 1..=TURNS {
        let (group, now) = store_turn(&ground, &store, &tenants, turn, clients, per_call).await?;
        let both = bare_turn(&ground, &tenants, turn, writers, group, &mut position, EVENTS_AND_KEYS).await?;
        let events = bare_turn(&ground, &tenants, turn, writers, group, &mut position, EVENTS).await?;
        println!(
            "  turn {number}: {group:4} events a transaction   bare events and keys {:7.0}/s   bare events {:7.0}/s   store \
             {:7.0}/s",
            both.per_second(),
            events.per_second(),
            now.per_second()
        );
        of_store.add(now);
        of_both.add(both);
        of_events.add(events);
    }
    let ratio = |bare: Rate| 100.0 * of_store.per_second() / bare.per_second();
    println!(
        "  all: bare events and keys {:.0}/s, bare events {:.0}/s, store {:.0}/s: {:.0} % and {:.0} %",
        of_both.per_second(),
        of_events.per_second(),
        of_store.per_second(),
        ratio(of_both),
        ratio(of_events)
    );
    store.close().await;
    Ok(())
}

/// Clients that each wait for their answer before they append again; says how many events a transaction held.
async fn store_turn(
    ground: &Ground,
    store: &Postgres,
    tenants: &[TenantId],
    time: Duration,
    clients: usize,
    per_call: usize,
) -> Result<(usize, Rate), Failure> {
    let last = sql(ground.database.owner_url(), "SELECT last_value FROM bulkhead.numbers;")?;
    let (begin, payload) = (Instant::now(), payload(PAYLOAD));
    let mut tasks = Vec::new();
    for client in 0..clients {
        let (store, tenant, payload) = (store.clone(), tenants[client % tenants.len()], payload.clone());
        tasks.push(tokio::spawn(async move {
            let mut events = 0;
            while begin.elapsed() < time {
                let made = (0..per_call).map(|_| event(tenant, &payload)).collect();
                events += store.host_append(made).await?.len() as u64;
            }
            Ok::<_, bulkhead_store::Error>(events)
        }));
    }
    let mut events = 0;
    for task in tasks {
        events += task.await??;
    }
    let rate = Rate { events, time: begin.elapsed() };
    // Rows of one transaction have one number.
    let script = format!("SELECT count(DISTINCT xmin::TEXT) FROM bulkhead.events WHERE pos > {last};");
    let transactions: u64 = sql(ground.database.owner_url(), &script)?.parse()?;
    Ok(((events / transactions.max(1)).max(1) as usize, rate))
}

async fn bare_turn(
    ground: &Ground,
    tenants: &[TenantId],
    time: Duration,
    writers: usize,
    group: usize,
    position: &mut i64,
    statement: &'static str,
) -> Result<Rate, Failure> {
    let mut tasks = Vec::new();
    for writer in 0..writers {
        let (url, tenants) = (ground.database.owner_url().to_owned(), tenants.to_vec());
        // Far enough apart that the writers never meet.
        let first = *position + (writer as i64) * 1_000_000_000;
        tasks.push(tokio::spawn(write(url, tenants, time, group, first, statement)));
    }
    *position += 20_000_000;
    let mut rates = Vec::new();
    for task in tasks {
        rates.push(task.await??);
    }
    // Each has its own clock, which stands still while it makes events; together they are as fast as the sum.
    let per_second: f64 = rates.iter().map(Rate::per_second).sum();
    Ok(Rate { events: (per_second * time.as_secs_f64()) as u64, time })
}

async fn write(
    url: String,
    tenants: Vec<TenantId>,
    time: Duration,
    group: usize,
    first: i64,
    statement: &'static str,
) -> Result<Rate, Failure> {
    let mut conn = PgConnection::connect(&url).await?;
    let payload = payload(PAYLOAD);
    // All beforehand but what must differ: the processors are the bare inserts' alone.
    let made: Vec<NewEvent> = (0..group).map(|at| event(tenants[at % tenants.len()], &payload)).collect();
    let begin = Instant::now();
    let (mut rate, mut position) = (Rate::default(), first);
    while begin.elapsed() < time {
        let fresh: Vec<uuid::Uuid> = (0..group).map(|_| uuid::Uuid::new_v4()).collect();
        let ids: Vec<String> = fresh.iter().map(uuid::Uuid::to_string).collect();
        let all = |value: fn(&NewEvent) -> i64| made.iter().map(value).collect::<Vec<_>>();
        let texts = |value: fn(&NewEvent) -> Option<&str>| made.iter().map(value).collect::<Vec<_>>();
        let positions: Vec<i64> = (0..group as i64).map(|at| position + at).collect();
        position += group as i64;
        let (tenants, shards, recorded) =
            (all(|new| new.tenant.0), all(|new| i64::from(new.shard.0)), all(|new| new.recorded.0));
        let (hops, budgets) = (all(|new| i64::from(new.lineage.hops)), all(|new| i64::from(new.lineage.budget)));
        let (sources, kinds) = (texts(|new| Some(&new.event.source)), texts(|new| Some(&new.event.kind)));
        let (subjects, keys) = (texts(|new| new.event.subject.as_deref()), texts(|new| new.event.key.as_deref()));
        let hashes: Vec<[u8; 32]> = fresh.iter().map(|id| *blake3::hash(id.as_bytes()).as_bytes()).collect();
        let hashes: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
        let datas: Vec<&[u8]> = made.iter().map(|new| &*new.event.data).collect();
        let query = sqlx::query(statement).bind(positions).bind(tenants).bind(shards).bind(recorded);
        let query = query.bind(hops).bind(budgets).bind(ids).bind(sources).bind(kinds).bind(subjects).bind(keys);
        let query = query.bind(hashes).bind(datas);
        let query = if statement == EVENTS { query } else { query.bind(fresh) };
        let since = Instant::now();
        query.execute(&mut conn).await?;
        rate.add(Rate { events: group as u64, time: since.elapsed() });
    }
    Ok(rate)
}
