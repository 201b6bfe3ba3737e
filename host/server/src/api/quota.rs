//! Quotas: what the operator allows a tenant, and how the tenant stands with it.

use axum::Json;
use axum::extract::State;
use bulkhead_domain::policy::quota;
use bulkhead_domain::policy::quota::Quota;
use bulkhead_flow::quota::Hold;
use bulkhead_flow::quota::Line;
use bulkhead_flow::quota::Refused;
use bulkhead_flow::quota::Stored;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::admin::tenant;
use crate::api::code::Code;
use crate::api::extract::Body;
use crate::api::extract::Caller;
use crate::api::extract::Operator;
use crate::api::extract::Path;
use crate::api::extract::Read;
use crate::api::page::Page;
use crate::api::problem::Document;
use crate::api::problem::Fault;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::api::time::rfc3339;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(mine)).routes(routes!(show, set))
}

/// Events per second, and how many may come at once.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Events per second in the long run.
    rate: u64,
    /// Events at once before the rate counts; unset: as many as in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<u64>,
}

/// What a tenant may use. What is not set is as the host's configuration says, and not limited if it says nothing.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Events handed in, duplicates included.
    #[serde(skip_serializing_if = "Option::is_none")]
    events_per_second: Option<Rate>,
    /// Batches at work at once, on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u16>,
    /// Events that no rule has looked at yet, and runs that are held.
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog_events: Option<u64>,
    /// Bytes of the plugins' state, keys and values, and of their components, each counted once. Kept events are not
    /// counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_bytes: Option<u64>,
    /// Fuel of plugins in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel_per_minute: Option<u64>,
}

impl From<quota::Quotas> for Quotas {
    fn from(quotas: quota::Quotas) -> Self {
        let quota::Quotas { events_per_second, concurrency, backlog_events, storage_bytes, fuel_per_minute } = quotas;
        let events_per_second = events_per_second.map(|quota::Rate { rate, burst }| Rate { rate, burst });
        Self { events_per_second, concurrency, backlog_events, storage_bytes, fuel_per_minute }
    }
}

impl From<Quotas> for quota::Quotas {
    fn from(quotas: Quotas) -> Self {
        let Quotas { events_per_second, concurrency, backlog_events, storage_bytes, fuel_per_minute } = quotas;
        let events_per_second = events_per_second.map(|Rate { rate, burst }| quota::Rate { rate, burst });
        Self { events_per_second, concurrency, backlog_events, storage_bytes, fuel_per_minute }
    }
}

/// What an operator allows a tenant.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Allowed {
    /// What is set for this tenant.
    own: Quotas,
    /// What counts: its own, and the host's configuration where that is unset.
    effective: Quotas,
}

/// How a tenant stands with one quota, on the node that answers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct QuotaLine {
    /// `rate`, `concurrency`, `backlog`, `storage` or `fuel`.
    quota: &'static str,
    /// What the numbers count: `events/s`, `batches`, `events`, `bytes`, `fuel/min`.
    unit: &'static str,
    /// The limit.
    limit: u64,
    /// How much is used now. Of rate and fuel: what would have to come back until all could be used at once again.
    used: u64,
    /// Of storage: what that is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<StorageParts>,
    /// `within`; `soft`: what is there is worked off after that of others; `stopped`: events are refused (rate, backlog,
    /// storage), or what is there waits (concurrency, fuel).
    #[schema(value_type = String)]
    state: Hold,
    /// Since when the limit has been biting; none if it did not within the last ten seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Milliseconds until events are taken again, or until what waits goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// What a tenant's plugins keep, in bytes.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct StorageParts {
    /// Keys and values of their state.
    state: u64,
    /// Their components, each counted once; those of retired versions, which make room for uploads, are not counted.
    components: u64,
}

impl From<Stored> for StorageParts {
    fn from(Stored { state, components }: Stored) -> Self {
        Self { state, components }
    }
}

