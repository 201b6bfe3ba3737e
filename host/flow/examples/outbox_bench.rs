//! How fast an outbox is drained, and what an open transaction beside it costs.
//!
//! On one Postgres that syncs to the disk: rows of many tenants are written, then taken three ways. Reading and deleting
//! them and nothing else (`bare`); the source, through the inbox, into a store in another database of the same server
//! (`source`); and the same beside a session that wrote something elsewhere and is idle in its transaction, so that nothing
//! that is deleted can be cleaned up (`idle`). Of the last two, the rate of the first and of the last third tells whether
//! it slows down.
//!
//! `cargo run --release -p bulkhead-flow --example outbox_bench [ROWS] [TENANTS] [BATCH]`

use std::io::Write as _;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Clock;
use bulkhead_domain::clock::SystemClock;
use bulkhead_domain::policy::quota::Quotas;
use bulkhead_flow::bus::Bus;
use bulkhead_flow::dispatch;
use bulkhead_flow::inbox;
use bulkhead_flow::inbox::Inbox;
use bulkhead_flow::live::Live;
use bulkhead_flow::quota::Limiter;
use bulkhead_flow::source::outbox::Options;
use bulkhead_flow::source::outbox::OutboxSource;
use bulkhead_services::Database;
use bulkhead_services::Postgres;
use bulkhead_services::PostgresOptions;
use bulkhead_services::programs;
use bulkhead_services::sql;
use bulkhead_store::Store;
use bulkhead_store::outbox::Outbox;
use bulkhead_store::outbox::SCHEMA;
use bulkhead_store::outbox::Share;
use bulkhead_store::outbox::Table;
use bulkhead_store::postgres;
use tokio_util::sync::CancellationToken;

const SHARDS: u16 = 16;
/// Bytes of an event's payload, about.
const PAYLOAD: usize = 200;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Bench {
    application: Database,
    inbox: Inbox,
    store: Store,
    rows: usize,
    tenants: usize,
    batch: u32,
}

impl Bench {
    /// The table is empty: each way ends with that.
    fn fill(&self) -> Result<(), Failure> {
        let (rows, tenants) = (self.rows, self.tenants);
        let script = format!(
            "INSERT INTO bulkhead_outbox (tenant, type, partitionkey, data)
             SELECT 'tenant-' || n % {tenants}, 'orders.created', 'key-' || n % 97,
                    jsonb_build_object('order', n, 'note', repeat('x', {PAYLOAD}))
             FROM generate_series(1, {rows}) n;
             VACUUM ANALYZE bulkhead_outbox; CHECKPOINT;"
        );
        sql(self.application.owner_url(), &script)?;
        Ok(())
    }

    /// Rows that are left.
    fn left(&self) -> Result<usize, Failure> {
        Ok(sql(self.application.owner_url(), "SELECT count(*) FROM bulkhead_outbox;")?.parse()?)
    }

    async fn bare(&self) -> Result<(), Failure> {
        self.fill()?;
        let outbox = Outbox::new(self.application.host_url(), Table::default(), "bare")?;
        let share = Share { rows: self.batch, bytes: 16 << 20, row_bytes: 1 << 20 };
        let began = Instant::now();
        loop {
            let ids: Vec<i64> = outbox.next(share, &[], &[]).await?.iter().map(|row| row.id).collect();
            if ids.is_empty() {
                break;
            }
            outbox.done(&ids).await?;
        }
        println!("{:>8} {:>9.0} rows/s", "bare", self.rows as f64 / began.elapsed().as_secs_f64());
        Ok(())
    }

    async fn source(&self, name: &str) -> Result<(), Failure> {
        self.fill()?;
        let mut options = Options::new(name, self.application.host_url().into());
        options.batch = self.batch;
        let source = OutboxSource::new(options, Arc::clone(&self.store), self.inbox.clone())?;
        let stop = CancellationToken::new();
        let began = Instant::now();
        let running = tokio::spawn(source.run(stop.clone()));
        // When how many were left, as it went.
        let mut seen = vec![(Duration::ZERO, self.rows)];
        while seen.last().is_some_and(|(_, left)| *left > 0) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            seen.push((began.elapsed(), self.left()?));
        }
        let whole = rate(&seen);
        let first: Vec<_> = seen.iter().copied().filter(|(_, left)| *left >= self.rows * 2 / 3).collect();
        let last: Vec<_> = seen.iter().copied().filter(|(_, left)| *left <= self.rows / 3).collect();
        println!("{name:>8} {whole:>9.0} rows/s ({:.0} at first, {:.0} in the end)", rate(&first), rate(&last));
        stop.cancel();
        running.await?;
        Ok(())
    }
}

fn rate(seen: &[(Duration, usize)]) -> f64 {
    let (Some((began, before)), Some((ended, after))) = (seen.first(), seen.last()) else { return 0.0 };
    (before - after) as f64 / (*ended - *began).as_secs_f64().max(f64::MIN_POSITIVE)
}

/// A session that wrote something, looked around, and does nothing more.
fn idle(url: &str) -> Result<Child, Failure> {
    let mut child = Command::new(programs::postgres()?.join("psql"))
        .args(["--no-psqlrc", "--quiet", "--output=/dev/null", url])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().ok_or("its input is not there")?;
    writeln!(input, "CREATE TABLE elsewhere (n INT); BEGIN ISOLATION LEVEL REPEATABLE READ;")?;
    writeln!(input, "INSERT INTO elsewhere VALUES (1); SELECT count(*) FROM bulkhead_outbox;")?;
    child.stdin = Some(input);
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction';";
    while sql(url, open)? == "0" {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(child)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next = |usual: usize| numbers.next().unwrap_or(Ok(usual));
    let (rows, tenants, batch) = (next(200_000)?, next(100)?.max(1), u32::try_from(next(500)?)?);
    let server = Postgres::start(PostgresOptions::default())?;
    let (application, own) = (server.database()?, server.database()?);
    postgres::migrate(own.owner_url(), own.host_url(), SHARDS).await?;
    let store = postgres::Postgres::open(postgres::Options::new(own.host_url())).await?;
    let store: Store = Arc::new(store);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for number in 0..tenants {
        let name = format!("tenant-{number}");
        store.operator_create_tenant(&format!("ten_{number}"), &name, clock.now()).await?;
    }
    let dispatch = dispatch::Handle::new(store.host_shards(), Arc::default(), Bus::local());
    let limiter = Limiter::new(Quotas::default(), Arc::clone(&store), Arc::clone(&clock), dispatch.clone(), None);
    let limits = inbox::Limits::default();
    let inbox = Inbox::new(Arc::clone(&store), clock, dispatch, Live::default(), limiter, limits, 1_000);
    let grants = "GRANT SELECT, DELETE ON bulkhead_outbox TO bulkhead_host;
                  GRANT INSERT ON bulkhead_outbox_rejected TO bulkhead_host;";
    sql(application.owner_url(), &format!("{SCHEMA}\n{grants}"))?;
    println!("{rows} rows of {tenants} tenants, {batch} a batch");
    let bench = Bench { application, inbox, store, rows, tenants, batch };
    bench.bare().await?;
    bench.source("source").await?;
    let mut idle = idle(bench.application.owner_url())?;
    bench.source("idle").await?;
    idle.kill()?;
    idle.wait()?;
    Ok(())
}
