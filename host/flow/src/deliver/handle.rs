//! What others may ask of delivery.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkhead_domain::clock::Clock;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::Delivery;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_store::deliveries::DueDelivery;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::deliver::SinkDirectory;
use crate::deliver::attempt;
use crate::deliver::breaker::BreakerState;
use crate::sink::Outlets;

/// Tests under way at a time, over all tenants: people make them, one by one.
const TESTS_MAX: usize = 16;

/// A sink, among all of a host.
pub(super) type SinkKey = (TenantId, String);

/// What service and handles share.
pub(super) struct Shared {
    pub(super) directory: Arc<dyn SinkDirectory>,
    pub(super) outlets: Outlets,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) wake: Notify,
    pub(super) paused: AtomicBool,
    pub(super) resets: Mutex<HashSet<SinkKey>>,
    pub(super) breakers: Mutex<BTreeMap<SinkKey, BreakerView>>,
    /// Attempts that are under way or not settled yet, of tenants that have any.
    under_way: Mutex<HashMap<TenantId, usize>>,
    ended: Notify,
    tests: Semaphore,
}

impl Shared {
    pub(super) fn new(directory: Arc<dyn SinkDirectory>, outlets: Outlets, clock: Arc<dyn Clock>) -> Self {
        Self {
            directory,
            outlets,
            clock,
            wake: Notify::new(),
            paused: AtomicBool::new(false),
            resets: Mutex::default(),
            breakers: Mutex::default(),
            under_way: Mutex::default(),
            ended: Notify::new(),
            tests: Semaphore::new(TESTS_MAX),
        }
    }

    /// An attempt begins.
    pub(super) fn began(&self, tenant: TenantId) {
        *lock(&self.under_way).entry(tenant).or_default() += 1;
    }

    /// It ended, and the store knows how.
    pub(super) fn is_over(&self, tenant: TenantId) {
        let mut under_way = lock(&self.under_way);
        if let Some(attempts) = under_way.get_mut(&tenant) {
            *attempts = attempts.saturating_sub(1);
            if *attempts == 0 {
                under_way.remove(&tenant);
            }
        }
        drop(under_way);
        self.ended.notify_waiters();
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A breaker that is not closed, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BreakerView {
    /// The sink.
    pub sink: String,
    /// Open or probing.
    pub state: BreakerState,
    /// Since when it is not closed.
    pub since: Timestamp,
    /// When the next probe may go.
    pub next_probe: Timestamp,
    /// Failures since the receiver last answered.
    pub failures_in_row: u32,
    /// The last failure's code.
    pub code: String,
    /// The last failure's reason.
    pub reason: String,
}

/// How a test of a sink ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    /// The id that the receiver saw.
    pub id: String,
    /// Whether it arrived.
    pub arrived: bool,
    /// The failure's code; empty if it arrived.
    pub code: String,
    /// The failure's reason, or what the receiver said.
    pub reason: String,
    /// How long it took.
    pub took: Duration,
}

/// Why a test was not made.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The tenant has no such sink.
    #[error("there is no such sink")]
    NotFound,
    /// The tenant is paused or suspended.
    #[error("nothing is sent while the tenant is paused")]
    Held,
    /// Too many tests are under way.
    #[error("too many tests are under way")]
    Busy,
    /// The sink could not be read.
    #[error("the sink could not be read")]
    Store(#[source] bulkhead_store::Error),
}

/// A cheap handle.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// There may be deliveries that are due. Losing this costs latency, never a delivery.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Stops all deliveries but those under way, or goes on.
    pub fn set_paused(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Release);
        self.wake();
    }

    /// Closes a sink's breaker: somebody changed the sink, or asks for its deliveries again.
    pub fn reset(&self, tenant: TenantId, sink: &str) {
        lock(&self.shared.resets).insert((tenant, sink.to_owned()));
        self.wake();
    }

    /// Another node says that somebody changed a sink of the tenant, or asks for deliveries again: its breakers close.
    pub fn heard(&self, tenant: TenantId) {
        let sinks: Vec<String> = self.breakers(tenant).into_iter().map(|view| view.sink).collect();
        lock(&self.shared.resets).extend(sinks.into_iter().map(|sink| (tenant, sink)));
        self.wake();
    }

    /// Resolves when no attempt is under way, or not settled, of tenants that leave this node.
    pub(crate) async fn left(&self, leaves: impl Fn(TenantId) -> bool) {
        // It looks at its shards, and lets go of what waits for an attempt.
        self.wake();
        loop {
            let ended = self.shared.ended.notified();
            if !lock(&self.shared.under_way).keys().any(|tenant| leaves(*tenant)) {
                return;
            }
            ended.await;
        }
    }

    /// The tenant's breakers that are not closed, by sink.
    #[must_use]
    pub fn breakers(&self, tenant: TenantId) -> Vec<BreakerView> {
        let breakers = lock(&self.shared.breakers);
        let of_tenant = breakers.range((tenant, String::new())..).take_while(|((other, _), _)| *other == tenant);
        of_tenant.map(|(_, view)| view.clone()).collect()
    }

    /// A sink's breaker, unless it is closed.
    #[must_use]
    pub fn breaker(&self, tenant: TenantId, sink: &str) -> Option<BreakerView> {
        lock(&self.shared.breakers).get(&(tenant, sink.to_owned())).cloned()
    }

    /// Sends one test delivery, now and once, past outbox and breaker.
    pub async fn test(&self, tenant: TenantId, sink: &str) -> Result<Tested, TestError> {
        let _permit = self.shared.tests.try_acquire().map_err(|_| TestError::Busy)?;
        let resolved = self.shared.directory.sink(tenant, sink).await.map_err(TestError::Store)?;
        let resolved = resolved.ok_or(TestError::NotFound)?;
        if resolved.held {
            return Err(TestError::Held);
        }
        let now = self.shared.clock.now();
        let due = test_delivery(tenant, &resolved.tenant_name, sink, now);
        let started = Instant::now();
        let made = attempt::bounded(&resolved, &self.shared.outlets, &due, now).await;
        let (code, reason) = match made.outcome {
            Outcome::Done => (String::new(), made.said),
            Outcome::Failed(failure) | Outcome::Rejected(failure) => (failure.code, failure.reason),
        };
        let arrived = code.is_empty();
        Ok(Tested { id: due.delivery.id, arrived, code, reason, took: started.elapsed() })
    }
}

/// A CloudEvent that says what it is, as deliveries of rules are CloudEvents.
fn test_delivery(tenant: TenantId, name: &str, sink: &str, now: Timestamp) -> DueDelivery {
    let id = format!("test_{}", uuid::Uuid::now_v7().simple());
    let time = jiff::Timestamp::from_microsecond(now.0).unwrap_or_default().to_string();
    let body = serde_json::json!({
        "specversion": "1.0",
        "id": id,
        "source": "/bulkhead/test",
        "type": "bulkhead.sink.test",
        "time": time,
        "datacontenttype": "application/json",
        "data": { "tenant": name, "sink": sink },
    });
    DueDelivery {
        tenant,
        delivery: Delivery {
            id,
            sink: sink.to_owned(),
            content_type: "application/cloudevents+json".to_owned(),
            body: body.to_string().into(),
            attributes: Vec::new(),
        },
        position: Position::ZERO,
        rule: String::new(),
        key: None,
        attempts: 0,
        created: now,
    }
}
