//! Dispatch: takes what is in the log, runs the tenants' rules over it, and commits what they did.
//!
//! ```text
//!  schedule ─turn─▶ store.read_batch ─▶ tenant's view ─▶ worker thread: batch ─▶ store.commit ─▶ schedule
//!                                                         (no effect yet)       │ Fenced: let the shard go
//!                                                                               │ Conflict: forget, run again
//!                                                                               └ Unavailable: wait, read again
//! ```
//!
//! The store is the authority on everything: on a commit whose outcome is unknown, the next `read_batch` says by its
//! cursor what happened. Does not accept events (inbox), send anything (deliver), or decide policy (domain).
//!
//! Reading order: [`batch`], [`pipeline`], [`overlay`], [`recorder`], `rollouts`, [`shadow`], [`workers`].

pub mod batch;
mod chain;
pub mod overlay;
pub mod pipeline;
pub mod recorder;
mod rollouts;
pub mod shadow;
pub mod workers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Clock;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::limits::InstancePolicy;
use bulkhead_sandbox::Sandbox;
use bulkhead_store::Store;
use bulkhead_store::catalogue::TenantState;
use bulkhead_store::log::NewEvent;
use bulkhead_store::work::Batch;
use bulkhead_store::work::BatchLimits;
use bulkhead_store::work::Commit;
use bulkhead_store::work::Committed;
use bulkhead_store::work::RunState;
use bulkhead_store::work::StateRead;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::bus::Signal;
use crate::deliver;
use crate::dispatch::batch::Done;
use crate::dispatch::batch::Execution;
use crate::dispatch::batch::Shared;
use crate::dispatch::overlay::Overlay;
use crate::dispatch::pipeline::Sessions;
use crate::dispatch::rollouts::Rollouts;
use crate::dispatch::shadow::Shadows;
use crate::dispatch::workers::Workers;
use crate::live::Kinds;
use crate::live::Live;
use crate::outbound::Origins;
use crate::preview::Previewer;
use crate::quota::Limiter;
use crate::schedule::Left;
use crate::schedule::Schedule;
use crate::schedule::Terms;
use crate::schedule::Turn;
use crate::shards::Fences;
use crate::tenants::Directory;
use crate::tenants::TenantView;

/// What dispatch is told at start.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much one batch may hold.
    pub batch: BatchLimits,
    /// How long a batch computes before it ends with what it has: the latency that one tenant can add to another's.
    pub slice: Duration,
    /// Turns under way at a time. More than workers, because most of a turn is waiting for the commit.
    pub turns: usize,
    /// Worker threads.
    pub workers: workers::Options,
    /// Where plugins may send requests. If it is anywhere, as many turns are added as may wait for answers.
    pub outbound: Origins,
    /// How far an event may be from its first cause.
    pub hops_max: u16,
    /// Bytes of committed state kept in memory.
    pub state_cache_bytes: u64,
    /// A rule whose `where` took too long in this many events in a row is switched off.
    pub over_budget_max: u32,
    /// What may be recorded of plugins' calls.
    pub recorder: recorder::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch: BatchLimits { events: 256, bytes: 4 << 20, due: 64 },
            slice: Duration::from_millis(50),
            turns: 32,
            workers: workers::Options::default(),
            outbound: Origins::default(),
            hops_max: 16,
            state_cache_bytes: 32 << 20,
            over_budget_max: 20,
            recorder: recorder::Options::default(),
        }
    }
}

/// After this long without an instance call, a kept session goes.
const WARM_IDLE: Duration = Duration::from_secs(60);
/// How long a turn waits before it reads again when the store is unavailable.
const UNAVAILABLE_WAIT: Duration = Duration::from_millis(250);

/// A cheap handle: wakes, pauses.
#[derive(Clone)]
pub struct Handle {
    schedule: Arc<Schedule>,
    due: Arc<Notify>,
    backlog: Arc<Notify>,
    shards: u16,
    fences: Arc<Fences>,
    bus: Bus,
}

impl Handle {
    /// A handle on a schedule that nobody serves yet. What is to be done in shards that are not among `fences` is told to
    /// other nodes over the bus.
    #[must_use]
    pub fn new(shards: u16, fences: Arc<Fences>, bus: Bus) -> Self {
        Self { schedule: Arc::default(), due: Arc::default(), backlog: Arc::default(), shards, fences, bus }
    }

