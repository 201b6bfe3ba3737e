//! One event and its story: what it follows from, what ran over it, what came of that, and why anything waits.

use axum::Json;
use axum::extract::State;
use bulkhead_domain::effect::LogLine;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::TenantId;
use bulkhead_store::deliveries::DeliveryQuery;
use bulkhead_store::log::EventQuery;
use bulkhead_store::work::RunQuery;
use serde::Deserialize;
use serde::Serialize;
use utoipa::IntoParams;
use utoipa::ToSchema;

use crate::api::deliveries::Delivery;
use crate::api::events::render::CloudEvent;
use crate::api::events::render::EventRef;
use crate::api::events::waits::Wait;
use crate::api::events::waits::Watcher;
use crate::api::events::with_id;
use crate::api::extract::Caller;
use crate::api::extract::Params;
use crate::api::extract::Path;
use crate::api::extract::Read;
use crate::api::page;
use crate::api::problem::Document;
use crate::api::problem::Result;
use crate::api::runs::Run;
use crate::api::state::Api;
use crate::api::time::rfc3339;

/// How far back causes are followed; events come no further from their first cause.
const CAUSES_MAX: usize = 64;
/// Events of the same correlation that are looked through for follow-ups, and those that are read at a time.
const RELATED_MAX: usize = 2_000;
const CHUNK: u32 = 200;
/// Deliveries of one story.
const DELIVERIES_MAX: u32 = 200;

/// Which of several events with one id.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// The one from this source; else the newest.
    source: Option<String>,
}

/// An event and its story.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Story {
    /// The event as CloudEvents JSON.
    event: CloudEvent,
    /// When it was accepted.
    recorded: String,
    /// BLAKE3 over all of it.
    hash: String,
    /// How far it is from its first cause.
    hops: u16,
    /// Other sources that have an event with this id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_sources: Vec<String>,
    /// The events that it follows from, nearest first.
    causes: Vec<EventRef>,
    /// What ran over it.
    runs: Vec<RunStory>,
    /// What is sent because of it.
    deliveries: Vec<DeliveryStory>,
    /// The events that were emitted because of it.
    follow_ups: Vec<EventRef>,
    /// True if there are more deliveries or follow-ups than these.
    cut: bool,
    /// Why the event itself waits.
    waits: Vec<Wait>,
}

/// A run in a story.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RunStory {
    #[serde(flatten)]
    run: Run,
    /// What its plugins wrote in its last attempt.
    #[schema(value_type = Vec<Object>)]
    logs: Vec<LogLine>,
    /// Why it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<String>,
}

/// A delivery in a story.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeliveryStory {
    #[serde(flatten)]
    delivery: Delivery,
    /// Why it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<String>,
}

/// An event with its causes, follow-ups, runs and deliveries, and why anything waits.
#[utoipa::path(
    get,
    path = "/v1/events/{id}",
    tag = "events",
    summary = "An event and its story",
    params(("id" = String, Path, description = "The event's id; a `/` in it is written `%2F`"), Query),
    responses(
        (status = 200, description = "The event and its story", body = Story),
        (status = 404, description = "There is no such event", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn story(
    State(api): State<Api>,
    caller: Caller<Read>,
    Path(id): Path<String>,
    Params(query): Params<Query>,
) -> Result<Json<Story>> {
    let tenant = caller.id();
    let mut events = with_id(&api, tenant, &id, query.source.as_deref()).await?;
    let logged = events.remove(0);
    let other_sources = events.into_iter().map(|other| other.event.source).collect();
    let watcher = Watcher::new(&api, tenant).await?;
    // First: of an event that has been looked at, the runs are there when they are read after that.
    let mut waits = watcher.event(&logged).await?;
    let (follow_ups, more_follow_ups) = follow_ups(&api, tenant, &logged).await?;
    let wanted = RunQuery { position: Some(logged.position), limit: page::LIMIT_MAX, ..RunQuery::default() };
    let views = api.store.runs(tenant, &wanted).await?;
    let wanted =
        DeliveryQuery { position: Some(logged.position), limit: DELIVERIES_MAX + 1, ..DeliveryQuery::default() };
    let mut sent = api.store.deliveries(tenant, &wanted).await?;
    let cut = more_follow_ups || sent.len() > DELIVERIES_MAX as usize;
    sent.truncate(DELIVERIES_MAX as usize);
    let mut runs = Vec::with_capacity(views.len());
    let mut open = !waits.is_empty();
    for view in views {
        let Some(run) = Run::of(&view) else { continue };
        let why = match &view.unfinished {
            Some(unfinished) => Some(watcher.run(unfinished).await?),
            None => None,
        };
        open |= why.is_some();
        runs.push(RunStory { run, logs: view.record.map(|record| record.logs).unwrap_or_default(), waits: why });
    }
    // Deliveries have no quota.
    let quotas = if open { watcher.quotas() } else { Vec::new() };
    let mut deliveries = Vec::with_capacity(sent.len());
    for view in &sent {
        let why = watcher.delivery(view).await?;
        open |= why.is_some();
        deliveries.push(DeliveryStory { delivery: view.into(), waits: why });
    }
    if open {
        waits.splice(0..0, watcher.switches().into_iter().chain(quotas));
    }
    Ok(Json(Story {
        causes: causes(&api, tenant, &logged).await?,
        event: CloudEvent::of(&logged.event),
        recorded: rfc3339(logged.recorded),
        hash: hex(&logged.event.integrity()),
        hops: logged.lineage.hops,
        other_sources,
        runs,
        deliveries,
        follow_ups,
        cut,
        waits,
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The chain of events that this one follows from. Causes are older, so the chain ends even if a publisher named a cause
/// that is none.
async fn causes(api: &Api, tenant: TenantId, of: &Logged) -> Result<Vec<EventRef>> {
    let mut causes = Vec::new();
    let mut last = of.clone();
    while let Some(id) = last.event.causation.clone().filter(|_| causes.len() < CAUSES_MAX) {
        let named = api.store.events_by_id(tenant, &id).await?;
        let mut older = named.into_iter().filter(|cause| cause.position < last.position);
        // An id may stand for events of several sources; the one of the same correlation is the cause.
        let first = older.next();
        let same = |cause: &Logged| cause.event.correlation == last.event.correlation;
        let found = match first {
            Some(first) if !same(&first) => older.find(same).or(Some(first)),
            other => other,
        };
        let Some(cause) = found else { break };
        causes.push(EventRef::from(&cause));
        last = cause;
    }
    Ok(causes)
}

/// The events that were emitted because of this one, and whether there may be more.
async fn follow_ups(api: &Api, tenant: TenantId, of: &Logged) -> Result<(Vec<EventRef>, bool)> {
    let mut query = EventQuery {
        correlation: Some(of.event.correlation.clone()),
        ascending: true,
        after: Some(of.position),
        limit: CHUNK,
        ..EventQuery::default()
    };
    let (mut found, mut looked) = (Vec::new(), 0);
    loop {
        let related = api.store.events(tenant, &query).await?;
        looked += related.len();
        let of_this = related.iter().filter(|other| other.event.causation.as_ref() == Some(&of.event.id));
        found.extend(of_this.map(EventRef::from));
        query.after = related.last().map(|last| last.position);
        if related.len() < CHUNK as usize {
            return Ok((found, false));
        }
        if looked >= RELATED_MAX {
            return Ok((found, true));
        }
    }
}
