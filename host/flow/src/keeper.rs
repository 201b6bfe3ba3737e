//! The keeper: holds this node's share of the shards, wakes what sleeps (retries, timers, what other nodes appended),
//! and tidies up.
//!
//! Every node takes an even share: the shards divided by the nodes that are at work, and of what is left over the first
//! ones by name have one more each. Who has more hands the rest over, once no batch is under way there; who has less takes
//! what is free. A node that is gone is noticed when its leases have run out; one that is stopped and goes on later finds
//! its commits fenced.
//!
//! What is too old goes, too, see [`retention`].
//!
//! Losing a wake-up costs latency, never an event: every loop here also looks by itself, at the latest after a second.

mod retention;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Clock;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::retention::Retention;
use crate::deliver;
use crate::dispatch::Dispatch;
use crate::dispatch::Handle;
use crate::live::Kinds;
use crate::live::Live;
use crate::shards::Fences;
use crate::shards::Held;

/// Leases and pace.
#[derive(Debug, Clone)]
pub struct Options {
    /// This node's name among those that share the store; another one at each start, so that a process never passes for
    /// the one before it.
    pub node: String,
    /// How long a lease lasts without being renewed: what a takeover waits for. It is renewed four times in that time.
    pub lease: Duration,
    /// The longest time between two looks for what is due.
    pub look: Duration,
    /// Whether other nodes may append to the store: then the backlog is looked for, too.
    pub shared: bool,
    /// How long what is over is kept.
    pub retention: Retention,
}

/// Timers fired, and values expired, per transaction.
const TIMERS_MAX: u32 = 1_000;
const EXPIRED_MAX: u32 = 10_000;
/// The shortest time between two looks for what other nodes appended.
const LOOK_GAP: Duration = Duration::from_millis(100);
/// A look for what is due or left to do that takes longer is slow: it goes over rows that somebody's long transaction keeps.
/// After it nobody looks for so many times as long as it took, but at most for so long.
const SLOW: Duration = Duration::from_millis(20);
const REST: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(1);
/// How long batches and deliveries may take to leave shards that are handed over. A batch that is not done by then is
/// fenced, and runs again elsewhere; a delivery may be made there a second time.
const LEAVE: Duration = Duration::from_millis(500);

/// The service.
pub struct Keeper {
    options: Options,
    store: Store,
    clock: Arc<dyn Clock>,
    dispatch: Handle,
    service: Arc<Dispatch>,
    deliver: deliver::Handle,
    live: Live,
    fences: Arc<Fences>,
}

impl Keeper {
    /// A service that is not running yet.
    #[expect(clippy::too_many_arguments, reason = "the flow is the only caller, and each part is needed")]
    #[must_use]
    pub fn new(
        options: Options,
        store: Store,
        clock: Arc<dyn Clock>,
        dispatch: Handle,
        service: Arc<Dispatch>,
        deliver: deliver::Handle,
        live: Live,
        fences: Arc<Fences>,
    ) -> Self {
        Self { options, store, clock, dispatch, service, deliver, live, fences }
    }

    /// Takes leases and wakes everything in them that was left to do: all tenants, without a cap. Says how much.
    pub async fn recover(&self) -> bulkhead_store::Result<usize> {
        self.renew().await?;
        self.wake_backlog().await
    }

