//! What the writer is asked for.

use std::pin::Pin;

use bulkhead_domain::event::Event;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot;

use crate::Error;
use crate::Result;
use crate::assemble::Incoming;
use crate::log::Appended;
use crate::sqlite::writer::transaction::Transaction;
use crate::work::Commit;
use crate::work::Committed;

/// A future that borrows what it works on.
pub(in crate::sqlite) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Work that is merged with other work of its kind.
#[derive(Debug)]
pub(in crate::sqlite) enum Work {
    Append(Vec<Incoming>),
    /// The commit's emitted events stand beside it.
    Commit(Box<Commit>, Vec<Incoming>),
}

impl Work {
    /// Bytes that wait in memory, roughly.
    pub(in crate::sqlite) fn bytes(&self) -> usize {
        let of = |event: &Event| event.data.len() + 512;
        match self {
            Self::Append(events) => events.iter().map(|event| of(&event.new.event)).sum(),
            Self::Commit(commit, emits) => {
                let emits: usize = emits.iter().map(|event| of(&event.new.event)).sum();
                let writes: usize = commit.writes.iter().map(|write| write.value.as_ref().map_or(0, |v| v.len())).sum();
                let bodies: usize = commit.deliveries.iter().map(|new| new.delivery.body.len()).sum();
                let rows = commit.writes.len() + commit.deliveries.len() + commit.runs.len() + commit.unfinished.len();
                let recordings: usize = commit.recordings.new.iter().map(|new| new.body.len() + 256).sum();
                emits + writes + bodies + recordings + 256 * rows
            }
        }
    }
}

/// What became of merged work.
#[derive(Debug)]
pub(in crate::sqlite) enum Answer {
    Appended(Vec<Appended>),
    Committed(Committed),
}

/// A change that is a function of its own; it may be run again if the transaction that it was part of failed.
pub(in crate::sqlite) trait Change: Send {
    /// Runs it and keeps what it gave. An error that is the caller's (not found, conflict) is kept as well.
    fn run<'a>(&'a mut self, tx: &'a mut Transaction<'_>) -> BoxFuture<'a, Result<()>>;

    /// Its transaction is durable: answers the caller.
    fn done(self: Box<Self>);

    /// Nothing happened: answers the caller.
    fn failed(self: Box<Self>, error: Error);
}

/// A [`Change`] by a function and its arguments.
pub(in crate::sqlite) type Apply<A, T> = for<'a> fn(&'a mut Transaction<'_>, &'a A) -> BoxFuture<'a, Result<T>>;

pub(in crate::sqlite) struct Call<A, T> {
    pub(in crate::sqlite) args: A,
    pub(in crate::sqlite) apply: Apply<A, T>,
    pub(in crate::sqlite) out: Option<T>,
    pub(in crate::sqlite) reply: oneshot::Sender<Result<T>>,
}

impl<A: Send + Sync, T: Send> Change for Call<A, T> {
    fn run<'a>(&'a mut self, tx: &'a mut Transaction<'_>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.out = None;
            self.out = Some((self.apply)(tx, &self.args).await?);
            Ok(())
        })
    }

    fn done(self: Box<Self>) {
        if let Some(out) = self.out {
            // The caller may have gone away; what it asked for has happened all the same.
            let _ = self.reply.send(Ok(out));
        }
    }

    fn failed(self: Box<Self>, error: Error) {
        let _ = self.reply.send(Err(error));
    }
}

/// One request in the queue.
pub(in crate::sqlite) enum Op {
    Work(Work, oneshot::Sender<Result<Answer>>, OwnedSemaphorePermit),
    Change(Box<dyn Change>),
    /// Work off what is queued, then end.
    Close(oneshot::Sender<()>),
}
