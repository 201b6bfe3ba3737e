//! The outbox: a table in an application's own database, where it writes events in its own transactions.
//!
//! This is no part of the store and no [`Backend`](crate::Backend): it is somebody else's queue, which a source drains. It
//! is here because everything that speaks SQL is.
//!
//! # Order
//!
//! Rows are taken by what is visible, never by a cursor: each look reads the lowest ids there are, and rows are deleted
//! once they are durable elsewhere. A transaction that commits late, with lower ids than others before it, is found by a
//! later look, so nothing is ever skipped, and nobody's open transaction holds anybody up. Of two transactions where one
//! began to write after the other had committed, the first one's rows come first: its ids are lower, and whoever sees the
//! second's rows sees the first's too. Transactions that overlap have no order, but each row order within them.
//!
//! What lies below [`floor`] is left out of looks, because nothing can become visible there any more.
//!
//! # Connections
//!
//! One each for reading, deleting, and listening, made when they are needed. Whatever fails ends its connection, and the
//! next call makes another. Every statement is a transaction of its own and depends on no setting of its session, so a
//! pooler may stand between.
//!
//! Reading order: [`row`] (what comes), [`table`] (the statements), `line` (a connection), `wake`, `floor`.

mod fault;
mod floor;
mod line;
mod row;
mod table;
mod wake;

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::Row as _;
use sqlx::postgres::PgConnectOptions;

pub use self::fault::Error;
use self::floor::Floor;
use self::line::Line;
pub use self::row::Body;
pub use self::row::Fields;
pub use self::row::Row;
pub use self::table::Table;
use self::wake::Wake;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Makes the tables. For whoever owns the application's database; may run again.
pub const SCHEMA: &str = include_str!("../../../../deploy/outbox.sql");

/// How much one look reads.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Rows at most.
    pub rows: u32,
    /// Bytes of rows after which no further one is read.
    pub bytes: u64,
    /// A row of more bytes comes without its content.
    pub row_bytes: u64,
}

/// A row that cannot be taken in, and why.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The row's.
    pub id: i64,
    /// For machines.
    pub code: &'static str,
    /// For people.
    pub reason: String,
}

/// What waits in the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Rows; not counted beyond [`COUNTED`].
    pub rows: u64,
    /// How long ago the oldest of them was written, in whole seconds, by the database's clock.
    pub oldest_seconds: Option<u64>,
}

/// More rows than these are not counted.
pub const COUNTED: u32 = 100_000;

/// A handle on one table.
pub struct Outbox {
    table: Table,
    reading: Line,
    deleting: Line,
    wake: Wake,
    floor: Floor,
}

impl fmt::Debug for Outbox {
    /// Without the way there, which has a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("table", &self.table.to_string()).finish_non_exhaustive()
    }
}

impl Outbox {
    /// For the table in the database at `url`, which names the role and how TLS is used (`sslmode`, `sslrootcert`). `name`
    /// is what the server's list of connections shows. Connects to nothing yet.
    pub fn new(url: &str, table: Table, name: &str) -> Result<Self> {
        // The error would show the URL, password included.
        let connect = PgConnectOptions::from_str(url).map_err(|_| Error::Url)?;
        let connect = connect.application_name(&format!("bulkhead {name}")).disable_statement_logging();
        Ok(Self {
            wake: Wake::new(connect.clone(), table.channel()),
            reading: Line::new(connect.clone()),
            deleting: Line::new(connect),
            table,
            floor: Floor::default(),
        })
    }

    /// The lowest rows there are, in their order, without those of `tenants` (as the column has them), and without `ids`.
    ///
    /// If a row cannot be read at all, those before it come; when it is the first, it comes alone, as
    /// [`Body::Unreadable`].
    pub async fn next(&self, share: Share, tenants: &[String], ids: &[i64]) -> Result<Vec<Row>> {
        let mut rows = share.rows.max(1);
        loop {
            match self.read(Share { rows, ..share }, tenants, ids).await {
                Err(Error::Data { reason }) if rows == 1 => return self.name_first(tenants, ids, &reason).await,
                Err(Error::Data { .. }) => rows /= 2,
                other => return other,
            }
        }
    }

