//! Events from publish to commit through the real binary: 100 tenants, one plugin each, 1 KiB events, durable.
//!
//! ```text
//! end_to_end [SECONDS [TARGET [only]]] [postgres]    TARGET (10,000) events a second for SECONDS (60), after a search
//!                                                    for the most
//! ```
//!
//! With `only` the search is left out; with `postgres` the store is a Postgres of its own on the same machine.
//!
//! Open loop: batches have a time at which they are to be sent, whatever the host does, and latency counts from that time
//! until a follow-up of the batch's last event is seen on the tenant's live stream: after its commit, from outside. A rate
//! is sustained if nearly all of it is done when the time is over and p99 is below 100 ms. Generator, host and store share
//! the machine. Beside it stand the limits: the same rows in bare prepared inserts, and the time that the plugin took.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use bulkhead_services::Database;
use bulkhead_services::Postgres;
use bulkhead_services::PostgresOptions;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::Settings;
use bulkhead_tests::stream::Stream;
use hdrhistogram::Histogram;
use reqwest::Method;
use serde_json::json;
use tokio::sync::Semaphore;

const TENANTS: usize = 100;
/// Events in one request; the last one is followed to its end.
const BATCH: u64 = 50;
/// Requests under way at a time; what cannot be sent for that waits, and its latency counts on.
const UNDER_WAY: usize = 64;
/// The marks.
const P99_MAX: Duration = Duration::from_millis(100);
const TARGET: u64 = 10_000;
/// How long one trial of the search is.
const TRIAL: Duration = Duration::from_secs(6);
/// A trial that is so far behind its schedule is lost.
const LAG_MAX: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let on_postgres = arguments.iter().any(|word| word == "postgres");
    arguments.retain(|word| word != "postgres");
    let mut arguments = arguments.into_iter();
    let seconds: u64 = arguments.next().map_or(Ok(60), |text| text.parse())?;
    let target: u64 = arguments.next().map_or(Ok(TARGET), |text| text.parse())?;
    // Beside the build, not in a folder that may be in memory: durable is what is measured.
    let folder = tempfile::tempdir_in(if Path::new("target").is_dir() { "target" } else { "." })?;
    let limits = if on_postgres { None } else { Some(Limits::measure(folder.path())?) };
    let bench = Bench::start(folder.path(), on_postgres).await?;
    println!(
        "{TENANTS} tenants, 1 plugin and 2 rules each; batches of {BATCH} events of {} bytes",
        event(0, 0, 0).len()
    );

    let most = match arguments.next() {
        Some(_) => target,
        None => bench.search(target).await?,
    };
    println!("most that was sustained for {} s: {most} events/s", TRIAL.as_secs());
    let rate = if most >= target { target } else { most };
    if rate == 0 {
        bail!("no rate was sustained");
    }
    let run = bench.run(rate, Duration::from_secs(seconds), false).await?;
    println!("\n{rate} events/s for {seconds} s:");
    run.print();
    bench.check().await?;
    match limits {
        Some(limits) => limits.print(&bench, &run, most).await?,
        None => {
            println!("  what the server does bare, beside the store's own calls: `cargo xtask bench --only postgres`")
        }
    }
    println!(
        "\nmarks: {TARGET} events/s sustained for {seconds} s with p99 below 100 ms: {}",
        if rate >= TARGET && run.sustained() { "met" } else { "missed" }
    );
    Ok(())
}

/// A host with its tenants.
struct Bench {
    host: Host,
    clients: Vec<Client>,
    seen: Arc<Seen>,
    /// Events published so far: every one has its own id.
    next: AtomicU64,
    accepted: AtomicU64,
    /// Ends after the host.
    _server: Option<(Database, Postgres)>,
}

/// When batches were to be sent, and how long they took.
struct Seen {
    epoch: Instant,
    latencies: Mutex<Histogram<u64>>,
    probes: AtomicU64,
}

