//! One round of the writer: a transaction over all that was gathered, and what to do if it fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::TenantId;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot;

use crate::Error;
use crate::Result;
use crate::assemble::Incoming;
use crate::sqlite::fault;
use crate::sqlite::memory::Changes;
use crate::sqlite::memory::Memory;
use crate::sqlite::text::Args;
use crate::sqlite::text::execute;
use crate::sqlite::writer::Writer;
use crate::sqlite::writer::group::Group;
use crate::sqlite::writer::group::Written;
use crate::sqlite::writer::op::Answer;
use crate::sqlite::writer::op::Change;
use crate::sqlite::writer::op::Work;
use crate::sqlite::writer::transaction::Transaction;
use crate::sqlite::writer::versions::Versions;

type Reply = oneshot::Sender<Result<Answer>>;

/// What was gathered.
#[derive(Default)]
pub(super) struct Round {
    works: Vec<Work>,
    replies: Vec<(Reply, OwnedSemaphorePermit)>,
    pub(super) changes: Vec<Box<dyn Change>>,
    pub(super) bytes: usize,
}

impl Round {
    pub(super) fn add(&mut self, work: Work, reply: Reply, permit: OwnedSemaphorePermit) {
        self.bytes += work.bytes();
        self.works.push(work);
        self.replies.push((reply, permit));
    }

    pub(super) const fn requests(&self) -> usize {
        self.works.len() + self.changes.len()
    }

    /// Each request by itself.
    fn split(self) -> impl Iterator<Item = Self> {
        let works = self.works.into_iter().zip(self.replies);
        let works = works.map(|(work, reply)| Self { works: vec![work], replies: vec![reply], ..Self::default() });
        let changes = self.changes.into_iter().map(|change| Self { changes: vec![change], ..Self::default() });
        works.chain(changes)
    }

    fn fail(self, error: Error) {
        let mut error = Some(error);
        // The cause goes to one of them; the others get its text.
        let text = error.as_ref().map(ToString::to_string).unwrap_or_default();
        let full = matches!(error, Some(Error::Full));
        let mut next = move || error.take().unwrap_or_else(|| if full { Error::Full } else { fault::refused(&*text) });
        for (reply, _) in self.replies {
            // Whoever asked may have gone away.
            let _ = reply.send(Err(next()));
        }
        for change in self.changes {
            change.failed(next());
        }
    }
}

/// A round that is durable.
struct Durable {
    written: Written,
    /// For each change, why it was refused, if it was.
    refused: Vec<Option<Error>>,
    memory: Changes,
    versions_changed: bool,
}

/// A round that is not.
struct Failed {
    error: Error,
    /// It is certain that nothing happened.
    certain: bool,
}

impl Writer {
    pub(super) async fn work_off(&mut self, mut round: Round) {
        if round.requests() == 0 {
            return;
        }
        let failed = match self.attempt(&mut round).await {
            Ok(durable) => return publish(&self.core.memory, &mut self.versions, round, durable),
            Err(failed) => failed,
        };
        self.heed(&failed.error).await;
        if !failed.certain || round.requests() == 1 {
            tracing::warn!(error = %super::chain(&failed.error), requests = round.requests(), "a transaction failed");
            return round.fail(failed.error);
        }
        for mut single in round.split() {
            match self.attempt(&mut single).await {
                Ok(durable) => publish(&self.core.memory, &mut self.versions, single, durable),
                Err(failed) => {
                    self.heed(&failed.error).await;
                    tracing::warn!(error = %super::chain(&failed.error), "a request failed");
                    single.fail(failed.error);
                }
            }
        }
    }

    async fn attempt(&mut self, round: &mut Round) -> Result<Durable, Failed> {
        let certain = |error| Failed { error, certain: true };
        self.connect().await.map_err(certain)?;
        let Self { conn, core, number, versions, .. } = self;
        let Some(conn) = conn else { return Err(certain(fault::refused("the store is closed"))) };
        run(conn, "BEGIN IMMEDIATE").await.map_err(certain)?;
        let mut tx = Transaction::new(conn, &core.memory, number);
        match within(&mut tx, versions, round).await {
            Ok((written, refused)) => {
                let Transaction { conn, lanes, mut changes, versions_changed, .. } = tx;
                changes.lanes.extend(lanes);
                match run(conn, "COMMIT").await {
                    Ok(()) => {
                        core.transactions.fetch_add(1, Ordering::Relaxed);
                        Ok(Durable { written, refused, memory: changes, versions_changed })
                    }
                    Err(error) => {
                        let certain = matches!(error, Error::Full);
                        roll_back(conn).await;
                        Err(Failed { error, certain })
                    }
                }
            }
            Err(error) => {
                roll_back(tx.conn).await;
                Err(certain(error))
            }
        }
    }
}

async fn run(conn: &mut sqlx::SqliteConnection, sql: &'static str) -> Result<()> {
    execute(conn, sql, Args::default()).await.map_err(fault::outward)?;
    Ok(())
}

/// Some errors have rolled the transaction back already; then this one says so, and nobody needs to hear it.
async fn roll_back(conn: &mut sqlx::SqliteConnection) {
    if let Err(error) = run(conn, "ROLLBACK").await {
        tracing::debug!(%error, "nothing to roll back");
    }
}

async fn within(
    tx: &mut Transaction<'_>,
    versions: &mut Versions,
    round: &mut Round,
) -> Result<(Written, Vec<Option<Error>>)> {
    let group = Group::plan(round.works.iter(), versions, tx).await?;
    let written = group.write(tx).await?;
    let mut refused = Vec::with_capacity(round.changes.len());
    for change in &mut round.changes {
        run(tx.conn, "SAVEPOINT change").await?;
        refused.push(match change.run(tx).await {
            Ok(()) => None,
            Err(error) if error.is_refusal() => {
                run(tx.conn, "ROLLBACK TO change").await?;
                Some(error)
            }
            Err(error) => return Err(error),
        });
        run(tx.conn, "RELEASE change").await?;
    }
    Ok((written, refused))
}

/// Tells memory, then the callers.
fn publish(memory: &Memory, versions: &mut Versions, round: Round, durable: Durable) {
    let Durable { written, refused, memory: mut changes, versions_changed } = durable;
    let new = round.works.into_iter().zip(written.new).flat_map(|(work, new)| {
        let events = match work {
            Work::Append(events) => events,
            Work::Commit(_, emits) => emits,
        };
        events.into_iter().zip(new).filter_map(|(event, position)| Some(logged(event, position?)))
    });
    let mut events: Vec<_> = new.collect();
    // Those that changes appended, like fired timers, have greater positions.
    events.append(&mut changes.events);
    changes.events = events;
    memory.apply(changes);
    versions.extend(written.versions);
    if versions_changed {
        versions.clear();
    }
    for ((reply, _), answer) in round.replies.into_iter().zip(written.answers) {
        // Whoever asked may have gone away; what it asked for has happened all the same.
        let _ = reply.send(answer);
    }
    for (change, refused) in round.changes.into_iter().zip(refused) {
        match refused {
            None => change.done(),
            Some(error) => change.failed(error),
        }
    }
}

/// An event that is in the log now.
pub(super) fn logged(event: Incoming, position: Position) -> (TenantId, Arc<Logged>) {
    let new = event.new;
    let logged = Logged { position, shard: new.shard, recorded: new.recorded, lineage: new.lineage, event: new.event };
    (new.tenant, Arc::new(logged))
}
