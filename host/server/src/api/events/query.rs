//! Past events, page by page.

use std::time::Duration;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use bulkhead_domain::id::Position;
use bulkhead_store::log::EventQuery;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::api::events::filter::Fair;
use crate::api::events::filter::Filter;
use crate::api::events::render::CloudEvent;
use crate::api::extract::Caller;
use crate::api::extract::Params;
use crate::api::extract::Read;
use crate::api::page;
use crate::api::page::Page;
use crate::api::problem::Document;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::api::time;

/// Events that are read from the store at a time.
const CHUNK: usize = 100;
/// Events that one page looks through, and the time that it takes, at most; bytes that it holds before it ends early.
const SCANNED_MAX: usize = 50_000;
const SCAN_TIME: Duration = Duration::from_millis(300);
const PAGE_BYTES: usize = 8 << 20;

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Of this type: a dotted glob, `*` for one part, `**` for any number.
    #[serde(rename = "type")]
    #[param(rename = "type")]
    kind: Option<String>,
    /// With this ordering key (`partitionkey`).
    key: Option<String>,
    /// With this correlation id.
    correlation: Option<String>,
    /// With this subject.
    subject: Option<String>,
    /// Accepted at or after this time (RFC 3339).
    since: Option<String>,
    /// Accepted before this time (RFC 3339).
    until: Option<String>,
    /// Only those for which this CEL expression holds.
    #[serde(rename = "where")]
    #[param(rename = "where")]
    condition: Option<String>,
    /// Newest first (`desc`, the default), or oldest first (`asc`).
    #[param(inline)]
    order: Option<Order>,
    /// Go on here: the `next` of the page before.
    after: Option<String>,
    /// At most this many items (default 50, at most 1000).
    limit: Option<u32>,
}

/// The order of a list of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Oldest first.
    Asc,
    /// Newest first.
    #[default]
    Desc,
}

/// Past events. Where `where` matches little, a page may be short, even empty, and have a `next`: what is looked through for
/// one page has a bound.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    summary = "Past events",
    params(Query),
    responses(
        (status = 200, description = "Events as CloudEvents JSON", body = Page<CloudEvent>),
        (status = "4XX", description = "The query is not valid", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn query(
    State(api): State<Api>,
    caller: Caller<Read>,
    Params(query): Params<Query>,
) -> Result<Json<Page<CloudEvent>>> {
    let filter = Filter::parse(query.kind.as_deref(), query.condition.as_deref())?;
    let limit = page::limit(query.limit)? as usize;
    let ascending = query.order.unwrap_or_default() == Order::Asc;
    let list = if ascending { "events:asc" } else { "events:desc" };
    let read = |cursor: &str| api.cursors.read_position(caller.uid(), list, cursor);
    let wanted = EventQuery {
        kind: filter.exact_kind(),
        key: query.key,
        subject: query.subject,
        correlation: query.correlation,
        since: query.since.map(|text| time::parse("since", &text)).transpose()?,
        until: query.until.map(|text| time::parse("until", &text)).transpose()?,
        ascending,
        after: query.after.as_deref().map(read).transpose()?,
        limit: 0,
    };
    let (items, next) = scan(&api, &caller, wanted, &filter, limit).await?;
    let next = next.map(|position| api.cursors.write_position(caller.uid(), list, position));
    Ok(Json(Page { items, next }))
}

/// One page, and where the next one begins.
async fn scan(
    api: &Api,
    caller: &Caller<Read>,
    mut query: EventQuery,
    filter: &Filter,
    limit: usize,
) -> Result<(Vec<CloudEvent>, Option<Position>)> {
    let (mut items, mut bytes, mut scanned) = (Vec::new(), 0, 0);
    let begun = Instant::now();
    let mut fair = Fair::default();
    loop {
        // One more than is wanted says whether there is a next page.
        let chunk = if filter.is_exact() { (limit - items.len() + 1).min(CHUNK) } else { CHUNK };
        query.limit = u32::try_from(chunk).unwrap_or(u32::MAX);
        let found = api.store.events(caller.id(), &query).await?;
        let is_last = found.len() < chunk;
        for logged in found {
            let full = items.len() == limit || bytes > PAGE_BYTES;
            if full || scanned == SCANNED_MAX || (scanned > 0 && begun.elapsed() > SCAN_TIME) {
                return Ok((items, query.after));
            }
            query.after = Some(logged.position);
            scanned += 1;
            let (keeps, steps) = filter.keeps(&logged.event, &caller.tenant.name);
            fair.took(steps).await;
            if keeps {
                let item = CloudEvent::of(&logged.event);
                bytes += item.text().len();
                items.push(item);
            }
        }
        if is_last {
            return Ok((items, None));
        }
    }
}