impl Seen {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn add(&self, sent: u64) {
        let latency = self.now().saturating_sub(sent).max(1);
        let _ = self.latencies.lock().unwrap_or_else(PoisonError::into_inner).record(latency);
        self.probes.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a run showed.
struct Run {
    offered: u64,
    done: u64,
    time: Duration,
    drained: Duration,
    latencies: Histogram<u64>,
    host_cpu: Duration,
    own_cpu: Duration,
    resident: u64,
    behind: bool,
}

impl Run {
    fn sustained(&self) -> bool {
        let p99 = Duration::from_micros(self.latencies.value_at_quantile(0.99));
        // What came within the last moment may still be under way.
        !self.behind && self.done * 100 >= self.offered * 98 && p99 <= P99_MAX
    }

    fn print(&self) {
        let quantile = |at: f64| self.latencies.value_at_quantile(at) as f64 / 1_000.0;
        let rate = |events: u64, time: Duration| events as f64 / time.as_secs_f64();
        println!(
            "  offered {} in {:.1} s, done by then {} = {:.0} events/s",
            self.offered,
            self.time.as_secs_f64(),
            self.done,
            rate(self.done, self.time)
        );
        println!("  all done {:.2} s later", self.drained.as_secs_f64());
        println!(
            "  from the time to be sent to the commit seen on the live stream: p50 {:.1} ms, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1} ({} batches)",
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(0.999),
            quantile(1.0),
            self.latencies.len()
        );
        let each = |cpu: Duration| cpu.as_micros() as f64 / self.offered as f64;
        println!(
            "  CPU per event: host {:.1} µs, generator {:.1} µs; host resident {} MiB",
            each(self.host_cpu),
            each(self.own_cpu),
            self.resident >> 20
        );
    }
}

/// An order of about 1 KiB. `probe` is the time to be sent, of the last one of a batch.
fn event(tenant: usize, number: u64, probe: u64) -> String {
    let kind = if probe > 0 { "orders.probed" } else { "orders.created" };
    format!(
        r#"{{"specversion":"1.0","id":"o-{tenant}-{number}","source":"/shop/orders","type":"{kind}","subject":"A-{number}","partitionkey":"C-{customer}","data":{{"id":"A-{number}","total":174.14,"channel":"web","probe":{probe},"currency":"USD","rate":0.92,"customer":{{"id":"C-{customer}","email":"amira{customer}@example.com","name":"Amira Nilsen-Okonkwo","country":"US","city":"Portland","street":"1200 Long Harbour Road","zip":"04101","since":"2019-04-01"}},"items":[{{"sku":"KB-87","name":"Keyboard, 87 keys","quantity":2,"price":87.07,"tax":0.19}},{{"sku":"MS-12","name":"Mouse, wireless","quantity":1,"price":39.5,"tax":0.19}},{{"sku":"DK-01","name":"Docking station","quantity":1,"price":219.0,"tax":0.19}}],"payment":{{"method":"transfer","captured":true,"reference":"P-{number}-8842-1117"}},"shipping":{{"method":"express","carrier":"Northern Post","tracking":"NP0088412{number}","weight":2.4}},"notes":"Please leave the parcel with the neighbour in the second yard if nobody opens the door before noon. The bell is the third from above, and the dog is friendly."}}}}"#,
        customer = number % 50,
    )
}

impl Bench {
    async fn start(folder: &Path, on_postgres: bool) -> Result<Self> {
        let mut settings = Settings::default();
        let mut server = None;
        if on_postgres {
            let options = PostgresOptions {
                shared_buffers: "1GB".to_owned(),
                parent: Some(folder.canonicalize()?),
                ..PostgresOptions::default()
            };
            // Servers run as accounts of their own.
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
            let postgres = Postgres::start(options)?;
            // As docs/nodes.md advises: checkpoints by time and not by volume.
            let advised = "ALTER SYSTEM SET max_wal_size = '8GB'; ALTER SYSTEM SET checkpoint_timeout = '15min';
                           SELECT pg_reload_conf();";
            bulkhead_services::sql(&postgres.admin_url(), advised)?;
            let database = postgres.database()?;
            settings.store = Some(database.host_url().to_owned());
            settings.environment.push(("BULKHEAD_STORE_OWNER".to_owned(), database.owner_url().to_owned()));
            server = Some((database, postgres));
        }
        let host = Host::start_as(folder, settings).await?;
        let seen = Arc::new(Seen {
            epoch: Instant::now(),
            latencies: Mutex::new(Histogram::new_with_bounds(1, 600_000_000, 3)?),
            probes: AtomicU64::new(0),
        });
        let mut clients = Vec::new();
        for tenant in 0..TENANTS {
            let client = host.tenant(&format!("tenant-{tenant}")).await?;
            client.push("bench-standard").await?;
            client
                .rule(json!({"name": "bench", "on": "orders.created", "steps": [{"handle": "bench-standard"}]}))
                .await?;
            // The same work, and a word when it is done.
            let steps = json!([{"handle": "bench-standard"}, {"map": {"probe": "data.probe"}}, {"emit": "bench.done"}]);
            client.rule(json!({"name": "probe", "on": "orders.probed", "steps": steps})).await?;
            let mut stream = Stream::open(&client, "/v1/events/stream?type=bench.done", None).await?;
            let into = Arc::clone(&seen);
            tokio::spawn(async move {
                while let Ok(Some(done)) = stream.next(Duration::from_secs(3_600)).await {
                    into.add(done["data"]["probe"].as_u64().unwrap_or_default());
                }
            });
            clients.push(client);
        }
        Ok(Self { host, clients, seen, next: AtomicU64::new(0), accepted: AtomicU64::new(0), _server: server })
    }

