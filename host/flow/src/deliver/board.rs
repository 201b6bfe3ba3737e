//! Who waits, who is under way, and who is next. Pure but for the time, which the caller brings.
//!
//! A lane is one sink of one tenant. It holds few waiting deliveries, so that what the outbox says (dropped by a person,
//! tenant paused) is never acted upon late, and so that one sink's flood leaves room for the others' to be seen.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::time::Duration;

use bulkhead_domain::id::TenantId;
use bulkhead_store::deliveries::DueDelivery;
use tokio::time::Instant;

use crate::deliver::Options;
use crate::deliver::breaker::Breaker;
use crate::deliver::breaker::BreakerState;
use crate::deliver::breaker::Ticket;
use crate::deliver::handle::SinkKey;

/// Deliveries that wait here over all lanes, and their bytes: what a fetch or two brings, with bodies of 256 KiB.
const WAITING_MAX: usize = 512;
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Of one tenant.
const TENANT_WAITING_MAX: usize = 128;
/// A lane holds so many rounds of its concurrency.
const ROUNDS: usize = 4;
/// What waited longer is taken from the outbox again.
const STALE: Duration = Duration::from_secs(2);
/// How long a lane rests when its sink could not be looked up or is held.
const REST: Duration = Duration::from_secs(1);
/// A lane without work is forgotten after this; with it go its failures, so it is longer than most pauses.
const IDLE: Duration = Duration::from_secs(300);

struct Lane {
    waiting: VecDeque<(DueDelivery, Instant)>,
    running: usize,
    /// One until the sink was looked up, because it may be that it takes no more.
    concurrency: usize,
    breaker: Breaker,
    rests_until: Option<Instant>,
    /// When it last had a turn: an order, not a time.
    turn: u64,
    used: Instant,
}

impl Lane {
    fn new(now: Instant) -> Self {
        let (waiting, breaker) = (VecDeque::new(), Breaker::new(now));
        Self { waiting, running: 0, concurrency: 1, breaker, rests_until: None, turn: 0, used: now }
    }

    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    fn may_take(&self, now: Instant) -> bool {
        let most = match self.breaker.state() {
            BreakerState::Closed => self.concurrency * ROUNDS,
            BreakerState::Open | BreakerState::Probing => 1,
        };
        self.breaker.admits(now) && !self.rests(now) && self.waiting.len() < most
    }

    fn may_start(&self, now: Instant) -> bool {
        !self.waiting.is_empty() && self.running < self.concurrency && self.breaker.admits(now) && !self.rests(now)
    }
}

#[derive(Default)]
struct Load {
    waiting: usize,
    running: usize,
    turn: u64,
}

/// An attempt that begins.
pub(super) struct Start {
    pub(super) key: SinkKey,
    pub(super) due: DueDelivery,
    pub(super) ticket: Ticket,
}

