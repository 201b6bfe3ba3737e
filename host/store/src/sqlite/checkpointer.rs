//! The checkpointer: folds the write-ahead log into the database beside the writer, on a connection of its own.
//!
//! ```text
//!  writer ── commit ──▶ look: how long is the log, and how much of it is folded in?
//!                        │ long: fold (passive: nobody waits for it) and sync, until little is left
//!                        ▼
//!  writer ◀── its turn: folds the little that is left, and the next transaction begins the log anew
//! ```
//!
//! Folding is writing and syncing what 16 MiB of log changed, some 40 ms, and whoever does it waits for it. While the
//! writer commits, the log is never folded to its end by others, and only then can it begin anew: hence the writer's turn.
//! SQLite syncs the database only when it folds to the end, so what is folded here is synced here, and the writer's sync
//! has little to do. Should this fall behind, or fail, the writer folds by itself at [`open::LOG_PAGES_MAX`].
//!
//! # When a sync of the database fails
//!
//! The process aborts. The system may take pages for written that are not, and SQLite takes what it folded once for folded:
//! whatever followed could begin the log anew without them. In the file the log is still whole, and the next process that
//! opens it folds all of it.
//!
//! [`open::LOG_PAGES_MAX`]: super::open::LOG_PAGES_MAX

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Error;
use crate::Result;
use crate::sqlite::fault;
use crate::sqlite::row::Columns;
use crate::sqlite::text::Args;
use crate::sqlite::text::fetch;

/// Pages in the log before it is folded: 16 MiB. A page that many transactions change is folded once, so more of them
/// would save work, and need room on the disk.
const LOG_PAGES: i64 = 2_048;
/// Pages that may be left to the writer: 1 MiB, which it folds and syncs in a few milliseconds.
const REST_PAGES: i64 = 128;
/// Passes before the writer gets on with it: each leaves what was committed while it ran.
const PASSES: usize = 4;
/// Between two looks. At 50 MiB a second, the log grows by 1 MiB meanwhile.
const LOOK: Duration = Duration::from_millis(20);
/// After a failure. Who ends this waits for it.
const AGAIN: Duration = Duration::from_millis(200);

/// The database's file, to sync what was folded. It is open for as long as any connection is: closing one of a process's
/// descriptors of a file lets go of all locks that the process has on it, SQLite's too.
pub(super) type Synced = Arc<File>;

/// Lives as long as the writer's connection: what folds the whole log cannot do so while somebody else folds.
#[derive(Debug)]
pub(super) struct Checkpointer {
    committed: mpsc::Sender<()>,
    writers_turn: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Checkpointer {
    pub(super) fn start(options: SqliteConnectOptions, file: Synced) -> Self {
        let (committed, commits) = mpsc::channel(1);
        let writers_turn = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(run(options, file, commits, Arc::clone(&writers_turn)));
        Self { committed, writers_turn, task }
    }

    /// Says that a transaction was committed; the answer is whether the writer is to fold what is left.
    pub(super) fn committed(&self) -> bool {
        // Full: it has yet to look for an earlier one.
        let _ = self.committed.try_send(());
        self.writers_turn.swap(false, Ordering::Relaxed)
    }

    /// Ends after a pass that is under way.
    pub(super) async fn end(self) {
        drop(self.committed);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the store's checkpointer did not end well");
        }
    }
}

/// Folds what is there and whoever reads is past, and waits for nobody.
pub(super) async fn fold(conn: &mut SqliteConnection) -> Result<()> {
    fetch(conn, "PRAGMA wal_checkpoint(PASSIVE)", Args::default()).await.map_err(outward)?;
    Ok(())
}

/// As the caller of what folds the log sees an error; see the module's text for the one that nobody sees.
pub(super) fn outward(error: sqlx::Error) -> Error {
    if fault::unsynced(&error) {
        abort(&error);
    }
    fault::outward(error)
}

fn abort(error: &(dyn std::error::Error + 'static)) -> ! {
    tracing::error!(
        error,
        "the database could not be synced; the process aborts, and the next one finds all of the log"
    );
    std::process::abort()
}

async fn sync(file: &Synced) -> Result<()> {
    let file = Arc::clone(file);
    let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
    match synced.map_err(|error| fault::unavailable("the sync broke off", error))? {
        Ok(()) => Ok(()),
        Err(error) => abort(&error),
    }
}

async fn run(
    options: SqliteConnectOptions,
    file: Synced,
    mut commits: mpsc::Receiver<()>,
    writers_turn: Arc<AtomicBool>,
) {
    let mut conn = None;
    while commits.recv().await.is_some() {
        let rest = match look_after(&mut conn, &options, &file).await {
            Ok(is_writers) => {
                if is_writers {
                    writers_turn.store(true, Ordering::Relaxed);
                }
                LOOK
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the log is not folded beside the writer");
                conn = None;
                AGAIN
            }
        };
        tokio::time::sleep(rest).await;
    }
    if let Some(conn) = conn
        && let Err(error) = SqliteConnection::close(conn).await
    {
        tracing::debug!(%error, "the checkpointer's connection did not close cleanly");
    }
}

/// Folds a log that is long; says whether so little is left that the writer is to do it.
async fn look_after(
    conn: &mut Option<SqliteConnection>,
    options: &SqliteConnectOptions,
    file: &Synced,
) -> Result<bool> {
    let conn = match conn {
        Some(conn) => conn,
        none => none.insert(options.connect().await.map_err(fault::outward)?),
    };
    for _ in 0..PASSES {
        let (log, folded) = length(conn).await?;
        if log < LOG_PAGES {
            return Ok(false);
        }
        if log - folded < REST_PAGES {
            return Ok(true);
        }
        fold(conn).await?;
        sync(file).await?;
    }
    // A reader is in the way, or the writer is faster: it is told when the log is really long.
    Ok(false)
}

/// Pages in the log, and how many of them are folded in.
async fn length(conn: &mut SqliteConnection) -> Result<(i64, i64)> {
    let rows = fetch(conn, "PRAGMA wal_checkpoint(NOOP)", Args::default()).await.map_err(fault::outward)?;
    let row = rows.first().ok_or_else(|| Error::Damaged("the log has no length".into()))?;
    let mut columns = Columns::new(row);
    columns.flag()?;
    Ok((columns.int()?, columns.int()?))
}
