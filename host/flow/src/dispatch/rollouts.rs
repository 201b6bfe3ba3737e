//! Candidates under way: counts what they come to, and takes them back when that is too much.
//!
//! Every node counts the attempts that it has committed itself, adds them to the store's sum once in a while, and judges
//! the sum. Several may find at once that it is enough; the store lets one of them end it, and that one tells the tenant.
//! A node that dies takes the counts of its last moment with it: the sum is then of fewer attempts, and of none twice.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::rollout::Breach;
use bulkhead_domain::policy::rollout::Guard;
use bulkhead_store::releases::Act;
use bulkhead_store::releases::Ending;
use bulkhead_store::releases::Kind;
use bulkhead_store::releases::Rollout;
use bulkhead_store::releases::Tally;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Dispatch;
use crate::tenants::TenantView;

/// How often counts are added to the store's: how late a bad candidate is found at most, beside what it takes to count.
const EVERY: Duration = Duration::from_millis(500);

/// A candidate, by the number of its beginning.
type Name = (TenantId, PluginId, Kind, i64);

/// What is counted of one and not in the store yet.
struct Counted {
    plugin: String,
    guard: Option<Guard>,
    tally: Tally,
}

/// What is counted of all of them.
#[derive(Default)]
pub(super) struct Rollouts {
    counted: Mutex<HashMap<Name, Counted>>,
}

impl Rollouts {
    /// Adds what a committed batch counted, by plugin.
    pub(super) fn add(&self, view: &TenantView, tallies: BTreeMap<String, Tally>) {
        for (plugin, tally) in tallies {
            if let Some(canary) = view.canaries.get(&plugin) {
                let name = (view.tenant.id, canary.plugin.id, Kind::Canary, canary.number);
                self.count(name, &plugin, canary.terms.guard, &tally);
            }
        }
    }

    /// Adds what one came to.
    pub(super) fn count(&self, name: Name, plugin: &str, guard: Option<Guard>, tally: &Tally) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Counted { plugin: plugin.to_owned(), guard, tally: Tally::default() };
        counted.entry(name).or_insert_with(fresh).tally.add(tally);
    }

    fn take(&self) -> HashMap<Name, Counted> {
        std::mem::take(&mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Dispatch {
    pub(super) async fn watch_rollouts(self: Arc<Self>, stop: CancellationToken) {
        let mut beat = tokio::time::interval(EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = beat.tick() => self.judge_rollouts().await,
            }
        }
    }

    /// Adds what was counted to the store's sums, and ends what has come to too much.
    pub(super) async fn judge_rollouts(&self) {
        for (name, counted) in self.rollouts.take() {
            let (tenant, plugin, kind, number) = name;
            match self.store.count_rollout(tenant, plugin, kind, number, &counted.tally).await {
                // It has ended meanwhile.
                Ok(None) => {}
                Ok(Some(sum)) => {
                    let judge = |guard: &Guard| guard.judge(&sum.tally.active, &sum.tally.candidate);
                    if let Some(breach) = counted.guard.as_ref().and_then(judge)
                        && let Err(error) = self.take_back(tenant, &counted.plugin, &sum, breach).await
                    {
                        tracing::warn!(tenant = tenant.0, plugin = counted.plugin, %error, "a canary goes on");
                    }
                }
                Err(error) => {
                    tracing::warn!(tenant = tenant.0, plugin = counted.plugin, %error, "counts of a candidate wait");
                    self.rollouts.count(name, &counted.plugin, counted.guard, &counted.tally);
                }
            }
        }
    }

    async fn take_back(
        &self,
        tenant: TenantId,
        plugin: &str,
        rollout: &Rollout,
        breach: Breach,
    ) -> bulkhead_store::Result<()> {
        let told = serde_json::to_value(breach).unwrap_or_default();
        let mut detail = serde_json::Map::new();
        detail.insert("reason".to_owned(), "rolled-back".into());
        detail.insert("breach".to_owned(), told.clone());
        let act = Act::by("host", self.clock.now());
        let end = Ending { number: Some(rollout.number), promote: false, detail, act };
        let Some(ended) = self.store.end_rollout(tenant, plugin, rollout.kind, &end).await? else {
            return Ok(());
        };
        tracing::warn!(tenant = tenant.0, plugin, version = ended.version, ?breach, "a canary is taken back");
        metrics::counter!("bulkhead_canaries_rolled_back_total").increment(1);
        self.directory.invalidate(tenant).await;
        self.handle.wake_tenant(tenant);
        let data = serde_json::json!({
            "plugin": plugin,
            "version": ended.version,
            "breach": told,
            "active": ended.tally.active,
            "candidate": ended.tally.candidate,
            "next": "look at the candidate's failed runs; all events go to the active version again",
        });
        self.tell(tenant, "bulkhead.plugin.canary_rolled_back", plugin, &data).await
    }
}