    /// Keeps until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut loops = JoinSet::new();
        let keeper = Arc::clone(&self);
        loops.spawn(stop.clone().run_until_cancelled_owned(async move { keeper.lease_loop().await }));
        let keeper = Arc::clone(&self);
        loops.spawn(stop.clone().run_until_cancelled_owned(async move { keeper.due_loop().await }));
        if self.options.shared {
            let keeper = Arc::clone(&self);
            loops.spawn(stop.clone().run_until_cancelled_owned(async move { keeper.backlog_loop().await }));
        }
        let keeper = Arc::clone(&self);
        loops.spawn(stop.clone().run_until_cancelled_owned(async move { keeper.tidy_loop().await }));
        loops.spawn(stop.run_until_cancelled_owned(async move { self.retention_loop().await }));
        while loops.join_next().await.is_some() {}
    }

    /// Renews the leases and takes or gives shards, so that all nodes have about as many. Says whether any came.
    async fn renew(&self) -> bulkhead_store::Result<bool> {
        let node = &self.options.node;
        let mut nodes = self.store.host_nodes().await?;
        if !nodes.contains(node) {
            nodes.push(node.clone());
            nodes.sort_unstable();
        }
        let place = nodes.iter().position(|other| other == node).unwrap_or_default();
        let share = share(self.store.host_shards(), nodes.len(), place);
        let nodes = nodes.len();
        // From before it was asked for, so that it never counts longer here than there.
        let until = Instant::now() + self.options.lease;
        let mut held = self.store.host_acquire(node, self.options.lease, share).await?;
        let surplus: Vec<Shard> = held.drain(usize::from(share).min(held.len())..).map(|(shard, _)| shard).collect();
        let before = self.fences.load_full();
        let gained = held.iter().any(|(shard, fence)| before.get(shard) != Some(fence));
        let lost = before.keys().filter(|shard| !held.iter().any(|(other, _)| other == *shard)).count();
        let now: HashMap<Shard, Fence> = held.into_iter().collect();
        if **before != now {
            tracing::info!(shards = now.len(), lost, nodes, "this node's shards have changed");
            metrics::gauge!("bulkhead_shards").set(now.len() as f64);
        }
        self.fences.store(Arc::new(Held::until(now, until)));
        if !surplus.is_empty() {
            self.hand_over(&surplus).await;
        }
        Ok(gained)
    }

    /// Gives shards away in which nothing new begins any more. What fails is tried again at the next renewal.
    async fn hand_over(&self, shards: &[Shard]) {
        let home = |tenant| Shard::of(tenant, "", self.store.host_shards(), 1);
        let left = async {
            tokio::join!(self.dispatch.left(shards), self.deliver.left(|tenant| shards.contains(&home(tenant))));
        };
        if tokio::time::timeout(LEAVE, left).await.is_err() {
            tracing::debug!("a batch or a delivery is still under way in a shard that is handed over");
        }
        if let Err(error) = self.store.host_hand_over(&self.options.node, shards).await {
            tracing::warn!(%error, "cannot hand shards over");
        }
    }

    async fn lease_loop(&self) {
        let mut renewed = Instant::now();
        // New shards that were not looked into yet.
        let mut new = false;
        loop {
            tokio::time::sleep(self.options.lease / 4).await;
            match self.renew().await {
                Ok(gained) => {
                    renewed = Instant::now();
                    new |= gained;
                    if new {
                        match self.wake_backlog().await {
                            Ok(_) => new = false,
                            Err(error) => tracing::warn!(%error, "cannot look for what is left to do in new shards"),
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot renew the leases");
                    // Without a lease nothing may start; what is under way will be fenced if somebody took over.
                    if renewed.elapsed() >= self.options.lease * 2 / 3 {
                        self.fences.store(Arc::default());
                    }
                }
            }
        }
    }

    /// Wakes the lanes among these that are this node's. Says how many.
    fn wake(&self, lanes: Vec<(TenantId, Shard)>) -> usize {
        lanes.into_iter().filter(|(tenant, shard)| self.dispatch.heard(*tenant, *shard)).count()
    }

    /// This node's shards.
    fn shards(&self) -> Vec<Shard> {
        self.fences.load().keys().copied().collect()
    }

    async fn wake_backlog(&self) -> bulkhead_store::Result<usize> {
        Ok(self.wake(self.store.host_backlog(self.clock.now(), &self.shards()).await?))
    }

    /// What other nodes append is told to this one, but nothing rests on that.
    async fn backlog_loop(&self) {
        // The first look was `recover`'s.
        let mut took = Duration::ZERO;
        loop {
            // However often somebody asks: a look is a question about every tenant.
            let gap = rest(took).max(LOOK_GAP);
            tokio::time::sleep(gap).await;
            let _ = tokio::time::timeout(self.options.look.saturating_sub(gap), self.dispatch.backlog_changed()).await;
            let began = Instant::now();
            if let Err(error) = self.wake_backlog().await {
                tracing::warn!(%error, "cannot look for what is left to do");
            }
            took = began.elapsed();
        }
    }

    async fn due_loop(&self) {
        loop {
            let (wait, took) = match self.look().await {
                Ok(looked) => looked,
                Err(error) => {
                    tracing::warn!(%error, "cannot look for what is due");
                    (self.options.look, Duration::ZERO)
                }
            };
            let next = Instant::now() + wait;
            tokio::time::sleep(rest(took)).await;
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = self.dispatch.due_changed() => {}
            }
        }
    }

    /// Wakes what is due; says how long nothing else will be, and how long the looks took.
    async fn look(&self) -> bulkhead_store::Result<(Duration, Duration)> {
        let (now, began) = (self.clock.now(), Instant::now());
        let (due, next_run) = self.store.host_due(now, &self.shards()).await?;
        let looked = began.elapsed();
        self.wake(due);
        let fired = self.store.host_fire_timers(now, TIMERS_MAX).await?;
        for (tenant, shard) in fired.woken {
            self.dispatch.wake(tenant, &[shard]);
            self.live.tick(tenant, Kinds::ALL);
        }
        // If some fired, that was work.
        let took = if fired.count == 0 { began.elapsed() } else { looked };
        let next = [next_run, fired.next_due].into_iter().flatten().min();
        let wait = next.map_or(self.options.look, |next| next.since(self.clock.now()));
        // Not more often than every 5 ms: rows that became due together are woken together.
        Ok((wait.clamp(Duration::from_millis(5), self.options.look), took))
    }

    async fn tidy_loop(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(20)).await;
            self.service.cool();
            match self.store.host_expire_state(self.clock.now(), EXPIRED_MAX).await {
                Ok(0) => {}
                Ok(expired) => tracing::debug!(expired, "expired state values are gone"),
                Err(error) => tracing::warn!(%error, "cannot expire state"),
            }
            if let Err(error) = self.store.host_tidy().await {
                tracing::warn!(%error, "cannot tidy the store up");
            }
        }
    }
}

