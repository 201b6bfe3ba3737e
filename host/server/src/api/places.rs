//! Places for what is in work, requests and among them uploads: a bound for the host, and within it one for each tenant, so
//! that nobody who keeps many open for long, by slow bodies for example, keeps the others out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bulkhead_domain::id::TenantId;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::api::code::Code;
use crate::api::problem::Problem;
use crate::api::problem::Result;

/// How long a request waits for a place.
const WAIT: Duration = Duration::from_secs(5);
/// One tenant has at most this part of all places.
const SHARE: usize = 4;
/// Tenants remembered before those without a request in work are forgotten.
const TENANTS_KEPT: usize = 1_024;

/// All places of a host.
pub struct Places {
    all: Arc<Semaphore>,
    share: usize,
    /// What has a place: `requests`.
    what: &'static str,
    wait: Duration,
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

/// A place; dropping it makes room for another request.
#[derive(Debug)]
pub struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_tenant: OwnedSemaphorePermit,
}

impl Places {
    /// So many, for `what` there are many of: `requests`.
    pub fn new(count: usize, what: &'static str) -> Self {
        let share = count.div_ceil(SHARE);
        Self { all: Arc::new(Semaphore::new(count)), share, what, wait: WAIT, tenants: Mutex::default() }
    }

    /// A place for a tenant's request, if there is one soon. Who waits for the tenant's own share takes nothing of others.
    pub async fn take(&self, tenant: TenantId) -> Result<Place> {
        let waiting = async {
            let of_tenant = self.of(tenant).acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Place { _of_all: of_all, _of_tenant: of_tenant })
        };
        tokio::time::timeout(self.wait, waiting).await.ok().flatten().ok_or_else(|| {
            let what = self.what;
            let detail = if self.of(tenant).available_permits() == 0 {
                format!("the tenant has {} {what} in work, as many as it may have at a time", self.share)
            } else {
                format!("the host has more {what} in work than it can")
            };
            Problem::new(Code::Busy, detail).retry_after(Duration::from_secs(1))
        })
    }

    fn of(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() > TENANTS_KEPT {
            // Whoever waits or works holds a clone.
            tenants.retain(|_, places| Arc::strong_count(places) > 1);
        }
        Arc::clone(tenants.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(self.share))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_tenant_cannot_take_all_places() {
        let places = Places { wait: Duration::from_millis(5), ..Places::new(8, "requests") };
        let one = places.take(TenantId(1)).await.expect("because there is room");
        let _two = places.take(TenantId(1)).await.expect("because there is room");
        let refused = places.take(TenantId(1)).await.expect_err("because it has its share");
        assert_eq!(refused.code, Code::Busy);
        assert!(refused.detail().starts_with("the tenant has 2 requests"), "{}", refused.detail());
        // Who waits gets the place that becomes free; others never had to wait.
        let other = places.take(TenantId(2)).await.expect("because it has none");
        let (three, ()) = tokio::join!(places.take(TenantId(1)), async { drop(one) });
        drop((three.expect("because one was given back"), other));
        assert_eq!(places.all.available_permits(), 7);
    }

    #[tokio::test]
    async fn all_tenants_together_have_a_bound_and_those_gone_are_forgotten() {
        let places = Places { wait: Duration::from_millis(5), ..Places::new(8, "requests") };
        let mut taken = Vec::new();
        for tenant in 0..4 {
            taken.push(places.take(TenantId(tenant)).await.expect("because there is room"));
            taken.push(places.take(TenantId(tenant)).await.expect("because there is room"));
        }
        let refused = places.take(TenantId(9)).await.expect_err("because all are taken");
        assert!(refused.detail().starts_with("the host has more"), "{}", refused.detail());
        for tenant in 10..2_000 {
            let _ = places.of(TenantId(tenant));
        }
        assert!(places.tenants.lock().expect("because nobody panicked").len() <= TENANTS_KEPT + 1);
        taken.clear();
        assert_eq!(places.all.available_permits(), 8);
    }
}
