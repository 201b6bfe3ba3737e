//! How close taking in from a Redis stream comes to reading it and doing nothing.
//!
//! In one run, in turns, over the same entries: a bare loop of XREADGROUP and XACK on one connection that throws away
//! what it read (`bare`), the inbox with the same events from memory (`inbox`), and the source from the stream through
//! the inbox into a SQLite store (`source`), until everything is acknowledged. Redis keeps nothing on disk; the store
//! syncs as it is told to. The source can be no faster than the slower of the other two.
//!
//! `cargo run --release -p bulkhead-flow --example redis_ingest_bench [ENTRIES] [TURNS] [BATCH]`

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Clock as _;
use bulkhead_domain::clock::SystemClock;
use bulkhead_domain::policy::quota::Quotas;
use bulkhead_flow::bus::Bus;
use bulkhead_flow::dispatch;
use bulkhead_flow::inbox;
use bulkhead_flow::inbox::Envelope;
use bulkhead_flow::inbox::Inbox;
use bulkhead_flow::live::Live;
use bulkhead_flow::quota::Limiter;
use bulkhead_flow::source::redis::Options;
use bulkhead_flow::source::redis::RedisSource;
use bulkhead_services::Redis;
use bulkhead_services::RedisOptions;
use bulkhead_store::Store;
use bulkhead_store::catalogue::Tenant;
use bulkhead_store::sqlite;
use bulkhead_store::sqlite::Sqlite;
use bulkhead_store::sqlite::Synchronous;
use bytes::Bytes;
use redis::Connection;
use redis::Value;
use tokio_util::sync::CancellationToken;

