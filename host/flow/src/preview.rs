//! Preview: a version of a plugin on past events, beside another, with nothing applied.
//!
//! ```text
//!  the log, newest first ─▶ events that reach the plugin by today's rules ─▶ the older version ─┐
//!                                                                           the newer version ─┴▶ compare ─▶ report
//! ```
//!
//! Both run the whole rule, with the same state, time and randomness, each after the other; what they wanted to happen is
//! compared and forgotten. State is what the event's recording says that the plugin saw, else what it is now: the report
//! says how many runs had which.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::comparison;
use bulkhead_domain::comparison::Comparison;
use bulkhead_domain::comparison::Difference;
use bulkhead_domain::comparison::Kind;
use bulkhead_domain::effect::Effect;
use bulkhead_domain::effect::LogLine;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_domain::rule::definition::Rule;
use bulkhead_domain::rule::scope::Scope;
use bulkhead_sandbox::Sandbox;
use bulkhead_store::Store;
use bulkhead_store::log::EventQuery;
use serde::Serialize;

use crate::dispatch::batch::Shared;
use crate::dispatch::overlay;
use crate::dispatch::overlay::Overlay;
use crate::dispatch::pipeline::Run;
use crate::dispatch::pipeline::Sessions;
use crate::dispatch::recorder;
use crate::tenants::Directory;
use crate::tenants::TenantView;

/// Events of the log that are looked at for some that reach the plugin: about half a second of reading.
pub const LOOKED_AT_MAX: usize = 10_000;
/// Events read at a time.
const PAGE: u32 = 500;
/// Runs of each kind that the report shows.
const SAMPLES_MAX: usize = 5;
/// Log lines of the newer version that a sample shows.
const LINES_MAX: usize = 5;
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
    cache: overlay::Cache,
    runtime: tokio::runtime::Handle,
    store: Store,
}

/// One of the two versions.
struct Side {
    shared: Shared,
    sessions: Sessions,
}

/// How the newer version did beside the older one.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The older version; none if the plugin has none.
    pub against: Option<u32>,
    /// The newer version.
    pub version: u32,
    /// Events of the log that were looked at.
    pub looked_at: usize,
    /// Events that reach the plugin.
    pub events: usize,
    /// Runs compared: an event can start several.
    pub runs: usize,
    /// Events that were left out because the time was up.
    pub left_out: usize,
    /// How many runs of each kind, with samples.
    pub groups: BTreeMap<&'static str, Group>,
    /// Fuel of a run: older and newer.
    pub fuel: Change,
    /// Microseconds of a run: older and newer. Of few runs, and on a busy host, this says little.
    pub micros: Change,
}

/// Runs with which the newer version did the same kind of thing.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Group {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub samples: Vec<Sample>,
}

