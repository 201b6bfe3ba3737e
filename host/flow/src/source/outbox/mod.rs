//! An outbox as a source: a table in the platform's own application's database, whose rows are events of many tenants.
//!
//! ```text
//!            ┌───────────── rows that are under way are left out ─────────────┐
//!            ▼                                                                │
//! lowest visible rows ─▶ by tenant ─▶ inbox, all tenants at once ──┬─ durable, or known ─▶ DELETE
//!            ▲                                                     ├─ no event, no tenant ─▶ <table>_rejected
//!            └──────── without the tenants that wait ◀─────────────┴─ refused for now
//! ```
//!
//! - [`intake`] reads, hands in, deletes; while one batch is made durable, the next is read. Any failure begins anew with
//!   what the table has, so nothing depends on how far it came.
//! - [`batch`] divides a batch among its tenants, [`row`] says what a row means, [`held`] which tenants wait.
//! - [`upkeep`] looks at the backlog; what it learns steers nothing.
//!
//! Whose an event is stands in a column, unlike in other sources: only the platform's own application writes the table.
//!
//! # Order
//!
//! Rows of a tenant are taken in the order that [`bulkhead_store::outbox`] describes. A tenant that cannot take now keeps
//! its rows, and its order; others go on. One node at a time should run the source: two at once lose and double nothing,
//! but may overtake each other.
//!
//! # At least once
//!
//! A row that was not deleted is read again, and the inbox knows it by its (source, id): those it names, or else the
//! source's own and the row's number. Numbers that come again, after the table was made anew or its sequence set back,
//! would be taken for events that are there: then give the source another name.

mod batch;
mod held;
mod intake;
mod row;
mod upkeep;

use std::time::Duration;

use bulkhead_store::Store;
use bulkhead_store::catalogue::Tenant;
use bulkhead_store::outbox;
use bulkhead_store::outbox::Outbox;
use bulkhead_store::outbox::Table;
use moka::future::Cache;
use secrecy::ExposeSecret as _;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::inbox::Inbox;
use crate::source::Reporter;
use crate::source::Status;

/// A tenant's switch takes effect after this long at most.
const TENANT_AGE: Duration = Duration::from_millis(100);
const TENANTS_MAX: u64 = 10_000;

/// Which table, and how it is read.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source's name, unique in the installation: labels its metrics, and tells its rows from those of others. Keep it
    /// when other things change.
    pub name: String,
    /// The application's database. May hold a password.
    pub url: SecretString,
    /// The table in it.
    pub table: Table,
    /// Rows per look, at most.
    pub batch: u32,
    /// How long no look is made if nobody tells of new rows.
    pub poll: Duration,
}

impl Options {
    /// What suits most tables.
    #[must_use]
    pub fn new(name: impl Into<String>, url: SecretString) -> Self {
        Self { name: name.into(), url, table: Table::default(), batch: 500, poll: Duration::from_secs(1) }
    }
}

/// The service.
pub struct OutboxSource {
    options: Options,
    outbox: Outbox,
    /// The event source of rows that name none.
    origin: String,
    store: Store,
    inbox: Inbox,
    /// By what the column says.
    tenants: Cache<String, Tenant>,
    reporter: Reporter,
}

impl OutboxSource {
    /// A source that is not running yet. Fails only if the address is none.
    pub fn new(options: Options, store: Store, inbox: Inbox) -> Result<Self, outbox::Error> {
        let outbox = Outbox::new(options.url.expose_secret(), options.table.clone(), &options.name)?;
        let origin = format!("outbox:{}", options.name);
        let tenants = Cache::builder().max_capacity(TENANTS_MAX).time_to_live(TENANT_AGE).build();
        let reporter = Reporter::new(&options.name);
        Ok(Self { options, outbox, origin, store, inbox, tenants, reporter })
    }

    /// What it is at, to be watched.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.reporter.subscribe()
    }

    /// Takes in what comes until `stop`. A batch that is being made durable then is ended and deleted.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.intake(&stop) => {}
            () = self.upkeep() => {}
        }
        self.reporter.stopped();
    }

    fn count(&self, what: &'static str, number: usize) {
        if number > 0 {
            metrics::counter!(what, "source" => self.options.name.clone()).increment(number as u64);
        }
    }

    fn gauge(&self, what: &'static str, value: u64) {
        metrics::gauge!(what, "source" => self.options.name.clone()).set(value as f64);
    }
}
