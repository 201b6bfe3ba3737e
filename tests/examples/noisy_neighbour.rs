//! What one tenant can do to the others: 99 steady tenants, and one that is not.
//!
//! ```text
//! noisy_neighbour [SECONDS] [postgres]    SECONDS (10) for each neighbour
//! ```
//!
//! Each steady tenant publishes a small batch a few times a second, open loop; latency counts from the time that a batch
//! is due until a follow-up of its last event is seen on the tenant's live stream. Beside each kind of neighbour, and
//! without one before and after it. The mark: p99 at most twice the mean of these two, aim 1.3 times.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use bulkhead_services::Database;
use bulkhead_services::Postgres;
use bulkhead_services::PostgresOptions;
use bulkhead_tests::guest;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::Settings;
use bulkhead_tests::stream::Stream;
use hdrhistogram::Histogram;
use serde_json::Value;
use serde_json::json;
use tokio::task::JoinSet;

const STEADY: usize = 99;
/// Events of a batch, and batches of a tenant in a second.
const BATCH: usize = 5;
const RATE: f64 = 2.0;
const MARK: f64 = 2.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Neighbour {
    TenTimes,
    BurnsCpu,
    FailsAndRetries,
    HugePayloads,
}

impl Neighbour {
    const ALL: [Self; 4] = [Self::TenTimes, Self::BurnsCpu, Self::FailsAndRetries, Self::HugePayloads];

    fn name(self) -> &'static str {
        match self {
            Self::TenTimes => "ten times the rate",
            Self::BurnsCpu => "burns CPU to its limit",
            Self::FailsAndRetries => "fails and is retried",
            Self::HugePayloads => "payloads of 200 KB",
        }
    }

    /// Batches a second.
    fn rate(self) -> f64 {
        match self {
            Self::TenTimes => RATE * 10.0,
            Self::BurnsCpu | Self::FailsAndRetries | Self::HugePayloads => RATE * 2.0,
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let on_postgres = words.iter().any(|word| word == "postgres");
    words.retain(|word| word != "postgres");
    let length = Duration::from_secs(words.first().map_or(Ok(10), |text| text.parse())?);
    let folder = tempfile::tempdir()?;
    let (host, _server) = start(folder.path(), on_postgres).await?;
    let seen = Arc::new(Mutex::new(Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?));
    let epoch = Instant::now();
    let mut steady = Vec::new();
    for number in 0..STEADY {
        let client = host.tenant(&format!("steady-{number}")).await?;
        client.push("bench-standard").await?;
        let steps = json!([{"handle": "bench-standard"}, {"map": {"probe": "data.probe"}}, {"emit": "done"}]);
        client.rule(json!({"name": "work", "on": "work", "steps": steps})).await?;
        let mut stream = Stream::open(&client, "/v1/events/stream?type=done", None).await?;
        let into = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok(Some(done)) = stream.next(Duration::from_secs(3_600)).await {
                if let Some(due) = done["data"]["probe"].as_u64().filter(|due| *due > 0) {
                    let now = epoch.elapsed().as_micros() as u64;
                    let _ = into.lock().unwrap_or_else(PoisonError::into_inner).record(now.saturating_sub(due).max(1));
                }
            }
        });
        steady.push(client);
    }
    let noisy = noisy(&host).await?;

    let offered = STEADY as f64 * RATE * BATCH as f64;
    println!("{STEADY} steady tenants, {offered:.0} events/s in all, {length:?} each\n");
    println!("{:24} {:>9} {:>9} {:>9} {:>9}", "neighbour", "p50 ms", "p99 ms", "max ms", "p99 ratio");
    run(&host, &steady, &noisy, None, Duration::from_secs(3), epoch).await?;
    let measure = async |neighbour: Option<Neighbour>| -> Result<Histogram<u64>> {
        seen.lock().unwrap_or_else(PoisonError::into_inner).reset();
        run(&host, &steady, &noisy, neighbour, length, epoch).await?;
        Ok(seen.lock().unwrap_or_else(PoisonError::into_inner).clone())
    };
    let line = |name: &str, seen: &Histogram<u64>, ratio: &str| {
        let at = |quantile: f64| seen.value_at_quantile(quantile) as f64 / 1_000.0;
        println!("{name:24} {:>9.1} {:>9.1} {:>9.1} {ratio:>9}", at(0.5), at(0.99), at(1.0));
    };
    let mut before = measure(None).await?;
    line("none", &before, "");
    let mut worst = 0.0_f64;
    for neighbour in Neighbour::ALL {
        let beside = measure(Some(neighbour)).await?;
        let after = measure(None).await?;
        let p99 = |seen: &Histogram<u64>| seen.value_at_quantile(0.99) as f64;
        // The machine is not equally fast all the time.
        let ratio = p99(&beside) / f64::midpoint(p99(&before), p99(&after));
        worst = worst.max(ratio);
        line(neighbour.name(), &beside, &format!("{ratio:.2}"));
        line("none", &after, "");
        before = after;
    }
    println!(
        "\nmark: p99 at most {MARK} times that without a neighbour: {}",
        if worst <= MARK { "met" } else { "missed" }
    );
    Ok(())
}

