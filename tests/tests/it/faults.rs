//! Three nodes on one Postgres and one Redis, and everything that can happen to them: nothing acknowledged is lost,
//! nothing is applied twice, keys keep their order, and somebody else takes over soon.
//!
//! Faults come one after the other under steady load, in an order that follows from the seed; after each, the books are
//! compared. The table at the end is for people; the assertions are its last columns.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use bulkhead_services::PostgresOptions;
use bulkhead_services::SmallDisk;
use bulkhead_tests::cluster::Cluster;
use bulkhead_tests::eventually;
use bulkhead_tests::load::Lane;
use bulkhead_tests::load::Load;
use bulkhead_tests::load::Watch;
use bulkhead_tests::nightly;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

const NODES: usize = 3;
const LANES: usize = 9;
/// What is promised for a takeover.
const TAKEOVER_MAX: Duration = Duration::from_secs(5);
/// How long faults last that end by themselves: longer than a lease.
const LASTS: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillNode,
    KillPostgres,
    RestartPostgres,
    KillRedis,
    FlushRedis,
    CutFromPostgres,
    CutFromRedis,
    StopNode,
    ClockAhead,
    ClockBack,
    RollingRestart,
}

const ALL: [Fault; 11] = [
    Fault::KillNode,
    Fault::KillPostgres,
    Fault::RestartPostgres,
    Fault::KillRedis,
    Fault::FlushRedis,
    Fault::CutFromPostgres,
    Fault::CutFromRedis,
    Fault::StopNode,
    Fault::ClockAhead,
    Fault::ClockBack,
    Fault::RollingRestart,
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::KillNode => "a node killed (kill -9)",
            Self::KillPostgres => "Postgres killed (kill -9)",
            Self::RestartPostgres => "Postgres restarted",
            Self::KillRedis => "Redis killed, empty again",
            Self::FlushRedis => "Redis flushed",
            Self::CutFromPostgres => "node cut from Postgres 4 s",
            Self::CutFromRedis => "node cut from Redis 4 s",
            Self::StopNode => "node stopped 4 s, goes on",
            Self::ClockAhead => "a clock jumps 1 h ahead",
            Self::ClockBack => "a clock jumps 1 h back",
            Self::RollingRestart => "every node restarted in turn",
        })
    }
}

impl Fault {
    /// Does it, and undoes it.
    async fn happen(self, cluster: &mut Cluster, node: usize, watch: &Watch, clock: &Clock) -> Result<()> {
        let lasts = async || tokio::time::sleep(LASTS).await;
        match self {
            Self::KillNode => {
                cluster.nodes[node].host.kill().await?;
                lasts().await;
                cluster.nodes[node].host.restart().await?;
                watch.set(cluster);
            }
            Self::KillPostgres => {
                cluster.postgres.kill()?;
                cluster.postgres.start_again()?;
            }
            Self::RestartPostgres => cluster.postgres.restart_fast()?,
            Self::KillRedis => {
                cluster.redis.kill()?;
                lasts().await;
                cluster.redis.start_again()?;
            }
            Self::FlushRedis => {
                cluster.redis.flush_all()?;
                lasts().await;
            }
            Self::CutFromPostgres => {
                cluster.nodes[node].wire.cut();
                lasts().await;
                // What was on its way arrives now, late.
                cluster.nodes[node].wire.heal();
            }
            Self::CutFromRedis => {
                cluster.nodes[node].redis_wire.cut();
                lasts().await;
                cluster.nodes[node].redis_wire.heal();
            }
            Self::StopNode => {
                cluster.nodes[node].host.signal("STOP")?;
                lasts().await;
                cluster.nodes[node].host.signal("CONT")?;
            }
            Self::ClockAhead | Self::ClockBack => {
                clock.set(if self == Self::ClockAhead { "+3600" } else { "-3600" })?;
                lasts().await;
                clock.set("+0")?;
            }
            Self::RollingRestart => {
                for node in 0..cluster.nodes.len() {
                    let code = cluster.nodes[node].host.terminate().await?;
                    anyhow::ensure!(code == Some(0), "a node that was asked to end ended with {code:?}");
                    cluster.nodes[node].host.restart().await?;
                    watch.set(cluster);
                }
            }
        }
        Ok(())
    }
}

