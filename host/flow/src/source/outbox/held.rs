//! Tenants whose rows wait because they were refused for now.

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::TenantId;
use bulkhead_store::catalogue::Tenant;

use crate::source::Backoff;

/// Nobody waits for longer without being tried again: what refuses it may be gone before it said.
const MAX: Duration = Duration::from_secs(5);

/// Which tenants wait, and until when.
#[derive(Debug, Default)]
pub(super) struct Held(HashMap<TenantId, One>);

#[derive(Debug)]
struct One {
    /// What the column may call it.
    names: [String; 2],
    backoff: Backoff,
    until: Instant,
}

impl Held {
    /// It was refused (again), and trying it earlier than `after` is of no use. Says whether it was not waiting before.
    pub fn hold(&mut self, tenant: &Tenant, after: Duration) -> bool {
        let new = !self.0.contains_key(&tenant.id);
        let one = self.0.entry(tenant.id).or_insert_with(|| One {
            names: [tenant.name.clone(), tenant.uid.clone()],
            backoff: Backoff::new(&tenant.uid),
            until: Instant::now(),
        });
        one.until = Instant::now() + one.backoff.next_wait().max(after).min(MAX);
        new
    }

    /// It was taken in.
    pub fn release(&mut self, tenant: TenantId) -> bool {
        self.0.remove(&tenant).is_some()
    }

    /// What the column calls those whose time has not come.
    pub fn names(&self) -> Vec<String> {
        let now = Instant::now();
        let waiting = self.0.values().filter(|one| one.until > now);
        waiting.flat_map(|one| one.names.iter().cloned()).collect()
    }

    /// How long until the first of them is tried again.
    pub fn soonest(&self) -> Option<Duration> {
        let now = Instant::now();
        self.0.values().filter(|one| one.until > now).map(|one| one.until - now).min()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}