const STREAM: &str = "orders";
/// Bytes of an event's payload.
const PAYLOAD: usize = 200;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An event as a publisher writes it.
fn event(number: usize) -> String {
    let mut data = format!(r#"{{"order":{number},"note":""#);
    data.extend(std::iter::repeat_n('x', PAYLOAD.saturating_sub(data.len() + 2)));
    data.push_str("\"}");
    format!(r#"{{"specversion":"1.0","id":"order-{number}","source":"/shop","type":"orders.created","data":{data}}}"#)
}

fn fill(connection: &mut Connection, entries: usize) -> Result<(), Failure> {
    let numbers: Vec<usize> = (0..entries).collect();
    for piece in numbers.chunks(1_000) {
        let mut adds = redis::pipe();
        for number in piece {
            adds.cmd("XADD").arg(STREAM).arg("*").arg("event").arg(event(*number)).ignore();
        }
        adds.query::<()>(connection)?;
    }
    Ok(())
}

/// Reads and acknowledges everything, and looks at the ids only.
fn bare(connection: &mut Connection, group: &str, batch: usize) -> Result<Duration, Failure> {
    redis::cmd("XGROUP").arg(&["CREATE", STREAM, group, "0"]).query::<()>(connection)?;
    let begin = Instant::now();
    loop {
        let mut read = redis::cmd("XREADGROUP");
        read.arg(&["GROUP", group, "bench", "COUNT"]).arg(batch).arg(&["STREAMS", STREAM, ">"]);
        let streams: Vec<(Value, Vec<(Bytes, Value)>)> = read.query(connection)?;
        let Some((_, entries)) = streams.first() else { return Ok(begin.elapsed()) };
        let mut ack = redis::cmd("XACK");
        ack.arg(&[STREAM, group]);
        for (id, _) in entries {
            ack.arg(&**id);
        }
        ack.query::<()>(connection)?;
    }
}

struct Host {
    store: Store,
    sqlite: Sqlite,
    inbox: Inbox,
    tenant: Tenant,
    _folder: tempfile::TempDir,
}

impl Host {
    async fn open(synchronous: Synchronous) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let options = sqlite::Options { synchronous, ..sqlite::Options::new(folder.path().join("store.db")) };
        let sqlite = Sqlite::open(options).await?;
        let store: Store = Arc::new(sqlite.clone());
        let dispatch = dispatch::Handle::new(store.host_shards(), Arc::default(), Bus::local());
        let limits = inbox::Limits::default();
        let (clock, live) = (Arc::new(SystemClock), Live::default());
        let limiter = Limiter::new(
            Quotas::default(),
            Arc::clone(&store),
            Arc::<SystemClock>::clone(&clock),
            dispatch.clone(),
            None,
        );
        let inbox = Inbox::new(Arc::clone(&store), clock, dispatch, live, limiter, limits, 1_000);
        let tenant = store.operator_create_tenant("ten_bench", "bench", SystemClock.now()).await?;
        Ok(Self { store, sqlite, inbox, tenant, _folder: folder })
    }

    /// The events from memory, a batch at a time.
    async fn inbox(&self, events: &[Bytes], batch: usize) -> Result<Duration, Failure> {
        let begin = Instant::now();
        for piece in events.chunks(batch) {
            self.inbox.accept(&self.tenant, piece.iter().map(Envelope::from_json).collect()).await?;
        }
        Ok(begin.elapsed())
    }

    /// The events from the stream, until Redis knows that nothing is left.
    async fn source(
        &self,
        redis: &Redis,
        connection: &mut Connection,
        entries: usize,
        batch: usize,
    ) -> Result<Duration, Failure> {
        let mut options = Options::new("bench", redis.url().into(), STREAM, self.tenant.id, "bench");
        options.group = format!("source-{}", uuid::Uuid::new_v4().simple());
        options.batch = u32::try_from(batch)?;
        let group = options.group.clone();
        let source = RedisSource::new(options, Arc::clone(&self.store), self.inbox.clone())?;
        let stop = CancellationToken::new();
        let begin = Instant::now();
        let running = tokio::spawn(source.run(stop.clone()));
        while !is_done(connection, &group, entries)? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = begin.elapsed();
        stop.cancel();
        running.await?;
        Ok(took)
    }
}

fn is_done(connection: &mut Connection, group: &str, entries: usize) -> Result<bool, Failure> {
    let groups: Vec<HashMap<String, Value>> = redis::cmd("XINFO").arg(&["GROUPS", STREAM]).query(connection)?;
    let number = |row: &HashMap<String, Value>, name: &str| {
        row.get(name).and_then(|value| redis::from_redis_value_ref::<usize>(value).ok())
    };
    let ours = |row: &&HashMap<String, Value>| row.get("name") == Some(&Value::BulkString(group.into()));
    let ours = groups.iter().find(ours);
    Ok(ours.is_some_and(|row| number(row, "entries-read") == Some(entries) && number(row, "pending") == Some(0)))
}

/// What something took: time, and processor time of this process.
#[derive(Clone, Copy, Default)]
struct Spent {
    clock: Duration,
    processor: Duration,
}

impl Spent {
    fn add(&mut self, clock: Duration, processor_before: Duration) -> Result<(), Failure> {
        self.clock += clock;
        self.processor += processor()?.saturating_sub(processor_before);
        Ok(())
    }
}

/// Processor time that this process has used.
fn processor() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').ok_or("no name in stat")?.1;
    let ticks: u64 = after.split_whitespace().skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum();
    // Linux counts in hundredths of a second.
    Ok(Duration::from_millis(ticks * 10))
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |usual: usize| arguments.next().map_or(Ok(usual), |text| text.parse());
    let (entries, turns, batch) = (argument(100_000)?, argument(3)?, argument(1_000)?);
    let redis = Redis::start(RedisOptions::default())?;
    let mut connection = redis::Client::open(redis.url())?.get_connection()?;
    fill(&mut connection, entries)?;
    let events: Vec<Bytes> = (0..entries).map(|number| event(number).into()).collect();
    println!("{entries} entries, each a CloudEvent with {PAYLOAD} bytes of data, in batches of {batch}");
    for (name, synchronous) in [("NORMAL", Synchronous::Normal), ("FULL", Synchronous::Full)] {
        let mut all = [Spent::default(); 3];
        for turn in 0..turns {
            let group = format!("bare-{name}-{turn}");
            let before = processor()?;
            let took = tokio::task::block_in_place(|| bare(&mut connection, &group, batch))?;
            all[0].add(took, before)?;
            let host = Host::open(synchronous).await?;
            let before = processor()?;
            let took = host.inbox(&events, batch).await?;
            all[1].add(took, before)?;
            host.sqlite.close().await;
            let host = Host::open(synchronous).await?;
            let before = processor()?;
            let took = host.source(&redis, &mut connection, entries, batch).await?;
            all[2].add(took, before)?;
            host.sqlite.close().await;
        }
        let number = (entries * turns) as f64;
        let [bare, inbox, source] = all.map(|spent| number / spent.clock.as_secs_f64());
        let [read, keep, both] = all.map(|spent| spent.processor.as_secs_f64() * 1e6 / number);
        println!(
            "synchronous={name:6}  bare {bare:8.0}/s   inbox {inbox:8.0}/s   source {source:8.0}/s   {:3.0} % of bare, \
             {:3.0} % of the inbox; µs of processor time an event: {read:.1}, {keep:.1}, {both:.1}",
            100.0 * source / bare,
            100.0 * source / inbox,
        );
    }
    Ok(())
}
