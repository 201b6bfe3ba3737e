//! What the operator allows a tenant's plugins: the most that they may be granted.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use bulkhead_domain::policy::ceiling::Ceiling;
use bulkhead_domain::policy::ceiling::TenantPolicy;
use bulkhead_store::catalogue;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::code::Code;
use crate::api::extract::Body;
use crate::api::extract::Operator;
use crate::api::extract::Path;
use crate::api::extract::shown;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show_grants, put_grants))
}

/// The most that a tenant's plugins may be granted. A kind of grant that is left out is not limited; an empty list allows
/// none of it.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = GrantCeiling)]
#[serde(deny_unknown_fields, default)]
pub struct Most {
    /// Types of events: dotted globs.
    #[serde(skip_serializing_if = "Option::is_none")]
    emit: Option<BTreeSet<String>>,
    /// Sinks; `*` is every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver: Option<BTreeSet<String>>,
    /// Hosts; `*` is every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<BTreeSet<String>>,
    /// Secrets; `*` is every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets: Option<BTreeSet<String>>,
    /// Timers.
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<bool>,
}

impl From<Ceiling> for Most {
    fn from(ceiling: Ceiling) -> Self {
        let Ceiling { emit, deliver, http, secrets, schedule } = ceiling;
        Self { emit, deliver, http, secrets, schedule }
    }
}

impl From<Most> for Ceiling {
    fn from(most: Most) -> Self {
        let Most { emit, deliver, http, secrets, schedule } = most;
        Self { emit, deliver, http, secrets, schedule }
    }
}

/// Both ceilings of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GrantCeilings)]
pub struct Both {
    /// The tenant's own.
    tenant: Most,
    /// The host's, from its configuration; it counts beside.
    host: Most,
}

fn both(api: &Api, tenant: TenantPolicy) -> Json<Both> {
    Json(Both { tenant: tenant.grants.into(), host: api.directory.grants().clone().into() })
}

async fn tenant(api: &Api, name: &str) -> Result<catalogue::Tenant> {
    api.store.operator_tenant(name).await?.ok_or_else(|| Problem::not_found("tenant", name))
}

/// What a tenant's plugins may be granted at most.
#[utoipa::path(
    get, path = "/admin/v1/tenants/{tenant}/grants", tag = "operator", summary = "A tenant's ceiling of grants",
    params(("tenant" = String, Path, description = "The tenant's name or id")),
    responses((status = 200, description = "The ceilings", body = Both), (status = 404, description = "No such tenant"))
)]
async fn show_grants(State(api): State<Api>, _: Operator, Path(name): Path<String>) -> Result<Json<Both>> {
    Ok(both(&api, tenant(&api, &name).await?.policy))
}

/// Replaces it. It counts for versions that run, too, from their next batch on.
#[utoipa::path(
    put, path = "/admin/v1/tenants/{tenant}/grants", tag = "operator", summary = "Set a tenant's ceiling of grants",
    request_body = Most, params(("tenant" = String, Path, description = "The tenant's name or id")),
    responses(
        (status = 200, description = "The ceilings", body = Both),
        (status = 404, description = "No such tenant"),
        (status = 422, description = "It does not read")
    )
)]
async fn put_grants(
    State(api): State<Api>,
    _: Operator,
    Path(name): Path<String>,
    Body(most): Body<Most>,
) -> Result<Json<Both>> {
    let ceiling = Ceiling::from(most);
    if let Some((list, entry)) = ceiling.fault() {
        let detail = format!("`{}` in `{list}` is nothing that can be granted", shown(&entry));
        return Err(Problem::new(Code::FieldInvalid, detail).hint("see docs/versions.md for what a ceiling can say"));
    }
    let row = tenant(&api, &name).await?;
    let policy = TenantPolicy { grants: ceiling };
    api.store.set_policy(row.id, &policy).await?;
    api.changed(row.id).await;
    Ok(both(&api, policy))
}
