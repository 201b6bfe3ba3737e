//! Which (tenant, shard) is worked on next: a ready queue with deficit round robin by measured cost.
//!
//! Every tenant has a credit in microseconds of worker time. A turn costs what its batch took; a tenant whose credit is
//! spent waits while the others take their turns, and gains a quantum each time the queue comes round to it. A tenant
//! that has nothing to do has no entry, so an idle tenant costs nothing and saves nothing up.
//!
//! At most one turn of a (tenant, shard) is under way at a time: its batches follow each other.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use tokio::sync::Notify;

/// What a tenant gains each time the queue comes round to it: about one full batch of ordinary plugins.
const QUANTUM: i64 = 10_000;
/// No turn, however dear, makes a tenant wait for more than this many rounds.
const DEBT_MAX: i64 = 500 * QUANTUM;

/// One turn: the right to work on a shard of a tenant until [`Schedule::done`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Turn {
    /// Whose.
    pub tenant: TenantId,
    /// Where.
    pub shard: Shard,
}

/// How a turn left its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing is to be done until somebody wakes it.
    Idle,
    /// There is more.
    More,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Queued,
    Running,
    /// Running, and woken since it began.
    RunningAgain,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Turn>,
    slots: HashMap<Turn, Slot>,
    /// Credit of tenants that owe something or are at work.
    credit: HashMap<TenantId, i64>,
    paused: bool,
}

/// The ready queue.
#[derive(Debug, Default)]
pub struct Schedule {
    inner: Mutex<Inner>,
    ready: Notify,
    ended: Notify,
}

impl Schedule {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to do here.
    pub fn wake(&self, turn: Turn) {
        let mut inner = self.lock();
        match inner.slots.get(&turn) {
            Some(Slot::Queued | Slot::RunningAgain) => {}
            Some(Slot::Running) => {
                inner.slots.insert(turn, Slot::RunningAgain);
            }
            None => {
                inner.slots.insert(turn, Slot::Queued);
                inner.queue.push_back(turn);
                drop(inner);
                self.ready.notify_one();
            }
        }
    }

