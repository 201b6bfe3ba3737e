//! Appends of this node, merged: what comes while others are under way goes together in the next call.
//!
//! ```text
//!  callers ──▶ queue of the tenant's appender (bounded) ──▶ all that queued up ──▶ `append(…)`, one call ──▶ answers
//! ```
//!
//! A call holds its tenants' turns until it is committed (`take_turns`), so two calls with a tenant in common wait for each
//! other. Each appender therefore has tenants, and turns, of its own: those of one node run side by side.
//!
//! An append whose answer does not come may have happened: its callers are told that the store is unavailable, and what
//! they send again is found to be a duplicate.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bulkhead_domain::id::EventKey;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::TenantId;
use sqlx::postgres::PgRow;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Error;
use crate::Result;
use crate::assemble::Incoming;
use crate::log::Appended;
use crate::postgres::fault;
use crate::postgres::no_tenant;
use crate::postgres::session::Sessions;
use crate::postgres::text::Args;
use crate::row::Columns;
use crate::row::USUAL_TYPE;
use crate::row::list_text;

/// Requests that may wait. Their bytes have a bound of their own.
const QUEUE_MAX: usize = 4_096;
/// Kibibytes that may wait or be under way; who comes with more waits outside.
const ROOM_KIB: u32 = 64 << 10;
/// Events and bytes of one call: beyond that, one more sync costs nothing any more, and others wait too long.
const CALL_EVENTS_MAX: usize = 2_000;
const CALL_BYTES_MAX: usize = 8 << 20;

/// Which bits of a tenant's number say its turn, as `take_turns` has them.
const TURN_MASK: i64 = 127;
/// Nobody waits longer for an answer, however many are before it. More than one call takes.
const WAIT: Duration = Duration::from_secs(9);

/// One caller's events.
struct Request {
    events: Vec<Incoming>,
    reply: oneshot::Sender<Result<Vec<Appended>>>,
    _room: tokio::sync::OwnedSemaphorePermit,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Appends {
    /// One for each appender; none once closed.
    queues: Mutex<Vec<mpsc::Sender<Request>>>,
    room: Arc<Semaphore>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    /// Tenants never go, so what was found once is there.
    known: Mutex<HashSet<TenantId>>,
    sessions: Arc<Sessions>,
}

impl Appends {
    pub(super) fn start(sessions: Arc<Sessions>, appenders: usize) -> Self {
        let start = |_| {
            let (queue, requests) = mpsc::channel(QUEUE_MAX);
            (queue, tokio::spawn(work(Arc::clone(&sessions), requests)))
        };
        let (queues, workers) = (0..appenders.max(1)).map(start).unzip();
        Self {
            queues: Mutex::new(queues),
            room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
            workers: Mutex::new(workers),
            known: Mutex::default(),
            sessions,
        }
    }

    pub(super) async fn append(&self, events: Vec<Incoming>) -> Result<Vec<Appended>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        timeout(WAIT, self.enqueue(events)).await.map_err(|_| fault::refused("the database takes no appends now"))?
    }

    async fn enqueue(&self, events: Vec<Incoming>) -> Result<Vec<Appended>> {
        self.check_tenants(&events).await?;
        let closed = || fault::refused("the store is closed");
        let kib = u32::try_from(bytes_of(&events) >> 10).unwrap_or(u32::MAX).clamp(1, ROOM_KIB);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(|_| closed())?;
        let queue = self.queue(&events).ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        queue.send(Request { events, reply, _room: room }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Of the appender that has the first event's tenant: nearly every request is of one tenant.
    fn queue(&self, events: &[Incoming]) -> Option<mpsc::Sender<Request>> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = events.first()?.new.tenant.0 & TURN_MASK;
        queues.get(usize::try_from(turn).ok()?.checked_rem(queues.len())?).cloned()
    }

    /// Works off what is queued; later requests fail.
    pub(super) async fn close(&self) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in workers {
            if let Err(error) = worker.await {
                tracing::error!(%error, "an appender did not end well");
            }
        }
    }

    async fn check_tenants(&self, events: &[Incoming]) -> Result<()> {
        let new: HashSet<TenantId> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            events.iter().map(|event| event.new.tenant).filter(|tenant| !known.contains(tenant)).collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let mut args = Args::default();
        args.ints(new.iter().map(|tenant| tenant.0));
        let rows = self.sessions.fetch("SELECT * FROM known_tenants($1)", args).await?;
        let found: HashSet<TenantId> =
            rows.iter().map(|row| Ok(TenantId(Columns::new(row).int()?))).collect::<Result<_>>()?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).extend(&found);
        new.difference(&found).next().map_or(Ok(()), |missing| Err(no_tenant(*missing)))
    }
}

fn bytes_of(events: &[Incoming]) -> usize {
    events.iter().map(|event| event.new.event.data.len() + 512).sum()
}

async fn work(sessions: Arc<Sessions>, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = next(&mut requests).await {
        let (mut events, mut bytes) = (first.events.len(), bytes_of(&first.events));
        let mut round = vec![first];
        while events < CALL_EVENTS_MAX && bytes < CALL_BYTES_MAX {
            let Ok(next) = requests.try_recv() else { break };
            if next.reply.is_closed() {
                continue;
            }
            events += next.events.len();
            bytes += bytes_of(&next.events);
            round.push(next);
        }
        work_off(&sessions, round).await;
    }
}