    /// The most that is sustained for a moment: up by halves until it is too much, then by halving the gap.
    async fn search(&self, target: u64) -> Result<u64> {
        // The first moments warm everything up and count for nothing.
        self.run(1_000, Duration::from_secs(3), true).await?;
        let (mut good, mut bad, mut rate) = (0, None, target);
        for _ in 0..8 {
            let run = self.run(rate, TRIAL, true).await?;
            let p99 = run.latencies.value_at_quantile(0.99) as f64 / 1_000.0;
            println!(
                "  trial of {rate} events/s: {:.0} done a second, p99 {p99:.1} ms{}",
                run.done as f64 / run.time.as_secs_f64(),
                if run.sustained() { "" } else { ", too much" }
            );
            if run.sustained() {
                good = good.max(rate);
            } else {
                bad = Some(bad.map_or(rate, |bad: u64| bad.min(rate)));
            }
            rate = match bad {
                None => good * 3 / 2,
                Some(bad) if good == 0 => bad / 2,
                Some(bad) if bad - good <= good / 16 => break,
                Some(bad) => (good + bad) / 2,
            };
            rate = rate / BATCH * BATCH;
        }
        Ok(good)
    }

    /// One run at a rate. A trial ends early when it is hopeless.
    async fn run(&self, rate: u64, length: Duration, trial: bool) -> Result<Run> {
        let batches = rate * length.as_secs() / BATCH;
        let gap = Duration::from_secs_f64(BATCH as f64 / rate as f64);
        let places = Arc::new(Semaphore::new(UNDER_WAY));
        let before = self.done().await?;
        let (host_cpu, own_cpu) = (cpu(self.host.pid())?, cpu(Some(std::process::id()))?);
        self.seen.latencies.lock().unwrap_or_else(PoisonError::into_inner).reset();
        let probes_before = self.seen.probes.load(Ordering::Relaxed);
        let began = Instant::now();
        let (mut sent, mut behind) = (0, false);
        let mut tasks = tokio::task::JoinSet::new();
        for batch in 0..batches {
            let due = began + gap.mul_f64(batch as f64);
            tokio::time::sleep_until(due.into()).await;
            let place = Arc::clone(&places).acquire_owned().await?;
            if due.elapsed() > LAG_MAX {
                behind = true;
                if trial {
                    break;
                }
            }
            let tenant = usize::try_from(batch)? % TENANTS;
            let body = self.batch(tenant, due);
            let request = self.clients[tenant].request(Method::POST, "/v1/events");
            let request = request.header("content-type", "application/cloudevents-batch+json").body(body);
            tasks.spawn(async move {
                let answer = request.send().await?.error_for_status()?;
                let receipt: serde_json::Value = answer.json().await?;
                drop(place);
                anyhow::Ok(receipt["accepted"].as_u64().unwrap_or_default())
            });
            sent += 1;
            while let Some(joined) = tasks.try_join_next() {
                self.accepted.fetch_add(joined??, Ordering::Relaxed);
            }
        }
        let time = began.elapsed().max(if behind { Duration::ZERO } else { length });
        tokio::time::sleep_until((began + time).into()).await;
        let done = self.done().await? - before;
        let offered = sent * BATCH;
        let ended = Instant::now();
        while let Some(joined) = tasks.join_next().await {
            self.accepted.fetch_add(joined??, Ordering::Relaxed);
        }
        eventually("everything that was offered to be done and seen", Duration::from_secs(300), async || {
            let (done, probes) =
                (self.done().await? - before, self.seen.probes.load(Ordering::Relaxed) - probes_before);
            if done < offered || probes < sent {
                bail!("{done} of {offered} done, {probes} of {sent} seen");
            }
            Ok(Some(()))
        })
        .await?;
        Ok(Run {
            offered,
            done,
            time,
            drained: ended.elapsed(),
            latencies: self.seen.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            host_cpu: cpu(self.host.pid())?.saturating_sub(host_cpu),
            own_cpu: cpu(Some(std::process::id()))?.saturating_sub(own_cpu),
            resident: self.host.resident()?,
            behind,
        })
    }