/// One run with both versions.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The event's id.
    pub event: String,
    /// The rule.
    pub rule: String,
    /// In what they differ.
    pub differences: Vec<Difference>,
    /// Differences beyond those.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
    /// Fuel: older and newer.
    pub fuel: [u64; 2],
    /// What the newer version logged, the first lines.
    pub logs: Vec<LogLine>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// A measure over all runs.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Change {
    /// Medians: older and newer.
    pub p50: [u64; 2],
    /// 99th percentiles.
    pub p99: [u64; 2],
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
        let side = async |version: Option<u32>| -> Result<Side, Error> {
            let view = self.directory.view_with(tenant, plugin, version).await?;
            let view = view.ok_or_else(|| Error::NoVersion(version.unwrap_or_default()))?;
            Ok(Side { shared: self.shared(Arc::new(view)), sessions: Sessions::new() })
        };
        let sides = [side(against).await?, side(Some(version)).await?];
        let (events, looked_at) = self.events(&sides[1].shared.view, plugin, range).await?;
        Ok(Prepared {
            plugin: plugin.to_owned(),
            sides,
            events,
            looked_at,
            cache: overlay::cache(CACHE_BYTES),
            runtime: tokio::runtime::Handle::current(),
            store: Arc::clone(&self.store),
        })
    }

    /// What its runs share: nothing goes out, nothing is recorded.
    pub(crate) fn shared(&self, view: Arc<TenantView>) -> Shared {
        Shared {
            view,
            sandbox: self.sandbox.clone(),
            store: Arc::clone(&self.store),
            runtime: tokio::runtime::Handle::current(),
            now: Timestamp(0),
            effect_secret: self.effect_secret,
            cancelled: Arc::new(AtomicBool::new(false)),
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
    let scope = Scope::new(&event.event, &view.tenant.name);
    let routed = view.rules.route(&event.event, &scope);
    let uses = |at: &usize| view.rules.rules()[*at].plugins().any(|name| name == plugin);
    routed.matched.into_iter().filter(uses).collect()
}

/// How one version did.
struct Did {
    outcome: Outcome,
    effects: Vec<Effect>,
    writes: Vec<StateWrite>,
    logs: Vec<LogLine>,
    fuel: u64,
    micros: u64,
}

impl Prepared {
    /// Runs both versions over the events, until they are done or `deadline` has come. Blocks, and uses a processor.
    #[must_use]
    pub fn go(mut self, deadline: Instant) -> Report {
        let events = std::mem::take(&mut self.events);
        let version = |side: &Side| side.shared.view.plugins.get(&self.plugin).map(|active| active.version);
        let mut report = Report {
            against: version(&self.sides[0]),
            version: version(&self.sides[1]).unwrap_or_default(),
            looked_at: self.looked_at,
            events: events.len(),
            runs: 0,
            left_out: 0,
            groups: BTreeMap::new(),
            fuel: Change::default(),
            micros: Change::default(),
        };
        let (mut fuel, mut micros) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for (at, (event, rules)) in events.iter().enumerate() {
            if Instant::now() >= deadline {
                report.left_out = events.len() - at;
                break;
            }
            for rule in rules {
                let view = Arc::clone(&self.sides[1].shared.view);
                let rule = &view.rules.rules()[*rule];
                let [older, newer] = self.both(rule, event);
                for (place, did) in [&older, &newer].into_iter().enumerate() {
                    fuel[place].push(did.fuel);
                    micros[place].push(did.micros);
                }
                report.add(rule, event, &older, newer);
            }
        }
        report.fuel = Change::of(fuel);
        report.micros = Change::of(micros);
        report
    }

    fn both(&mut self, rule: &Rule, event: &Logged) -> [Did; 2] {
        let now = event.recorded;
        let tenant = self.sides[0].shared.view.tenant.id;
        let (store, cache) = (Arc::clone(&self.store), self.cache.clone());
        let state = Arc::new(Overlay::new(tenant, now, store, cache, self.runtime.clone()));
        self.sides.each_mut().map(|side| {
            side.shared.now = now;
            let ran = Run::new(&side.shared, &mut side.sessions, &state, rule, event, 1).go();
            // What is left of a failed run's steps never was.
            let writes = state.take_run();
            let done = ran.outcome == Outcome::Done;
            let duration: Duration = ran.used.values().map(|used| used.duration).sum();
            Did {
                outcome: ran.outcome,
                effects: ran.effects.into_iter().map(|(_, effect)| effect).collect(),
                writes: if done { writes } else { Vec::new() },
                logs: ran.logs,
                fuel: ran.used.values().map(|used| used.fuel).sum(),
                micros: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            }
        })
    }
}

impl Did {
    fn ended(&self) -> comparison::Ended<'_> {
        comparison::Ended { outcome: &self.outcome, effects: &self.effects, writes: &self.writes }
    }
}

impl Report {
    fn add(&mut self, rule: &Rule, event: &Logged, older: &Did, newer: Did) {
        self.runs += 1;
        let Comparison { mut kind, differences, more } = comparison::compare(older.ended(), newer.ended());
        if self.against.is_none() && newer.outcome != Outcome::Done {
            // There is nothing to compare with; that it fails is what counts.
            kind = Kind::NewFailure;
        }
        let group = self.groups.entry(name(kind)).or_default();
        group.count += 1;
        if group.samples.len() < SAMPLES_MAX && kind != Kind::Same {
            group.samples.push(Sample {
                event: event.event.id.clone(),
                rule: rule.name().to_owned(),
                differences,
                more,
                fuel: [older.fuel, newer.fuel],
                logs: newer.logs.into_iter().take(LINES_MAX).collect(),
            });
        }
    }

    /// Runs that end in a way in which a person would want to look before the newer version is activated.
    #[must_use]
    pub fn new_failures(&self) -> usize {
        self.groups.get(name(Kind::NewFailure)).map_or(0, |group| group.count)
    }
}

/// As the report writes it.
fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Same => "same",
        Kind::Changed => "changed",
        Kind::FewerEffects => "fewer_effects",
        Kind::NewFailure => "new_failure",
        Kind::Mended => "mended",
    }
}

impl Change {
    fn of(values: [Vec<u64>; 2]) -> Self {
        let [older, newer] = values.map(|mut values| {
            values.sort_unstable();
            let at = |percent: usize| values.get((values.len() * percent / 100).min(values.len().saturating_sub(1)));
            [at(50), at(99)].map(|value| value.copied().unwrap_or_default())
        });
        Self { p50: [older[0], newer[0]], p99: [older[1], newer[1]] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_nothing_are_nothing() {
        let none = Change::of([Vec::new(), Vec::new()]);
        assert_eq!((none.p50, none.p99), ([0, 0], [0, 0]));
        let some = Change::of([(1..=100).collect(), vec![7]]);
        assert_eq!((some.p50, some.p99), ([51, 7], [100, 7]));
    }
}