/// The next request whose caller is there: after an outage, others have given up.
async fn next(requests: &mut mpsc::Receiver<Request>) -> Option<Request> {
    loop {
        let next = requests.recv().await?;
        if !next.reply.is_closed() {
            return Some(next);
        }
    }
}

async fn work_off(sessions: &Arc<Sessions>, round: Vec<Request>) {
    match call(sessions, &round).await {
        Ok(answers) => {
            for (request, answer) in round.into_iter().zip(answers) {
                // The caller may have gone away; what it asked for has happened all the same.
                let _ = request.reply.send(Ok(answer));
            }
        }
        // The server refused the call as it was, so nothing happened: who fails by itself fails alone.
        Err(error) if round.len() > 1 && is_refusal(&error) => {
            for request in round {
                let answer = call(sessions, std::slice::from_ref(&request)).await.map(|mut answers| answers.remove(0));
                let _ = request.reply.send(answer);
            }
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, requests = round.len(), "appends failed");
            for request in round {
                let _ = request.reply.send(Err(fault::again(&error)));
            }
        }
    }
}

/// Whether the server said no, and not that it cannot serve at all.
fn is_refusal(error: &Error) -> bool {
    // Class 53 are resources, which everybody lacks.
    fault::code(error).is_some_and(|code| !fault::is_class_of_server(code) && !code.starts_with("53"))
}

/// A row that fits no segment: the ones at hand are used up.
const NO_SEGMENT: &str = "23514";

async fn call(sessions: &Arc<Sessions>, round: &[Request]) -> Result<Vec<Vec<Appended>>> {
    let mut by_key: HashMap<(TenantId, EventKey), usize> = HashMap::new();
    let mut candidates: Vec<&Incoming> = Vec::new();
    // For each request, for each event: the candidate that stands for it, and whether it is that one itself.
    let mut places: Vec<Vec<(usize, bool)>> = Vec::with_capacity(round.len());
    for request in round {
        let of_request = request.events.iter().map(|event| {
            let next = candidates.len();
            let candidate = *by_key.entry((event.new.tenant, event.key)).or_insert(next);
            if candidate == next {
                candidates.push(event);
            }
            (candidate, candidate == next)
        });
        places.push(of_request.collect());
    }
    let sql = "SELECT * FROM append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
    let run = || async {
        let mut args = Args::default();
        args.ints(candidates.iter().map(|event| event.new.tenant.0));
        bind_events(&candidates, &mut args);
        sessions.fetch(sql, args).await
    };
    let mut answer = run().await;
    if answer.as_ref().is_err_and(|error| fault::code(error) == Some(NO_SEGMENT)) {
        sessions.fetch("SELECT grow()", Args::default()).await?;
        answer = run().await;
    }
    let (given, at) = answered(&answer?)?;
    let appended = |(candidate, itself): (usize, bool)| {
        let (given, at) = (given.get(candidate).copied(), at.get(candidate).copied());
        let (Some(given), Some(at)) = (given, at) else {
            return Err(Error::Damaged("the store answered for fewer events than it was given".into()));
        };
        Ok(if given == at && itself { Appended::Accepted(Position(at)) } else { Appended::Duplicate(Position(at)) })
    };
    places.into_iter().map(|of_request| of_request.into_iter().map(appended).collect()).collect()
}

/// The positions that events were given, and those where they are.
pub(super) fn answered(rows: &[PgRow]) -> Result<(Vec<i64>, Vec<i64>)> {
    let read = |row: &PgRow| Ok((sqlx::Row::try_get(row, 0)?, sqlx::Row::try_get(row, 1)?));
    let row = rows.first().ok_or_else(|| Error::Damaged("the store answered nothing".into()))?;
    read(row).map_err(|error: sqlx::Error| Error::Damaged(error.to_string()))
}

/// Binds events as `put_events` takes them, but for their tenants.
pub(super) fn bind_events(events: &[&Incoming], args: &mut Args) {
    let new = || events.iter().map(|incoming| &incoming.new);
    let event = || events.iter().map(|incoming| &incoming.new.event);
    let attributes: Vec<_> = event().map(|event| list_text(&event.attributes)).collect();
    args.ints(new().map(|new| i64::from(new.shard.0)))
        .ints(new().map(|new| new.recorded.0))
        .int_opts(new().map(|new| (new.event.time != new.recorded).then_some(new.event.time.0)))
        .ints(new().map(|new| i64::from(new.lineage.hops)))
        .ints(new().map(|new| i64::from(new.lineage.budget)))
        .texts(event().map(|event| event.id.as_str()))
        .texts(event().map(|event| event.source.as_str()))
        .texts(event().map(|event| event.kind.as_str()))
        .text_opts(event().map(|event| event.subject.as_deref()))
        .text_opts(event().map(|event| event.key.as_deref()))
        .text_opts(event().map(|event| (event.correlation != event.id).then_some(event.correlation.as_str())))
        .text_opts(event().map(|event| event.causation.as_deref()))
        .text_opts(event().map(|event| (event.content_type != USUAL_TYPE).then_some(event.content_type.as_str())))
        .text_opts(attributes.iter().map(Option::as_deref))
        .blobs(events.iter().map(|incoming| incoming.hash.as_slice()))
        .blobs(event().map(|event| &*event.data))
        .uuids(events.iter().map(|incoming| incoming.key.0));
}