    fn batch(&self, tenant: usize, due: Instant) -> String {
        let first = self.next.fetch_add(BATCH, Ordering::Relaxed);
        let due = u64::try_from(due.duration_since(self.seen.epoch).as_micros()).unwrap_or(u64::MAX);
        let mut body = String::with_capacity(usize::try_from(BATCH).unwrap_or_default() * 1_300);
        for number in first..first + BATCH {
            body.push(if number == first { '[' } else { ',' });
            body.push_str(&event(tenant, number, if number + 1 == first + BATCH { due } else { 0 }));
        }
        body.push(']');
        body
    }

    /// Runs that are done, as the host counts them.
    async fn done(&self) -> Result<u64> {
        let text = self.host.operator().request(Method::GET, "/metrics").send().await?.text().await?;
        let done = text.lines().filter(|line| line.starts_with("bulkhead_runs_total{") && line.contains("\"done\""));
        Ok(done.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64)
    }

    /// What is in the books must be what was accepted.
    async fn check(&self) -> Result<()> {
        let accepted = self.accepted.load(Ordering::Relaxed);
        let (mut done, mut failed) = (0, 0);
        for client in &self.clients {
            for line in client.get("/v1/usage").await?["items"].as_array().into_iter().flatten() {
                done += line["done"].as_u64().unwrap_or_default();
                failed += line["failed"].as_u64().unwrap_or_default();
            }
        }
        println!("  in the books: {accepted} accepted, {done} done, {failed} failed");
        if accepted != done || failed > 0 {
            bail!("what was accepted is not what was done");
        }
        Ok(())
    }
}

/// Processor time that a process has used.
fn cpu(pid: Option<u32>) -> Result<Duration> {
    let pid = pid.context("the process is gone")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11..13).context("no times")?.iter().filter_map(|text| text.parse::<u64>().ok()).sum();
    // A tick is 10 ms on every Linux that this runs on.
    Ok(Duration::from_millis(ticks * 10))
}

/// What this machine can do at most, by bare means.
struct Limits {
    fsync: Duration,
    /// Seconds of one event: its row, and the rows of its effects, in prepared inserts, 256 events a transaction.
    append: f64,
    effects: f64,
}

impl Limits {
    fn measure(folder: &Path) -> Result<Self> {
        use std::io::Write;
        let mut file = std::fs::File::create(folder.join("fsync"))?;
        let mut times = Vec::new();
        for _ in 0..200 {
            let began = Instant::now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            times.push(began.elapsed());
        }
        times.sort();
        let path = folder.join("bare.db");
        let mut database = rusqlite::Connection::open(&path)?;
        database.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
             CREATE TABLE events (position INTEGER PRIMARY KEY, tenant INTEGER, id BLOB, kind TEXT, data BLOB);
             CREATE UNIQUE INDEX events_id ON events (tenant, id);
             CREATE TABLE state (tenant INTEGER, name TEXT, value BLOB, PRIMARY KEY (tenant, name)) WITHOUT ROWID;
             CREATE TABLE runs (position INTEGER, rule TEXT, state INTEGER, ended INTEGER, PRIMARY KEY (position, rule)) WITHOUT ROWID;",
        )?;
        const GROUP: i64 = 256;
        const GROUPS: i64 = 80;
        let data = event(0, 123_456, 0);
        let (mut append, mut effects) = (Duration::ZERO, Duration::ZERO);
        for group in 0..GROUPS {
            let began = Instant::now();
            let transaction = database.transaction()?;
            {
                let mut insert = transaction.prepare("INSERT INTO events VALUES (NULL, ?1, ?2, ?3, ?4)")?;
                for number in group * GROUP..(group + 1) * GROUP {
                    let id = number.wrapping_mul(0x1e37_79b9_7f4a_7c15).to_le_bytes();
                    insert.execute((number % 100, &id[..], "orders.created", data.as_bytes()))?;
                }
            }
            transaction.commit()?;
            append += began.elapsed();
            let began = Instant::now();
            let transaction = database.transaction()?;
            {
                let mut state = transaction.prepare("INSERT OR REPLACE INTO state VALUES (?1, ?2, ?3)")?;
                let mut run = transaction.prepare("INSERT INTO runs VALUES (?1, 'bench', 1, ?2)")?;
                for number in group * GROUP..(group + 1) * GROUP {
                    state.execute((number % 100, format!("order:A-{number}"), &[0_u8; 128][..]))?;
                    run.execute((number, 1_700_000_000_000_000_i64))?;
                }
            }
            transaction.commit()?;
            effects += began.elapsed();
        }
        let events = (GROUP * GROUPS) as f64;
        Ok(Self {
            fsync: times[times.len() / 2],
            append: append.as_secs_f64() / events,
            effects: effects.as_secs_f64() / events,
        })
    }

