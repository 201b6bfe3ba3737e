//! Which (tenant, shard) is worked on next: a ready queue with deficit round robin by measured cost.
//!
//! Every tenant has a credit in microseconds of worker time. A turn costs what its batch took; a tenant whose credit is
//! spent waits while the others take their turns, and gains a quantum each time the queue comes round to it. A tenant
//! that has nothing to do has no entry, so an idle tenant costs nothing and saves nothing up.
//!
//! At most one turn of a (tenant, shard) is under way at a time: its batches follow each other.
//!
//! Quotas come in as [`Terms`] of a tenant. One in the soft lane takes its turns when nobody else waits, and else one of
//! sixteen, so that it is late but never starved. A turn that its tenant's terms do not allow now is set aside, where it
//! costs nobody a look, until a turn of that tenant ends or its terms change.

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
/// While others wait, one turn of so many is the soft lane's.
const SOFT_TURN: u32 = 16;

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

/// What a tenant's quotas allow it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Its turns come after those of others.
    pub soft: bool,
    /// It gets no turn.
    pub held: bool,
    /// Turns under way at once.
    pub turns: u16,
}

impl Default for Terms {
    /// No limits.
    fn default() -> Self {
        Self { soft: false, held: false, turns: u16::MAX }
    }
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
    /// Turns of tenants in the soft lane.
    soft: VecDeque<Turn>,
    /// Turns given out since the last one of the soft lane.
    since_soft: u32,
    /// Turns that their tenant's terms do not allow now.
    aside: HashMap<TenantId, VecDeque<Turn>>,
    slots: HashMap<Turn, Slot>,
    /// Turns under way, of tenants that have any.
    running: HashMap<TenantId, u16>,
    /// Of tenants that have any but the usual ones.
    terms: HashMap<TenantId, Terms>,
    /// Credit of tenants that owe something or are at work.
    credit: HashMap<TenantId, i64>,
    paused: bool,
}

impl Inner {
    fn terms(&self, tenant: TenantId) -> Terms {
        self.terms.get(&tenant).copied().unwrap_or_default()
    }

    fn running(&self, tenant: TenantId) -> u16 {
        self.running.get(&tenant).copied().unwrap_or_default()
    }

    fn may_begin(&self, tenant: TenantId) -> bool {
        let terms = self.terms(tenant);
        !terms.held && self.running(tenant) < terms.turns
    }

    fn enqueue(&mut self, turn: Turn) {
        self.slots.insert(turn, Slot::Queued);
        if self.terms(turn.tenant).soft {
            self.soft.push_back(turn);
        } else {
            self.queue.push_back(turn);
        }
    }

    /// Queues what was set aside, if any of it may begin.
    fn take_back(&mut self, tenant: TenantId) {
        if self.may_begin(tenant) {
            for turn in self.aside.remove(&tenant).unwrap_or_default() {
                self.enqueue(turn);
            }
        }
    }

    fn take(&mut self) -> Option<Turn> {
        if self.since_soft >= SOFT_TURN - 1
            && let Some(turn) = self.take_soft()
        {
            return Some(turn);
        }
        match self.take_usual() {
            Some(turn) => {
                self.since_soft = self.since_soft.saturating_add(1);
                Some(turn)
            }
            None => self.take_soft(),
        }
    }

    /// The next turn of the soft lane. Who is there takes turns by number, not by cost.
    fn take_soft(&mut self) -> Option<Turn> {
        loop {
            let turn = self.soft.pop_front()?;
            if self.may_begin(turn.tenant) {
                self.since_soft = 0;
                return Some(turn);
            }
            self.aside.entry(turn.tenant).or_default().push_back(turn);
        }
    }

