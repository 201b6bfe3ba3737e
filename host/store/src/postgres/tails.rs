//! Looks of this node's live streams, merged: what comes while one call is under way goes together in the next.
//!
//! ```text
//!  callers ──▶ queue (bounded) ──▶ one look of each tenant that waits ──▶ `tails(…)`, one call ──▶ answers
//! ```
//!
//! A tenant has one look in a call, and a look has a bound in events and in bytes: who follows a log from far behind, with
//! any number of streams, takes no more of a call than others do. A call that takes long, over a dead wire perhaps, is left
//! behind: the next goes over another connection, without the tenants that wait for that one.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bulkhead_domain::id::Position;
use bulkhead_domain::id::TenantId;
use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::PgRow;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Error;
use crate::Result;
use crate::log::TAIL_BYTES;
use crate::log::Tail;
use crate::postgres::fault;
use crate::postgres::session::Sessions;
use crate::postgres::text::Args;
use crate::postgres::text::count;
use crate::row;
use crate::row::Columns;

/// Looks that may wait; who comes with more waits outside.
const QUEUE_MAX: usize = 4_096;
/// Looks of one call: with [`TAIL_BYTES`] each they are 8 MiB at most, but for single events that are larger.
const CALL_MAX: usize = 32;
/// A call that takes longer is no reason any more for others to wait: a multiple of what a full one takes.
const SLOW: Duration = Duration::from_millis(250);
/// Slow calls at the same time, beside one more, and the part of a node's connections that they may have.
const SLOW_MAX: usize = 2;
const SLOW_PART: usize = 8;
/// Nobody waits longer for an answer, however many are before it. More than one call takes.
const WAIT: Duration = Duration::from_secs(9);

/// Where the columns of an event begin in what `tails` gives.
const EVENT: usize = 2;

/// What a stream asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    tenant: TenantId,
    after: Position,
    kind: Option<String>,
    limit: u32,
}

/// A question, and who waits for its answer: streams that stand at the same place ask the same.
struct Look {
    question: Question,
    replies: Vec<oneshot::Sender<Result<Tail>>>,
    /// While it is under way.
    place: Option<Place>,
}

impl Look {
    fn is_wanted(&self) -> bool {
        self.replies.iter().any(|reply| !reply.is_closed())
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Tails {
    /// None once closed.
    queue: Mutex<Option<mpsc::Sender<Look>>>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Tails {
    /// For a node with so many connections.
    pub(super) fn start(sessions: Arc<Sessions>, connections: u32) -> Self {
        let (queue, looks) = mpsc::channel(QUEUE_MAX);
        let slow_max = SLOW_MAX.min(connections as usize / SLOW_PART);
        let worker = tokio::spawn(work(sessions, looks, slow_max));
        Self { queue: Mutex::new(Some(queue)), worker: Mutex::new(Some(worker)) }
    }

    pub(super) async fn look(&self, tenant: TenantId, after: Position, kind: Option<&str>, limit: u32) -> Result<Tail> {
        let closed = || fault::refused("the store is closed");
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        let question = Question { tenant, after, kind: kind.map(str::to_owned), limit };
        let answered = timeout(WAIT, async {
            queue.send(Look { question, replies: vec![reply], place: None }).await.map_err(|_| closed())?;
            // Whoever closes waits until nobody can ask any more.
            drop(queue);
            answer.await.map_err(|_| closed())?
        });
        answered.await.map_err(|_| fault::refused("the database answers no looks now"))?
    }

    /// Works off what is queued; later looks fail.
    pub(super) async fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(worker) = worker
            && let Err(error) = worker.await
        {
            tracing::error!(%error, "the looks of live streams did not end well");
        }
    }
}

async fn work(sessions: Arc<Sessions>, mut looks: mpsc::Receiver<Look>, slow_max: usize) {
    let under_way = Arc::<UnderWay>::default();
    let mut waiting = VecDeque::new();
    let mut calls = Calls { newest: None, slow: FuturesUnordered::new(), slow_max };
    loop {
        calls.turn().await;
        while waiting.len() < QUEUE_MAX
            && let Ok(next) = looks.try_recv()
        {
            waiting.push_back(next);
        }
        let round = round(&mut waiting, &under_way);
        if !round.is_empty() {
            let sessions = Arc::clone(&sessions);
            calls.newest = Some(tokio::spawn(async move { work_off(&sessions, round).await }));
            continue;
        }
        // Nothing waits, or only for looks of the same tenants in slow calls.
        tokio::select! {
            next = looks.recv(), if waiting.len() < QUEUE_MAX => match next {
                Some(look) => waiting.push_back(look),
                None if waiting.is_empty() => break,
                None => under_way.one_ended.notified().await,
            },
            () = under_way.one_ended.notified() => {}
        }
    }
    calls.end().await;
}

/// Calls under way: the newest, for which others wait so that they go together, and slow ones before it.
struct Calls {
    newest: Option<JoinHandle<()>>,
    slow: FuturesUnordered<JoinHandle<()>>,
    slow_max: usize,
}

impl Calls {
    /// Until the next one may begin.
    async fn turn(&mut self) {
        if let Some(newest) = &mut self.newest {
            match timeout(SLOW, newest).await {
                Ok(ended) => {
                    self.newest = None;
                    is_well(ended);
                }
                Err(_) => self.slow.extend(self.newest.take()),
            }
        }
        while let Some(Some(ended)) = self.slow.next().now_or_never() {
            is_well(ended);
        }
        while self.slow.len() > self.slow_max
            && let Some(ended) = self.slow.next().await
        {
            is_well(ended);
        }
    }

    async fn end(mut self) {
        self.slow.extend(self.newest.take());
        while let Some(ended) = self.slow.next().await {
            is_well(ended);
        }
    }
}

/// Whoever waited for a call that panicked was told that the store is closed.
fn is_well(ended: std::result::Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a call for live streams did not end well");
    }
}

/// Whose looks are under way: a tenant has one at a time.
#[derive(Debug, Default)]
struct UnderWay {
    tenants: Mutex<HashSet<TenantId>>,
    one_ended: Notify,
}

impl UnderWay {
    /// None if the tenant has a look under way.
    fn begin(self: &Arc<Self>, tenant: TenantId) -> Option<Place> {
        let is_new = self.tenants.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant);
        is_new.then(|| Place { tenant, of: Arc::clone(self) })
    }
}

