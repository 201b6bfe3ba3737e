//! The writer: one task that owns the one connection which writes.
//!
//! ```text
//!  callers ──▶ queue (bounded) ──▶ group: all that queued up while the last one was on its way to the disk
//!                                    │ plan: refuse or accept, in order, without writing      (`group`)
//!                                    │ write: a statement per kind of row                     (`events` … `history`)
//!                                    │ then every other change, each behind a savepoint       (`op::Change`)
//!                                    ▼
//!                                  commit: one sync for all ──▶ memory ──▶ answers
//! ```
//!
//! If anything unexpected fails, the group is rolled back and its requests run again one by one, so that only those
//! fail that fail by themselves. If the commit itself fails its outcome is unknown: everybody is told so, the
//! connection is closed, and before the next group all knowledge is read from the database again. Nothing is ever
//! answered before it is durable, and a caller that goes away does not stop what it asked for.

pub(super) mod chains;
pub(super) mod events;
mod group;
pub(super) mod history;
pub(super) mod op;
pub(super) mod outbox;
mod round;
pub(super) mod transaction;
mod versions;

use std::sync::Arc;

use sqlx::Connection as _;
use sqlx::SqliteConnection;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::Error;
use crate::Result;
use crate::assemble::Incoming;
use crate::log::Appended;
use crate::sqlite::checkpointer::Checkpointer;
use crate::sqlite::checkpointer::Synced;
use crate::sqlite::checkpointer::fold;
use crate::sqlite::fault;
use crate::sqlite::open;
use crate::sqlite::open::Core;
use crate::sqlite::open::Opened;
use crate::sqlite::writer::events::Events;
use crate::sqlite::writer::events::put_progress;
use crate::sqlite::writer::op::Op;
use crate::sqlite::writer::round::Round;
use crate::sqlite::writer::transaction::Transaction;
use crate::sqlite::writer::versions::Versions;

/// Requests that may wait. Their bytes have a bound of their own.
pub(super) const QUEUE_MAX: usize = 4_096;
/// Requests and bytes of one group: beyond that, one more sync costs nothing any more, and others wait too long.
const GROUP_REQUESTS_MAX: usize = 1_024;
const GROUP_BYTES_MAX: usize = 16 << 20;

/// See the module's text.
pub(super) struct Writer {
    core: Arc<Core>,
    queue: mpsc::Receiver<Op>,
    /// None after an error that made it useless.
    conn: Option<SqliteConnection>,
    /// As long as there is a connection.
    checkpointer: Option<Checkpointer>,
    synced: Synced,
    /// The last number given out.
    number: i64,
    versions: Versions,
}

impl Writer {
    pub(super) fn new(opened: Opened, queue: mpsc::Receiver<Op>) -> Self {
        let Opened { core, conn, synced, number } = opened;
        let checkpointer = Some(Checkpointer::start(open::fold_options(&core.options), Arc::clone(&synced)));
        Self { core, queue, conn: Some(conn), checkpointer, synced, number, versions: Versions::default() }
    }

    /// Writes until it is told to close, or nobody is left who could ask for anything.
    pub(super) async fn run(mut self) {
        let mut closing = Vec::new();
        while let Some(first) = self.queue.recv().await {
            let round = self.gather(first, &mut closing);
            self.work_off(round).await;
            self.fold_rest().await;
        }
        self.end().await;
        for reply in closing {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(());
        }
    }

    fn gather(&mut self, first: Op, closing: &mut Vec<oneshot::Sender<()>>) -> Round {
        let mut round = Round::default();
        let mut next = Some(first);
        while let Some(op) = next.take() {
            match op {
                Op::Work(work, reply, permit) => round.add(work, reply, permit),
                Op::Change(change) => round.changes.push(change),
                Op::Close(reply) => {
                    closing.push(reply);
                    self.queue.close();
                }
            }
            if round.requests() < GROUP_REQUESTS_MAX && round.bytes < GROUP_BYTES_MAX {
                next = self.queue.try_recv().ok();
            }
        }
        round
    }

    /// What the checkpointer left, so that the next transaction begins the log anew. Nobody waits for an answer now.
    async fn fold_rest(&mut self) {
        if let (Some(conn), Some(checkpointer)) = (&mut self.conn, &self.checkpointer)
            && checkpointer.committed()
            && let Err(error) = fold(conn).await
        {
            tracing::warn!(error = %chain(&error), "the rest of the log was not folded into the database");
            self.heed(&error).await;
        }
    }

    /// The connection, opened anew if it had to be given up.
    async fn connect(&mut self) -> Result<()> {
        if self.conn.is_none() {
            let (conn, loaded, number) = open::reopen(&self.core).await?;
            tracing::info!("the store is open again");
            self.number = self.number.max(number);
            self.versions.clear();
            self.core.memory.load(loaded);
            let fold = open::fold_options(&self.core.options);
            self.checkpointer = Some(Checkpointer::start(fold, Arc::clone(&self.synced)));
            self.conn = Some(conn);
        }
        Ok(())
    }

    /// Gives the connection up if the error says that it is not to be trusted.
    async fn heed(&mut self, error: &Error) {
        if fault::poisons(error)
            && let Some(conn) = self.conn.take()
        {
            tracing::error!(error = %chain(error), "the store's connection is given up");
            self.end_checkpointer().await;
            if let Err(error) = conn.close_hard().await {
                tracing::warn!(%error, "the given-up connection did not close");
            }
        }
    }

    async fn end_checkpointer(&mut self) {
        if let Some(checkpointer) = self.checkpointer.take() {
            checkpointer.end().await;
        }
    }

    async fn end(mut self) {
        self.end_checkpointer().await;
        let Some(mut conn) = self.conn.take() else { return };
        if let Err(error) = open::checkpoint(&mut conn).await {
            tracing::warn!(error = %chain(&error), "the log was not folded into the database; the next start will");
        }
        if let Err(error) = conn.close().await {
            tracing::warn!(%error, "the store did not close cleanly");
        }
    }
}

/// An error with all its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Appends events that a change makes, within its transaction.
pub(super) async fn append_within(tx: &mut Transaction<'_>, incoming: Vec<Incoming>) -> Result<()> {
    let mut events = Events::default();
    let places: Vec<_> = incoming.iter().map(|event| events.add(event, tx)).collect();
    events.flush(tx).await?;
    let places: Vec<_> = places.into_iter().map(|place| events.appended(place)).collect();
    put_progress(tx).await?;
    for (event, place) in incoming.into_iter().zip(places) {
        if let Appended::Accepted(position) = place {
            tx.changes.events.push(round::logged(event, position));
        }
    }
    Ok(())
}