    /// The next turn of the usual lane, by cost.
    fn take_usual(&mut self) -> Option<Turn> {
        loop {
            for _ in 0..self.queue.len() {
                let turn = self.queue.pop_front()?;
                if !self.may_begin(turn.tenant) {
                    self.aside.entry(turn.tenant).or_default().push_back(turn);
                    continue;
                }
                if self.terms(turn.tenant).soft {
                    self.soft.push_back(turn);
                    continue;
                }
                let credit = self.credit.entry(turn.tenant).or_insert(0);
                *credit = (*credit + QUANTUM).min(QUANTUM);
                if *credit > 0 {
                    return Some(turn);
                }
                self.queue.push_back(turn);
            }
            if self.queue.is_empty() {
                return None;
            }
            // Everybody who waits is in debt: let as many rounds go by as the least indebted needs.
            let Self { queue, credit, .. } = self;
            let waiting: HashSet<TenantId> = queue.iter().map(|turn| turn.tenant).collect();
            let least = waiting.iter().filter_map(|tenant| credit.get(tenant)).max().map_or(0, |best| -best / QUANTUM);
            for tenant in waiting {
                *credit.entry(tenant).or_insert(0) += least * QUANTUM;
            }
        }
    }
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
                inner.enqueue(turn);
                drop(inner);
                self.ready.notify_one();
            }
        }
    }

    /// What a tenant's quotas allow from now on. Turns under way go on.
    pub fn set_terms(&self, tenant: TenantId, terms: Terms) {
        let mut inner = self.lock();
        let before = inner.terms(tenant);
        if terms == before {
            return;
        }
        if terms == Terms::default() {
            inner.terms.remove(&tenant);
        } else {
            inner.terms.insert(tenant, terms);
        }
        if before.soft && !terms.soft {
            let Inner { queue, soft, .. } = &mut *inner;
            queue.extend(soft.iter().filter(|turn| turn.tenant == tenant));
            soft.retain(|turn| turn.tenant != tenant);
        }
        inner.take_back(tenant);
        drop(inner);
        self.ready.notify_one();
    }

    /// Whether a tenant that has a turn under way may go on with it: that it was given one under other terms is no reason
    /// to keep it.
    #[must_use]
    pub fn may_go_on(&self, tenant: TenantId) -> bool {
        let inner = self.lock();
        let terms = inner.terms(tenant);
        !terms.held && inner.running(tenant) <= terms.turns
    }

    /// Turns of a tenant under way, and turns that are set aside.
    #[must_use]
    pub fn of_tenant(&self, tenant: TenantId) -> (usize, usize) {
        let inner = self.lock();
        (usize::from(inner.running(tenant)), inner.aside.get(&tenant).map_or(0, VecDeque::len))
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
        if inner.paused {
            return None;
        }
        let turn = inner.take()?;
        inner.slots.insert(turn, Slot::Running);
        *inner.running.entry(turn.tenant).or_default() += 1;
        Some((turn, !inner.queue.is_empty() || !inner.soft.is_empty()))
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
        if let Some(running) = inner.running.get_mut(&turn.tenant) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                inner.running.remove(&turn.tenant);
            }
        }
        // The soft lane is not shared out by cost, so nobody comes back from it in debt.
        if !inner.terms(turn.tenant).soft {
            let cost = i64::try_from(cost.as_micros()).unwrap_or(i64::MAX);
            let credit = inner.credit.entry(turn.tenant).or_insert(0);
            *credit = credit.saturating_sub(cost).max(-DEBT_MAX);
        }
        self.ended.notify_waiters();
        inner.take_back(turn.tenant);
        if again {
            inner.enqueue(turn);
        } else if inner.credit.get(&turn.tenant).is_some_and(|credit| *credit >= 0) {
            inner.credit.remove(&turn.tenant);
        }
        drop(inner);
        self.ready.notify_one();
    }

    /// Turns waiting and under way.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        let inner = self.lock();
        let running = inner.running.values().copied().map(usize::from).sum();
        (inner.slots.len() - running, running)
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

    /// Gives turns out, one at a time, as long as there are any, but at most so many. Each is over at once, and there is
    /// more.
    fn given(schedule: &Schedule, most: usize) -> Vec<i64> {
        let mut given = Vec::new();
        while given.len() < most
            && let Some((turn, _)) = schedule.take()
        {
            given.push(turn.tenant.0);
            schedule.done(turn, Duration::from_millis(1), Left::More);
        }
        given
    }

    #[test]
    fn the_soft_lane_is_served_when_nobody_else_waits_and_else_one_time_in_sixteen() {
        let schedule = Schedule::default();
        schedule.wake(turn(1));
        schedule.set_terms(TenantId(1), Terms { soft: true, ..Terms::default() });
        assert_eq!(given(&schedule, 5), [1; 5], "alone it has all there is");
        schedule.wake(turn(2));
        schedule.wake(turn(3));
        let shares = given(&schedule, 1_600);
        let share = |tenant: i64| shares.iter().filter(|given| **given == tenant).count();
        assert_eq!((share(1), share(2), share(3)), (100, 750, 750));
        schedule.set_terms(TenantId(1), Terms::default());
        let shares = given(&schedule, 300);
        assert_eq!(shares.iter().filter(|given| **given == 1).count(), 100, "and back among the others");
    }

    #[test]
    fn no_more_turns_of_a_tenant_are_under_way_than_its_terms_allow() {
        let schedule = Schedule::default();
        for shard in 0..4 {
            schedule.wake(Turn { tenant: TenantId(1), shard: Shard(shard) });
        }
        let first = schedule.take().expect("because four wait").0;
        let second = schedule.take().expect("because three wait").0;
        schedule.set_terms(TenantId(1), Terms { turns: 1, ..Terms::default() });
        assert!(!schedule.may_go_on(TenantId(1)), "two were given out before");
        schedule.wake(turn(2));
        assert_eq!(schedule.take().map(|(turn, _)| turn.tenant), Some(TenantId(2)));
        assert_eq!(schedule.of_tenant(TenantId(1)), (2, 2));
        assert_eq!(schedule.depth(), (2, 3));
        schedule.done(first, Duration::ZERO, Left::More);
        assert!(schedule.may_go_on(TenantId(1)));
        assert!(schedule.take().is_none());
        let mut shards = HashSet::new();
        let mut under_way = second;
        for _ in 0..4 {
            schedule.done(under_way, Duration::ZERO, Left::Idle);
            let Some((next, _)) = schedule.take() else { break };
            shards.insert(next.shard);
            assert!(schedule.take().is_none(), "one at a time");
            under_way = next;
        }
        assert_eq!(shards.len(), 3, "each of them had its turn");
        assert_eq!(schedule.depth(), (0, 1));
    }

    #[tokio::test]
    async fn who_is_held_gets_no_turn_until_it_is_over_and_loses_none() {
        let schedule = Schedule::default();
        schedule.set_terms(TenantId(1), Terms { held: true, soft: true, ..Terms::default() });
        schedule.wake(turn(1));
        schedule.wake(turn(2));
        assert_eq!(schedule.next().await, turn(2));
        let next = schedule.next();
        tokio::pin!(next);
        assert!(once(&mut next).await.is_none());
        schedule.wake(turn(1));
        assert_eq!(schedule.depth(), (1, 1), "however often it is woken");
        schedule.set_terms(TenantId(1), Terms::default());
        assert_eq!(next.await, turn(1));
        assert!(schedule.lock().terms.is_empty() && schedule.lock().aside.is_empty());
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
