//! The HTTP API.

pub mod body;
pub mod code;
pub mod cursor;
pub mod deliveries;
pub mod events;
pub mod extract;
pub mod page;
pub mod parked;
pub mod problem;
pub mod runs;
pub mod state;
pub mod state_view;
pub mod time;
pub mod usage;

use axum::Router;

use crate::api::state::Api;

/// All routes.
pub fn router(api: Api) -> Router {
    let routes = utoipa_axum::router::OpenApiRouter::new().merge(events::routes()).merge(runs::routes()).merge(parked::routes()).merge(deliveries::routes()).merge(usage::routes()).merge(state_view::routes());
    let (router, _) = routes.split_for_parts();
    router.with_state(api)
}
