//! Preview: a version of a plugin on past events, beside another, with nothing applied.
//!
//! ```text
//!  the log, newest first ─▶ events that reach the plugin by today's rules ─▶ the older version ─┐
//!                                                                           the newer version ─┴▶ compare ─▶ report
//! ```
//!
//! Both run the whole rule, with the same state, time and randomness, each after the other; what they wanted to happen is
//! compared and forgotten. State and settings are what the run's recordings say that it saw, else what they are now: the
//! report says how many runs had which.
//!
//! Reading order: here, `past` (what recordings tell), `did` (how a run went), `report`.

mod did;
mod past;
mod report;

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::recording::Recording;
use bulkhead_domain::rule::definition::Rule;
use bulkhead_sandbox::Sandbox;
use bulkhead_sandbox::Setup;
use bulkhead_store::Store;
use bulkhead_store::log::EventQuery;
use bulkhead_store::recordings::Head;

use crate::dispatch::batch::Shared;
use crate::dispatch::overlay;
use crate::dispatch::overlay::Overlay;
use crate::dispatch::pipeline::Run;
use crate::dispatch::pipeline::Sessions;
use crate::dispatch::recorder;
use crate::preview::past::Past;
use crate::preview::report::Pair;
use crate::tenants::Directory;
use crate::tenants::TenantView;

pub use self::did::Did;
pub use self::report::Change;
pub use self::report::Group;
pub use self::report::Report;
pub use self::report::Sample;
pub use self::report::Seen;
pub use self::report::States;

/// Events of the log that are looked at for some that reach the plugin: about half a second of reading.
pub const LOOKED_AT_MAX: usize = 10_000;
/// Events read at a time.
const PAGE: u32 = 500;
/// Recordings listed at a time.
const HEADS: u32 = 500;
/// Bytes of state kept over the runs of one preview.
const CACHE_BYTES: u64 = 16 << 20;

/// What previews run with. Cheap to clone.
#[derive(Clone)]
pub struct Previewer {
    /// Where the past is.
    pub store: Store,
    /// Where plugins run.
    pub sandbox: Sandbox,
    /// Rules, settings, versions.
    pub directory: Arc<Directory>,
    /// The host's own, so that both versions see the random bytes that the run itself saw.
    pub effect_secret: [u8; 32],
}

/// Which past events are meant: those that reach the plugin, newest first.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// At most this many.
    pub last: usize,
    /// Recorded at or after.
    pub since: Option<Timestamp>,
    /// Recorded before.
    pub until: Option<Timestamp>,
}

/// Everything that a preview needs; [`Prepared::go`] does the work.
pub struct Prepared {
    plugin: String,
    sides: [Side; 2],
    events: Vec<(Logged, Vec<usize>)>,
    looked_at: usize,
    /// Runs of which there is a recording of a call of the plugin.
    recorded: HashSet<RunId>,
    cache: overlay::Cache,
    runtime: tokio::runtime::Handle,
    store: Store,
    cancelled: Arc<AtomicBool>,
}

/// Ends runs that nobody waits for any more, and the one under way, when it is dropped.
pub(crate) struct Cancel(pub(crate) Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One of the two versions.
struct Side {
    shared: Shared,
    sessions: Sessions,
}

/// Why there is no preview.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tenant's plugin has no such version.
    #[error("there is no version {0}")]
    NoVersion(u32),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] bulkhead_store::Error),
}