    /// Stops giving out turns, or goes on.
    pub fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
        if !paused {
            self.ready.notify_waiters();
            self.ready.notify_one();
        }
    }

    /// The next turn, when there is one. Safe to cancel.
    pub async fn next(&self) -> Turn {
        loop {
            let notified = self.ready.notified();
            if let Some((turn, more)) = self.take() {
                if more {
                    // The permit that woke us may have stood for several entries.
                    self.ready.notify_one();
                }
                return turn;
            }
            notified.await;
        }
    }

    fn take(&self) -> Option<(Turn, bool)> {
        let mut inner = self.lock();
        if inner.paused || inner.queue.is_empty() {
            return None;
        }
        loop {
            for _ in 0..inner.queue.len() {
                let turn = inner.queue.pop_front()?;
                let credit = inner.credit.entry(turn.tenant).or_insert(0);
                *credit = (*credit + QUANTUM).min(QUANTUM);
                if *credit > 0 {
                    inner.slots.insert(turn, Slot::Running);
                    let more = !inner.queue.is_empty();
                    return Some((turn, more));
                }
                inner.queue.push_back(turn);
            }
            // Everybody who waits is in debt: let as many rounds go by as the least indebted needs.
            let Inner { queue, credit, .. } = &mut *inner;
            let waiting: HashSet<TenantId> = queue.iter().map(|turn| turn.tenant).collect();
            let least = waiting.iter().filter_map(|tenant| credit.get(tenant)).max().map_or(0, |best| -best / QUANTUM);
            for tenant in waiting {
                *credit.entry(tenant).or_insert(0) += least * QUANTUM;
            }
        }
    }

    /// Resolves when no turn is under way in these shards.
    pub async fn left(&self, shards: &[Shard]) {
        loop {
            let ended = self.ended.notified();
            let queued = |slot: &Slot| matches!(slot, Slot::Queued);
            if self.lock().slots.iter().all(|(turn, slot)| queued(slot) || !shards.contains(&turn.shard)) {
                return;
            }
            ended.await;
        }
    }

    /// A turn is over; it took `cost` of a worker.
    pub fn done(&self, turn: Turn, cost: Duration, left: Left) {
        let mut inner = self.lock();
        let again = inner.slots.remove(&turn) == Some(Slot::RunningAgain) || left == Left::More;
        let cost = i64::try_from(cost.as_micros()).unwrap_or(i64::MAX);
        let credit = inner.credit.entry(turn.tenant).or_insert(0);
        *credit = credit.saturating_sub(cost).max(-DEBT_MAX);
        self.ended.notify_waiters();
        if again {
            inner.slots.insert(turn, Slot::Queued);
            inner.queue.push_back(turn);
            drop(inner);
            self.ready.notify_one();
        } else if inner.credit.get(&turn.tenant).is_some_and(|credit| *credit >= 0) {
            inner.credit.remove(&turn.tenant);
        }
    }

    /// Turns waiting and under way.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.queue.len(), inner.slots.len() - inner.queue.len())
    }

    /// Forgets debts of tenants that have nothing to do; called now and then.
    pub fn forgive_idle(&self) {
        let mut inner = self.lock();
        let busy: HashSet<TenantId> = inner.slots.keys().map(|turn| turn.tenant).collect();
        inner.credit.retain(|tenant, _| busy.contains(tenant));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn turn(tenant: i64) -> Turn {
        Turn { tenant: TenantId(tenant), shard: Shard(0) }
    }

    #[tokio::test]
    async fn a_shard_has_one_turn_at_a_time_and_no_wake_is_lost() {
        let schedule = Schedule::default();
        schedule.wake(turn(1));
        schedule.wake(turn(1));
        assert_eq!(schedule.next().await, turn(1));
        assert_eq!(schedule.depth(), (0, 1));
        schedule.wake(turn(1));
        assert_eq!(schedule.depth(), (0, 1), "it is running");
        schedule.done(turn(1), Duration::ZERO, Left::Idle);
        assert_eq!(schedule.next().await, turn(1), "it was woken while it ran");
        schedule.done(turn(1), Duration::ZERO, Left::Idle);
        assert_eq!(schedule.depth(), (0, 0));
        assert!(schedule.lock().credit.is_empty(), "an idle tenant has no entry");
    }

    #[tokio::test]
    async fn turns_are_shared_by_cost() {
        let schedule = Schedule::default();
        schedule.wake(turn(1));
        schedule.wake(turn(2));
        let (mut spent, cost) = (HashMap::new(), HashMap::from([(turn(1), 100_000), (turn(2), 1_000)]));
        for _ in 0..10_000 {
            let next = schedule.next().await;
            let micros = cost[&next];
            *spent.entry(next).or_insert(0_u64) += micros;
            schedule.done(next, Duration::from_micros(micros), Left::More);
        }
        let (dear, cheap) = (spent[&turn(1)] as f64, spent[&turn(2)] as f64);
        // The cheap tenant's share is bounded by what it asks for; the dear one must not have more than its half.
        assert!(dear / (dear + cheap) < 0.95, "dear {dear} cheap {cheap}");
        let turns = |tenant: i64| spent[&turn(tenant)] / cost[&turn(tenant)];
        assert!(turns(2) > 8 * turns(1), "the cheap one comes round more often: {} {}", turns(2), turns(1));
    }

    #[tokio::test]
    async fn a_lone_debtor_is_served_at_once() {
        let schedule = Schedule::default();
        schedule.wake(turn(1));
        for _ in 0..3 {
            assert_eq!(schedule.next().await, turn(1));
            schedule.done(turn(1), Duration::from_secs(60), Left::More);
        }
    }

    #[tokio::test]
    async fn a_shard_is_left_when_its_last_turn_is_over() {
        let schedule = Schedule::default();
        let other = Turn { tenant: TenantId(1), shard: Shard(1) };
        schedule.wake(turn(1));
        schedule.wake(other);
        schedule.left(&[Shard(0), Shard(1)]).await;
        assert_eq!([schedule.next().await, schedule.next().await], [turn(1), other]);
        let waiting = schedule.left(&[Shard(1)]);
        tokio::pin!(waiting);
        assert!(once(&mut waiting).await.is_none());
        schedule.done(turn(1), Duration::ZERO, Left::Idle);
        assert!(once(&mut waiting).await.is_none(), "that was another shard's");
        schedule.done(other, Duration::ZERO, Left::Idle);
        waiting.await;
    }

    /// What a future gives if it is looked at once.
    async fn once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn nothing_is_given_out_while_paused() {
        let schedule = Schedule::default();
        schedule.set_paused(true);
        schedule.wake(turn(1));
        assert!(schedule.take().is_none());
        schedule.set_paused(false);
        assert_eq!(schedule.next().await, turn(1));
    }
}
