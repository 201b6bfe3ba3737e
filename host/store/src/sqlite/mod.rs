//! The embedded backend: one SQLite file, one process, one writer.
//!
//! - Every write goes through the [`writer`], which merges what comes at the same time into one transaction: the sync
//!   of the disk is what a durable write costs, and it is shared by all who wait for it.
//! - Reads run beside it on a few connections of their own ([`readers`]); a write-ahead log keeps the two apart.
//! - The log is folded into the database beside both ([`checkpointer`]).
//! - Because no other process can have the file open (a lock file sees to that), what was written last is also known
//!   without asking ([`memory`]).
//!
//! ```no_run
//! # async fn example() -> bulkhead_store::Result<()> {
//! use bulkhead_store::sqlite::{Options, Sqlite};
//!
//! let sqlite = Sqlite::open(Options::new("bulkhead.db")).await?;
//! let store: bulkhead_store::Store = std::sync::Arc::new(sqlite.clone());
//! sqlite.close().await;
//! # Ok(()) }
//! ```
//!
//! # Files
//!
//! | file | what it is |
//! | --- | --- |
//! | `bulkhead.db` | the database |
//! | `bulkhead.db-wal` | the write-ahead log: what was committed and is not folded in yet. Belongs to the database: a copy of one without the other has lost data |
//! | `bulkhead.db-shm` | the log's index; made anew when it is missing |
//! | `bulkhead.db.lock` | empty; locked by the process that has the store open, and by the system unlocked when that ends |
//!
//! An orderly [`close`](Sqlite::close) folds the log in; after a crash the next start does. The files must lie on a
//! local disk: network file systems neither lock nor share memory as SQLite needs it.
//!
//! # When a write is durable
//!
//! | [`Synchronous`] | after a crash of the host | after a power cut |
//! | --- | --- | --- |
//! | `Full`, the usual | everything that was answered is there | the same, if the disk syncs when it says so |
//! | `Normal` | the same | the last moments may be missing, as a whole: the store is as it was a little earlier |
//!
//! `Full` syncs the log once per transaction, and a transaction holds all that waited for it, so its price per event
//! falls as the load grows. With `Normal` an acknowledged event may be lost by a power cut: it breaks the promise that
//! accepted means durable, and suits tests and data that can be sent again.
//!
//! Reading order: `open` and `migrations`, `text` and `row` (statements and rows), `memory`, `writer`, then one file
//! per port.
//!
//! Does not: choose retries, wake anybody, or read the time, except for leases, whose time is the database's.

mod catalogue;
mod checkpointer;
mod deliveries;
mod fault;
mod leases;
mod log;
mod memory;
mod migrations;
mod open;
mod readers;
mod recordings;
mod releases;
mod retired;
mod runs;
mod settings;
mod state;
mod text;
mod timers;
mod unfinished;
mod upkeep;
mod usage;
mod work;
mod writer;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use sqlx::sqlite::SqliteRow;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::open::Core;
pub use self::open::Options;
pub use self::open::Synchronous;
use self::readers::Readers;
use self::text::Args;
use self::writer::Writer;
use self::writer::op::Answer;
use self::writer::op::Apply;
use self::writer::op::Call;
use self::writer::op::Op;
use self::writer::op::Work;
use crate::Backend;
use crate::Result;
use crate::look::Mark;
use crate::row;

/// A handle on the store; cheap to clone. The store closes when [`Sqlite::close`] is called, or after the last handle
/// is gone.
#[derive(Debug, Clone)]
pub struct Sqlite(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    readers: Readers,
    /// Where the next look for due deliveries begins.
    mark: Mark,
    queue: mpsc::Sender<Op>,
    /// Kibibytes that may wait in the queue.
    room: Arc<Semaphore>,
    room_max: u32,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Backend for Sqlite {}

impl Sqlite {
    /// Opens the store, or makes it. Refuses if another process has it open, or if a newer program made its tables.
    /// Must be called within a runtime, which the writer then runs on.
    pub async fn open(options: Options) -> Result<Self> {
        let opened = open::open(options).await?;
        let core = Arc::clone(&opened.core);
        let (queue, requests) = mpsc::channel(writer::QUEUE_MAX);
        let writer = Writer::new(opened, requests);
        let readers = Readers::new(open::read_options(&core.options), core.options.readers);
        let room_max = u32::try_from(core.options.queue_bytes >> 10).unwrap_or(u32::MAX >> 4).max(1);
        let room = Arc::new(Semaphore::new(room_max as usize));
        let writer = Mutex::new(Some(tokio::spawn(writer.run())));
        Ok(Self(Arc::new(Inner { core, readers, mark: Mark::default(), queue, room, room_max, writer })))
    }

    /// Works off what is queued, folds the log into the database and closes. Calls that come later fail,
    /// and the store may be opened again, whatever handles are left.
    pub async fn close(&self) {
        // Readers would be in the way of the last checkpoint.
        self.0.readers.close(self.0.core.options.readers).await;
        let (reply, closed) = oneshot::channel();
        if self.0.queue.send(Op::Close(reply)).await.is_ok() {
            // An error means that the writer ended before: nothing is left to wait for.
            let _ = closed.await;
        }
        let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the store's writer did not end well");
        }
        self.core().unlock();
    }

    /// How many transactions were made durable since the store was opened: what was written, divided by this, says how
    /// well writes share the disk's syncs.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.core().transactions.load(Ordering::Relaxed)
    }

    fn readers(&self) -> &Readers {
        &self.0.readers
    }

    fn core(&self) -> &Core {
        &self.0.core
    }

    /// One reading statement.
    async fn read(&self, sql: &'static str, bind: impl FnOnce(&mut Args)) -> Result<Vec<SqliteRow>> {
        let mut args = Args::default();
        bind(&mut args);
        let mut conn = self.readers().get().await?;
        text::fetch(&mut conn, sql, args).await.map_err(fault::outward)
    }

    /// Work that the writer merges with others'.
    async fn work(&self, work: Work) -> Result<Answer> {
        let bytes = u32::try_from(work.bytes() >> 10).unwrap_or(u32::MAX);
        // What is larger than the room altogether has it to itself.
        let share = bytes.clamp(1, self.0.room_max);
        let permit = Arc::clone(&self.0.room).acquire_many_owned(share).await;
        let permit = permit.map_err(|error| fault::unavailable("the store is closed", error))?;
        let (reply, answer) = oneshot::channel();
        self.send(Op::Work(work, reply, permit)).await?;
        answer.await.map_err(|error| fault::unavailable("the store is closed", error))?
    }

    /// Any other change.
    async fn change<A, T>(&self, args: A, apply: Apply<A, T>) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.send(Op::Change(Box::new(Call { args, apply, out: None, reply }))).await?;
        answer.await.map_err(|error| fault::unavailable("the store is closed", error))?
    }

    async fn send(&self, op: Op) -> Result<()> {
        self.0.queue.send(op).await.map_err(|_| fault::refused("the store is closed"))
    }
}
