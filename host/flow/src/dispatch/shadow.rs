//! Shadows: a candidate that makes runs of the active version again, with nothing applied.
//!
//! ```text
//!  batch ─▶ commit ─▶ a few of its runs, with the state that they saw ─▶ one at a time: the candidate ─▶ compare ─▶ count
//!           (done)     (bounded; what does not fit is counted as left out)
//! ```
//!
//! It comes after the batch, on a thread that the batch does not need, and rests four times as long as it works: it takes
//! at most a fifth of one core of a node, whatever its tenant publishes, and can neither slow a batch nor fail it. Tenants
//! take turns, and a run that takes longer than a shadow may is given up.

mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::comparison;
use bulkhead_domain::comparison::Comparison;
use bulkhead_domain::comparison::Kind as Likeness;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bulkhead_store::releases::Kind;
use bulkhead_store::releases::Tally;
use bulkhead_store::state::Versioned;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Dispatch;
use crate::dispatch::overlay;
use crate::dispatch::overlay::Known;
use crate::dispatch::overlay::Overlay;
use crate::dispatch::pipeline::Run;
use crate::dispatch::pipeline::Sessions;
use crate::dispatch::shadow::queue::Queue;
use crate::preview::Cancel;
use crate::preview::Did;
use crate::preview::Previewer;
use crate::tenants::TenantView;

/// Runs of one batch that are made again: with an event, its effects and the state that it saw each, which the limits of
/// all of these bound.
pub(super) const SAMPLES_MAX: usize = 8;
/// For each moment of work so many of rest.
const REST: u32 = 4;
/// How long one run may take, whatever its rule and its plugins may take for real.
const TIME: Duration = Duration::from_secs(2);

/// A run as the active version made it.
pub struct Sample {
    /// The plugin that has a shadow.
    pub plugin: String,
    /// By which rule.
    pub rule: String,
    /// Over which event.
    pub event: Logged,
    /// The time that it saw.
    pub now: Timestamp,
    /// The state before it, as far as its batch had read or written it.
    pub state: Vec<((PluginId, String), Option<Versioned>)>,
    /// How it went.
    pub did: Did,
}

/// A sample, with the tenant as it was.
type Asked = (Arc<TenantView>, Sample);

/// Where samples go.
pub(super) struct Shadows {
    previewer: Previewer,
    queue: Mutex<Queue<Asked>>,
    pushed: Notify,
}

impl Shadows {
    pub(super) fn new(previewer: Previewer) -> Self {
        Self { previewer, queue: Mutex::default(), pushed: Notify::new() }
    }

    /// Gives back what there is no room for.
    fn push(&self, asked: Asked) -> Option<Asked> {
        let left_out = self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(asked.0.tenant.id, asked);
        self.pushed.notify_one();
        left_out
    }

    async fn next(&self) -> Asked {
        loop {
            if let Some(asked) = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop() {
                return asked;
            }
            // What was pushed meanwhile is remembered.
            self.pushed.notified().await;
        }
    }
}

/// The view of a candidate, kept over its samples.
type Kept = Option<((TenantId, i64, i64), Arc<TenantView>)>;

impl Dispatch {
    /// Makes the runs of a committed batch again, later and if there is room.
    pub(super) fn shadow(&self, view: &Arc<TenantView>, samples: Vec<Sample>, left_out: BTreeMap<String, u64>) {
        let Some(shadows) = &self.shadows else { return };
        for (plugin, skipped) in left_out {
            self.count_shadow(view, &plugin, &Tally { skipped, ..Tally::default() });
        }
        for sample in samples {
            if let Some((view, sample)) = shadows.push((Arc::clone(view), sample)) {
                self.count_shadow(&view, &sample.plugin, &Tally { skipped: 1, ..Tally::default() });
            }
        }
    }

    fn count_shadow(&self, view: &TenantView, plugin: &str, tally: &Tally) {
        if let Some(shadow) = view.shadows.get(plugin) {
            let name = (view.tenant.id, shadow.plugin.id, Kind::Shadow, shadow.number);
            self.rollouts.count(name, plugin, None, tally);
        }
    }

    pub(super) async fn run_shadows(self: Arc<Self>, stop: CancellationToken) {
        let Some(shadows) = &self.shadows else { return };
        let mut kept: Kept = None;
        loop {
            let Some((view, sample)) = stop.run_until_cancelled(shadows.next()).await else { return };
            let began = Instant::now();
            let plugin = sample.plugin.clone();
            let Some(tally) = stop.run_until_cancelled(self.run_again(&view, sample, &mut kept)).await else { return };
            self.count_shadow(&view, &plugin, &tally.unwrap_or(Tally { skipped: 1, ..Tally::default() }));
            if stop.run_until_cancelled(tokio::time::sleep(began.elapsed() * REST)).await.is_none() {
                return;
            }
        }
    }

    /// Makes one run again with the candidate; none if it could not be, or took too long.
    async fn run_again(&self, view: &TenantView, sample: Sample, kept: &mut Kept) -> Option<Tally> {
        let previewer = &self.shadows.as_ref()?.previewer;
        let candidate = view.shadows.get(&sample.plugin)?;
        let (tenant, name) = (view.tenant.id, (view.tenant.id, candidate.number, view.tenant.settings));
        if kept.as_ref().is_none_or(|(of, _)| *of != name) {
            let with =
                self.directory.view_with(tenant, &sample.plugin, Some(candidate.plugin.version)).await.ok()??;
            *kept = Some((name, Arc::new(with)));
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let cancel = Cancel(Arc::clone(&cancelled));
        let mut shared = previewer.shared(Arc::clone(&kept.as_ref()?.1), &cancelled);
        shared.now = sample.now;
        let runtime = tokio::runtime::Handle::current();
        let known = Known { values: sample.state.iter().cloned().collect(), ..Known::default() };
        // What else it reads is as it is by then; a cache for so little would serve nobody.
        let cache = overlay::cache(0);
        let state = Overlay::new(tenant, sample.now, Arc::clone(&self.store), cache, runtime).knowing(known);
        let state = Arc::new(state);
        let mut ran = tokio::task::spawn_blocking(move || {
            let view = Arc::clone(&shared.view);
            let rule = view.rules.rule(&sample.rule)?;
            let mut sessions = Sessions::new();
            let ran = Run::new(&shared, &mut sessions, &state, rule, &sample.event, 1).go();
            let did = Did::new(&ran, &sample.plugin, state.take_run());
            // One that was cancelled tells nothing about its version.
            (!cancelled.load(Ordering::Relaxed)).then(|| compared(&sample, &did))
        });
        match tokio::time::timeout(TIME, &mut ran).await {
            Ok(ran) => ran.ok()?,
            Err(_) => {
                drop(cancel);
                // It is at work until it has noticed, and that counts.
                ran.await.ok()?
            }
        }
    }
}

fn compared(sample: &Sample, did: &Did) -> Tally {
    let Comparison { kind, differences, .. } = comparison::compare(sample.did.ended(), did.ended());
    let (same, failed) = (kind == Likeness::Same, kind == Likeness::NewFailure);
    let shown = serde_json::json!({
        "event": sample.event.event.id,
        "rule": sample.rule,
        "kind": kind,
        "differences": differences,
        "fuel": [sample.did.counts.fuel, did.counts.fuel],
    });
    Tally {
        active: sample.did.counts,
        candidate: did.counts,
        changed: u64::from(!same && !failed),
        newly_failed: u64::from(failed),
        skipped: 0,
        samples: if same { Vec::new() } else { vec![shown] },
    }
}
