//! The loop: one task that owns the board; attempts, fetches and settlings run beside it and come back to it.

use std::collections::HashMap;
use std::future::Future;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkhead_domain::clock::Clock;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Shard;
use bulkhead_store::deliveries::Deliveries;
use bulkhead_store::deliveries::DueDelivery;
use bulkhead_store::deliveries::Settled;
use bulkhead_store::deliveries::Settlement;
use tokio::task::Id;
use tokio::task::JoinError;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::deliver::Options;
use crate::deliver::SinkDirectory;
use crate::deliver::attempt;
use crate::deliver::attempt::End;
use crate::deliver::attempt::Health;
use crate::deliver::attempt::outcome_name;
use crate::deliver::board::Board;
use crate::deliver::board::Offered;
use crate::deliver::breaker::BreakerState;
use crate::deliver::breaker::Ticket;
use crate::deliver::handle::BreakerView;
use crate::deliver::handle::Handle;
use crate::deliver::handle::Shared;
use crate::deliver::handle::SinkKey;
use crate::deliver::handle::lock;
use crate::shards::Fences;
use crate::shards::Held;
use crate::sink::Outlets;

/// Settlements in one transaction.
const SETTLE_MAX: usize = 256;
/// Settlements that wait for the store before nothing new is begun: the store is in trouble then.
const UNSETTLED_MAX: usize = 1_024;
/// How long the loop leaves a store alone that failed.
const STORE_REST: Duration = Duration::from_millis(250);
/// Deliveries that become due together are taken together.
const DUE_STEP: Duration = Duration::from_millis(5);

type Fetched = bulkhead_store::Result<(Vec<DueDelivery>, Option<Timestamp>)>;
type Fetching = Pin<Box<dyn Future<Output = Fetched> + Send>>;
type Settling = Pin<Box<dyn Future<Output = (Vec<Settlement>, bulkhead_store::Result<()>)> + Send>>;

/// An attempt under way.
struct Flight {
    key: SinkKey,
    due: DueDelivery,
    ticket: Ticket,
    started: Instant,
}

/// The service.
pub struct Deliver {
    options: Options,
    deliveries: Arc<dyn Deliveries>,
    fences: Arc<Fences>,
    shared: Arc<Shared>,
}

impl Deliver {
    /// A service that is not running yet.
    #[must_use]
    pub fn new(
        options: Options,
        deliveries: Arc<dyn Deliveries>,
        directory: Arc<dyn SinkDirectory>,
        outlets: Outlets,
        clock: Arc<dyn Clock>,
        fences: Arc<Fences>,
    ) -> Self {
        Self { options, deliveries, fences, shared: Arc::new(Shared::new(directory, outlets, clock)) }
    }

    /// A handle.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// Delivers until `stop`; then begins nothing new, and ends when what is under way is settled or the grace is over.
    pub async fn run(self, stop: CancellationToken) {
        let now = Instant::now();
        let mut service = Running {
            options: self.options,
            deliveries: self.deliveries,
            held: self.fences.load_full(),
            fences: self.fences,
            shared: self.shared,
            board: Board::new(),
            attempts: JoinSet::new(),
            flights: HashMap::new(),
            unsettled: Vec::new(),
            settling: None,
            fetching: None,
            wants_fetch: true,
            has_more: false,
            look_at: now,
            store_rests_until: now,
            tidied: now,
        };
        service.run(stop).await;
    }
}

struct Running {
    options: Options,
    deliveries: Arc<dyn Deliveries>,
    fences: Arc<Fences>,
    /// The shards as they were when it last looked.
    held: Arc<Held>,
    shared: Arc<Shared>,
    board: Board,
    attempts: JoinSet<End>,
    flights: HashMap<Id, Flight>,
    unsettled: Vec<Settlement>,
    settling: Option<Settling>,
    fetching: Option<Fetching>,
    /// Whether the outbox is to be asked as soon as there is room.
    wants_fetch: bool,
    /// Whether the last answer left something there that could be taken now.
    has_more: bool,
    /// When it is asked in any case.
    look_at: Instant,
    store_rests_until: Instant,
    tidied: Instant,
}

async fn or_never<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

impl Running {
    async fn run(&mut self, stop: CancellationToken) {
        let mut ends_at = None;
        loop {
            let now = Instant::now();
            self.apply_resets(now);
            if ends_at.is_none() {
                self.begin(now);
            }
            self.settle(now);
            if ends_at.is_some() && self.flights.is_empty() && self.unsettled.is_empty() && self.settling.is_none() {
                return;
            }
            let wakes_at = self.wakes_at(now, ends_at);
            // Every arm is cancel-safe: the futures polled here are kept.
            tokio::select! {
                Some(ended) = self.attempts.join_next_with_id() => self.ended(ended),
                settled = or_never(&mut self.settling) => self.settled(settled),
                fetched = or_never(&mut self.fetching) => self.fetched(fetched),
                () = self.shared.wake.notified() => self.wants_fetch = true,
                () = stop.cancelled(), if ends_at.is_none() => {
                    ends_at = Some(Instant::now() + self.options.grace);
                    self.board.clear();
                    self.fetching = None;
                }
                () = tokio::time::sleep_until(wakes_at) => {
                    self.wants_fetch = true;
                    if ends_at.is_some_and(|ends_at| Instant::now() >= ends_at) {
                        return self.give_up();
                    }
                }
            }
        }
    }

