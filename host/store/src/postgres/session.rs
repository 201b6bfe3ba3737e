//! Session: a connection for one call or transaction, with a bound on every wait.
//!
//! A server behind a cut wire answers nothing and refuses nothing, so each answer is waited for a limited time only. A
//! connection whose answer did not come in time, or for which nobody waited to the end, is closed instead of given back:
//! the server then ends what it was asked for, and nobody gets an answer that was meant for somebody else.

use std::future::Future;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use tokio::time::timeout;

use crate::Result;
use crate::postgres::fault;
use crate::postgres::text::Args;

/// An answer comes within this time, or the store is unavailable.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// The same for what is done in passing, which nobody waits for and which may have a lot to do. No shorter than the
/// server's own limit.
pub(super) const PATIENT: Duration = Duration::from_secs(35);

/// See the module's text.
pub(super) struct Session {
    conn: Option<PoolConnection<sqlx::Postgres>>,
    limit: Duration,
    /// The server was asked, and has not answered yet.
    asking: bool,
    /// A transaction has begun.
    open: bool,
}

impl Session {
    /// Takes a connection, for calls that are answered within `limit` each.
    pub(super) async fn take(pool: &PgPool, limit: Duration) -> Result<Self> {
        let conn = pool.acquire().await.map_err(fault::outward)?;
        Ok(Self { conn: Some(conn), limit, asking: false, open: false })
    }

    /// One statement, and the rows that come.
    pub(super) async fn fetch(&mut self, sql: &'static str, args: Args) -> Result<Vec<PgRow>> {
        self.ask(|conn| sqlx::query_with(sql, args.into_inner()).fetch_all(conn)).await
    }

    /// One statement; says how many rows changed.
    pub(super) async fn execute(&mut self, sql: &'static str, args: Args) -> Result<u64> {
        let done = self.ask(|conn| sqlx::query_with(sql, args.into_inner()).execute(conn)).await?;
        Ok(done.rows_affected())
    }

    /// Begins a transaction. Without [`Session::commit`] nothing of it happened.
    pub(super) async fn begin(&mut self) -> Result<()> {
        self.execute("BEGIN", Args::default()).await?;
        self.open = true;
        Ok(())
    }

    /// Ends the transaction.
    pub(super) async fn commit(mut self) -> Result<()> {
        self.execute("COMMIT", Args::default()).await?;
        self.open = false;
        Ok(())
    }

    async fn ask<'s, T, F>(&'s mut self, ask: impl FnOnce(&'s mut sqlx::PgConnection) -> F) -> Result<T>
    where
        F: Future<Output = sqlx::Result<T>> + Send + 's,
    {
        let Self { conn, limit, asking, .. } = self;
        let conn = conn.as_mut().expect("because only dropping takes it away");
        *asking = true;
        let answer = timeout(*limit, ask(conn)).await;
        let answer = answer.map_err(|_| fault::refused("the database did not answer in time"))?;
        *asking = false;
        answer.map_err(fault::outward)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        if self.asking {
            drop(conn.detach());
        } else if self.open {
            let mut session = Self { conn: Some(conn), limit: ANSWER, asking: false, open: false };
            // If it fails, the connection goes, and the transaction with it.
            tokio::spawn(async move { session.execute("ROLLBACK", Args::default()).await });
        } else {
            // The pool looks whether the connection still works, and sets no limit to that.
            tokio::spawn(timeout(ANSWER, conn.return_to_pool()));
        }
    }
}
