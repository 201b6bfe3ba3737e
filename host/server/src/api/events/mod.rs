//! Events: publish, look up, follow.
//!
//! Reading order: [`publish`] (with [`ndjson`]), [`filter`], [`query`], [`story`] (with [`waits`]), [`stream`].

mod filter;
mod ndjson;
mod publish;
mod query;
mod render;
mod story;
mod stream;
mod waits;

use bulkhead_domain::event::Logged;
use bulkhead_domain::id::TenantId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(publish::publish, query::query))
        .routes(routes!(stream::stream))
        .routes(routes!(story::story))
}

/// The events with an id, newest first, at least one; from one source alone if it is given.
pub async fn with_id(api: &Api, tenant: TenantId, id: &str, source: Option<&str>) -> Result<Vec<Logged>> {
    let mut events = api.store.events_by_id(tenant, id).await?;
    if let Some(source) = source {
        events.retain(|logged| logged.event.source == source);
    }
    if events.is_empty() { Err(Problem::not_found("event", id)) } else { Ok(events) }
}
