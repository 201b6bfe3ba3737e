//! Moving a store from SQLite to Postgres: everything in it, offline, as a whole or not at all.
//!
//! Rows are read from SQLite in the one form that both databases have them in ([`value`]), sent in batches, and read back
//! from Postgres before the transaction is committed: the copy counts only if each table has as many rows as the
//! original, and the same digest. So a failure anywhere leaves the target as empty as it was.
//!
//! Reading order: [`table`] (what is copied), [`value`] (rows and their digest), [`lanes`] (what becomes of shards), then
//! the two sides, [`source`] and [`target`].
//!
//! Does not: copy files beside the database, such as a host's keys; or back.

mod lanes;
mod source;
mod table;
mod target;
mod value;

use std::path::Path;

use futures_util::TryStreamExt as _;

use self::lanes::Lanes;
use self::source::Highest;
use self::source::Source;
use self::table::TABLES;
use self::table::Table;
use self::target::Lists;
use self::target::Target;
use self::value::Tally;

/// Rows and bytes of one statement: enough for a round trip not to count, and little beside a server's memory.
const ROWS_MAX: usize = 2_000;
const BYTES_MAX: usize = 4 << 20;

/// Why there is no copy. The target is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of the two stores is not as it must be.
    #[error("{0}")]
    Refused(String),
    /// A row that Postgres cannot keep, or that is damaged.
    #[error("a row of {table} cannot be copied ({row}): {why}")]
    Row {
        /// The table.
        table: &'static str,
        /// The columns that name the row.
        row: String,
        /// What is wrong with it.
        why: String,
    },
    /// SQLite failed.
    #[error("the SQLite store cannot be read")]
    Source(#[source] sqlx::Error),
    /// Postgres failed.
    #[error("{doing}")]
    Target {
        /// At what.
        doing: String,
        /// What it said.
        #[source]
        source: sqlx::Error,
    },
    /// The SQLite store cannot be opened, or the target's address is none.
    #[error(transparent)]
    Store(#[from] crate::Error),
}

/// What this gives back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A table here and there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// Its name on Postgres; `sequences` for the numbers that are given out next.
    pub what: &'static str,
    /// Rows in SQLite.
    pub source: u64,
    /// Rows in Postgres.
    pub target: u64,
    /// Whether the same is in both.
    pub is_equal: bool,
}

/// Hears how far it is: what is done to which table, and how many rows of it are done.
pub type Progress<'p> = &'p mut (dyn FnMut(&'static str, &'static str, u64) + Send);

/// The version of the tables of a store on Postgres, for a role that may look at them; 0 if there are none.
pub async fn version(url: &str) -> Result<i64> {
    target::version(url).await
}

/// Copies the store in a file into an empty one on Postgres, whose owner is in the address. Gives how the two compare,
/// table by table; if any differs, nothing was copied. Nobody may have either of them open.
pub async fn copy(from: &Path, to: &str, progress: Progress<'_>) -> Result<Vec<Compared>> {
    let mut source = Source::open(from).await?;
    let copied = copy_all(&mut source, to, progress).await;
    source.close().await;
    copied
}

/// Compares the two. True to the copy only until a host has worked on the target.
pub async fn verify(from: &Path, to: &str, progress: Progress<'_>) -> Result<Vec<Compared>> {
    let mut source = Source::open(from).await?;
    let compared = compare_all(&mut source, to, progress).await;
    source.close().await;
    compared
}

async fn copy_all(source: &mut Source, to: &str, progress: Progress<'_>) -> Result<Vec<Compared>> {
    let mut target = Target::open(to).await?;
    target.begin_writing().await?;
    let highest = source.highest().await?;
    target.make_room(highest).await?;
    let mut tallies = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        tallies.push(send(source, &mut target, table, progress).await?);
    }
    let compared = compare(&mut target, &tallies, highest, progress).await?;
    if compared.iter().all(|table| table.is_equal) {
        target.commit().await?;
    } else {
        target.close().await?;
    }
    Ok(compared)
}

async fn compare_all(source: &mut Source, to: &str, progress: Progress<'_>) -> Result<Vec<Compared>> {
    let mut target = Target::open(to).await?;
    target.begin_reading().await?;
    let lanes = Lanes { from: source.shards, to: target.shards };
    let highest = source.highest().await?;
    let mut tallies = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        progress("reading", table.name, 0);
        let mut tally = Tally::default();
        let mut rows = source.rows(table, lanes);
        while let Some(row) = rows.try_next().await? {
            tally.add(&row);
            if tally.rows.is_multiple_of(ROWS_MAX as u64) {
                progress("reading", table.name, tally.rows);
            }
        }
        tallies.push(tally);
    }
    let compared = compare(&mut target, &tallies, highest, progress).await?;
    target.close().await?;
    Ok(compared)
}

/// Copies a table. Gives what was in it.
async fn send(
    source: &mut Source,
    target: &mut Target,
    table: &'static Table,
    progress: Progress<'_>,
) -> Result<Tally> {
    progress("copying", table.name, 0);
    let lanes = Lanes { from: source.shards, to: target.shards };
    let mut tally = Tally::default();
    let mut lists = Lists::of(table);
    let mut rows = source.rows(table, lanes);
    while let Some(row) = rows.try_next().await? {
        tally.add(&row);
        lists.add(row);
        if lists.rows >= ROWS_MAX || lists.bytes >= BYTES_MAX {
            target.add(table, std::mem::replace(&mut lists, Lists::of(table))).await?;
            progress("copying", table.name, tally.rows);
        }
    }
    if lists.rows > 0 {
        target.add(table, lists).await?;
    }
    Ok(tally)
}

async fn compare(
    target: &mut Target,
    tallies: &[Tally],
    highest: Highest,
    progress: Progress<'_>,
) -> Result<Vec<Compared>> {
    let mut compared = Vec::with_capacity(TABLES.len() + 1);
    for (table, here) in TABLES.iter().zip(tallies) {
        progress("checking", table.name, 0);
        let there = target.tally(table).await?;
        compared.push(Compared { what: table.name, source: here.rows, target: there.rows, is_equal: *here == there });
    }
    let is_equal = target.goes_on_beyond(highest).await?;
    compared.push(Compared { what: "sequences", source: 3, target: 3, is_equal });
    Ok(compared)
}
