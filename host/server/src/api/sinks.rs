//! Sinks: the places that deliveries go to.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bulkhead_flow::deliver::TestError;
use bulkhead_flow::inbox::codec::rfc3339;
use bulkhead_flow::sink::SinkSpec;
use bulkhead_flow::sink::SpecError;
use bulkhead_store::catalogue::SinkRow;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::code::Code;
use crate::api::extract::Admin;
use crate::api::extract::Body;
use crate::api::extract::Caller;
use crate::api::extract::Params;
use crate::api::extract::Path;
use crate::api::extract::Read;
use crate::api::extract::shown;
use crate::api::page;
use crate::api::page::Page;
use crate::api::page::Paging;
use crate::api::problem::Fault;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;

/// Sinks of a tenant: every view of its settings carries them all.
const SINKS_MAX: usize = 256;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, put, delete)).routes(routes!(test))
}

/// A sink.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sink {
    /// Its name.
    name: String,
    /// What it is: `kind`, and what belongs to the kind. Secrets are names.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    spec: Value,
    /// When it last changed.
    updated: String,
    /// Its circuit breaker, while that is not closed: the receiver failed again and again, and is left alone for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    breaker: Option<Value>,
}

impl Sink {
    fn new<N>(api: &Api, caller: &Caller<N>, row: SinkRow) -> Self {
        let breaker = api.deliver.breaker(caller.id(), &row.name);
        Self {
            spec: serde_json::from_str(&row.spec).unwrap_or_default(),
            name: row.name,
            updated: rfc3339(row.updated),
            breaker: breaker.and_then(|view| serde_json::to_value(view).ok()),
        }
    }
}

/// All sinks, by name.
#[utoipa::path(
    get, path = "/v1/sinks", tag = "sinks", summary = "All sinks", params(Paging),
    responses((status = 200, description = "A page of sinks", body = Page<Sink>))
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<Read>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<Sink>>> {
    let sinks = api.store.sinks(caller.id()).await?;
    let sinks = sinks.into_iter().map(|row| Sink::new(&api, &caller, row)).collect();
    page::of_names(&api, caller.uid(), "sinks", &paging, sinks, |sink: &Sink| &sink.name).map(Json)
}

/// One sink.
#[utoipa::path(
    get, path = "/v1/sinks/{name}", tag = "sinks", summary = "One sink",
    params(("name" = String, Path, description = "The sink's name")),
    responses((status = 200, description = "The sink", body = Sink), (status = 404, description = "No such sink"))
)]
async fn show(State(api): State<Api>, caller: Caller<Read>, Path(name): Path<String>) -> Result<Json<Sink>> {
    let sinks = api.store.sinks(caller.id()).await?;
    let row = sinks.into_iter().find(|row| row.name == name).ok_or_else(|| Problem::not_found("sink", &name))?;
    Ok(Json(Sink::new(&api, &caller, row)))
}

/// Adds or replaces a sink: an object with its `kind`, which is `webhook` (and `url`), `file` (`path`), `redis-stream`
/// (`stream`), `redis-channel` (`channel`) or `log`. Deliveries that wait for it go to what it is then.
#[utoipa::path(
    put, path = "/v1/sinks/{name}", tag = "sinks", summary = "Add or replace a sink", request_body = Object,
    params(("name" = String, Path, description = "The sink's name")),
    responses((status = 200, description = "The sink", body = Sink), (status = 422, description = "The sink is not valid"))
)]
async fn put(
    State(api): State<Api>,
    caller: Caller<Admin>,
    Path(name): Path<String>,
    Body(spec): Body<Map<String, Value>>,
) -> Result<Json<Sink>> {
    if !crate::manifest::is_plain_name(&name) {
        return Err(Problem::new(Code::FieldInvalid, format!("`{}` is no name of a sink", shown(&name)))
            .hint("small letters, digits and dashes, at most 64, beginning with a letter"));
    }
    let spec = Value::Object(spec);
    SinkSpec::parse(&spec).and_then(|parsed| parsed.check(&api.outlets)).map_err(invalid)?;
    let present = api.store.sinks(caller.id()).await?;
    if present.len() >= SINKS_MAX && !present.iter().any(|row| row.name == name) {
        return Err(Problem::new(Code::Conflict, format!("a tenant has at most {SINKS_MAX} sinks")));
    }
    let row = SinkRow { name, spec: spec.to_string(), updated: api.now() };
    api.store.put_sink(caller.id(), &row.name, &row.spec, row.updated).await?;
    api.deliver.reset(caller.id(), &row.name);
    api.changed(caller.id()).await;
    Ok(Json(Sink::new(&api, &caller, row)))
}

fn invalid(error: SpecError) -> Problem {
    let problem = Problem::new(Code::SinkInvalid, format!("the sink is not valid: {error}"));
    problem.faults([Fault::field(error.field.clone(), error.to_string())])
}

/// Removes a sink. Deliveries that wait for it are parked.
#[utoipa::path(
    delete, path = "/v1/sinks/{name}", tag = "sinks", summary = "Remove a sink",
    params(("name" = String, Path, description = "The sink's name")),
    responses((status = 204, description = "It is gone"), (status = 404, description = "No such sink"))
)]
async fn delete(State(api): State<Api>, caller: Caller<Admin>, Path(name): Path<String>) -> Result<StatusCode> {
    if !api.store.delete_sink(caller.id(), &name, api.now()).await? {
        return Err(Problem::not_found("sink", &name));
    }
    api.deliver.reset(caller.id(), &name);
    api.changed(caller.id()).await;
    Ok(StatusCode::NO_CONTENT)
}

/// How a test ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tested {
    /// The id that the receiver saw.
    id: String,
    /// Whether it arrived.
    delivered: bool,
    /// The failure's code; empty if it arrived.
    code: String,
    /// The failure's reason, or what the receiver said.
    reason: String,
    /// How long it took.
    duration_ms: u64,
}

/// Sends one test delivery, now and once.
#[utoipa::path(
    post, path = "/v1/sinks/{name}/test", tag = "sinks", summary = "Test a sink",
    params(("name" = String, Path, description = "The sink's name")),
    responses((status = 200, description = "How it ended", body = Tested), (status = 404, description = "No such sink"), (status = 409, description = "The tenant is paused"))
)]
async fn test(State(api): State<Api>, caller: Caller<Admin>, Path(name): Path<String>) -> Result<Json<Tested>> {
    let tested = api.deliver.test(caller.id(), &name).await.map_err(|error| match error {
        TestError::NotFound => Problem::not_found("sink", &name),
        TestError::Held => Problem::new(Code::Conflict, "nothing is sent while the tenant is paused"),
        TestError::Busy => Problem::new(Code::Busy, "too many tests are under way").retry_after(Duration::from_secs(2)),
        TestError::Store(error) => error.into(),
    })?;
    Ok(Json(Tested {
        id: tested.id,
        delivered: tested.arrived,
        code: tested.code,
        reason: tested.reason,
        duration_ms: u64::try_from(tested.took.as_millis()).unwrap_or(u64::MAX),
    }))
}
