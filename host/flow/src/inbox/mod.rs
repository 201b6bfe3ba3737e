//! The inbox: untrusted envelopes in, durable events out, and a receipt that says what became of each.
//!
//! An envelope is checked by itself: one bad event never takes the others of its request down. Nothing is answered before
//! the store says that it is durable. Requests of all tenants share transactions in the store (group commit), so there is
//! no queue here; a bound on the bytes under way is the backpressure.
//!
//! Reading order: [`envelope`] (what an event may look like), [`codec`] (CloudEvents JSON in and out).

pub mod codec;
pub mod envelope;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_domain::clock::Clock;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::id::Shard;
use bulkhead_store::Store;
use bulkhead_store::catalogue::Tenant;
use bulkhead_store::catalogue::TenantState;
use bulkhead_store::log::Appended;
use bulkhead_store::log::NewEvent;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::dispatch;
use crate::live::Kinds;
use crate::live::Live;
use crate::quota::Limiter;
use crate::quota::Refused;

pub use codec::split_batch;
pub use envelope::Envelope;
pub use envelope::Rejection;

/// How much a publisher may hand in at once.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one event.
    pub event_bytes: usize,
    /// Bytes of a batch's body.
    pub batch_bytes: usize,
    /// Events of a batch.
    pub batch_events: usize,
    /// Bytes of a streamed body (NDJSON), which is taken in piece by piece.
    pub stream_bytes: usize,
    /// How deep the data of an event may nest.
    pub depth: usize,
    /// Bytes of events on their way into the store, of all requests together.
    pub under_way_bytes: usize,
}

impl Default for Limits {
    /// CloudEvents asks that 64 KiB pass; four times that, so that ordinary webhook payloads do. A batch is what one group
    /// commit can hold without holding the others up.
    fn default() -> Self {
        Self {
            event_bytes: 256 << 10,
            batch_bytes: 4 << 20,
            batch_events: 1_000,
            stream_bytes: 64 << 20,
            depth: 64,
            under_way_bytes: 64 << 20,
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Events that are now in the log.
    pub accepted: u32,
    /// Events that were there before.
    pub duplicates: u32,
    /// Events that were refused.
    pub rejected: Vec<Rejected>,
    /// The ids of accepted and duplicate events, in the order of the request.
    pub ids: Vec<String>,
}

/// An event that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its place in the request, from 0.
    pub index: u32,
    /// For machines.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

/// Why nothing of a request was taken in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tenant is suspended.
    #[error("the tenant is suspended")]
    Suspended,
    /// The tenant has used a quota up.
    #[error(transparent)]
    Quota(#[from] Refused),
    /// Too much is under way; try again after this much time.
    #[error("too many events are on their way into the store")]
    Busy(Duration),
    /// The store cannot take writes now.
    #[error("the store is unavailable")]
    Unavailable(#[source] bulkhead_store::Error),
    /// The store's disk is full.
    #[error("the store is full")]
    Full,
}

/// A cheap handle on the inbox.
#[derive(Clone)]
pub struct Inbox {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    dispatch: dispatch::Handle,
    live: Live,
    limiter: Limiter,
    limits: Limits,
    /// Descendants that a first event may have.
    budget: u32,
    shards: u16,
    under_way: Semaphore,
}

impl Inbox {
    /// An inbox in front of `store`.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        dispatch: dispatch::Handle,
        live: Live,
        limiter: Limiter,
        limits: Limits,
        budget: u32,
    ) -> Self {
        let shards = store.host_shards();
        let under_way = Semaphore::new(limits.under_way_bytes);
        Self { inner: Arc::new(Inner { store, clock, dispatch, live, limiter, limits, budget, shards, under_way }) }
    }

    /// The limits that callers must keep before they hand in.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Takes in what came from one request of one tenant. Returns after the accepted events are durable.
    pub async fn accept(&self, tenant: &Tenant, items: Vec<Result<Envelope, Rejection>>) -> Result<Receipt, Error> {
        let inner = &*self.inner;
        if tenant.state == TenantState::Suspended {
            return Err(Error::Suspended);
        }
        let recorded = inner.clock.now();
        let mut receipt = Receipt::default();
        let mut events = Vec::with_capacity(items.len());
        let mut bytes = 0;
        for (index, item) in items.into_iter().enumerate() {
            match item.and_then(|envelope| envelope.check(&inner.limits, recorded)) {
                Ok(event) => {
                    bytes += event.data.len() + 256;
                    let shard = Shard::of(tenant.id, event.ordering_key().unwrap_or(&event.id), inner.shards, 1);
                    let lineage = Lineage { hops: 0, budget: inner.budget };
                    events.push(NewEvent { tenant: tenant.id, shard, recorded, lineage, event });
                }
                Err(Rejection { code, detail }) => {
                    let index = u32::try_from(index).unwrap_or(u32::MAX);
                    receipt.rejected.push(Rejected { index, code, detail });
                }
            }
        }
        metrics::counter!("bulkhead_events_rejected_total").increment(receipt.rejected.len() as u64);
        if events.is_empty() {
            return Ok(receipt);
        }
        inner.limiter.admit(tenant, u32::try_from(events.len()).unwrap_or(u32::MAX))?;
        let permits = u32::try_from(bytes.min(inner.limits.under_way_bytes)).unwrap_or(u32::MAX);
        let _under_way = inner.under_way.try_acquire_many(permits).map_err(|_| Error::Busy(Duration::from_secs(1)))?;
        self.append(tenant, events, &mut receipt).await?;
        Ok(receipt)
    }

    async fn append(&self, tenant: &Tenant, events: Vec<NewEvent>, receipt: &mut Receipt) -> Result<(), Error> {
        let inner = &*self.inner;
        let shards: Vec<Shard> = events.iter().map(|event| event.shard).collect();
        let kinds = Kinds::of(events.iter().map(|event| event.event.kind.as_str()));
        receipt.ids = events.iter().map(|event| event.event.id.clone()).collect();
        let appended = inner.store.host_append(events).await.map_err(|error| match error {
            bulkhead_store::Error::Full => Error::Full,
            other => Error::Unavailable(other),
        })?;
        let mut woken = BTreeSet::new();
        for (appended, shard) in appended.iter().zip(shards) {
            match appended {
                Appended::Accepted(_) => {
                    receipt.accepted += 1;
                    woken.insert(shard);
                }
                Appended::Duplicate(_) => receipt.duplicates += 1,
            }
        }
        metrics::counter!("bulkhead_events_accepted_total").increment(u64::from(receipt.accepted));
        metrics::counter!("bulkhead_events_duplicate_total").increment(u64::from(receipt.duplicates));
        if !woken.is_empty() {
            let woken: Vec<Shard> = woken.into_iter().collect();
            inner.dispatch.wake(tenant.id, &woken);
            inner.live.tick(tenant.id, kinds);
        }
        Ok(())
    }
}
