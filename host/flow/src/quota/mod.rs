//! Quotas: how much of the host each tenant may use, and what happens when it wants more.
//!
//! ```text
//! inbox ──admit(events)──▶ ┌───────────┐ ──terms (soft lane, hold, turns at once)──▶ schedule
//! dispatch ──burned(fuel)▶ │ accounts  │
//! store ──counts──────────▶└───────────┘ ◀──levels, ten times a second──▶ Redis, if there is one
//! ```
//!
//! Who uses more than its rate or its fuel is served after the others first (the soft lane). Who goes on is refused (events)
//! or waits (fuel). Concurrency is kept by the schedule. A full backlog or full storage refuses events. Storage is state and
//! components together; that a component fits is judged where it is stored, in the store's own transaction.
//!
//! What is exact: the rate and the fuel of a node, and its concurrency. What is not: the backlog is counted once a second
//! and storage every ten when they come near, so a tenant can be over by what it hands in meanwhile; and with several
//! nodes the sum is only kept as exactly as [`shared`] says. Without Redis, or while it is gone, each node gives the
//! whole rate and the whole fuel.
//!
//! Nothing here waits for anything on the way of an event. What is in memory can be lost: a restart forgets debts.

mod account;
pub mod shared;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use bulkhead_domain::clock::Clock;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::quota::Quota;
use bulkhead_domain::policy::quota::Quotas;
use bulkhead_store::Store;
use bulkhead_store::catalogue::Tenant;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::dispatch;
use crate::quota::account::Account;
use crate::quota::account::Due;
pub use crate::quota::shared::Shared;
use crate::quota::shared::Told;
use crate::schedule::Terms;

/// Between two looks at all accounts: how much later than it could a tenant goes on.
const LOOK: Duration = Duration::from_millis(100);
/// Accounts that are counted in one look.
const COUNTS_MAX: usize = 64;
/// A Redis that failed is left alone for so long.
const ALONE: Duration = Duration::from_secs(1);

/// What a quota does to its tenant now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// Nothing.
    Within,
    /// The tenant is served after the others.
    Soft,
    /// Events are refused (rate, backlog, storage), or what is there waits (fuel, concurrency).
    Stopped,
}

/// What a tenant's plugins keep, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Stored {
    /// Keys and values of their state.
    pub state: u64,
    /// Their components, each counted once; those of retired versions are not counted.
    pub components: u64,
}

impl Stored {
    /// Both.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.state.saturating_add(self.components)
    }
}

/// How a tenant stands with one quota, on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub quota: Quota,
    /// The limit: events per second, batches, events, bytes, or fuel per minute.
    pub limit: u64,
    /// How much of it is used. Of rate and fuel: what would have to come back until all could be used at once again.
    pub used: u64,
    /// Of storage: what that is made of, once it was counted.
    pub stored: Option<Stored>,
    /// What it does.
    pub hold: Hold,
    /// Since when it has been biting; none if it did not within the last seconds.
    pub since: Option<Timestamp>,
    /// When to try again, or when what waits goes on.
    pub retry_after: Option<Duration>,
}

/// Events that are not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Refused {
    /// Because of this quota.
    pub quota: Quota,
    /// The limit.
    pub limit: u64,
    /// Of storage: what is kept.
    pub stored: Option<Stored>,
    /// It is of no use to try earlier.
    pub retry_after: Duration,
}

impl Refused {
    fn sentence(&self) -> String {
        let limit = self.limit;
        match self.quota {
            Quota::Rate => format!("the tenant may hand in {limit} events per second, and has handed in more"),
            Quota::Backlog => format!("{limit} events of the tenant or more wait to be worked off, which is its limit"),
            Quota::Storage => {
                let Stored { state, components } = self.stored.unwrap_or_default();
                format!(
                    "the tenant's plugins keep more than its limit, {limit} bytes: {state} of state and {components} of \
                     components"
                )
            }
            // They refuse nothing.
            Quota::Concurrency | Quota::Fuel => format!("the tenant's limit is {limit}"),
        }
    }
}

/// A cheap handle.
#[derive(Clone)]
pub struct Limiter {
    inner: Arc<Inner>,
}