    /// Begins attempts and, if there is room, asks the outbox for more.
    fn begin(&mut self, now: Instant) {
        if self.shared.paused.load(Ordering::Acquire) {
            self.board.clear();
            return;
        }
        if self.unsettled.len() >= UNSETTLED_MAX {
            return;
        }
        self.look_at_shards();
        while let Some(start) = self.board.start(now, &self.options) {
            let (shared, due) = (Arc::clone(&self.shared), start.due.clone());
            shared.began(due.tenant);
            let id = self.attempts.spawn(async move { attempt::run(&shared, &due).await }).id();
            self.flights
                .insert(id, Flight { key: start.key.clone(), due: start.due, ticket: start.ticket, started: now });
            if self.publish_breaker(&start.key, None) == Some(BreakerState::Probing) {
                self.board.clear_lane(&start.key);
            }
        }
        if self.wants_fetch && self.fetching.is_none() && self.board.has_room() && now >= self.store_rests_until {
            self.wants_fetch = false;
            let (without, in_flight) = (self.board.without_sinks(now), self.board.in_flight());
            let (deliveries, limit, at) = (Arc::clone(&self.deliveries), self.options.fetch, self.shared.clock.now());
            let mut shards: Vec<Shard> = self.held.keys().copied().collect();
            // The store remembers of looks at the same ones where the next may begin.
            shards.sort_unstable();
            self.fetching = Some(Box::pin(async move {
                deliveries.host_due_deliveries(at, limit, &shards, &without, &in_flight).await
            }));
        }
        metrics::gauge!("bulkhead_deliveries_running").set(self.board.running() as f64);
    }

    /// What waits here of a shard that is another's now, or was meanwhile, or may be, is sent by that one.
    fn look_at_shards(&mut self) {
        let held = self.fences.load_full();
        let held = if held.has_run_out() { Arc::default() } else { held };
        let beyond = |these: &Held, those: &Held| these.iter().any(|(shard, fence)| those.get(shard) != Some(fence));
        if beyond(&self.held, &held) {
            self.board.clear();
            self.fetching = None;
        }
        self.wants_fetch |= beyond(&held, &self.held);
        self.held = held;
    }

