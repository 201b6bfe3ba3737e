//! Places for trying rules on past events: long work for the processor, so there is one at a time on this node, and nobody
//! waits for more than one of another tenant's.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bulkhead_domain::id::TenantId;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

/// How long a trial waits for its place.
const WAIT: Duration = Duration::from_secs(10);

/// The places. Cheap to clone.
#[derive(Clone)]
pub struct Trials {
    place: Arc<Semaphore>,
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
        Self { place: Arc::new(Semaphore::new(1)), tenants: Arc::default() }
    }
}

impl Trials {
    /// A place for a tenant; none if it has one already, or if it would have to wait for too long.
    pub async fn begin(&self, tenant: TenantId) -> Option<Trial> {
        let is_first = self.tenants.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant);
        let turn = is_first.then(|| Turn { tenants: Arc::clone(&self.tenants), tenant })?;
        let place = tokio::time::timeout(WAIT, Arc::clone(&self.place).acquire_owned()).await.ok()?.ok()?;
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
}