    async fn read(&self, share: Share, tenants: &[String], ids: &[i64]) -> Result<Vec<Row>> {
        let query = self
            .table
            .next()
            .bind(self.floor.id())
            .bind(tenants)
            .bind(ids)
            .bind(i64::from(share.rows))
            .bind(number(share.row_bytes))
            .bind(number(share.bytes.max(1)));
        let rows = self.reading.fetch(query).await?;
        if let Some(row) = rows.last() {
            self.floor.saw(row.try_get(0).map_err(|error| self.reading.fault(error))?);
        }
        rows.iter().map(Row::read).collect()
    }

    async fn name_first(&self, tenants: &[String], ids: &[i64], reason: &str) -> Result<Vec<Row>> {
        let query = self.table.first().bind(self.floor.id()).bind(tenants).bind(ids);
        let rows = self.reading.fetch(query).await?;
        rows.iter().map(|row| Row::unreadable(row, reason)).collect()
    }

    /// Deletes rows that are durable elsewhere. Those that are gone already do not matter.
    pub async fn done(&self, ids: &[i64]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.deleting.fetch(self.table.delete().bind(ids)).await.map(drop)
    }

    /// Moves rows to the table of refused ones, in one transaction.
    pub async fn reject(&self, refusals: &[Refusal]) -> Result<()> {
        if refusals.is_empty() {
            return Ok(());
        }
        match self.put_aside(self.table.reject(), refusals).await {
            // A row that is beyond what JSON can hold: what names it can be kept.
            Err(Error::Data { .. }) => self.put_aside(self.table.reject_names(), refusals).await,
            other => other,
        }
    }

    async fn put_aside(&self, query: table::Query, refusals: &[Refusal]) -> Result<()> {
        let ids: Vec<i64> = refusals.iter().map(|refusal| refusal.id).collect();
        let codes: Vec<&str> = refusals.iter().map(|refusal| refusal.code).collect();
        // Postgres has no texts with a zero in them.
        let reasons: Vec<String> = refusals.iter().map(|refusal| refusal.reason.replace('\0', "\u{2400}")).collect();
        self.deleting.fetch(query.bind(ids).bind(codes).bind(reasons)).await.map(drop)
    }

    /// What waits now.
    pub async fn waiting(&self) -> Result<Waiting> {
        let query = self.table.waiting().bind(self.floor.id()).bind(i64::from(COUNTED));
        let rows = self.deleting.fetch(query).await?;
        let Some(row) = rows.first() else { return Ok(Waiting::default()) };
        let (rows, oldest): (i64, Option<i64>) = (
            row.try_get(0).map_err(|error| self.deleting.fault(error))?,
            row.try_get(1).map_err(|error| self.deleting.fault(error))?,
        );
        let unsigned = |value: i64| u64::try_from(value).unwrap_or_default();
        Ok(Waiting { rows: unsigned(rows), oldest_seconds: oldest.map(unsigned) })
    }

    /// Waits until rows may have come, or `limit` is over. If listening fails, that is a second at most; where a pooler
    /// lets it succeed and keeps the notifications away, it is always `limit`.
    pub async fn wait(&self, limit: Duration) {
        self.wake.wait(limit).await;
    }

    /// Raises the floor as far as it can be by now. To be called about once a second while rows come: it is what keeps
    /// looks short while a foreign transaction keeps deleted rows from being cleaned up.
    pub async fn raise_floor(&self) -> Result<()> {
        self.floor.raise(&self.reading, &self.table).await
    }

    /// Takes nothing about the table for granted any more: after a failure, it may be another one.
    pub fn begin_anew(&self) {
        self.floor.clear();
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