    fn fetched(&mut self, fetched: Fetched) {
        self.fetching = None;
        let now = Instant::now();
        let (rows, next_due) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => return self.store_failed(&error, now),
        };
        if self.shared.paused.load(Ordering::Acquire) {
            return;
        }
        let full = rows.len() >= self.options.fetch as usize;
        let offered: Vec<_> = rows.into_iter().map(|due| self.board.offer(due, now)).collect();
        // Asking again at once is of use only if the answer would be another one.
        let learned = offered.iter().any(|offered| *offered != Offered::Left);
        self.wants_fetch |= full && learned;
        self.has_more = full || offered.iter().any(|offered| *offered != Offered::Taken);
        let wait = next_due.map_or(self.options.look, |due| due.since(self.shared.clock.now()));
        self.look_at = now + wait.clamp(DUE_STEP, self.options.look);
    }

    fn ended(&mut self, ended: Result<(Id, End), JoinError>) {
        let now = Instant::now();
        let (id, end) = match ended {
            Ok((id, end)) => (id, Some(end)),
            Err(error) => (error.id(), None),
        };
        let Some(Flight { key, due, ticket, started }) = self.flights.remove(&id) else { return };
        self.board.ended(&key, now);
        self.wants_fetch |= self.has_more;
        let end = end.unwrap_or_else(|| {
            tracing::error!(delivery = due.delivery.id, "an attempt panicked");
            let settlement = attempt::panicked(&due, self.shared.clock.now());
            End::Settle { settlement, health: Health::Unknown, concurrency: 1 }
        });
        let (settlement, health) = match end {
            End::PutOff => {
                self.board.release(due.tenant, &due.delivery.id);
                self.shared.is_over(due.tenant);
                self.board.rest(&key, now);
                self.told(&key, ticket, Health::Unknown, None, now);
                return;
            }
            End::Settle { settlement, health, concurrency } => {
                self.board.set_concurrency(&key, concurrency);
                (settlement, health)
            }
        };
        self.told(&key, ticket, health, Some(&settlement), now);
        let outcome = outcome_name(settlement.settled);
        metrics::counter!("bulkhead_deliveries_total", "outcome" => outcome).increment(1);
        metrics::histogram!("bulkhead_delivery_seconds").record((now - started).as_secs_f64());
        if settlement.settled == Settled::Parked {
            let (delivery, code) = (&settlement.id, &settlement.code);
            tracing::warn!(
                tenant = key.0.0,
                sink = key.1,
                delivery,
                code,
                attempts = settlement.attempts,
                "delivery parked"
            );
        }
        self.unsettled.push(settlement);
    }

    /// Tells a sink's breaker how an attempt ended.
    fn told(&mut self, key: &SinkKey, ticket: Ticket, health: Health, last: Option<&Settlement>, now: Instant) {
        let Some(breaker) = self.board.breaker(key) else { return };
        let before = breaker.state();
        match health {
            Health::Answered => breaker.answered(ticket),
            Health::Failed => breaker.failed(ticket, now, &self.options.breaker),
            Health::Unknown => breaker.told_nothing(ticket),
        }
        let after = breaker.state();
        if before == after {
            return;
        }
        self.publish_breaker(key, last);
        if after == BreakerState::Open {
            self.board.clear_lane(key);
        }
        self.wants_fetch = true;
        match (before, after) {
            (BreakerState::Closed, BreakerState::Open) => {
                tracing::warn!(
                    tenant = key.0.0,
                    sink = key.1,
                    code = last.map(|last| &*last.code),
                    "sink is left alone"
                );
            }
            (_, BreakerState::Closed) => tracing::info!(tenant = key.0.0, sink = key.1, "sink is back"),
            _ => {}
        }
    }

    /// Shows a breaker as it is now; gives its state.
    fn publish_breaker(&mut self, key: &SinkKey, last: Option<&Settlement>) -> Option<BreakerState> {
        let breaker = self.board.breaker(key)?;
        let state = breaker.state();
        let mut views = lock(&self.shared.breakers);
        if state == BreakerState::Closed {
            views.remove(key);
        } else {
            let now = self.shared.clock.now();
            let view = views.entry(key.clone()).or_insert_with(|| BreakerView {
                sink: key.1.clone(),
                state,
                since: now,
                next_probe: now,
                failures_in_row: 0,
                code: String::new(),
                reason: String::new(),
            });
            view.state = state;
            view.failures_in_row = breaker.failures_in_row();
            view.next_probe = now.after(breaker.until().saturating_duration_since(Instant::now()));
            if let Some(last) = last {
                (view.code, view.reason) = (last.code.clone(), last.reason.clone());
            }
        }
        metrics::gauge!("bulkhead_sinks_left_alone").set(views.len() as f64);
        Some(state)
    }

    fn apply_resets(&mut self, now: Instant) {
        let resets = std::mem::take(&mut *lock(&self.shared.resets));
        for key in resets {
            self.board.reset(&key, now);
            lock(&self.shared.breakers).remove(&key);
            self.wants_fetch = true;
        }
        if now >= self.tidied + Duration::from_secs(10) {
            self.tidied = now;
            let gone = self.board.forget_idle(now);
            let mut views = lock(&self.shared.breakers);
            for key in gone {
                views.remove(&key);
            }
        }
    }

    /// Settles what ended, if nothing is being settled: what ends meanwhile goes into one transaction afterwards.
    fn settle(&mut self, now: Instant) {
        if self.settling.is_some() || self.unsettled.is_empty() || now < self.store_rests_until {
            return;
        }
        let rest = self.unsettled.split_off(self.unsettled.len().min(SETTLE_MAX));
        let batch = std::mem::replace(&mut self.unsettled, rest);
        let deliveries = Arc::clone(&self.deliveries);
        self.settling = Some(Box::pin(async move {
            let settled = deliveries.host_settle(batch.clone()).await;
            (batch, settled)
        }));
    }

    fn settled(&mut self, (mut batch, settled): (Vec<Settlement>, bulkhead_store::Result<()>)) {
        self.settling = None;
        let now = Instant::now();
        if let Err(error) = settled {
            // They were made, so they must be known: again, before any others.
            batch.append(&mut self.unsettled);
            self.unsettled = batch;
            return self.store_failed(&error, now);
        }
        for settlement in &batch {
            self.board.release(settlement.tenant, &settlement.id);
            self.shared.is_over(settlement.tenant);
            if let Settled::Retry(at) = settlement.settled {
                let wait = at.since(self.shared.clock.now()).max(DUE_STEP);
                self.look_at = self.look_at.min(now + wait);
            }
        }
        // The next of a key is due only now.
        self.wants_fetch = true;
    }

    fn store_failed(&mut self, error: &bulkhead_store::Error, now: Instant) {
        tracing::warn!(error = error as &dyn std::error::Error, "the outbox is out of reach");
        self.store_rests_until = now + STORE_REST;
        self.wants_fetch = true;
    }

    fn wakes_at(&self, now: Instant, ends_at: Option<Instant>) -> Instant {
        let look = self.look_at.max(now + DUE_STEP);
        let change = self.board.next_change(now).unwrap_or(look);
        let wakes = ends_at.unwrap_or_else(|| look.min(change));
        if self.store_rests_until > now { wakes.min(self.store_rests_until) } else { wakes }
    }

    /// The grace is over: what is under way is left; it will be made again under the same ids.
    fn give_up(&mut self) {
        let (running, unsettled) = (self.flights.len(), self.unsettled.len());
        tracing::warn!(running, unsettled, "deliveries were under way at the end; they will be repeated");
        self.attempts.abort_all();
    }
}
