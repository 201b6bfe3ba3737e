//! Shadows: a candidate that makes runs of the active version again, with nothing applied.
//!
//! ```text
//!  batch ─▶ commit ─▶ a few of its runs, with the state that they saw ─▶ one at a time: the candidate ─▶ compare ─▶ count
//!           (done)     (bounded; what does not fit is counted as left out)
//! ```
//!
//! It comes after the batch, on a thread that the batch does not need, and rests four times as long as it works: it takes
//! at most a fifth of one core of a node, whatever its tenant publishes, and can neither slow a batch nor fail it.

use std::collections::BTreeMap;
use std::sync::Arc;
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
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Dispatch;
use crate::dispatch::overlay;
use crate::dispatch::overlay::Known;
use crate::dispatch::overlay::Overlay;
use crate::dispatch::pipeline::Run;
use crate::dispatch::pipeline::Sessions;
use crate::preview::Did;
use crate::preview::Previewer;
use crate::tenants::TenantView;

/// Runs of one batch that are made again: with an event, its effects and the state that it saw each, which the limits of
/// all of these bound.
pub(super) const SAMPLES_MAX: usize = 8;
/// Runs that wait to be made again, over all tenants.
const WAITING_MAX: usize = 64;
/// For each moment of work so many of rest.
const REST: u32 = 4;

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

/// Where samples go; a bounded queue.
pub(super) struct Shadows {
    previewer: Previewer,
    sender: mpsc::Sender<Asked>,
    receiver: std::sync::Mutex<Option<mpsc::Receiver<Asked>>>,
}

impl Shadows {
    pub(super) fn new(previewer: Previewer) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Self { previewer, sender, receiver: std::sync::Mutex::new(Some(receiver)) }
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
            if let Err(error) = shadows.sender.try_send((Arc::clone(view), sample)) {
                let (mpsc::error::TrySendError::Full((view, sample))
                | mpsc::error::TrySendError::Closed((view, sample))) = error;
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
        let receiver = self
            .shadows
            .as_ref()
            .and_then(|shadows| shadows.receiver.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        let Some(mut receiver) = receiver else { return };
        let mut kept: Kept = None;
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                next = receiver.recv() => next,
            };
            let Some((view, sample)) = next else { return };
            let began = Instant::now();
            let plugin = sample.plugin.clone();
            let tally = self.run_again(&view, sample, &mut kept).await;
            self.count_shadow(&view, &plugin, &tally.unwrap_or(Tally { skipped: 1, ..Tally::default() }));
            let rest = (began.elapsed() * REST).min(Duration::from_secs(5));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Makes one run again with the candidate; none if it could not be.
    async fn run_again(&self, view: &TenantView, sample: Sample, kept: &mut Kept) -> Option<Tally> {
        let previewer = &self.shadows.as_ref()?.previewer;
        let candidate = view.shadows.get(&sample.plugin)?;
        let (tenant, name) = (view.tenant.id, (view.tenant.id, candidate.number, view.tenant.settings));
        if kept.as_ref().is_none_or(|(of, _)| *of != name) {
            let with =
                self.directory.view_with(tenant, &sample.plugin, Some(candidate.plugin.version)).await.ok()??;
            *kept = Some((name, Arc::new(with)));
        }
        let mut shared = previewer.shared(Arc::clone(&kept.as_ref()?.1));
        shared.now = sample.now;
        let runtime = tokio::runtime::Handle::current();
        let known = Known { values: sample.state.iter().cloned().collect(), ..Known::default() };
        // What else it reads is as it is by then; a cache for so little would serve nobody.
        let cache = overlay::cache(0);
        let state = Overlay::new(tenant, sample.now, Arc::clone(&self.store), cache, runtime).knowing(known);
        let state = Arc::new(state);
        let ran = tokio::task::spawn_blocking(move || {
            let view = Arc::clone(&shared.view);
            let rule = view.rules.rule(&sample.rule)?;
            let mut sessions = Sessions::new();
            let ran = Run::new(&shared, &mut sessions, &state, rule, &sample.event, 1).go();
            let did = Did::new(&ran, &sample.plugin, state.take_run());
            Some(compared(&sample, &did))
        });
        ran.await.ok()?
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