/// The clock that nodes see, moved by libfaketime; the monotonic one goes on as it is.
struct Clock {
    file: PathBuf,
}

impl Clock {
    fn new(folder: &std::path::Path) -> Result<Self> {
        let clock = Self { file: folder.join("clock") };
        clock.set("+0")?;
        Ok(clock)
    }

    fn set(&self, offset: &str) -> Result<()> {
        std::fs::write(&self.file, offset)?;
        Ok(())
    }

    fn environment(&self) -> Result<Vec<(String, String)>> {
        let library = std::fs::read_dir("/usr/lib")?
            .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketime.so.1")))
            .find(|path| path.exists())
            .context("libfaketime is not installed: run this by `cargo xtask test`")?;
        let given = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        Ok(given.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// A line of the table.
struct Row {
    fault: Fault,
    acked: u64,
    failed: u64,
    gap: Duration,
    takeover: Duration,
    repeats: usize,
    violations: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_nothing_is_lost_or_done_twice() -> Result<()> {
    let rounds = if nightly() { 5 } else { 1 };
    let seed = std::env::var("BULKHEAD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed} (set BULKHEAD_SEED to repeat)");
    let mut random = StdRng::seed_from_u64(seed);

    let clocks = tempfile::tempdir()?;
    let clock = Clock::new(clocks.path())?;
    let mut cluster = Cluster::start(NODES - 1).await?;
    let environment = clock.environment()?;
    let environment: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    cluster.join(&environment).await?;
    cluster.balanced(NODES).await?;
    let mut lanes = Vec::new();
    for number in 0..LANES {
        lanes.push(Lane::prepare(&cluster, &format!("tenant-{number}")).await?);
    }

    let watch = Watch::over(&cluster);
    let mut table = Vec::new();
    for _ in 0..rounds {
        let mut faults = ALL.to_vec();
        if let Ok(only) = std::env::var("BULKHEAD_FAULT") {
            faults.retain(|fault| format!("{fault:?}") == only);
        }
        faults.shuffle(&mut random);
        for fault in faults {
            let node = match fault {
                // Only its clock can be set.
                Fault::ClockAhead | Fault::ClockBack => NODES - 1,
                _ => random.random_range(0..NODES),
            };
            let row;
            (lanes, row) = suffer(fault, node, &mut cluster, lanes, &watch, &clock).await?;
            println!("{row}");
            table.push(row);
        }
    }
    print(&table);
    let violations: Vec<String> =
        table.iter().flat_map(|row| row.violations.iter().map(|text| format!("{}: {text}", row.fault))).collect();
    assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
    assert!(watch.refusals().is_empty(), "seed {seed}: answers that are no reason to retry: {:#?}", watch.refusals());
    for row in &table {
        assert!(row.acked > 0, "seed {seed}: {}: nothing was acknowledged", row.fault);
        assert!(row.takeover <= TAKEOVER_MAX, "seed {seed}: {}: takeover after {:?}", row.fault, row.takeover);
    }
    Ok(())
}

/// One fault under load, from quiet to quiet.
async fn suffer(
    fault: Fault,
    node: usize,
    cluster: &mut Cluster,
    lanes: Vec<Lane>,
    watch: &Watch,
    clock: &Clock,
) -> Result<(Vec<Lane>, Row)> {
    let before: u64 = lanes.iter().map(|lane| lane.ledger.acked.values().sum::<u64>()).sum();
    let repeats_before: usize = lanes.iter().map(|lane| lane.receiver.repeats()).sum();
    let failed_before: u64 = lanes.iter().map(|lane| lane.ledger.failed_requests).sum();
    let seen: Vec<_> = lanes.iter().map(|lane| (lane.receiver.clone(), lane.acked.clone())).collect();
    let load = Load::start(lanes, watch.clone());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let acked: Vec<u64> = seen.iter().map(|(_, acked)| acked.load(Ordering::Acquire)).collect();
    // From the fault until every tenant's later events have gone all the way.
    let taken_over = async {
        let mut latest = Duration::ZERO;
        for ((receiver, _), before) in seen.iter().zip(&acked) {
            eventually("every tenant's events to be worked off", Duration::from_secs(60), async || {
                Ok((receiver.distinct() as u64 > *before).then_some(()))
            })
            .await?;
            latest = latest.max(began.elapsed());
        }
        anyhow::Ok(latest)
    };
    let (happened, takeover) = tokio::join!(fault.happen(cluster, node, watch, clock), taken_over);
    happened.with_context(|| format!("{fault}"))?;
    let takeover = takeover.with_context(|| format!("{fault}"))?;
    cluster.balanced(cluster.nodes.len()).await.with_context(|| format!("after {fault}"))?;
    let lanes = load.stop().await?;
    let gap = watch.longest_gap(began);

    let mut violations = Vec::new();
    let url = cluster.nodes[0].host.url.clone();
    for (number, lane) in lanes.iter().enumerate() {
        let found = lane.compare(&url, Duration::from_secs(60)).await?;
        violations.extend(found.violations.iter().map(|text| format!("tenant-{number}: {text}")));
    }
    let after: u64 = lanes.iter().map(|lane| lane.ledger.acked.values().sum::<u64>()).sum();
    let failed: u64 = lanes.iter().map(|lane| lane.ledger.failed_requests).sum();
    let repeats: usize = lanes.iter().map(|lane| lane.receiver.repeats()).sum();
    let row = Row {
        fault,
        acked: after - before,
        failed: failed - failed_before,
        gap,
        takeover,
        repeats: repeats - repeats_before,
        violations,
    };
    Ok((lanes, row))
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:30} {:>7} {:>7} {:>8.2}s {:>8.2}s {:>8} {:>10}",
            self.fault,
            self.acked,
            self.failed,
            self.gap.as_secs_f64(),
            self.takeover.as_secs_f64(),
            self.repeats,
            self.violations.len()
        )
    }
}

fn print(table: &[Row]) {
    println!(
        "{:30} {:>7} {:>7} {:>9} {:>9} {:>8} {:>10}",
        "fault", "acked", "failed", "no ack", "takeover", "repeats", "violations"
    );
    for row in table {
        println!("{row}");
    }
}

/// A full disk under Postgres is nobody's fault but the operator's: publishers are told to come back, and nothing that
/// was acknowledged is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_loses_nothing() -> Result<()> {
    let disk = SmallDisk::mount(320)?;
    let options = PostgresOptions { parent: Some(disk.path().to_owned()), ..PostgresOptions::default() };
    let mut cluster = Cluster::bare_on(options)?;
    for _ in 0..2 {
        cluster.join(&[]).await?;
    }
    cluster.balanced(2).await?;
    let lane = Lane::prepare(&cluster, "acme").await?;
    let (receiver, client) = (lane.receiver.clone(), lane.client.within(Duration::from_secs(10)));
    let watch = Watch::over(&cluster);
    let load = Load::start(vec![lane], watch.clone());
    eventually("the first deliveries", Duration::from_secs(30), async || Ok((receiver.distinct() > 20).then_some(())))
        .await?;
    disk.fill()?;
    let large = "x".repeat(200_000);
    let refused = eventually("a publisher to be refused", Duration::from_secs(120), async || {
        let event = bulkhead_tests::host::event(&rand::random::<u64>().to_string(), "filler", large.clone().into());
        let answer = client.offer(&event).await?;
        Ok((!answer.status().is_success()).then_some(answer))
    })
    .await?;
    println!("a full disk: {} retry-after {:?}", refused.status(), refused.headers().get("retry-after"));
    assert!(matches!(refused.status().as_u16(), 503 | 507), "{}", refused.status());
    disk.free()?;
    if bulkhead_services::sql(cluster.owner_url(), "SELECT 1;").is_err() {
        println!("Postgres gave up; it is started again");
        drop(cluster.postgres.kill());
        cluster.postgres.start_again()?;
    }
    let before = receiver.distinct();
    eventually("events to be worked off again", Duration::from_secs(60), async || {
        Ok((receiver.distinct() > before + 20).then_some(()))
    })
    .await?;
    let lanes = load.stop().await?;
    let found = lanes[0].compare(&cluster.nodes[0].host.url, Duration::from_secs(60)).await?;
    assert!(found.violations.is_empty(), "{:#?}", found.violations);
    assert!(watch.refusals().is_empty(), "answers that are no reason to retry: {:#?}", watch.refusals());
    Ok(())
}
