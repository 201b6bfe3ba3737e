//! The HTTP API: what a request may ask, and who may ask it.
//!
//! ```text
//! request ─▶ guard (id, span, key in the URL, panics) ─▶ extract (caller, scope, place, query, body) ─▶ handler
//!                                                                                                  │
//! response ◀─ problems rendered with the request's id ◀────────────────────────────────────────────┘
//! ```
//!
//! A handler gets at a tenant only through [`extract::Caller`], which comes from the key; ids in paths and bodies are looked
//! up within that tenant, so another's are simply not there. Everything that goes wrong is a [`problem::Problem`].
//!
//! Reading order: [`state`], [`extract`], [`problem`], [`code`], `guard`, then one file per kind of thing.

pub mod admin;
pub mod body;
mod candidates;
pub mod code;
pub mod cursor;
pub mod deliveries;
mod docs;
pub mod events;
pub mod extract;
mod grants;
mod guard;
mod machines;
pub mod page;
pub mod parked;
pub mod places;
pub mod plugins;
mod plugins_source;
mod preview;
pub mod problem;
pub mod quota;
pub mod recordings;
mod release_policy;
mod releases;
pub mod rules;
pub mod runs;
pub mod secrets;
pub mod sinks;
pub mod state;
pub mod state_view;
pub mod switch;
#[cfg(test)]
mod tests;
pub mod time;
pub mod trials;
pub mod upload;
pub mod usage;

use axum::Router;
use axum::extract::OriginalUri;
use axum::http::Method;
use axum::middleware;
use utoipa_axum::router::OpenApiRouter;

use crate::api::code::Code;
use crate::api::problem::Problem;
use crate::api::state::Api;

/// All routes.
pub fn router(api: Api) -> Router {
    let routes = OpenApiRouter::with_openapi(docs::openapi())
        .merge(events::routes())
        .merge(runs::routes())
        .merge(parked::routes())
        .merge(deliveries::routes())
        .merge(rules::routes())
        .merge(plugins::routes())
        .merge(plugins_source::routes())
        .merge(preview::routes())
        .merge(releases::routes())
        .merge(release_policy::routes())
        .merge(candidates::routes())
        .merge(grants::routes())
        .merge(state_view::routes())
        .merge(recordings::routes())
        .merge(sinks::routes())
        .merge(secrets::routes())
        .merge(switch::routes())
        .merge(usage::routes())
        .merge(quota::routes())
        .merge(admin::routes());
    let (router, openapi) = routes.split_for_parts();
    router
        .merge(machines::routes())
        .merge(docs::routes(openapi))
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(guard::finish))
        .with_state(api)
}

async fn no_such_route(OriginalUri(uri): OriginalUri) -> Problem {
    let path: String = uri.path().chars().take(200).flat_map(char::escape_default).collect();
    Problem::new(Code::NoSuchRoute, format!("there is nothing at {path}")).hint("GET /openapi.json lists every path")
}

async fn method_not_allowed(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    let path: String = uri.path().chars().take(200).flat_map(char::escape_default).collect();
    let method: String = method.as_str().chars().take(32).collect();
    Problem::new(Code::MethodNotAllowed, format!("{path} does not know {method}"))
        .hint("GET /openapi.json lists every path with its methods")
}