impl Previewer {
    /// Loads both versions and finds the events. `against` is the older version; none is a plugin without one.
    pub async fn prepare(
        &self,
        tenant: TenantId,
        plugin: &str,
        against: Option<u32>,
        version: u32,
        range: Range,
    ) -> Result<Prepared, Error> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let side = async |version: Option<u32>| -> Result<Side, Error> {
            let view = self.directory.view_with(tenant, plugin, version).await?;
            let view = view.ok_or_else(|| Error::NoVersion(version.unwrap_or_default()))?;
            Ok(Side { shared: self.shared(Arc::new(view), &cancelled), sessions: Sessions::new() })
        };
        let sides = [side(against).await?, side(Some(version)).await?];
        let (events, looked_at) = self.events(&sides[1].shared.view, plugin, range).await?;
        Ok(Prepared {
            plugin: plugin.to_owned(),
            sides,
            events,
            looked_at,
            recorded: self.recorded(tenant, plugin).await?,
            cache: overlay::cache(CACHE_BYTES),
            runtime: tokio::runtime::Handle::current(),
            store: Arc::clone(&self.store),
            cancelled,
        })
    }

    async fn recorded(&self, tenant: TenantId, plugin: &str) -> Result<HashSet<RunId>, Error> {
        let mut runs = HashSet::new();
        let mut before = None;
        loop {
            let heads = self.store.recordings(tenant, plugin, before, HEADS).await?;
            runs.extend(heads.iter().map(Head::run));
            before = heads.last().map(|head| head.number);
            if heads.len() < HEADS as usize {
                return Ok(runs);
            }
        }
    }

    /// What its runs share: nothing goes out, nothing is recorded.
    pub(crate) fn shared(&self, view: Arc<TenantView>, cancelled: &Arc<AtomicBool>) -> Shared {
        Shared {
            view,
            sandbox: self.sandbox.clone(),
            store: Arc::clone(&self.store),
            runtime: tokio::runtime::Handle::current(),
            now: Timestamp(0),
            effect_secret: self.effect_secret,
            cancelled: Arc::clone(cancelled),
            hops_max: u16::MAX,
            slice: Duration::MAX,
            shards: self.store.host_shards(),
            recorder: recorder::Options::OFF,
        }
    }

    /// Events that reach the plugin, with the rules by which they do, and how many were looked at.
    async fn events(
        &self,
        view: &TenantView,
        plugin: &str,
        range: Range,
    ) -> Result<(Vec<(Logged, Vec<usize>)>, usize), Error> {
        let (mut found, mut looked_at) = (Vec::new(), 0);
        let mut after: Option<Position> = None;
        while found.len() < range.last && looked_at < LOOKED_AT_MAX {
            let query =
                EventQuery { since: range.since, until: range.until, after, limit: PAGE, ..EventQuery::default() };
            let page = self.store.events(view.tenant.id, &query).await?;
            let is_last = page.len() < PAGE as usize;
            for event in page {
                after = Some(event.position);
                looked_at += 1;
                let rules = reached(view, plugin, &event);
                if !rules.is_empty() && found.len() < range.last {
                    found.push((event, rules));
                }
            }
            if is_last {
                break;
            }
            // Routing is work for the processor.
            tokio::task::yield_now().await;
        }
        Ok((found, looked_at))
    }
}

/// The rules by which an event reaches a plugin, as far as can be said without running them.
fn reached(view: &TenantView, plugin: &str, event: &Logged) -> Vec<usize> {
    let routed = view.route(&event.event);
    let uses = |at: &usize| view.rules.rules()[*at].plugins().any(|name| name == plugin);
    routed.matched.into_iter().filter(uses).collect()
}

impl Prepared {
    /// Runs both versions over the events, for so long at most; the run that is under way then ends, too. Whoever does not
    /// wait any more ends all of it. `done` sees the report when the work is over, on the thread that did it, whether
    /// somebody waits or not.
    pub async fn go(
        self,
        time: Duration,
        done: impl FnOnce(&Report) + Send + 'static,
    ) -> Result<Report, tokio::task::JoinError> {
        let cancel = Cancel(Arc::clone(&self.cancelled));
        // Guests block the thread that they run on.
        let mut work = tokio::task::spawn_blocking(move || {
            let report = self.compute();
            done(&report);
            report
        });
        if let Ok(ended) = tokio::time::timeout(time, &mut work).await {
            return ended;
        }
        drop(cancel);
        work.await
    }