struct Inner {
    defaults: Quotas,
    store: Store,
    clock: Arc<dyn Clock>,
    dispatch: dispatch::Handle,
    shared: Option<Shared>,
    accounts: Mutex<HashMap<TenantId, Account>>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the schedule, if it does not know.
    fn apply(&self, tenant: TenantId, account: &mut Account, now: Timestamp) {
        let (_, aside) = self.dispatch.turns(tenant);
        let terms = account.judge(aside, now);
        if terms != account.terms {
            account.terms = terms;
            self.dispatch.set_terms(tenant, terms);
        }
    }

    /// Does something with a tenant's account, at its quotas as they are now; nothing if it has no quotas.
    fn with<T>(&self, tenant: &Tenant, act: impl FnOnce(&mut Account, Timestamp) -> T) -> Option<T> {
        let quotas = tenant.quotas.or(&self.defaults);
        let now = self.clock.now();
        let mut accounts = self.lock();
        if quotas == Quotas::default() {
            if accounts.remove(&tenant.id).is_some() {
                self.dispatch.set_terms(tenant.id, Terms::default());
            }
            return None;
        }
        let account = accounts.entry(tenant.id).or_insert_with(|| Account::new(quotas, now));
        account.allow(quotas, now);
        account.touch(now);
        let done = act(account, now);
        self.apply(tenant.id, account, now);
        Some(done)
    }
}

impl Limiter {
    /// Keeps tenants to their quotas; what is unset there is as `defaults` say. Nodes share buckets by `shared`, if given.
    #[must_use]
    pub fn new(
        defaults: Quotas,
        store: Store,
        clock: Arc<dyn Clock>,
        dispatch: dispatch::Handle,
        shared: Option<Shared>,
    ) -> Self {
        let accounts = Mutex::default();
        Self { inner: Arc::new(Inner { defaults, store, clock, dispatch, shared, accounts }) }
    }

    /// What counts where a tenant's own quota is unset.
    #[must_use]
    pub fn defaults(&self) -> &Quotas {
        &self.inner.defaults
    }

    /// Whether so many events may come in. If so, they are counted.
    pub fn admit(&self, tenant: &Tenant, events: u32) -> Result<(), Refused> {
        let admitted = self.inner.with(tenant, |account, now| account.admit(events, now)).unwrap_or(Ok(()));
        if let Err(refused) = &admitted {
            metrics::counter!("bulkhead_quota_refused_total", "quota" => refused.quota.name()).increment(1);
        }
        admitted
    }

    /// Makes the schedule know the tenant's quotas as they are now.
    pub fn know(&self, tenant: &Tenant) {
        self.inner.with(tenant, |_, _| ());
    }

    /// So much fuel was used.
    pub fn burned(&self, tenant: &Tenant, fuel: u64) {
        if fuel > 0 {
            self.inner.with(tenant, |account, now| account.burn(fuel, now));
        }
    }

    /// How a tenant stands with each of its quotas, as far as this node knows.
    #[must_use]
    pub fn lines(&self, tenant: &Tenant) -> Vec<Line> {
        let turns = self.inner.dispatch.turns(tenant.id);
        self.inner.with(tenant, |account, now| account.lines(turns, now)).unwrap_or_default()
    }

    /// The same, with the backlog counted just now, to a little beyond its limit.
    pub async fn report(&self, tenant: &Tenant) -> bulkhead_store::Result<Vec<Line>> {
        let due = |account: &mut Account, now| Due {
            backlog: account.quotas.backlog_events.map(|limit| limit + 1),
            // Costly, so asking often does not count it more often.
            ..account.due(now)
        };
        if let Some(due) = self.inner.with(tenant, due) {
            self.count_one(tenant.id, due).await?;
        }
        Ok(self.lines(tenant))
    }

