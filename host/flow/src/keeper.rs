//! The keeper: renews leases, wakes what sleeps (retries, timers), and tidies up.
//!
//! Losing a wake-up costs latency, never an event: every loop here also looks by itself, at the latest after a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Clock;
use bulkhead_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Dispatch;
use crate::dispatch::Fences;
use crate::dispatch::Handle;
use crate::live::Live;

/// Leases and pace.
#[derive(Debug, Clone)]
pub struct Options {
    /// This node's name among those that share the store.
    pub node: String,
    /// How long a lease lasts without being renewed.
    pub lease: Duration,
    /// The longest time between two looks for what is due.
    pub look: Duration,
}

/// Timers fired, and values expired, per transaction.
const TIMERS_MAX: u32 = 1_000;
const EXPIRED_MAX: u32 = 10_000;

/// The service.
pub struct Keeper {
    options: Options,
    store: Store,
    clock: Arc<dyn Clock>,
    dispatch: Handle,
    service: Arc<Dispatch>,
    live: Live,
    fences: Arc<Fences>,
}

impl Keeper {
    /// A service that is not running yet.
    #[must_use]
    pub fn new(
        options: Options,
        store: Store,
        clock: Arc<dyn Clock>,
        dispatch: Handle,
        service: Arc<Dispatch>,
        live: Live,
        fences: Arc<Fences>,
    ) -> Self {
        Self { options, store, clock, dispatch, service, live, fences }
    }

    /// Takes the leases and wakes everything that was left to do: all tenants, without a cap.
    pub async fn recover(&self) -> bulkhead_store::Result<usize> {
        self.renew().await?;
        let backlog = self.store.host_backlog(self.clock.now()).await?;
        for (tenant, shard) in &backlog {
            self.dispatch.wake(*tenant, &[*shard]);
        }
        Ok(backlog.len())
    }

    /// Keeps until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut loops = JoinSet::new();
        let keeper = Arc::clone(&self);
        loops.spawn(stop.clone().run_until_cancelled_owned(async move { keeper.lease_loop().await }));
        let keeper = Arc::clone(&self);
        loops.spawn(stop.clone().run_until_cancelled_owned(async move { keeper.due_loop().await }));
        loops.spawn(stop.run_until_cancelled_owned(async move { self.tidy_loop().await }));
        while loops.join_next().await.is_some() {}
    }

    async fn renew(&self) -> bulkhead_store::Result<()> {
        let held = self.store.host_acquire(&self.options.node, self.options.lease, u16::MAX).await?;
        let fences: HashMap<_, _> = held.into_iter().collect();
        let gained = fences.keys().any(|shard| !self.fences.load().contains_key(shard));
        self.fences.store(Arc::new(fences));
        if gained {
            let backlog = self.store.host_backlog(self.clock.now()).await?;
            for (tenant, shard) in backlog {
                self.dispatch.wake(tenant, &[shard]);
            }
        }
        Ok(())
    }

    async fn lease_loop(&self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.options.lease / 3).await;
            match self.renew().await {
                Ok(()) => renewed = Instant::now(),
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

    async fn due_loop(&self) {
        loop {
            let wait = match self.look().await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(%error, "cannot look for what is due");
                    self.options.look
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.dispatch.due_changed() => {}
            }
        }
    }

    /// Wakes what is due; says how long nothing else will be.
    async fn look(&self) -> bulkhead_store::Result<Duration> {
        let now = self.clock.now();
        let (due, next_run) = self.store.host_due(now).await?;
        for (tenant, shard) in due {
            self.dispatch.wake(tenant, &[shard]);
        }
        let fired = self.store.host_fire_timers(now, TIMERS_MAX).await?;
        for (tenant, shard) in fired.woken {
            self.dispatch.wake(tenant, &[shard]);
            self.live.tick(tenant);
        }
        let next = [next_run, fired.next_due].into_iter().flatten().min();
        let wait = next.map_or(self.options.look, |next| next.since(self.clock.now()));
        // Not more often than every 5 ms: rows that became due together are woken together.
        Ok(wait.clamp(Duration::from_millis(5), self.options.look))
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
        }
    }
}