/// A tenant's look that is under way, until this is dropped.
#[derive(Debug)]
struct Place {
    tenant: TenantId,
    of: Arc<UnderWay>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.tenants.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.tenant);
        self.of.one_ended.notify_one();
    }
}

/// The looks of the next call: the oldest of each tenant that has none under way. Of what waits longer, tenants that were not
/// served come first; streams that ended are forgotten.
fn round(waiting: &mut VecDeque<Look>, under_way: &Arc<UnderWay>) -> Vec<Look> {
    let mut round: Vec<Look> = Vec::new();
    let mut chosen = HashMap::new();
    let (mut left, mut again) = (VecDeque::new(), VecDeque::new());
    for mut look in std::mem::take(waiting).into_iter().filter(Look::is_wanted) {
        let tenant = look.question.tenant;
        if let Some(at) = chosen.get(&tenant) {
            let first: &mut Look = &mut round[*at];
            if first.question == look.question {
                first.replies.extend(look.replies);
            } else {
                again.push_back(look);
            }
        } else if round.len() < CALL_MAX
            && let Some(place) = under_way.begin(tenant)
        {
            look.place = Some(place);
            chosen.insert(tenant, round.len());
            round.push(look);
        } else {
            left.push_back(look);
        }
    }
    waiting.append(&mut left);
    waiting.append(&mut again);
    round
}

/// Answers them. What fails together is asked for again in halves: what one tenant's events do to a call stays with that
/// tenant, a connection that was gone is another one then, and what takes too long in one takes half as long.
async fn work_off(sessions: &Arc<Sessions>, round: Vec<Look>) {
    let mut rounds = vec![round];
    while let Some(mut round) = rounds.pop() {
        round.retain(Look::is_wanted);
        if round.is_empty() {
            continue;
        }
        match call(sessions, &round).await {
            Ok(tails) => round.into_iter().zip(tails).for_each(|(look, tail)| answer(look, tail)),
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                tracing::warn!(error = cause, looks = round.len(), "looks of live streams failed");
                let half = round.split_off(round.len() / 2);
                if round.is_empty() {
                    half.into_iter().for_each(|look| answer(look, Err(fault::again(&error))));
                } else {
                    rounds.extend([half, round]);
                }
            }
        }
    }
}

/// Streams may have ended meanwhile; the others may look again at once.
fn answer(mut look: Look, tail: Result<Tail>) {
    look.place = None;
    for reply in look.replies {
        let again = match &tail {
            Ok(tail) => Ok(tail.clone()),
            Err(error) => Err(fault::again(error)),
        };
        let _ = reply.send(again);
    }
}

