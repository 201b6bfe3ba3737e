//! The backend for several nodes: one Postgres, which is the truth.
//!
//! - Appends of one node that come at the same time go in one call ([`appends`]), and so do looks of live streams
//!   ([`tails`]); commits run beside each other, each in
//!   one call of one function: the database's own group commit shares the disk's syncs among all of them.
//! - A call is a transaction of its own, so that no lock waits for a node's answer: a node that is stopped in the middle
//!   holds nobody up. The few transactions of several statements are cut off by the server if their node falls silent.
//! - Nothing is remembered of what other nodes may change.
//!
//! ```no_run
//! # async fn example() -> bulkhead_store::Result<()> {
//! use bulkhead_store::postgres::{Options, Postgres};
//!
//! let postgres = Postgres::open(Options::new("postgres://bulkhead_host@localhost/bulkhead")).await?;
//! let store: bulkhead_store::Store = std::sync::Arc::new(postgres.clone());
//! postgres.close().await;
//! # Ok(()) }
//! ```
//!
//! # Who may what
//!
//! The tables belong to an owner, who makes them ([`migrate`]) and does nothing else. The host's own role owns nothing
//! and cannot bypass row-level security: [`Postgres::open`] refuses a role that could. What belongs to a tenant is reached
//! in a transaction that names the tenant, and shows that tenant's rows alone; what works across tenants is a function
//! of the owner's. See the migrations for the rest.
//!
//! # Order
//!
//! Positions come from one sequence, and within a tenant they become visible in order: who gives positions out holds the
//! tenant's turn (an advisory lock, 128 of them) until its transaction has ended. So a reader never waits for anybody
//! else's transaction, and never skips one of ours.
//!
//! # When a write is durable
//!
//! When the server says so: with its defaults (`fsync`, `synchronous_commit = on`) that survives a power cut. After a
//! failover to a replica that is behind, the last moments are missing, unless `synchronous_standby_names` names it.
//!
//! Reading order: `open` and `migrations`, `session` and `text` (statements and their parameters), `appends`, `tails`, `commit`, then one file
//! per port.

mod appends;
mod catalogue;
mod commit;
mod deliveries;
mod fault;
mod floor;
mod leases;
mod log;
mod migrations;
mod open;
mod plugins;
mod recordings;
mod releases;
mod retired;
mod runs;
mod session;
mod settings;
mod state;
mod tails;
mod text;
mod timers;
mod unfinished;
mod upkeep;
mod usage;
mod work;

use std::sync::Arc;

use bulkhead_domain::id::TenantId;
use sqlx::postgres::PgRow;

use self::appends::Appends;
use self::floor::Floor;
pub use self::migrations::Step;
pub use self::migrations::migrate;
pub use self::open::Options;
pub use self::open::check_url;
use self::session::ANSWER;
use self::session::PATIENT;
use self::session::Session;
use self::session::Sessions;
use self::tails::Tails;
use self::text::Args;
use crate::Backend;
use crate::Result;
use crate::look::Mark;
use crate::row::Columns;

/// A handle on the store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Postgres(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sessions: Arc<Sessions>,
    appends: Appends,
    tails: Tails,
    floor: Floor,
    /// Where the next look for due deliveries begins.
    mark: Mark,
    shards: u16,
}

impl Backend for Postgres {}

impl Postgres {
    /// Opens the store. Its tables must be there and be no newer than this program ([`migrate`] makes them), and the role
    /// must be one that row-level security binds.
    pub async fn open(options: Options) -> Result<Self> {
        let (pool, shards) = open::open(&options).await?;
        let sessions = Sessions::new(pool, options.connections, options.patience);
        let appends = Appends::start(Arc::clone(&sessions), options.appenders);
        let tails = Tails::start(Arc::clone(&sessions), options.connections);
        Ok(Self(Arc::new(Inner { sessions, appends, tails, floor: Floor::default(), mark: Mark::default(), shards })))
    }

    /// Ends all connections, after what is under way.
    pub async fn close(&self) {
        self.0.appends.close().await;
        self.0.tails.close().await;
        self.0.sessions.close().await;
    }

    /// One call of one of the store's functions, or a look at what belongs to no tenant.
    async fn call(&self, sql: &'static str, bind: impl FnOnce(&mut Args)) -> Result<Vec<PgRow>> {
        let mut args = Args::default();
        bind(&mut args);
        self.0.sessions.fetch(sql, args).await
    }

    /// A call that answers with a number, and that may take its time.
    async fn count(&self, sql: &'static str, bind: impl FnOnce(&mut Args)) -> Result<u64> {
        let mut args = Args::default();
        bind(&mut args);
        let rows = self.0.sessions.take(PATIENT).await?.fetch(sql, args).await?;
        rows.first().map_or(Ok(0), |row| Columns::new(row).count())
    }

    /// One statement over a tenant's rows.
    async fn read(&self, tenant: TenantId, sql: &'static str, bind: impl FnOnce(&mut Args)) -> Result<Vec<PgRow>> {
        let mut tx = self.begin(tenant).await?;
        let rows = tx.fetch(sql, bind).await?;
        tx.end().await?;
        Ok(rows)
    }

    /// A transaction over a tenant's rows.
    async fn begin(&self, tenant: TenantId) -> Result<Transaction> {
        let mut tx = Transaction { session: self.0.sessions.take(ANSWER).await? };
        tx.session.begin().await?;
        tx.execute("SELECT be_tenant($1)", |args| _ = args.int(tenant.0)).await?;
        Ok(tx)
    }
}

/// A transaction over the rows of one tenant; without [`Transaction::end`] nothing of it happened.
struct Transaction {
    session: Session,
}

impl Transaction {
    async fn fetch(&mut self, sql: &'static str, bind: impl FnOnce(&mut Args)) -> Result<Vec<PgRow>> {
        let mut args = Args::default();
        bind(&mut args);
        self.session.fetch(sql, args).await
    }

    /// Says how many rows changed.
    async fn execute(&mut self, sql: &'static str, bind: impl FnOnce(&mut Args)) -> Result<u64> {
        let mut args = Args::default();
        bind(&mut args);
        self.session.execute(sql, args).await
    }

    /// Keeps what other transactions do to the tenant's runs and deliveries away until this one ends.
    async fn have(&mut self, tenant: TenantId) -> Result<()> {
        self.execute("SELECT have_tenant($1)", |args| _ = args.int(tenant.0)).await?;
        Ok(())
    }

    /// Raises the version of the tenant's settings. `NotFound` if there is no such tenant.
    async fn settings_changed(&mut self, tenant: TenantId) -> Result<()> {
        let sql = "UPDATE tenants SET settings = settings + 1 WHERE id = $1";
        match self.execute(sql, |args| _ = args.int(tenant.0)).await? {
            0 => Err(no_tenant(tenant)),
            _ => Ok(()),
        }
    }

    async fn end(self) -> Result<()> {
        self.session.commit().await
    }
}

/// The tenant named does not exist.
fn no_tenant(tenant: TenantId) -> crate::Error {
    crate::Error::NotFound { what: "tenant", name: tenant.0.to_string() }
}
