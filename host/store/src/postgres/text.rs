//! Statements and their parameters. Every text is a constant of this program; values only ever travel as parameters, and
//! many rows travel as lists of their columns, side by side.

use std::borrow::Cow;

use sqlx::Arguments as _;
use sqlx::PgConnection;
use sqlx::postgres::PgArguments;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::Result;
use crate::postgres::fault;

/// Parameters, in order.
#[derive(Default)]
pub(super) struct Args(PgArguments);

impl Args {
    /// As the driver takes them.
    pub(super) fn into_inner(self) -> PgArguments {
        self.0
    }

    fn add<'t, T: sqlx::Encode<'t, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(&mut self, value: T) -> &mut Self {
        self.0.add(value).expect("because numbers, texts and bytes always encode");
        self
    }

    pub(super) fn int(&mut self, value: i64) -> &mut Self {
        self.add(value)
    }

    pub(super) fn int_opt(&mut self, value: Option<i64>) -> &mut Self {
        self.add(value)
    }

    pub(super) fn flag(&mut self, value: bool) -> &mut Self {
        self.add(value)
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.add(plain(value))
    }

    pub(super) fn text_opt(&mut self, value: Option<&str>) -> &mut Self {
        self.add(value.map(plain))
    }

    pub(super) fn blob(&mut self, value: &[u8]) -> &mut Self {
        self.add(value)
    }

    pub(super) fn uuid(&mut self, value: [u8; 16]) -> &mut Self {
        self.add(Uuid::from_bytes(value))
    }

    pub(super) fn ints(&mut self, values: impl Iterator<Item = i64>) -> &mut Self {
        self.add(values.collect::<Vec<_>>())
    }

    pub(super) fn int_opts(&mut self, values: impl Iterator<Item = Option<i64>>) -> &mut Self {
        self.add(values.collect::<Vec<_>>())
    }

    pub(super) fn reals(&mut self, values: impl Iterator<Item = f64>) -> &mut Self {
        self.add(values.collect::<Vec<_>>())
    }

    pub(super) fn texts<'t>(&mut self, values: impl Iterator<Item = &'t str>) -> &mut Self {
        self.add(values.map(plain).collect::<Vec<_>>())
    }

    pub(super) fn text_opts<'t>(&mut self, values: impl Iterator<Item = Option<&'t str>>) -> &mut Self {
        self.add(values.map(|value| value.map(plain)).collect::<Vec<_>>())
    }

    pub(super) fn blobs<'t>(&mut self, values: impl Iterator<Item = &'t [u8]>) -> &mut Self {
        self.add(values.collect::<Vec<_>>())
    }

    pub(super) fn blob_opts<'t>(&mut self, values: impl Iterator<Item = Option<&'t [u8]>>) -> &mut Self {
        self.add(values.collect::<Vec<_>>())
    }

    pub(super) fn uuids(&mut self, values: impl Iterator<Item = [u8; 16]>) -> &mut Self {
        self.add(values.map(Uuid::from_bytes).collect::<Vec<_>>())
    }
}

/// Postgres has no texts with a zero in them. Names cannot have one; in what a failure says, it is shown.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{2400}")) } else { Cow::Borrowed(text) }
}

/// Counters are unsigned outside and signed in the database.
pub(super) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// One statement; says how many rows changed.
pub(super) async fn execute(conn: &mut PgConnection, sql: &'static str, args: Args) -> Result<u64> {
    let done = sqlx::query_with(sql, args.0).execute(conn).await;
    Ok(done.map_err(fault::outward)?.rows_affected())
}

/// One statement, and the rows that come.
pub(super) async fn fetch(conn: &mut PgConnection, sql: &'static str, args: Args) -> Result<Vec<PgRow>> {
    sqlx::query_with(sql, args.0).fetch_all(conn).await.map_err(fault::outward)
}
