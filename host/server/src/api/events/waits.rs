//! Why something waits, in a sentence.

use std::sync::Arc;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::quota::Quota;
use bulkhead_flow::quota::Hold;
use bulkhead_flow::quota::Line;
use bulkhead_flow::tenants::TenantView;
use bulkhead_store::catalogue::TenantState;
use bulkhead_store::deliveries::DeliveryQuery;
use bulkhead_store::deliveries::DeliveryState;
use bulkhead_store::deliveries::DeliveryView;
use bulkhead_store::work::BatchLimits;
use bulkhead_store::work::ParkedFilter;
use bulkhead_store::work::RunQuery;
use bulkhead_store::work::RunState;
use bulkhead_store::work::Unfinished;
use bulkhead_store::work::Waiting;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::problem::Result;
use crate::api::state::Api;
use crate::api::time::rfc3339;

/// Runs and deliveries that are looked through for the one ahead.
const AHEAD_MAX: u32 = 200;

/// A reason why something waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Wait {
    /// For machines.
    code: &'static str,
    /// For people.
    detail: String,
}

impl Wait {
    fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// Knows what holds things up in a tenant.
pub struct Watcher<'a> {
    api: &'a Api,
    tenant: TenantId,
    view: Arc<TenantView>,
    now: Timestamp,
}

impl<'a> Watcher<'a> {
    /// As things are now.
    pub async fn new(api: &'a Api, tenant: TenantId) -> Result<Self> {
        let view = api.directory.view(tenant).await?;
        Ok(Self { api, tenant, view, now: api.now() })
    }

    /// The switches that hold up everything of the tenant.
    pub fn switches(&self) -> Vec<Wait> {
        let mut waits = Vec::new();
        if self.api.paused.load(std::sync::atomic::Ordering::Acquire) {
            waits.push(Wait::new(
                "host-paused",
                "the operator has paused the host; nothing is worked off until it goes on",
            ));
        }
        match self.view.tenant.state {
            TenantState::Active => {}
            TenantState::Paused => {
                let detail = "the tenant is paused; what it has waits until it is resumed";
                waits.push(Wait::new("tenant-paused", detail));
            }
            TenantState::Suspended => {
                waits.push(Wait::new("tenant-suspended", "the tenant is suspended by the operator"))
            }
        }
        waits
    }

    /// The quotas that hold up events of the tenant, as far as this node knows.
    pub fn quotas(&self) -> Vec<Wait> {
        let wait = |line: Line| {
            let (limit, again) = (line.limit, line.retry_after.map(|wait| rfc3339(self.now.after(wait))));
            Some(match (line.quota, line.hold) {
                (Quota::Rate, Hold::Soft | Hold::Stopped) => {
                    let over = format!("the tenant hands in more than its quota of {limit} events per second");
                    Wait::new("quota-rate", format!("{over}; what others have goes first"))
                }
                (Quota::Fuel, Hold::Soft) => {
                    let over = format!("the tenant's plugins use more than its quota of {limit} fuel per minute");
                    Wait::new("quota-fuel", format!("{over}; what others have goes first"))
                }
                (Quota::Fuel, Hold::Stopped) => Wait::new(
                    "quota-fuel",
                    format!(
                        "the tenant has used up its quota of {limit} fuel per minute; it goes on at {}",
                        again.unwrap_or_default()
                    ),
                ),
                (Quota::Concurrency, Hold::Stopped) => Wait::new(
                    "quota-concurrency",
                    format!("as many batches of the tenant are at work as its quota allows ({limit})"),
                ),
                _ => return None,
            })
        };
        self.api.limiter.lines(&self.view.tenant).into_iter().filter_map(wait).collect()
    }

    /// Why an event has not been looked at; nothing if it has.
    pub async fn event(&self, logged: &Logged) -> Result<Vec<Wait>> {
        // Only where the cursor stands is of interest.
        let least = BatchLimits { events: 1, bytes: 0, due: 0 };
        let batch = self.api.store.read_batch(self.tenant, logged.shard, self.now, least).await?;
        if logged.position <= batch.cursor {
            return Ok(Vec::new());
        }
        let is_next = batch.events.first().is_some_and(|first| first.position == logged.position);
        let detail = if is_next {
            "no rule has looked at it yet; it is the next"
        } else {
            "no rule has looked at it yet; others are before it"
        };
        Ok(vec![Wait::new("backlog", detail)])
    }

