//! Session: a connection for one call or transaction, with a bound on every wait.
//!
//! A server behind a cut wire answers nothing and refuses nothing, so each answer is waited for a limited time only. A
//! connection whose answer did not come in time, or for which nobody waited to the end, is closed instead of given back:
//! the server then ends what it was asked for, and nobody gets an answer that was meant for somebody else.
//!
//! The pool asks each connection that is given back whether it still works, which would be every second round trip of a
//! node. So what ended well is kept at hand for the next session, and goes back to the pool, which ends what is old, only
//! now and then.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use sqlx::PgPool;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::Result;
use crate::postgres::fault;
use crate::postgres::text::Args;

/// An answer comes within this time, or the store is unavailable.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// The same for what is done in passing, which nobody waits for and which may have a lot to do. No shorter than the
/// server's own limit.
pub(super) const PATIENT: Duration = Duration::from_secs(35);

/// A connection goes back to the pool after it was used for so long, or lay idle for so long. Much shorter than the pool's
/// own times (10 and 30 minutes), much longer than there are calls in between.
const AT_HAND: Duration = Duration::from_secs(60);

/// Connections to one database: as many sessions at a time as there may be connections.
pub(super) struct Sessions {
    pool: PgPool,
    permits: Arc<Semaphore>,
    /// How long a session is waited for.
    patience: Duration,
    at_hand: Mutex<AtHand>,
}

/// Connections that nobody uses and that are well.
#[derive(Default)]
struct AtHand {
    /// Used last, last.
    idle: VecDeque<Idle>,
    closed: bool,
}

struct Idle {
    conn: PoolConnection<sqlx::Postgres>,
    /// When the pool gave it.
    taken: Instant,
    /// When it was used last.
    used: Instant,
}

impl Sessions {
    /// Over a pool that nobody else takes from.
    pub(super) fn new(pool: PgPool, connections: u32, patience: Duration) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(connections.max(1) as usize));
        Arc::new(Self { pool, permits, patience, at_hand: Mutex::default() })
    }

    /// Takes a connection, for calls that are answered within `limit` each.
    pub(super) async fn take(self: &Arc<Self>, limit: Duration) -> Result<Session> {
        let taken = timeout(self.patience, self.connection()).await;
        let (conn, home) = taken.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(fault::outward)?;
        Ok(Session { conn: Some(conn), home: Some(home), limit, asking: false, state: State::Well, open: false })
    }

    async fn connection(self: &Arc<Self>) -> sqlx::Result<(PoolConnection<sqlx::Postgres>, Home)> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.at_hand.lock().unwrap_or_else(PoisonError::into_inner).idle.pop_back();
        let (conn, taken) = match idle {
            Some(idle) => (idle.conn, idle.taken),
            None => (self.pool.acquire().await?, Instant::now()),
        };
        Ok((conn, Home { sessions: Arc::clone(self), taken, _permit: permit }))
    }

    /// One statement as a transaction of its own, and the rows that come.
    pub(super) async fn fetch(self: &Arc<Self>, sql: &'static str, args: Args) -> Result<Vec<PgRow>> {
        self.take(ANSWER).await?.fetch(sql, args).await
    }

    /// Ends all connections, after what is under way.
    pub(super) async fn close(&self) {
        let idle = {
            let mut at_hand = self.at_hand.lock().unwrap_or_else(PoisonError::into_inner);
            at_hand.closed = true;
            std::mem::take(&mut at_hand.idle)
        };
        self.permits.close();
        // A pool that is closed asks nothing of what comes back.
        let closing = self.pool.close();
        drop(idle);
        closing.await;
    }

    /// Keeps a connection that ended well at hand; gives what is to go back to the pool.
    fn keep(&self, conn: PoolConnection<sqlx::Postgres>, taken: Instant) -> Option<PoolConnection<sqlx::Postgres>> {
        let mut at_hand = self.at_hand.lock().unwrap_or_else(PoisonError::into_inner);
        if at_hand.closed || taken.elapsed() >= AT_HAND {
            return Some(conn);
        }
        at_hand.idle.push_back(Idle { conn, taken, used: Instant::now() });
        let unused = at_hand.idle.front().is_some_and(|idle| idle.used.elapsed() >= AT_HAND);
        if unused { at_hand.idle.pop_front().map(|idle| idle.conn) } else { None }
    }

    /// Others may have gone the same way as one that failed: the pool asks them.
    fn doubt(&self) {
        let idle = std::mem::take(&mut self.at_hand.lock().unwrap_or_else(PoisonError::into_inner).idle);
        let in_pool = (0..self.pool.num_idle()).map_while(|_| self.pool.try_acquire());
        for conn in idle.into_iter().map(|idle| idle.conn).chain(in_pool) {
            give_back(conn, None);
        }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        let at_hand = self.at_hand.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Given back they would ask for a runtime, which may be gone.
        at_hand.idle.drain(..).for_each(|idle| drop(idle.conn.detach()));
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

/// Back to the pool, which looks whether the connection still works, and sets no limit to that.
fn give_back(mut conn: PoolConnection<sqlx::Postgres>, home: Option<Home>) {
    tokio::spawn(async move {
        let _ = timeout(ANSWER, conn.return_to_pool()).await;
        drop(home);
    });
}

/// Where a session's connection comes from.
struct Home {
    sessions: Arc<Sessions>,
    taken: Instant,
    _permit: OwnedSemaphorePermit,
}

/// See the module's text.
pub(super) struct Session {
    /// Nothing once it is dropped.
    conn: Option<PoolConnection<sqlx::Postgres>>,
    home: Option<Home>,
    limit: Duration,
    /// The server was asked, and has not answered yet.
    asking: bool,
    state: State,
    /// A transaction has begun.
    open: bool,
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    /// The server refused something.
    Refused,
    /// It failed in a way in which others may have failed, too.
    Failed,
}

impl Session {
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
        let Self { conn, limit, asking, state, .. } = self;
        let conn = conn.as_mut().expect("because only dropping takes it away");
        *asking = true;
        let Ok(answer) = timeout(*limit, ask(conn)).await else {
            *state = State::Failed;
            return Err(fault::refused("the database did not answer in time"));
        };
        *asking = false;
        if let Err(error) = &answer {
            *state = if fault::is_of_server(error) { State::Failed } else { State::Refused };
        }
        answer.map_err(fault::outward)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (Some(conn), Some(home)) = (self.conn.take(), self.home.take()) else { return };
        if self.state == State::Failed {
            home.sessions.doubt();
        }
        if self.asking {
            drop(conn.detach());
        } else if self.open {
            let (limit, state) = (ANSWER, self.state);
            let mut session = Self { conn: Some(conn), home: Some(home), limit, asking: false, state, open: false };
            // If it fails, the connection goes, and the transaction with it.
            tokio::spawn(async move { session.execute("ROLLBACK", Args::default()).await });
        } else if self.state != State::Well {
            give_back(conn, Some(home));
        } else if let Some(old) = home.sessions.keep(conn, home.taken) {
            give_back(old, Some(home));
        }
    }
}