/// How many of the shards the node at this place among so many has.
fn share(shards: u16, nodes: usize, place: usize) -> u16 {
    let (shards, nodes) = (usize::from(shards), nodes.max(1));
    let share = shards / nodes + usize::from(place < shards % nodes);
    u16::try_from(share).unwrap_or(u16::MAX)
}

/// How long nobody looks after a look that took so long.
fn rest(took: Duration) -> Duration {
    if took < SLOW { Duration::ZERO } else { (took * REST).min(REST_MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_differ_by_one_at_most_and_are_all_there_are() {
        for nodes in 1..=60 {
            let shares: Vec<u16> = (0..nodes).map(|place| share(48, nodes, place)).collect();
            assert_eq!(shares.iter().sum::<u16>(), 48, "{nodes} nodes");
            assert!(
                shares[0] - shares[nodes - 1] <= 1 && shares.is_sorted_by(|a, b| a >= b),
                "{nodes} nodes: {shares:?}"
            );
        }
        assert_eq!((share(48, 3, 2), share(48, 9, 8), share(1, 2, 1)), (16, 5, 0));
    }

    #[test]
    fn slow_looks_are_made_less_often_but_never_much_later() {
        let millis = Duration::from_millis;
        for (took, rests) in [(0, 0), (19, 0), (20, 80), (100, 400), (250, 1_000), (60_000, 1_000)] {
            assert_eq!(rest(millis(took)), millis(rests), "after {took} ms");
        }
    }
}
