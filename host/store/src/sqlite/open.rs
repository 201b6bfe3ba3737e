//! Opening: who may, with which settings, and what must be true before the first write.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use sqlx::ConnectOptions as _;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::sqlite::SqliteJournalMode;
use sqlx::sqlite::SqliteSynchronous;

use crate::Error;
use crate::Result;
use crate::sqlite::checkpointer;
use crate::sqlite::checkpointer::Synced;
use crate::sqlite::fault;
use crate::sqlite::memory::Loaded;
use crate::sqlite::memory::Memory;
use crate::sqlite::memory::Progress;
use crate::sqlite::migrations;
use crate::sqlite::row::Columns;
use crate::sqlite::text::Args;
use crate::sqlite::text::execute;
use crate::sqlite::text::fetch;

/// When the disk must have confirmed a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// Before it is answered: what was accepted survives a power cut.
    Full,
    /// Some time later: what was accepted survives a crash of the host, but a power cut may take the last moments.
    Normal,
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database file; made if it is not there. Two more files of SQLite's and a lock file stand beside it.
    pub path: PathBuf,
    /// When a commit is durable.
    pub synchronous: Synchronous,
    /// How many shards a new store has. A store keeps what it was made with.
    pub shards: u16,
    /// Connections that read.
    pub readers: usize,
    /// The most that the writer's page cache may grow to; readers get a sixteenth each. It grows with use only.
    pub cache_bytes: usize,
    /// The most that is kept in memory of events that nobody has worked off yet.
    pub tail_bytes: usize,
    /// The most that may wait to be written; who comes with more waits outside.
    pub queue_bytes: usize,
    /// The most that the database file may take; none is what the disk has.
    pub file_bytes_max: Option<u64>,
}

impl Options {
    /// What suits one node with a small machine, durable to the letter.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            synchronous: Synchronous::Full,
            shards: 16,
            readers: 4,
            cache_bytes: 256 << 20,
            tail_bytes: 32 << 20,
            queue_bytes: 64 << 20,
            file_bytes_max: None,
        }
    }
}

/// Fewer, larger pages than SQLite's default: half the work per event at the rows' width.
pub(super) const PAGE_BYTES: u64 = 8_192;
/// Pages in the write-ahead log at which a commit folds it into the database by itself: 64 MiB, and the group that has to
/// wait for it waits 100 ms and more. The [`checkpointer`](super::checkpointer) sees to it that it does not come to that.
pub(super) const LOG_PAGES_MAX: &str = "8192";
/// What the write-ahead log's file is cut back to once it was larger.
const WAL_FILE_BYTES: &str = "134217728";
/// Prepared statements per connection. The writer has about 20 over several rows, each in 8 sizes.
const STATEMENTS: usize = 320;
/// There is no other writer to wait for; this covers a reader that recovers the log.
const BUSY: Duration = Duration::from_secs(5);

/// What the writer and the handle share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) options: Options,
    pub(super) memory: Memory,
    pub(super) shards: u16,
    /// Transactions that were made durable since it was opened.
    pub(super) transactions: AtomicU64,
    /// Held until the store is closed, or nothing of it is in use; the system lets go of it if the process dies.
    lock: Mutex<Option<File>>,
}