    /// There is something to do in these shards of a tenant; whichever node holds them begins.
    pub fn wake(&self, tenant: TenantId, shards: &[Shard]) {
        for shard in shards {
            if !self.heard(tenant, *shard) {
                self.bus.publish(Signal::Work { tenant, shard: *shard });
            }
        }
    }

    /// There may be something to do anywhere in a tenant: its settings or switches changed.
    pub fn wake_tenant(&self, tenant: TenantId) {
        let shards: Vec<Shard> = Shard::all(tenant, self.shards, 1).collect();
        self.wake(tenant, &shards);
    }

    /// Another node says that there is something to do in a shard of a tenant. Says whether it is this node's.
    pub fn heard(&self, tenant: TenantId, shard: Shard) -> bool {
        let held = self.fences.load().contains_key(&shard);
        if held {
            self.schedule.wake(Turn { tenant, shard });
        }
        held
    }

    /// Another node says that there may be something to do anywhere in a tenant.
    pub fn heard_tenant(&self, tenant: TenantId) {
        for shard in Shard::all(tenant, self.shards, 1) {
            self.heard(tenant, shard);
        }
    }

    /// There may be something to do anywhere: the keeper looks at once.
    pub fn look_again(&self) {
        self.backlog.notify_one();
        self.due.notify_one();
    }

    /// Resolves when the keeper should look again for what is left to do.
    pub(crate) async fn backlog_changed(&self) {
        self.backlog.notified().await;
    }

    /// Stops all work between batches, or goes on.
    pub fn set_paused(&self, paused: bool) {
        self.schedule.set_paused(paused);
    }

    /// Turns that wait, and turns under way.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        self.schedule.depth()
    }

    /// What a tenant's quotas allow from now on.
    pub(crate) fn set_terms(&self, tenant: TenantId, terms: Terms) {
        self.schedule.set_terms(tenant, terms);
    }

    /// Turns of a tenant that are under way, and that its quotas do not allow now.
    pub(crate) fn turns(&self, tenant: TenantId) -> (usize, usize) {
        self.schedule.of_tenant(tenant)
    }

    /// Resolves when the keeper should look again for what is due.
    pub(crate) async fn due_changed(&self) {
        self.due.notified().await;
    }

    /// Resolves when no turn is under way in these shards.
    pub(crate) async fn left(&self, shards: &[Shard]) {
        self.schedule.left(shards).await;
    }

    pub(crate) fn forgive_idle(&self) {
        self.schedule.forgive_idle();
    }
}

struct Warm {
    sessions: Sessions,
    settings: i64,
    used: Instant,
}

/// The service.
pub struct Dispatch {
    handle: Handle,
    store: Store,
    sandbox: Sandbox,
    directory: Arc<Directory>,
    live: Live,
    outbox: deliver::Handle,
    clock: Arc<dyn Clock>,
    limiter: Limiter,
    options: Options,
    fences: Arc<Fences>,
    effect_secret: [u8; 32],
    cache: overlay::Cache,
    workers: Workers,
    warm: Mutex<HashMap<Turn, Warm>>,
    over_budget: Mutex<HashMap<(TenantId, String), u32>>,
    rollouts: Rollouts,
    shadows: Option<Shadows>,
    cancelled: Arc<AtomicBool>,
}

impl Dispatch {
    /// A service that is not running yet.
    #[expect(clippy::too_many_arguments, reason = "the composition root is the only caller, and each part is needed")]
    #[must_use]
    pub fn new(
        handle: Handle,
        store: Store,
        sandbox: Sandbox,
        directory: Arc<Directory>,
        live: Live,
        outbox: deliver::Handle,
        clock: Arc<dyn Clock>,
        limiter: Limiter,
        options: Options,
        fences: Arc<Fences>,
        effect_secret: [u8; 32],
    ) -> Self {
        let cache = overlay::cache(options.state_cache_bytes);
        let workers = Workers::new(options.workers);
        Self {
            handle,
            store,
            sandbox,
            directory,
            live,
            outbox,
            clock,
            limiter,
            options,
            fences,
            effect_secret,
            cache,
            workers,
            warm: Mutex::default(),
            over_budget: Mutex::default(),
            rollouts: Rollouts::default(),
            shadows: None,
            cancelled: Arc::default(),
        }
    }