    /// Why a run waits.
    pub async fn run(&self, run: &Unfinished) -> Result<String> {
        Ok(match run.waiting {
            Waiting::Retry(due) => self.due("attempt", due),
            Waiting::Parked => "for a person: redrive it when the cause is gone, or discard it".to_owned(),
            Waiting::Held => self.held(run),
            Waiting::Blocked => self.blocked(run).await?,
        })
    }

    /// Why a delivery waits; nothing if it does not.
    pub async fn delivery(&self, view: &DeliveryView) -> Result<Option<String>> {
        match view.state {
            DeliveryState::Delivered | DeliveryState::Dropped => return Ok(None),
            DeliveryState::Parked => {
                return Ok(Some("for a person: redeliver it when the receiver is well, or drop it".to_owned()));
            }
            DeliveryState::Pending => {}
        }
        if let Some(ahead) = self.delivery_ahead(view).await? {
            return Ok(Some(ahead));
        }
        if let Some(breaker) = self.api.deliver.breaker(self.tenant, &view.delivery.sink) {
            return Ok(Some(format!(
                "the sink `{}` failed {} times in a row and is left alone; the next try is due at {} ({}: {})",
                breaker.sink,
                breaker.failures_in_row,
                rfc3339(breaker.next_probe),
                breaker.code,
                breaker.reason
            )));
        }
        Ok(Some(self.due("attempt", view.due)))
    }

    fn due(&self, what: &str, due: Timestamp) -> String {
        if due > self.now {
            format!("for its next {what}, due at {}", rfc3339(due))
        } else {
            format!("its {what} is due now")
        }
    }

    fn held(&self, run: &Unfinished) -> String {
        match &run.plugin {
            Some(plugin) => format!("the plugin `{plugin}` is paused"),
            None => format!("the rule `{}` is paused", run.rule),
        }
    }

    /// Which earlier run of the same rule and key is not finished.
    async fn blocked(&self, run: &Unfinished) -> Result<String> {
        let key = run.key.clone().unwrap_or_default();
        let behind = format!("behind an earlier run of this rule with the key `{key}`");
        let filter = ParkedFilter { rule: Some(run.rule.clone()), key: Some(key), ..ParkedFilter::default() };
        let parked = self.api.store.parked(self.tenant, &filter, Some(run.position), 1).await?;
        if let Some(head) = parked.iter().find_map(|view| view.unfinished.as_ref()) {
            return Ok(format!("{behind}: {} is parked ({}: {})", id(head), head.code, head.reason));
        }
        let query = RunQuery {
            rule: Some(run.rule.clone()),
            state: Some(RunState::Retrying),
            before: Some(run.position),
            limit: AHEAD_MAX,
            ..RunQuery::default()
        };
        let retrying = self.api.store.runs(self.tenant, &query).await?;
        let mut unfinished = retrying.iter().filter_map(|view| view.unfinished.as_ref());
        if let Some(head) = unfinished.find(|head| head.key == run.key && matches!(head.waiting, Waiting::Retry(_))) {
            let Waiting::Retry(due) = head.waiting else { return Ok(behind) };
            return Ok(format!("{behind}: {} is tried again at {} ({})", id(head), rfc3339(due), head.code));
        }
        let holder = self.view.rules.rule(&run.rule).and_then(|rule| self.view.holder(rule));
        Ok(match holder {
            Some(Some(plugin)) => format!("{behind}, which is held: the plugin `{plugin}` is paused"),
            Some(None) => format!("{behind}, which is held: the rule is paused"),
            None => behind,
        })
    }

    /// Which earlier delivery to the same sink with the same key is not settled.
    async fn delivery_ahead(&self, view: &DeliveryView) -> Result<Option<String>> {
        let Some(key) = &view.key else { return Ok(None) };
        let query = DeliveryQuery {
            sink: Some(view.delivery.sink.clone()),
            state: Some(DeliveryState::Parked),
            before: Some((view.created, view.delivery.id.clone())),
            limit: AHEAD_MAX,
            ..DeliveryQuery::default()
        };
        let parked = self.api.store.deliveries(self.tenant, &query).await?;
        let ahead = parked.iter().find(|other| other.key.as_ref() == Some(key));
        Ok(ahead.map(|other| {
            let id = &other.delivery.id;
            format!("behind the parked delivery {id} with the same key `{key}` ({}: {})", other.code, other.reason)
        }))
    }
}

fn id(run: &Unfinished) -> String {
    RunId::of(run.event, &run.rule).to_string()
}
