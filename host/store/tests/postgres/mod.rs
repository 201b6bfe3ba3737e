//! A store in a database of its own, and what suites of this backend have at hand.

#![allow(dead_code, reason = "each suite uses a part of it")]

pub mod furnish;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_services::Database;
use bulkhead_services::shared;
use bulkhead_services::sql;
use bulkhead_store::Store;
use bulkhead_store::catalogue::Tenants as _;
use bulkhead_store::conformance::Ground;
use bulkhead_store::log::NewEvent;
use bulkhead_store::postgres::Options;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::postgres::migrate;
use bulkhead_store::recordings::Recorded;
use bulkhead_store::work::Batch;
use bulkhead_store::work::BatchLimits;
use bulkhead_store::work::Commit;
use bytes::Bytes;
use sqlx::Connection as _;
use sqlx::PgConnection;

/// As many as an embedded store has.
pub const SHARDS: u16 = 16;

/// The time of tests.
pub const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

/// What takes longer never comes.
pub const LONG: Duration = Duration::from_secs(60);

/// Longer than any test takes.
pub const LEASE: Duration = Duration::from_secs(3_600);

/// As much as there is.
pub const ALL: BatchLimits = BatchLimits { events: 10_000, bytes: 1 << 30, due: 10_000 };

/// A database on the server that all tests share.
pub struct Server {
    pub database: Database,
    open: Option<Postgres>,
}

impl Server {
    pub fn new() -> Self {
        let server = shared::postgres().expect("because the server's programs are there");
        Self { database: server.database().expect("because the server makes databases"), open: None }
    }

    /// Connects once more, as another node does.
    pub async fn connect(&self) -> Postgres {
        made(&self.database).await;
        open(self.database.host_url()).await
    }

    /// Whole rows of every table, as the owner sees them; segments by way of the table that they belong to.
    pub fn dump(&self) -> String {
        dump(&self.database, "true")
    }

    /// Runs a script as the owner.
    pub fn owner(&self, script: &str) -> String {
        sql(self.database.owner_url(), script).expect("because the owner may do that")
    }
}

#[async_trait]
impl Ground for Server {
    async fn open(&mut self) -> Store {
        let store = self.connect().await;
        self.open = Some(store.clone());
        Arc::new(store)
    }

    async fn close(&mut self) {
        if let Some(store) = self.open.take() {
            store.close().await;
        }
    }

    async fn turn_over(&mut self) {
        self.owner("SET search_path = bulkhead; UPDATE segments SET opened = opened - 86400000001; SELECT grow()");
    }
}

/// Makes the tables.
pub async fn made(database: &Database) {
    migrate(database.owner_url(), database.host_url(), SHARDS).await.expect("because the database is empty or ours");
}

/// Opens a store with few connections: many tests share the server's.
pub async fn open(url: &str) -> Postgres {
    let options = Options { connections: 4, ..Options::new(url) };
    Postgres::open(options).await.expect("because the tables are there")
}

/// A bare connection.
pub async fn bare(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("because the server runs")
}

/// Runs a script on a bare connection, which has to work.
pub async fn run(conn: &mut PgConnection, script: &str) {
    attempt(conn, script).await.expect("because nothing is wrong with the script");
}

/// Runs a script on a bare connection. Says how many rows it gave or changed, or what the server said against it.
pub async fn attempt(conn: &mut PgConnection, script: &str) -> Result<u64, String> {
    let script = sqlx::AssertSqlSafe(script.to_owned());
    let done = sqlx::raw_sql(script).execute(conn).await;
    done.map(|done| done.rows_affected()).map_err(|error| error.to_string())
}

/// The rows of every table that has a tenant, as its owner sees them.
pub fn dump_of(database: &Database, tenant: TenantId) -> String {
    dump(database, &format!("coalesce(to_jsonb(t) ->> 'tenant', to_jsonb(t) ->> 'id') = '{}'", tenant.0))
}

fn dump(database: &Database, filter: &str) -> String {
    let filter = filter.replace('\'', "''");
    let script = format!(
        "SELECT format('SELECT %L, t::TEXT FROM bulkhead.%I t WHERE {filter} ORDER BY 2', c.relname, c.relname)
         FROM pg_class c WHERE c.relnamespace = 'bulkhead'::REGNAMESPACE AND c.relkind IN ('r', 'p')
         AND NOT c.relispartition AND c.relname <> '_sqlx_migrations' ORDER BY c.relname
         \\gexec\n"
    );
    sql(database.owner_url(), &script).expect("because the owner sees everything")
}

/// A new tenant of that name.
pub async fn tenant(store: &Postgres, name: &str) -> TenantId {
    store.operator_create_tenant(&format!("ten_{name}"), name, NOW).await.expect("because the name is free").id
}

/// Where all events go that ask for nothing else.
pub fn home(tenant: TenantId) -> Shard {
    Shard::of(tenant, "", SHARDS, 1)
}

/// An event in the tenant's home.
pub fn event(tenant: TenantId, id: &str) -> NewEvent {
    let event = Event {
        id: id.to_owned(),
        source: "/source".to_owned(),
        kind: "test.happened".to_owned(),
        subject: None,
        time: NOW,
        key: None,
        correlation: id.to_owned(),
        causation: None,
        content_type: "application/json".to_owned(),
        data: Bytes::from_static(b"{}"),
        attributes: Vec::new(),
    };
    NewEvent { tenant, shard: home(tenant), recorded: NOW, lineage: Lineage { hops: 0, budget: 1_000 }, event }
}

/// A commit in the tenant's home that moves the cursor, and does nothing else yet.
pub fn commit(tenant: TenantId, fence: Fence, from: Position, to: Position) -> Commit {
    Commit {
        tenant,
        shard: home(tenant),
        fence,
        cursor_from: from,
        cursor_to: to,
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
        unfinished: Vec::new(),
        usage: Vec::new(),
        recordings: Recorded::default(),
    }
}

/// A commit that works a batch off.
pub fn commit_of(tenant: TenantId, fence: Fence, batch: &Batch) -> Commit {
    let to = batch.events.last().map_or(batch.cursor, |event| event.position);
    Commit { turn: Some(batch.turn), ..commit(tenant, fence, batch.cursor, to) }
}

/// Waits until something holds; gives up after [`LONG`].
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < LONG, "{what}: not within {LONG:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
