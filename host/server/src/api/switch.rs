//! The tenant's own switch.

use axum::Json;
use axum::extract::State;
use bulkhead_store::catalogue::TenantState;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::extract::Admin;
use crate::api::extract::Caller;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::auth::Refusal;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(pause)).routes(routes!(resume))
}

/// Where the switch stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct Switch {
    /// `active` or `paused`.
    #[schema(value_type = String)]
    state: TenantState,
}

async fn turn(api: &Api, caller: &Caller<Admin>, state: TenantState) -> Result<Json<Switch>> {
    // The caller was let in before this turn; meanwhile the operator may have suspended the tenant, on any node.
    if !api.store.turn_tenant(caller.id(), state).await? {
        return Err(Problem::from(Refusal::Suspended));
    }
    api.keyring.forget_all();
    api.changed(caller.id()).await;
    Ok(Json(Switch { state }))
}

/// Takes events in, but works nothing off and delivers nothing, until it is resumed.
#[utoipa::path(
    post, path = "/v1/pause", tag = "tenant", summary = "Pause",
    responses((status = 200, description = "Where the switch stands", body = Switch))
)]
async fn pause(State(api): State<Api>, caller: Caller<Admin>) -> Result<Json<Switch>> {
    turn(&api, &caller, TenantState::Paused).await
}

/// Lets everything go on where it was.
#[utoipa::path(
    post, path = "/v1/resume", tag = "tenant", summary = "Resume",
    responses((status = 200, description = "Where the switch stands", body = Switch))
)]
async fn resume(State(api): State<Api>, caller: Caller<Admin>) -> Result<Json<Switch>> {
    turn(&api, &caller, TenantState::Active).await
}