    /// Looks at all accounts until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let judging = async {
            loop {
                tokio::time::sleep(LOOK).await;
                self.judge();
            }
        };
        let counting = async {
            loop {
                tokio::time::sleep(LOOK).await;
                if let Err(error) = self.count().await {
                    tracing::debug!(%error, "cannot count what tenants have");
                    tokio::time::sleep(ALONE).await;
                }
            }
        };
        let sharing = async {
            let mut works = true;
            loop {
                let told = self.share().await;
                if let Err(error) = &told
                    && works
                {
                    tracing::warn!(%error, "quotas are not shared between nodes; each gives the whole rate until then");
                }
                works = told.is_ok();
                tokio::time::sleep(if works { LOOK } else { ALONE }).await;
            }
        };
        stop.run_until_cancelled(async { tokio::join!(judging, counting, sharing) }).await;
    }

    /// Tells the schedule who may go on, and forgets who is not there.
    pub(crate) fn judge(&self) {
        let inner = &*self.inner;
        let now = inner.clock.now();
        inner.lock().retain(|tenant, account| {
            inner.apply(*tenant, account, now);
            let idle = account.is_idle(now);
            if idle {
                inner.dispatch.set_terms(*tenant, Terms::default());
            }
            !idle
        });
    }

    /// Counts what is due, and looks quotas up that are in somebody's way.
    pub(crate) async fn count(&self) -> bulkhead_store::Result<()> {
        let now = self.inner.clock.now();
        let due: Vec<(TenantId, Due)> = {
            let accounts = self.inner.lock();
            let due = accounts.iter().map(|(tenant, account)| (*tenant, account.due(now)));
            due.filter(|(_, due)| due.is_any()).take(COUNTS_MAX).collect()
        };
        // Tenants that cannot be counted keep no others from being counted.
        let mut all = Ok(());
        for (tenant, due) in due {
            all = all.and(self.count_one(tenant, due).await);
        }
        all
    }

    async fn count_one(&self, tenant: TenantId, due: Due) -> bulkhead_store::Result<()> {
        let inner = &*self.inner;
        let row = if due.quotas { inner.store.tenant(tenant).await? } else { None };
        let backlog = match due.backlog {
            Some(limit) => Some(inner.store.backlog(tenant, limit).await?),
            None => None,
        };
        let storage = if due.storage {
            let (state, components) =
                (inner.store.state_bytes(tenant).await?, inner.store.component_bytes(tenant).await?);
            Some(Stored { state, components })
        } else {
            None
        };
        let now = inner.clock.now();
        if let Some(account) = inner.lock().get_mut(&tenant) {
            account.counted(backlog, storage, now);
            if let Some(row) = row {
                account.allow(row.quotas.or(&inner.defaults), now);
            }
        }
        Ok(())
    }

    /// Tells the shared buckets what was taken, and hears what others took.
    pub(crate) async fn share(&self) -> redis::RedisResult<()> {
        let inner = &*self.inner;
        let Some(shared) = &inner.shared else { return Ok(()) };
        let told = self.told();
        if told.is_empty() {
            return Ok(());
        }
        let levels = shared.take(&told).await;
        let now = inner.clock.now();
        let mut accounts = inner.lock();
        for (at, Told { tenant, quota, flow, .. }) in told.iter().enumerate() {
            let Some(account) = accounts.get_mut(tenant) else { continue };
            let meter = if *quota == Quota::Rate { &mut account.events } else { &mut account.fuel };
            let Some(meter) = meter else { continue };
            match levels.as_ref().map(|levels| levels.get(at)) {
                Ok(Some(level)) => meter.heard(*level, now),
                Ok(None) | Err(_) => meter.unheard(*flow),
            }
        }
        levels.map(drop)
    }

    fn told(&self) -> Vec<Told> {
        let now = self.inner.clock.now();
        let mut told = Vec::new();
        for (tenant, account) in self.inner.lock().iter_mut() {
            let tenant = *tenant;
            let meters = [
                (Quota::Rate, account.events.as_mut().zip(account.quotas.events())),
                (Quota::Fuel, account.fuel.as_mut().zip(account.quotas.fuel())),
            ];
            for (quota, meter) in meters {
                let Some((meter, flow)) = meter else { continue };
                told.extend(meter.tell(flow, now).map(|taken| Told { tenant, quota, flow, taken }));
            }
        }
        told
    }
}