    /// The limits, and how near to them it came.
    async fn print(&self, bench: &Bench, run: &Run, most: u64) -> Result<()> {
        let (mut micros, mut attempts) = (0, 0);
        for client in &bench.clients {
            for line in client.get("/v1/usage").await?["items"].as_array().into_iter().flatten() {
                micros += line["duration_us"].as_u64().or(line["micros"].as_u64()).unwrap_or_default();
                attempts += line["attempts"].as_u64().unwrap_or_default();
            }
        }
        let plugin = micros as f64 / attempts.max(1) as f64 / 1e6;
        let cores = std::thread::available_parallelism()?.get() as f64;
        // One writer; everything else can spread over the cores, beside the writer.
        let writer = self.append + self.effects;
        let ceiling = (1.0 / writer).min(cores / (writer + plugin));
        println!("\nlimits of this machine ({cores} cores), bare:");
        println!("  fsync of 4 KiB: median {:.2} ms", self.fsync.as_secs_f64() * 1e3);
        println!(
            "  the event's row, 256 a transaction, synchronous=FULL: {:.1} µs = {:.0} events/s",
            self.append * 1e6,
            1.0 / self.append
        );
        println!(
            "  the rows of its effects (state, run), the same way: {:.1} µs = {:.0} events/s",
            self.effects * 1e6,
            1.0 / self.effects
        );
        println!("  the plugin, as the host has measured it in this run: {:.1} µs a call", plugin * 1e6);
        println!(
            "  composed ceiling, one writer and no HTTP, JSON, routing, accounts or generator: {ceiling:.0} events/s"
        );
        println!(
            "  ours: {most} events/s at most = {:.0} % of it; {:.0} events/s in the long run",
            most as f64 / ceiling * 100.0,
            run.done as f64 / run.time.as_secs_f64()
        );
        Ok(())
    }
}