pub(super) struct Board {
    lanes: HashMap<SinkKey, Lane>,
    /// Lanes in which something waits.
    ready: BTreeSet<SinkKey>,
    tenants: HashMap<TenantId, Load>,
    /// Ids that are here in any way: waiting, under way, or not settled yet.
    held: HashSet<(TenantId, String)>,
    waiting: usize,
    waiting_bytes: usize,
    running: usize,
    turns: u64,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            tenants: HashMap::new(),
            held: HashSet::new(),
            waiting: 0,
            waiting_bytes: 0,
            running: 0,
            turns: 0,
        }
    }

    /// Whether a fetch could be of use.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < WAITING_MAX / 2 && self.waiting_bytes < WAITING_BYTES_MAX / 2
    }

    /// Sinks that take nothing now.
    pub(super) fn without_sinks(&self, now: Instant) -> Vec<SinkKey> {
        let full = |tenant: &TenantId| self.tenants.get(tenant).is_some_and(|load| load.waiting >= TENANT_WAITING_MAX);
        let closed = |(key, lane): &(&SinkKey, &Lane)| !lane.may_take(now) || full(&key.0);
        self.lanes.iter().filter(closed).map(|(key, _)| key.clone()).collect()
    }

    /// Deliveries that are here already.
    pub(super) fn in_flight(&self) -> Vec<(TenantId, String)> {
        self.held.iter().cloned().collect()
    }

    /// Takes a delivery in if there is room for it; it stays in the outbox either way. Says whether the board learned
    /// something: it took it, or it knows a sink more to leave out.
    pub(super) fn offer(&mut self, due: DueDelivery, now: Instant) -> Offered {
        let (tenant, key) = (due.tenant, (due.tenant, due.delivery.sink.clone()));
        let new_lane = !self.lanes.contains_key(&key);
        let lane = self.lanes.entry(key.clone()).or_insert_with(|| Lane::new(now));
        lane.used = now;
        let load = self.tenants.entry(tenant).or_default();
        let room = self.waiting < WAITING_MAX
            && self.waiting_bytes + due.delivery.body.len() <= WAITING_BYTES_MAX
            && load.waiting < TENANT_WAITING_MAX
            && lane.may_take(now);
        if !room || !self.held.insert((tenant, due.delivery.id.clone())) {
            let filled = !lane.may_take(now) || load.waiting >= TENANT_WAITING_MAX;
            return if new_lane && filled { Offered::Learned } else { Offered::Left };
        }
        load.waiting += 1;
        self.waiting += 1;
        self.waiting_bytes += due.delivery.body.len();
        lane.waiting.push_back((due, now));
        self.ready.insert(key);
        Offered::Taken
    }

    /// The next attempt to begin: of the tenant with the fewest under way, of its sinks the one with the fewest; among
    /// equals whose turn is longest ago.
    pub(super) fn start(&mut self, now: Instant, options: &Options) -> Option<Start> {
        self.drop_stale(now);
        let free = options.running_max.saturating_sub(self.running);
        let eligible = |key: &&SinkKey| {
            let running = self.tenants.get(&key.0).map_or(0, |load| load.running);
            let slot = free > options.reserve || (free > 0 && running == 0);
            slot && running < options.tenant_running_max && self.lanes.get(*key).is_some_and(|lane| lane.may_start(now))
        };
        let rank = |key: &&SinkKey| {
            let (load, lane) = (&self.tenants[&key.0], &self.lanes[*key]);
            (load.running, load.turn, lane.running, lane.turn)
        };
        let key = self.ready.iter().filter(eligible).min_by_key(rank)?.clone();
        let due = self.take_waiting(&key)?;
        self.turns += 1;
        let turn = self.turns;
        let load = self.tenants.entry(key.0).or_default();
        (load.running, load.turn) = (load.running + 1, turn);
        let lane = self.lanes.get_mut(&key)?;
        (lane.running, lane.turn, lane.used) = (lane.running + 1, turn, now);
        let ticket = lane.breaker.begin();
        self.running += 1;
        Some(Start { key, due, ticket })
    }

    /// An attempt is over. Its delivery is held until [`Board::release`].
    pub(super) fn ended(&mut self, key: &SinkKey, now: Instant) {
        self.running = self.running.saturating_sub(1);
        if let Some(load) = self.tenants.get_mut(&key.0) {
            load.running = load.running.saturating_sub(1);
        }
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.running = lane.running.saturating_sub(1);
            lane.used = now;
        }
    }

    /// The outbox knows how it ended (or that nothing was tried): it may come again when it is due.
    pub(super) fn release(&mut self, tenant: TenantId, id: &str) {
        self.held.remove(&(tenant, id.to_owned()));
    }

    /// The sink was looked up and takes so many at a time.
    pub(super) fn set_concurrency(&mut self, key: &SinkKey, concurrency: usize) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.concurrency = concurrency.max(1);
        }
    }

    /// The sink can do nothing now; what waits for it goes back.
    pub(super) fn rest(&mut self, key: &SinkKey, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.rests_until = Some(now + REST);
        }
        self.clear_lane(key);
    }

    /// The breaker of a lane, which has one as long as something of it is here.
    pub(super) fn breaker(&mut self, key: &SinkKey) -> Option<&mut Breaker> {
        self.lanes.get_mut(key).map(|lane| &mut lane.breaker)
    }

    /// Forgets what was held against a sink.
    pub(super) fn reset(&mut self, key: &SinkKey, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(key) {
            // Tickets of the old breaker must mean nothing to the new one.
            lane.breaker = lane.breaker.renewed(now);
            lane.rests_until = None;
        }
    }

    /// Lets go of everything that waits in a lane.
    pub(super) fn clear_lane(&mut self, key: &SinkKey) {
        while let Some(due) = self.take_waiting(key) {
            self.release(due.tenant, &due.delivery.id);
        }
    }

    /// Lets go of everything that waits.
    pub(super) fn clear(&mut self) {
        for key in std::mem::take(&mut self.ready) {
            self.clear_lane(&key);
        }
    }

    /// When a lane that can do nothing now can next do something.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let change = |lane: &Lane| match lane.breaker.state() {
            BreakerState::Open => Some(lane.breaker.until()),
            BreakerState::Closed | BreakerState::Probing => lane.rests_until,
        };
        self.lanes.values().filter_map(change).filter(|at| *at > now).min()
    }

    /// Forgets lanes and tenants that have been idle for long; gives the lanes.
    pub(super) fn forget_idle(&mut self, now: Instant) -> Vec<SinkKey> {
        let idle = |lane: &Lane| lane.waiting.is_empty() && lane.running == 0 && lane.used + IDLE < now;
        let gone: Vec<_> = self.lanes.iter().filter(|(_, lane)| idle(lane)).map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.lanes.remove(key);
        }
        self.tenants.retain(|_, load| load.waiting + load.running > 0);
        gone
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    fn drop_stale(&mut self, now: Instant) {
        let stale = |key: &&SinkKey| {
            self.lanes[*key].waiting.front().is_some_and(|(_, since)| now.saturating_duration_since(*since) > STALE)
        };
        let stale: Vec<_> = self.ready.iter().filter(stale).cloned().collect();
        for key in stale {
            self.clear_lane(&key);
        }
    }

    fn take_waiting(&mut self, key: &SinkKey) -> Option<DueDelivery> {
        let lane = self.lanes.get_mut(key)?;
        let (due, _) = lane.waiting.pop_front()?;
        if lane.waiting.is_empty() {
            self.ready.remove(key);
        }
        self.waiting -= 1;
        self.waiting_bytes -= due.delivery.body.len();
        if let Some(load) = self.tenants.get_mut(&key.0) {
            load.waiting -= 1;
        }
        Some(due)
    }
}

/// What came of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// It waits here now.
    Taken,
    /// It does not, but its sink is known now and will be left out.
    Learned,
    /// It does not.
    Left,
}
