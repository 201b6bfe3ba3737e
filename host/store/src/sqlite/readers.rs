//! Connections that read.
//!
//! A small pool of our own: handing one out and taking it back costs nothing but a permit. (The driver's own pool pings
//! a connection on its thread each time.) Connections open when they are first needed.

use std::ops::Deref;
use std::ops::DerefMut;
use std::sync::Mutex;
use std::sync::PoisonError;

use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;

use crate::Result;
use crate::sqlite::fault;
use crate::sqlite::text::Args;
use crate::sqlite::text::execute;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Readers {
    options: SqliteConnectOptions,
    permits: Semaphore,
    idle: Mutex<Vec<SqliteConnection>>,
}

/// A connection on loan.
pub(super) struct Reader<'p> {
    conn: Option<SqliteConnection>,
    /// Set while a transaction is open: a caller that goes away then must not hand the connection back.
    within: bool,
    readers: &'p Readers,
    _permit: SemaphorePermit<'p>,
}

impl Readers {
    pub(super) fn new(options: SqliteConnectOptions, count: usize) -> Self {
        Self { options, permits: Semaphore::new(count.max(1)), idle: Mutex::default() }
    }

    pub(super) async fn get(&self) -> Result<Reader<'_>> {
        let permit = self.permits.acquire().await.map_err(|error| fault::unavailable("the store is closed", error))?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = match idle {
            Some(conn) => conn,
            None => self.options.connect().await.map_err(fault::outward)?,
        };
        Ok(Reader { conn: Some(conn), within: false, readers: self, _permit: permit })
    }

    /// Waits for all loans and closes. Nobody gets a connection afterwards.
    pub(super) async fn close(&self, count: usize) {
        let all = self.permits.acquire_many(u32::try_from(count.max(1)).unwrap_or(u32::MAX)).await;
        self.permits.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for conn in idle {
            if let Err(error) = conn.close().await {
                tracing::debug!(%error, "a reader did not close cleanly");
            }
        }
    }
}

impl Reader<'_> {
    /// Everything until [`Reader::end`] sees the store at one moment.
    pub(super) async fn begin(&mut self) -> Result<()> {
        self.within = true;
        execute(self, "BEGIN", Args::default()).await.map_err(fault::outward)?;
        Ok(())
    }

    pub(super) async fn end(&mut self) -> Result<()> {
        execute(self, "COMMIT", Args::default()).await.map_err(fault::outward)?;
        self.within = false;
        Ok(())
    }
}

impl Deref for Reader<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.conn.as_ref().expect("because it is taken only when this is dropped")
    }
}

impl DerefMut for Reader<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.conn.as_mut().expect("because it is taken only when this is dropped")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take().filter(|_| !self.within) {
            self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        }
    }
}
