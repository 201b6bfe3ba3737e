//! Places for trying things on past events: long work for the processor. A tenant has one at a time of each kind, and they
//! are given out in the order in which they were asked for, so nobody waits for more than one of another tenant's. Rules
//! are tried in a moment; previews of plugins take long, so they have places of their own.

use std::collections::HashSet;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bulkhead_domain::id::TenantId;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::api::preview::COMPUTING;

/// How long a trial of rules waits for its place.
const WAIT: Duration = Duration::from_secs(10);
/// How long a preview does: longer than two before it may compute.
const PREVIEW_WAIT: Duration = Duration::from_secs(45);
const _: () = assert!(PREVIEW_WAIT.as_secs() > 2 * COMPUTING.as_secs());
/// Of the node's processors, the part that previews may use: one for so many.
const PROCESSORS_OF_PREVIEW: usize = 2;

/// The places. Cheap to clone.
#[derive(Clone)]
pub struct Trials {
    rules: Places,
    previews: Places,
}

/// Places of one kind.
#[derive(Clone)]
struct Places {
    free: Arc<Semaphore>,
    wait: Duration,
    tenants: Arc<Mutex<HashSet<TenantId>>>,
}

/// A place; whoever works keeps it until the work is over, also if nobody waits for it any more.
pub struct Trial {
    _place: OwnedSemaphorePermit,
    _turn: Turn,
}

/// The tenant's one turn, waiting or at work.
struct Turn {
    tenants: Arc<Mutex<HashSet<TenantId>>>,
    tenant: TenantId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.tenant);
    }
}

impl Default for Trials {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let previews = (processors / PROCESSORS_OF_PREVIEW).max(1);
        Self { rules: Places::new(1, WAIT), previews: Places::new(previews, PREVIEW_WAIT) }
    }
}

impl Trials {
    /// A place for trying rules; none if the tenant has one already, or if it would have to wait for too long.
    pub async fn begin(&self, tenant: TenantId) -> Option<Trial> {
        self.rules.take(tenant).await
    }

    /// A place for a preview, likewise.
    pub async fn begin_preview(&self, tenant: TenantId) -> Option<Trial> {
        self.previews.take(tenant).await
    }
}

impl Places {
    fn new(count: usize, wait: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), wait, tenants: Arc::default() }
    }

    async fn take(&self, tenant: TenantId) -> Option<Trial> {
        let is_first = self.tenants.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant);
        let turn = is_first.then(|| Turn { tenants: Arc::clone(&self.tenants), tenant })?;
        let place = tokio::time::timeout(self.wait, Arc::clone(&self.free).acquire_owned()).await.ok()?.ok()?;
        Some(Trial { _place: place, _turn: turn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tenant_has_one_and_they_follow_each_other() {
        let trials = Trials::default();
        let first = trials.begin(TenantId(1)).await.expect("because nobody else is there");
        assert!(trials.begin(TenantId(1)).await.is_none(), "it has one");
        let other = tokio::spawn({
            let trials = trials.clone();
            async move { trials.begin(TenantId(2)).await.is_some() }
        });
        drop(first);
        assert!(other.await.expect("because it does not panic"), "it is the next");
        assert!(trials.begin(TenantId(1)).await.is_some(), "places come back");
    }

    #[tokio::test]
    async fn previews_are_in_turn_and_not_in_the_way_of_rules() {
        let trials = Trials { previews: Places::new(1, PREVIEW_WAIT), ..Trials::default() };
        let first = trials.begin_preview(TenantId(1)).await.expect("because nobody else is there");
        assert!(trials.begin(TenantId(2)).await.is_some(), "rules are tried meanwhile");
        let (sender, mut began) = tokio::sync::mpsc::unbounded_channel();
        let queue = |tenant: i64| {
            let (trials, sender) = (trials.clone(), sender.clone());
            tokio::spawn(async move {
                let trial = trials.begin_preview(TenantId(tenant)).await;
                sender.send((tenant, trial)).expect("because somebody listens");
            })
        };
        for tenant in [2, 3] {
            queue(tenant);
            tokio::task::yield_now().await;
        }
        assert!(trials.begin_preview(TenantId(1)).await.is_none(), "it has one");
        drop(first);
        // Who comes again comes after those who wait.
        queue(1);
        for tenant in [2, 3, 1] {
            let (began, trial) = began.recv().await.expect("because there is one more");
            assert_eq!((began, trial.is_some()), (tenant, true));
        }
    }
}
