//! How close the Postgres backend comes to the database under it, and whether it stays as fast beside a stranger's open
//! transaction. Runs on a server of its own that waits for the disk (`fsync` on).
//!
//! `cargo run --release -p bulkhead-store --example postgres_bench [append|commit|idle|alone|queues|all] [SECONDS] [BYTES]`
//!
//! - `append`: [`host_append`] of many clients beside bare inserts of the same rows (20 s each turn and side).
//! - `commit`: append, read and commit of full batches, and the round trips that takes (20 s).
//! - `idle`: the same for a long time (60 s), while two strangers are idle in transactions: one holds a snapshot, one has
//!   written.
//! - `alone`: that without the strangers.
//! - `queues`: beside the strangers, with deliveries, timers and retries besides.
//!
//! The last three take the size of a payload (1,024): what half an hour leaves on the disk is tens of gigabytes. They end by
//! saying what a server of less memory would have to read again: the sizes of the indices.
//!
//! The server is set as `docs/nodes.md` advises.
//!
//! [`host_append`]: bulkhead_store::log::Log::host_append

mod append;
mod commit;
mod idle;
mod load;

use std::time::Duration;

use bulkhead_services::Database;
use bulkhead_services::Postgres as Cluster;
use bulkhead_services::PostgresOptions;
use bulkhead_store::postgres::Options;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::postgres::migrate;

/// Whatever goes wrong ends the bench.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A server and one database on it.
struct Ground {
    // Before the server, so that it is dropped while that runs.
    database: Database,
    cluster: Cluster,
}

impl Ground {
    /// Durable, and set as is advised: a checkpoint in the middle of a turn would also hit one side and not the other.
    async fn new() -> Result<Self, Failure> {
        let cluster =
            Cluster::start(PostgresOptions { shared_buffers: quarter_of_memory()?, ..PostgresOptions::default() })?;
        let database = cluster.database()?;
        let settings = "ALTER SYSTEM SET max_wal_size = '8GB'; ALTER SYSTEM SET checkpoint_timeout = '15min';
                        SELECT pg_reload_conf();";
        bulkhead_services::sql(database.owner_url(), settings)?;
        migrate(database.owner_url(), database.host_url(), 16).await?;
        Ok(Self { database, cluster })
    }

    async fn store(&self) -> Result<Postgres, Failure> {
        Ok(Postgres::open(Options::new(self.database.host_url())).await?)
    }
}

/// As the server takes it: megabytes.
fn quarter_of_memory() -> Result<String, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    let kilobytes: u64 = total.ok_or("how much memory there is cannot be read")?;
    Ok(format!("{}MB", kilobytes / 1_024 / 4))
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let part = std::env::args().nth(1).unwrap_or_else(|| "all".to_owned());
    let seconds = std::env::args().nth(2).map(|text| text.parse()).transpose()?.map(Duration::from_secs);
    let bytes = std::env::args().nth(3).map(|text| text.parse()).transpose()?.unwrap_or(load::PAYLOAD);
    let wanted = |name: &str| part == name || part == "all";
    let usual = |usual: u64| seconds.unwrap_or(Duration::from_secs(usual));
    if wanted("append") {
        append::run(usual(20)).await?;
    }
    if wanted("commit") {
        commit::run(usual(20)).await?;
    }
    if wanted("idle") {
        idle::run(usual(60), bytes, idle::Kind { strangers: true, queues: false }).await?;
    }
    if wanted("alone") {
        idle::run(usual(60), bytes, idle::Kind { strangers: false, queues: false }).await?;
    }
    if wanted("queues") {
        idle::run(usual(60), bytes, idle::Kind { strangers: true, queues: true }).await?;
    }
    Ok(())
}