/// An answer for each look. One that does not read is the fault of its tenant's events alone.
async fn call(sessions: &Arc<Sessions>, round: &[Look]) -> Result<Vec<Result<Tail>>> {
    let questions = || round.iter().map(|look| &look.question);
    let mut args = Args::default();
    args.ints(questions().map(|question| question.tenant.0))
        .ints(questions().map(|question| question.after.0))
        .text_opts(questions().map(|question| question.kind.as_deref()))
        .ints(questions().map(|question| i64::from(question.limit)))
        .int(count(TAIL_BYTES as u64));
    let rows = sessions.fetch("SELECT * FROM tails($1, $2, $3, $4, $5)", args).await?;
    let at = |row: &PgRow| Columns::new(row).int().ok();
    let tails: Vec<_> = rows.chunk_by(|row, next| at(row) == at(next)).map(tail).collect();
    if tails.len() != round.len() {
        return Err(Error::Damaged(format!("the store answered {} of {} looks", tails.len(), round.len())));
    }
    Ok(tails)
}

/// The rows of one look: how far it came, then the events.
fn tail(rows: &[PgRow]) -> Result<Tail> {
    let (head, events) = rows.split_first().ok_or_else(|| Error::Damaged("the store answered nothing".into()))?;
    let mut columns = Columns::beyond(head, 1);
    let (more, reached) = (columns.flag()?, columns.position()?);
    let events = events.iter().map(|event| Ok(row::event(&mut Columns::beyond(event, EVENT))?.0));
    Ok(Tail { events: events.collect::<Result<_>>()?, reached, more })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(tenant: i64, after: i64) -> (Look, oneshot::Receiver<Result<Tail>>) {
        let (reply, answer) = oneshot::channel();
        let question = Question { tenant: TenantId(tenant), after: Position(after), kind: None, limit: 1 };
        (Look { question, replies: vec![reply], place: None }, answer)
    }

    fn tenants(round: &[Look]) -> Vec<i64> {
        round.iter().map(|look| look.question.tenant.0).collect()
    }

    #[test]
    fn a_tenant_with_many_streams_has_one_look_in_a_call() {
        let looks = [(1, 0), (1, 1), (2, 0), (1, 2), (3, 0)].map(|(tenant, after)| look(tenant, after));
        let (mut waiting, answers): (VecDeque<_>, Vec<_>) = looks.into_iter().unzip();
        let under_way = Arc::default();
        assert_eq!(tenants(&round(&mut waiting, &under_way)), [1, 2, 3]);
        assert_eq!(tenants(&round(&mut waiting, &under_way)), [1]);
        drop(answers);
        assert!(round(&mut waiting, &under_way).is_empty(), "whose stream has ended is not looked for");
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_tenant_whose_look_is_under_way_waits_for_that() {
        let looks = [(1, 0), (2, 0), (1, 1)].map(|(tenant, after)| look(tenant, after));
        let (mut waiting, _answers): (VecDeque<_>, Vec<_>) = looks.into_iter().unzip();
        let under_way = Arc::<UnderWay>::default();
        let place = under_way.begin(TenantId(1));
        assert!(place.is_some());
        assert_eq!(tenants(&round(&mut waiting, &under_way)), [2]);
        assert!(round(&mut waiting, &under_way).is_empty());
        assert_eq!(waiting.len(), 2);
        drop(place);
        let round = round(&mut waiting, &under_way);
        assert_eq!(tenants(&round), [1]);
        assert!(under_way.begin(TenantId(1)).is_none());
        round.into_iter().for_each(|look| answer(look, Err(fault::refused("for once"))));
        assert!(under_way.begin(TenantId(1)).is_some(), "what was answered is not under way");
    }

    #[test]
    fn streams_that_ask_the_same_share_the_answer() {
        let (mut waiting, answers): (VecDeque<_>, Vec<_>) =
            [5, 5, 6, 5].map(|after| look(1, after)).into_iter().unzip();
        let mut first = round(&mut waiting, &Arc::default());
        assert_eq!((first.len(), first[0].replies.len(), waiting.len()), (1, 3, 1));
        let tail = Tail { events: vec![], reached: Position(7), more: false };
        answer(first.remove(0), Ok(tail.clone()));
        let mut answered = answers.into_iter().map(|mut answer| answer.try_recv().ok().and_then(Result::ok));
        assert_eq!(answered.next(), Some(Some(tail)));
        assert_eq!(answered.filter(Option::is_some).count(), 2);
    }

    #[test]
    fn a_call_is_bounded_and_who_was_not_served_comes_first() {
        let many = i64::try_from(CALL_MAX).expect("because it is small") + 2;
        let looks = (0..many).flat_map(|tenant| [look(tenant, 0), look(tenant, 1)]);
        let (mut waiting, _answers): (VecDeque<_>, Vec<_>) = looks.unzip();
        assert_eq!(tenants(&round(&mut waiting, &Arc::default())), (0..many - 2).collect::<Vec<_>>());
        assert_eq!(tenants(&round(&mut waiting, &Arc::default()))[..3], [many - 2, many - 1, 0]);
    }
}