impl Core {
    /// Lets others open the store. Nothing may be read or written any more.
    pub(super) fn unlock(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn connect_options(options: &Options) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(&options.path)
        .busy_timeout(BUSY)
        .statement_cache_capacity(STATEMENTS)
        .pragma("temp_store", "MEMORY")
        .disable_statement_logging()
}

fn kibibytes(bytes: usize) -> String {
    format!("-{}", (bytes >> 10).max(1))
}

/// For a connection that reads.
pub(super) fn read_options(options: &Options) -> SqliteConnectOptions {
    connect_options(options)
        .read_only(true)
        .pragma("query_only", "ON")
        .pragma("cache_size", kibibytes(options.cache_bytes / 16))
        .row_buffer_size(256)
        .thread_name(|at| format!("store-read-{at}"))
}

/// For the connection that folds the log.
pub(super) fn fold_options(options: &Options) -> SqliteConnectOptions {
    connect_options(options)
        // Folding syncs the log, then the database, whatever a commit does.
        .synchronous(SqliteSynchronous::Normal)
        .pragma("cache_size", kibibytes(1 << 20))
        .thread_name(|_| "store-fold".to_owned())
}

async fn connect(options: &Options) -> Result<SqliteConnection> {
    let synchronous = match options.synchronous {
        Synchronous::Full => SqliteSynchronous::Full,
        Synchronous::Normal => SqliteSynchronous::Normal,
    };
    let mut connect = connect_options(options)
        .create_if_missing(true)
        .page_size(u32::try_from(PAGE_BYTES).expect("because a page is small"))
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .pragma("wal_autocheckpoint", LOG_PAGES_MAX)
        .pragma("journal_size_limit", WAL_FILE_BYTES)
        .pragma("cache_size", kibibytes(options.cache_bytes))
        .thread_name(|_| "store-write".to_owned());
    if let Some(bytes) = options.file_bytes_max {
        connect = connect.pragma("max_page_count", (bytes / PAGE_BYTES).max(1).to_string());
    }
    let shown = options.path.display();
    connect.connect().await.map_err(|error| fault::unavailable(format!("cannot open {shown}"), error))
}

/// A store that was opened.
pub(super) struct Opened {
    pub(super) core: Arc<Core>,
    pub(super) conn: SqliteConnection,
    pub(super) synced: Synced,
    /// The last number given out.
    pub(super) number: i64,
}

/// Takes the lock, opens the database, brings its tables up to date, and reads what memory must know.
pub(super) async fn open(options: Options) -> Result<Opened> {
    let lock = lock(&options.path)?;
    let mut conn = connect(&options).await?;
    migrations::run(&mut conn).await?;
    let shards = first_start(&mut conn, options.shards).await?;
    let (loaded, number) = load(&mut conn).await?;
    let memory = Memory::new(options.tail_bytes);
    memory.load(loaded);
    let shown = options.path.display();
    let file = File::open(&options.path).map_err(|error| fault::unavailable(format!("cannot open {shown}"), error))?;
    let (transactions, lock) = (AtomicU64::new(0), Mutex::new(Some(lock)));
    let core = Arc::new(Core { options, memory, shards, transactions, lock });
    Ok(Opened { core, conn, synced: Arc::new(file), number })
}

/// Opens the database again after an error. What the log holds is folded in and synced first: after a failed sync
/// the system may believe pages to be on the disk that are not, and nothing may be built on those.
pub(super) async fn reopen(core: &Core) -> Result<(SqliteConnection, Loaded, i64)> {
    let mut conn = connect(&core.options).await?;
    checkpoint(&mut conn).await?;
    let (loaded, number) = load(&mut conn).await?;
    Ok((conn, loaded, number))
}

/// Folds the whole write-ahead log into the database.
pub(super) async fn checkpoint(conn: &mut SqliteConnection) -> Result<()> {
    let rows = fetch(conn, "PRAGMA wal_checkpoint(TRUNCATE)", Args::default()).await.map_err(checkpointer::outward)?;
    match rows.first() {
        Some(row) if Columns::new(row).flag()? => Err(fault::refused("a reader is in the way of the checkpoint")),
        _ => Ok(()),
    }
}

fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let shown = name.display();
    let file = File::options().create(true).truncate(false).write(true).open(&name);
    let file = file.map_err(|error| fault::unavailable(format!("cannot open {shown}"), error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(fault::refused(format!(
            "another process has the store {} open; only one may, and it holds {shown}",
            path.display()
        ))),
        Err(std::fs::TryLockError::Error(error)) => Err(fault::unavailable(format!("cannot lock {shown}"), error)),
    }
}

/// Gives a new store its shards; says how many the store has.
async fn first_start(conn: &mut SqliteConnection, shards: u16) -> Result<u16> {
    let wanted = shards.max(1);
    let mut args = Args::default();
    args.blob(&wanted.to_le_bytes());
    let sql = "INSERT INTO host_values (name, value) VALUES ('store:shards', ?) ON CONFLICT DO NOTHING";
    let new = execute(conn, sql, args).await.map_err(fault::outward)? > 0;
    let sql = "SELECT value FROM host_values WHERE name = 'store:shards'";
    let rows = fetch(conn, sql, Args::default()).await.map_err(fault::outward)?;
    let stored = rows.first().map(|row| Columns::new(row).blob()).transpose()?.unwrap_or_default();
    let bytes: [u8; 2] =
        stored.try_into().map_err(|_| Error::Damaged("the number of shards is not two bytes long".into()))?;
    let stored = u16::from_le_bytes(bytes);
    if stored != wanted {
        tracing::warn!(stored, wanted, "the store keeps the number of shards that it was made with");
    }
    if new {
        for shard in 0..stored {
            let mut args = Args::default();
            args.int(i64::from(shard));
            let sql = "INSERT INTO leases (shard, owner, fence, until) VALUES (?, NULL, 0, 0) ON CONFLICT DO NOTHING";
            execute(conn, sql, args).await.map_err(fault::outward)?;
        }
    }
    Ok(stored)
}

/// Everything that memory must know, and the last number that was given out.
async fn load(conn: &mut SqliteConnection) -> Result<(Loaded, i64)> {
    let mut loaded = Loaded::default();
    for row in &all(conn, "SELECT id, settings FROM tenants").await? {
        let mut columns = Columns::new(row);
        loaded.settings.insert(TenantId(columns.int()?), columns.int()?);
    }
    let mut number = 0;
    for row in &all(conn, "SELECT tenant, shard, head, cursor, number FROM progress").await? {
        let mut columns = Columns::new(row);
        let id = (TenantId(columns.int()?), columns.shard()?);
        let progress =
            Progress { head: Position(columns.int()?), cursor: Position(columns.int()?), number: columns.int()? };
        number = number.max(progress.head.0).max(progress.number);
        loaded.lanes.insert(id, progress);
    }
    for row in &all(conn, "SELECT DISTINCT tenant, shard FROM unfinished").await? {
        let mut columns = Columns::new(row);
        loaded.unfinished.push((TenantId(columns.int()?), columns.shard()?));
    }
    for row in &all(conn, "SELECT DISTINCT tenant FROM unfinished WHERE key IS NOT NULL").await? {
        loaded.chained.push(TenantId(Columns::new(row).int()?));
    }
    loaded.fences = fences(conn).await?;
    // Every table that has numbers, in case one of them alone has the greatest.
    let sql = "SELECT max(coalesce((SELECT max(pos) FROM events), 0), coalesce((SELECT max(seq) FROM deliveries), 0))";
    for row in &all(conn, sql).await? {
        number = number.max(Columns::new(row).int()?);
    }
    Ok((loaded, number))
}

/// The fences of shards that have an owner.
pub(super) async fn fences(conn: &mut SqliteConnection) -> Result<HashMap<Shard, Fence>> {
    let mut fences = HashMap::new();
    for row in &all(conn, "SELECT shard, fence FROM leases WHERE owner IS NOT NULL").await? {
        let mut columns = Columns::new(row);
        fences.insert(columns.shard()?, Fence(columns.int()?));
    }
    Ok(fences)
}

async fn all(conn: &mut SqliteConnection, sql: &'static str) -> Result<Vec<sqlx::sqlite::SqliteRow>> {
    fetch(conn, sql, Args::default()).await.map_err(fault::outward)
}