    fn compute(mut self) -> Report {
        let events = std::mem::take(&mut self.events);
        let version = |side: &Side| side.shared.view.plugins.get(&self.plugin).map(|active| active.version);
        let mut report = Report {
            against: version(&self.sides[0]),
            version: version(&self.sides[1]).unwrap_or_default(),
            looked_at: self.looked_at,
            events: events.len(),
            ..Report::default()
        };
        let (mut fuel, mut micros) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        'events: for (at, (event, rules)) in events.iter().enumerate() {
            for rule in rules {
                let view = Arc::clone(&self.sides[1].shared.view);
                let rule = &view.rules.rules()[*rule];
                let Some(pair) = self.both(rule, event, &mut report.burned) else {
                    report.left_out = events.len() - at;
                    break 'events;
                };
                for (place, did) in [&pair.older, &pair.newer].into_iter().enumerate() {
                    fuel[place].push(did.counts.fuel);
                    micros[place].push(did.counts.micros);
                }
                report.add(pair);
            }
        }
        report.fuel = Change::of(fuel);
        report.micros = Change::of(micros);
        report
    }

    /// One run with both versions, over the same state; none if the time was up before both had ended. What it used counts
    /// all the same.
    fn both<'e>(&mut self, rule: &'e Rule, event: &'e Logged, burned: &mut u64) -> Option<Pair<'e>> {
        if self.cancelled.load(Ordering::Relaxed) {
            return None;
        }
        let past = self.past(rule, event);
        let (attempt, now) = past.attempt.unwrap_or((1, event.recorded));
        let settings = match self.sides[0].shared.view.plugins.get(&self.plugin) {
            Some(older) => past.settings_since(&older.setup.version, &older.setup.config),
            None => BTreeMap::new(),
        };
        let tenant = self.sides[0].shared.view.tenant.id;
        let (store, cache) = (Arc::clone(&self.store), self.cache.clone());
        let is_known = !past.known.is_empty();
        let state = Overlay::new(tenant, now, store, cache, self.runtime.clone()).knowing(past.known);
        let state = Arc::new(state);
        let plugin = &self.plugin;
        let cancelled = &self.cancelled;
        let [older, newer] = self.sides.each_mut().map(|side| {
            if cancelled.load(Ordering::Relaxed) {
                return None;
            }
            side.shared.now = now;
            // Sessions are made with settings; those of another time are made for this run.
            let mut other = side.sessions_with(plugin, &settings);
            let sessions = other.as_mut().unwrap_or(&mut side.sessions);
            let ran = Run::new(&side.shared, sessions, &state, rule, event, attempt).go();
            *burned += ran.used.values().map(|used| used.fuel).sum::<u64>();
            Some((Did::new(&ran, plugin, state.take_run()), ran.logs))
        });
        // One that was cancelled tells nothing about its version.
        let ((older, _), (newer, logs)) = older.zip(newer).filter(|_| !cancelled.load(Ordering::Relaxed))?;
        let state = match (past.attempt.is_some(), state.has_read_now()) {
            (true, false) => Seen::Recorded,
            (true, true) if is_known => Seen::Partly,
            _ => Seen::Now,
        };
        Some(Pair { event: &event.event.id, rule: rule.name(), state, older, newer, logs })
    }

    /// What the recordings of a run tell; of its last attempt that has any.
    fn past(&self, rule: &Rule, event: &Logged) -> Past {
        let run = RunId::of(event.event.event_key(), rule.name());
        if !self.recorded.contains(&run) {
            return Past::default();
        }
        let view = &self.sides[1].shared.view;
        let read = async {
            let heads = self.store.recordings_of(view.tenant.id, run).await?;
            let last = heads.iter().map(|head| head.of.attempt).max();
            let mut calls = Vec::new();
            for head in heads.iter().filter(|head| Some(head.of.attempt) == last) {
                let body = self.store.recording(view.tenant.id, head.number).await?;
                calls.extend(body.and_then(|body| serde_json::from_slice::<Recording>(&body).ok()));
            }
            Ok::<_, bulkhead_store::Error>(calls)
        };
        let calls = self.runtime.block_on(read).unwrap_or_else(|error| {
            tracing::warn!(tenant = view.tenant.id.0, %error, "a preview goes without a recording");
            Vec::new()
        });
        Past::of(calls, rule, &self.plugin, |name| view.plugins.get(name).map(|plugin| plugin.id))
    }
}

impl Side {
    /// Sessions of their own for a run that saw other settings; none if it did not.
    fn sessions_with(&self, plugin: &str, settings: &BTreeMap<String, Option<String>>) -> Option<Sessions> {
        let active = self.shared.view.plugins.get(plugin).filter(|_| !settings.is_empty())?;
        let mut setup = Setup::clone(&active.setup);
        for (name, value) in settings {
            match value {
                Some(value) => _ = setup.config.insert(name.clone(), value.clone()),
                None => _ = setup.config.remove(name),
            }
        }
        // One that cannot be loaded fails the run itself.
        let loaded = self.shared.load(active).ok()?;
        let session = self.shared.sandbox.session(&loaded, Arc::new(setup));
        Some(Sessions::from([((plugin.to_owned(), active.version), session)]))
    }
}