    /// The same with candidates that run beside active versions, in what `previewer` runs in.
    #[must_use]
    pub fn shadowed(mut self, previewer: Previewer) -> Self {
        self.shadows = Some(Shadows::new(previewer));
        self
    }

    /// Works until `stop`, then ends the turns under way. `stop_now` ends guests at their next tick.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, stop_now: CancellationToken) {
        let cancelled = Arc::clone(&self.cancelled);
        tokio::spawn(async move {
            stop_now.cancelled().await;
            cancelled.store(true, Ordering::Relaxed);
        });
        let mut turns = JoinSet::new();
        let waiting = if self.options.outbound.is_none() { 0 } else { self.options.workers.waiting_max };
        for _ in 0..self.options.turns + waiting {
            let (dispatch, stop) = (Arc::clone(&self), stop.clone());
            turns.spawn(async move {
                loop {
                    let turn = tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        turn = dispatch.handle.schedule.next() => turn,
                    };
                    let (cost, left) = dispatch.turn(turn).await;
                    dispatch.handle.schedule.done(turn, cost, left);
                }
            });
        }
        let shadows = tokio::spawn(Arc::clone(&self).run_shadows(stop.clone()));
        let watch = tokio::spawn(Arc::clone(&self).watch_rollouts(stop));
        while turns.join_next().await.is_some() {}
        // The last word of what was committed, so that a stop loses no counts.
        let _ = (watch.await, shadows.await);
        self.judge_rollouts().await;
    }

    /// One batch of one tenant, from reading to commit.
    async fn turn(&self, turn: Turn) -> (Duration, Left) {
        let Some(fence) = self.fences.load().get(&turn.shard).copied() else {
            return (Duration::ZERO, Left::Idle);
        };
        match self.batch(turn, fence).await {
            Ok(result) => result,
            Err(error) => {
                tracing::warn!(tenant = turn.tenant.0, shard = turn.shard.0, %error, "dispatch waits for the store");
                metrics::counter!("bulkhead_store_errors_total", "part" => "dispatch").increment(1);
                tokio::time::sleep(UNAVAILABLE_WAIT).await;
                (Duration::ZERO, Left::More)
            }
        }
    }

    async fn batch(&self, turn: Turn, fence: Fence) -> bulkhead_store::Result<(Duration, Left)> {
        let mut cost = Duration::ZERO;
        // A conflict means that another batch of the tenant committed in between, so somebody made progress.
        for _ in 0..8 {
            let now = self.clock.now();
            let batch = match self.store.read_batch(turn.tenant, turn.shard, now, self.options.batch).await {
                Ok(batch) => batch,
                // Nobody works for a tenant that is not there, whoever asked for it.
                Err(bulkhead_store::Error::NotFound { .. }) => return Ok((cost, Left::Idle)),
                Err(error) => return Err(error),
            };
            if batch.events.is_empty() && batch.due.is_empty() {
                return Ok((cost, Left::Idle));
            }
            let view = match self.directory.view_at(turn.tenant, batch.settings).await {
                Ok(view) => view,
                Err(bulkhead_store::Error::NotFound { .. }) => return Ok((cost, Left::Idle)),
                Err(error) => return Err(error),
            };
            if view.tenant.state != TenantState::Active {
                return Ok((cost, Left::Idle));
            }
            // The turn may have been given out before the schedule knew the tenant's quotas.
            self.limiter.know(&view.tenant);
            if !self.handle.schedule.may_go_on(turn.tenant) {
                return Ok((cost, Left::More));
            }
            let begun = batch.due.iter().flat_map(|due| &due.run.pins);
            let begun: Vec<_> = begun.map(|(plugin, version)| (plugin.as_str(), *version)).collect();
            self.directory.pin(&view, begun).await?;
            let Some(done) = self.execute(turn, fence, now, batch, Arc::clone(&view)).await else {
                tracing::error!(tenant = %view.tenant.name, "a batch panicked; it runs again");
                metrics::counter!("bulkhead_host_panics_total").increment(1);
                tokio::time::sleep(UNAVAILABLE_WAIT).await;
                return Ok((cost, Left::More));
            };
            cost += done.cost;
            let more = done.more;
            match self.commit(turn, &view, done).await? {
                Committed::Done { .. } => return Ok((cost, if more { Left::More } else { Left::Idle })),
                Committed::Fenced => {
                    tracing::warn!(shard = turn.shard.0, "a commit was fenced: the shard is somebody else's now");
                    metrics::counter!("bulkhead_commits_fenced_total").increment(1);
                    return Ok((cost, Left::Idle));
                }
                Committed::Conflict => metrics::counter!("bulkhead_commits_conflicted_total").increment(1),
            }
        }
        Ok((cost, Left::More))
    }

    async fn execute(
        &self,
        turn: Turn,
        fence: Fence,
        now: Timestamp,
        batch: Batch,
        view: Arc<TenantView>,
    ) -> Option<Done> {
        let sessions = self.take_warm(turn, view.tenant.settings);
        let runtime = tokio::runtime::Handle::current();
        let state =
            Arc::new(Overlay::new(turn.tenant, now, Arc::clone(&self.store), self.cache.clone(), runtime.clone()));
        let shared = Shared {
            view,
            sandbox: self.sandbox.clone(),
            store: Arc::clone(&self.store),
            runtime,
            now,
            effect_secret: self.effect_secret,
            cancelled: Arc::clone(&self.cancelled),
            hops_max: self.options.hops_max,
            slice: self.options.slice,
            shards: self.handle.shards,
            recorder: self.options.recorder,
        };
        metrics::histogram!("bulkhead_batch_events").record(batch.events.len() as f64);
        let execution = Execution::new(shared, state, sessions, turn.shard, fence);
        self.workers.run(move || execution.go(&batch)).await
    }

    async fn commit(&self, turn: Turn, view: &Arc<TenantView>, done: Done) -> bulkhead_store::Result<Committed> {
        let Done { mut commit, sessions, over_budget, tallies, samples, left_out, .. } = done;
        let ended = self.clock.now();
        for run in &mut commit.runs {
            run.ended = ended;
        }
        self.keep_warm(turn, view, sessions);
        let counts = count(&commit);
        let fuel = commit.usage.iter().map(|used| used.fuel).fold(0, u64::saturating_add);
        let reads: Vec<StateRead> = commit.reads.clone();
        let writes = commit.writes.clone();
        let emitted = !commit.emits.is_empty();
        let kinds = Kinds::of(commit.emits.iter().map(|new| new.event.kind.as_str()));
        let delivers = !commit.deliveries.is_empty();
        let waits = !commit.unfinished.is_empty() || !commit.timers.is_empty();
        let began = Instant::now();
        let committed = self.store.commit(commit).await;
        metrics::histogram!("bulkhead_commit_seconds").record(began.elapsed());
        match &committed {
            Ok(Committed::Done { woken, version, .. }) => {
                for write in writes {
                    let held = write.value.map(|value| bulkhead_store::state::Versioned {
                        value,
                        version: *version,
                        expires: write.expires,
                    });
                    self.cache.insert((turn.tenant, write.plugin, write.key), held);
                }
                self.limiter.burned(&view.tenant, fuel);
                self.handle.wake(turn.tenant, woken);
                if emitted {
                    self.live.tick(turn.tenant, kinds);
                }
                if delivers {
                    self.outbox.wake();
                }
                if waits {
                    self.handle.due.notify_one();
                }
                for (state, number) in counts {
                    metrics::counter!("bulkhead_runs_total", "state" => state).increment(number);
                }
                self.rollouts.add(view, tallies);
                self.shadow(view, samples, left_out);
                self.watch_budget(view, over_budget).await;
            }
            // Whatever was read may be stale, and what was written may or may not be there.
            Ok(Committed::Fenced | Committed::Conflict) | Err(_) => {
                for read in reads {
                    if let StateRead::Key { plugin, key, .. } = read {
                        self.cache.invalidate(&(turn.tenant, plugin, key));
                    }
                }
                for write in writes {
                    self.cache.invalidate(&(turn.tenant, write.plugin, write.key));
                }
            }
        }
        committed
    }

    fn take_warm(&self, turn: Turn, settings: i64) -> Sessions {
        let warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner).remove(&turn);
        // New settings may mean another version, grants or configuration: begin afresh.
        warm.filter(|warm| warm.settings == settings).map(|warm| warm.sessions).unwrap_or_default()
    }

    fn keep_warm(&self, turn: Turn, view: &TenantView, mut sessions: Sessions) {
        // Versions that only runs of before are on are not needed for long.
        let warm = |plugin: &str, version: u32| {
            let under_way = view.canaries.get(plugin).map(|canary| &*canary.plugin);
            let mut known = [view.plugins.get(plugin), under_way].into_iter().flatten();
            known.any(|known| known.version == version && known.setup.policy == InstancePolicy::Warm)
        };
        sessions.retain(|(plugin, version), _| warm(plugin, *version));
        if !sessions.is_empty() {
            let warm = Warm { sessions, settings: view.tenant.settings, used: Instant::now() };
            self.warm.lock().unwrap_or_else(PoisonError::into_inner).insert(turn, warm);
        }
    }

    /// Lets kept instances go that nobody used for a while. Called by the keeper.
    pub(crate) fn cool(&self) {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, warm| warm.used.elapsed() < WARM_IDLE);
        self.handle.forgive_idle();
    }

    /// Switches a rule off that took too long again and again, and tells the tenant by an event.
    async fn watch_budget(&self, view: &TenantView, over_budget: Vec<String>) {
        for rule in over_budget {
            let exceeded = {
                let mut counts = self.over_budget.lock().unwrap_or_else(PoisonError::into_inner);
                let count = counts.entry((view.tenant.id, rule.clone())).or_insert(0);
                *count += 1;
                let exceeded = *count >= self.options.over_budget_max;
                if exceeded {
                    counts.remove(&(view.tenant.id, rule.clone()));
                }
                exceeded
            };
            if exceeded && let Err(error) = self.switch_off(view, &rule).await {
                tracing::warn!(tenant = %view.tenant.name, rule, %error, "cannot switch a rule off");
            }
        }
    }

    async fn switch_off(&self, view: &TenantView, rule: &str) -> bulkhead_store::Result<()> {
        tracing::warn!(tenant = %view.tenant.name, rule, "a rule is switched off: its `where` takes too long");
        self.store.pause_rule(view.tenant.id, rule, true).await?;
        self.directory.invalidate(view.tenant.id).await;
        let data = serde_json::json!({
            "rule": rule,
            "reason": "its `where` took more steps than an expression may take, again and again",
            "next": "simplify the expression, then resume the rule",
        });
        self.tell(view.tenant.id, "bulkhead.rule.paused", rule, &data).await
    }

    /// Tells a tenant something by an event of the host's own.
    async fn tell(
        &self,
        tenant: TenantId,
        kind: &str,
        about: &str,
        data: &serde_json::Value,
    ) -> bulkhead_store::Result<()> {
        let now = self.clock.now();
        let id = uuid::Uuid::now_v7().to_string();
        let event = Event {
            source: "/bulkhead".to_owned(),
            kind: kind.to_owned(),
            subject: Some(about.to_owned()),
            time: now,
            key: None,
            correlation: id.clone(),
            causation: None,
            content_type: "application/json".to_owned(),
            data: data.to_string().into(),
            attributes: Vec::new(),
            id,
        };
        let shard = Shard::of(tenant, about, self.handle.shards, 1);
        let lineage = Lineage { hops: 0, budget: 0 };
        let new = NewEvent { tenant, shard, recorded: now, lineage, event };
        self.store.host_append(vec![new]).await?;
        self.handle.wake(tenant, &[shard]);
        self.live.tick(tenant, Kinds::of(std::iter::once(kind)));
        Ok(())
    }
}

fn count(commit: &Commit) -> [(&'static str, u64); 4] {
    let of = |state| commit.runs.iter().filter(|run| run.state == state).count() as u64;
    [
        ("done", of(RunState::Done)),
        ("retrying", of(RunState::Retrying)),
        ("parked", of(RunState::Parked)),
        ("dropped", of(RunState::Dropped)),
    ]
}