impl From<Line> for QuotaLine {
    fn from(line: Line) -> Self {
        let unit = match line.quota {
            Quota::Rate => "events/s",
            Quota::Concurrency => "batches",
            Quota::Backlog => "events",
            Quota::Storage => "bytes",
            Quota::Fuel => "fuel/min",
        };
        Self {
            quota: line.quota.name(),
            unit,
            limit: line.limit,
            used: line.used,
            parts: line.stored.map(StorageParts::from),
            state: line.hold,
            since: line.since.map(rfc3339),
            retry_after_ms: line
                .retry_after
                .map(|wait| u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)),
        }
    }
}

/// The tenant's quotas, how much of each is used, and which of them bites. What is not limited is not there.
#[utoipa::path(
    get, path = "/v1/quotas", tag = "usage", summary = "Limits, and how much of them is used",
    responses((status = 200, description = "One line for each quota", body = Page<QuotaLine>))
)]
async fn mine(State(api): State<Api>, caller: Caller<Read>) -> Result<Json<Page<QuotaLine>>> {
    let lines = api.limiter.report(&caller.tenant).await?;
    Ok(Json(Page::whole(lines.into_iter().map(QuotaLine::from).collect())))
}

fn allowed(api: &Api, own: quota::Quotas) -> Json<Allowed> {
    Json(Allowed { own: own.into(), effective: own.or(api.limiter.defaults()).into() })
}

/// What a tenant may use.
#[utoipa::path(
    get, path = "/admin/v1/tenants/{tenant}/quotas", tag = "operator", summary = "A tenant's quotas",
    params(("tenant" = String, Path, description = "The tenant's name or id")),
    responses((status = 200, description = "Its quotas", body = Allowed), (status = 404, description = "No such tenant"))
)]
async fn show(State(api): State<Api>, _: Operator, Path(name): Path<String>) -> Result<Json<Allowed>> {
    Ok(allowed(&api, tenant(&api, &name).await?.quotas))
}

/// Replaces all quotas of a tenant: what is left out is as the host's configuration says. They count at once.
#[utoipa::path(
    put, path = "/admin/v1/tenants/{tenant}/quotas", tag = "operator", summary = "Set a tenant's quotas",
    request_body = Quotas,
    params(("tenant" = String, Path, description = "The tenant's name or id")),
    responses(
        (status = 200, description = "Its quotas", body = Allowed),
        (status = 404, description = "No such tenant"),
        (status = 422, description = "A quota is not possible", body = Document, content_type = "application/problem+json"),
    )
)]
async fn set(
    State(api): State<Api>,
    _: Operator,
    Path(name): Path<String>,
    Body(quotas): Body<Quotas>,
) -> Result<Json<Allowed>> {
    let own = quota::Quotas::from(quotas);
    own.check().map_err(|errors| {
        Problem::new(Code::FieldInvalid, "the quotas cannot be like this")
            .faults(errors.into_iter().map(|error| Fault::field(error.field, error.reason)))
    })?;
    let mut row = tenant(&api, &name).await?;
    api.store.set_quotas(row.id, &own).await?;
    row.quotas = own;
    // Keys remember their tenant.
    api.keyring.forget_all();
    api.limiter.know(&row);
    api.changed(row.id).await;
    Ok(allowed(&api, own))
}

/// Events that are not taken because of a quota.
pub fn problem(refused: Refused) -> Problem {
    let code = match refused.quota {
        Quota::Backlog => Code::LimitBacklog,
        Quota::Storage => Code::LimitStorage,
        Quota::Rate | Quota::Concurrency | Quota::Fuel => Code::LimitRate,
    };
    let hint = match refused.quota {
        Quota::Storage => {
            "retire versions that are not used any more, or let plugins delete state; `bulkhead quota` says how much there is"
        }
        _ => "send it again after `Retry-After`; `bulkhead quota` says how the tenant stands",
    };
    Problem::new(code, refused.to_string()).hint(hint).with("quota", refused.quota.name()).with("limit", refused.limit)
}