async fn start(folder: &std::path::Path, on_postgres: bool) -> Result<(Host, Option<(Database, Postgres)>)> {
    let mut settings = Settings::default();
    let mut server = None;
    if on_postgres {
        let postgres = Postgres::start(PostgresOptions { shared_buffers: "1GB".to_owned(), ..Default::default() })?;
        let database = postgres.database()?;
        settings.store = Some(database.host_url().to_owned());
        settings.environment.push(("BULKHEAD_STORE_OWNER".to_owned(), database.owner_url().to_owned()));
        server = Some((database, postgres));
    }
    Ok((Host::start_as(folder, settings).await?, server))
}

/// The neighbour's tenant, with a rule for everything that it does.
async fn noisy(host: &Host) -> Result<Client> {
    let client = host.tenant("noisy").await?;
    client.push("bench-standard").await?;
    client.push("always-fails").await?;
    client.push_as("burner", guest::burner()?, None).await?;
    client.configure("always-fails", json!({"mode": "retry"})).await?;
    for (rule, on, plugin, attempts) in
        [("work", "work", "bench-standard", 1), ("burn", "burn", "burner", 1), ("fail", "fail", "always-fails", 10)]
    {
        let retry = json!({"attempts": attempts, "first": "50ms", "factor": 1, "max": "50ms"});
        client.rule(json!({"name": rule, "on": on, "steps": [{"handle": plugin}], "retry": retry})).await?;
    }
    Ok(client)
}

/// Everybody publishes for this long, and what was published last has time to be seen.
async fn run(
    host: &Host,
    steady: &[Client],
    noisy: &Client,
    neighbour: Option<Neighbour>,
    length: Duration,
    epoch: Instant,
) -> Result<()> {
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for (number, client) in steady.iter().enumerate() {
        // Spread over the period, or all would come at once.
        let first = began + Duration::from_secs_f64(number as f64 / STEADY as f64 / RATE);
        tasks.spawn(publish(client.clone(), "work", first, RATE, began + length, Some(epoch), 0));
    }
    if let Some(neighbour) = neighbour {
        let (kind, size) = match neighbour {
            Neighbour::TenTimes => ("work", 0),
            Neighbour::BurnsCpu => ("burn", 0),
            Neighbour::FailsAndRetries => ("fail", 0),
            Neighbour::HugePayloads => ("work", 200_000),
        };
        tasks.spawn(publish(noisy.clone(), kind, began, neighbour.rate(), began + length, None, size));
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    // What the neighbour left would count against the next one.
    bulkhead_tests::eventually("everything to be worked off", Duration::from_secs(300), async || {
        let overview = host.operator().get("/admin/v1/overview").await?;
        let waits = |of: &Value| of["unread"].as_u64().unwrap_or(0) + of["retrying"].as_u64().unwrap_or(0) > 0;
        let waiting = overview["waiting"].as_array().context("no list")?.iter().any(waits);
        Ok((!waiting).then_some(()))
    })
    .await
}

/// One tenant's batches, open loop. `epoch` is what probes count from.
async fn publish(
    client: Client,
    kind: &'static str,
    first: Instant,
    rate: f64,
    until: Instant,
    epoch: Option<Instant>,
    padding: usize,
) -> Result<()> {
    let mut requests = JoinSet::new();
    let mut due = first;
    while due < until {
        tokio::time::sleep_until(due.into()).await;
        let probe = epoch.map_or(0, |epoch| due.duration_since(epoch).as_micros() as u64);
        let batch: Vec<Value> = (0..BATCH)
            .map(|number| {
                let probe = if number + 1 == BATCH { probe } else { 0 };
                let id = format!("{:x}", rand::random::<u128>());
                let data =
                    json!({"id": id, "total": 17.5, "channel": "web", "probe": probe, "padding": "x".repeat(padding)});
                json!({"specversion": "1.0", "id": id, "source": "/bench", "type": kind, "data": data})
            })
            .collect();
        let client = client.clone();
        // A refusal of the noisy one is as it should be.
        requests.spawn(async move { client.publish(&batch).await.map(drop) });
        due += Duration::from_secs_f64(1.0 / rate);
    }
    while let Some(ended) = requests.join_next().await {
        let ended = ended?;
        if epoch.is_some() {
            ended?;
        }
    }
    Ok(())
}
