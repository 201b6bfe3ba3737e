//! Statements over several rows: the only place where SQL text is made while the program runs.
//!
//! Every call of a statement goes to the connection's own thread and back, which costs about as much as inserting a
//! row. So rows go in together: [`Rows`] holds the text for 1, 2, 4, … [`ROWS_MAX`] rows and cuts a list into the
//! fewest such pieces. The sizes are few, so that every text is prepared once and found again in the statement
//! cache. All parts of a text are constants of this program; values only ever travel as parameters.

use std::sync::Arc;
use std::sync::OnceLock;

use sqlx::Arguments as _;
use sqlx::AssertSqlSafe;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteArguments;
use sqlx::sqlite::SqliteRow;

/// Rows of one statement. More save little and make prepared statements large.
pub(super) const ROWS_MAX: usize = 128;
const SIZES: usize = ROWS_MAX.ilog2() as usize + 1;

/// Parameters, in order.
#[derive(Default)]
pub(super) struct Args(SqliteArguments);

impl Args {
    fn with_capacity(values: usize) -> Self {
        let mut arguments = SqliteArguments::default();
        arguments.reserve(values, 0);
        Self(arguments)
    }

    fn add<'t, T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(&mut self, value: T) -> &mut Self {
        self.0.add(value).expect("because numbers, texts and bytes always encode");
        self
    }

    pub(super) fn int(&mut self, value: i64) -> &mut Self {
        self.add(value)
    }

    /// Counters are unsigned outside and signed in SQLite.
    pub(super) fn count(&mut self, value: u64) -> &mut Self {
        self.add(i64::try_from(value).unwrap_or(i64::MAX))
    }

    pub(super) fn int_opt(&mut self, value: Option<i64>) -> &mut Self {
        self.add(value)
    }

    pub(super) fn real(&mut self, value: f64) -> &mut Self {
        self.add(value)
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.add(Arc::<str>::from(value))
    }

    pub(super) fn text_opt(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.int_opt(None),
        }
    }

    pub(super) fn blob(&mut self, value: &[u8]) -> &mut Self {
        self.add(value.to_vec())
    }
}

/// One statement with its parameters.
pub(super) async fn execute(conn: &mut SqliteConnection, sql: &'static str, args: Args) -> sqlx::Result<u64> {
    Ok(sqlx::query_with(sql, args.0).execute(conn).await?.rows_affected())
}

/// One statement with its parameters, and the rows that come.
pub(super) async fn fetch(conn: &mut SqliteConnection, sql: &'static str, args: Args) -> sqlx::Result<Vec<SqliteRow>> {
    sqlx::query_with(sql, args.0).fetch_all(conn).await
}

/// A statement over any number of rows: `head`, then `row` once for each row, then `tail`.
pub(super) struct Rows {
    head: &'static str,
    row: &'static str,
    tail: &'static str,
    texts: [OnceLock<Arc<str>>; SIZES],
}

impl Rows {
    pub(super) const fn new(head: &'static str, row: &'static str, tail: &'static str) -> Self {
        Self { head, row, tail, texts: [const { OnceLock::new() }; SIZES] }
    }

    /// The text for `1 << size` rows.
    fn text(&self, size: usize) -> Arc<str> {
        let make = || {
            let rows = 1 << size;
            let mut text = String::with_capacity(self.head.len() + self.tail.len() + rows * (self.row.len() + 1));
            text.push_str(self.head);
            for at in 0..rows {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(self.row);
            }
            text.push_str(self.tail);
            Arc::from(text)
        };
        Arc::clone(self.texts[size].get_or_init(make))
    }

    /// Cuts `items` into pieces that there are texts for.
    fn pieces<T>(items: &[T]) -> impl Iterator<Item = (usize, &[T])> {
        let mut rest = items;
        std::iter::from_fn(move || {
            let size = rest.len().min(ROWS_MAX).checked_ilog2()? as usize;
            let (piece, after) = rest.split_at(1 << size);
            rest = after;
            Some((size, piece))
        })
    }

    fn args<T>(&self, before: &[i64], piece: &[T], bind: impl Fn(&T, &mut Args), after: &[i64]) -> Args {
        let width = self.row.bytes().filter(|byte| *byte == b'?').count();
        let mut args = Args::with_capacity(before.len() + width * piece.len() + after.len());
        for value in before {
            args.int(*value);
        }
        for item in piece {
            bind(item, &mut args);
        }
        for value in after {
            args.int(*value);
        }
        args
    }

    /// Runs it over all items; says how many rows changed in each piece, with the piece.
    pub(super) async fn execute<'a, T>(
        &self,
        conn: &mut SqliteConnection,
        items: &'a [T],
        bind: impl Fn(&T, &mut Args),
    ) -> sqlx::Result<Vec<(&'a [T], u64)>> {
        let mut done = Vec::new();
        for (size, piece) in Self::pieces(items) {
            let args = self.args(&[], piece, &bind, &[]);
            let result = sqlx::query_with(AssertSqlSafe(self.text(size)), args.0).execute(&mut *conn).await?;
            done.push((piece, result.rows_affected()));
        }
        Ok(done)
    }

    /// Runs it over all items, with the same numbers before (and after) the rows each time; gives all rows that came.
    pub(super) async fn fetch<T>(
        &self,
        conn: &mut SqliteConnection,
        before: &[i64],
        items: &[T],
        bind: impl Fn(&T, &mut Args),
        after: &[i64],
    ) -> sqlx::Result<Vec<SqliteRow>> {
        let mut rows = Vec::new();
        for (size, piece) in Self::pieces(items) {
            let args = self.args(before, piece, &bind, after);
            rows.extend(sqlx::query_with(AssertSqlSafe(self.text(size)), args.0).fetch_all(&mut *conn).await?);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_into_the_fewest_known_sizes() {
        let sizes = |count: usize| -> Vec<usize> {
            let items = vec![(); count];
            Rows::pieces(&items).map(|(_, piece)| piece.len()).collect()
        };
        assert_eq!(sizes(0), Vec::<usize>::new());
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(100), [64, 32, 4]);
        assert_eq!(sizes(300), [128, 128, 32, 8, 4]);
    }

    #[test]
    fn a_text_repeats_the_row() {
        let rows = Rows::new("INSERT INTO a VALUES ", "(?,?)", " ON CONFLICT DO NOTHING");
        assert_eq!(&*rows.text(1), "INSERT INTO a VALUES (?,?),(?,?) ON CONFLICT DO NOTHING");
    }
}
