//! The operator's routes: tenants, their keys, the switch over everything, and how much waits where.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use bulkhead_flow::inbox::codec::rfc3339;
use bulkhead_flow::source::Status;
use bulkhead_store::catalogue;
use bulkhead_store::catalogue::TenantState;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::code::Code;
use crate::api::extract::Body;
use crate::api::extract::Operator;
use crate::api::extract::Params;
use crate::api::extract::Path;
use crate::api::page;
use crate::api::page::Page;
use crate::api::page::Paging;
use crate::api::problem::Fault;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::auth::scope;

/// Cursors of operators' lists belong to nobody in particular.
const OWNER: &str = "operator";
/// The longest note of a key.
const NOTE_MAX: usize = 256;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(show))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(suspend))
        .routes(routes!(create_key, list_keys))
        .routes(routes!(revoke_key))
        .routes(routes!(overview))
        .routes(routes!(pause_all))
        .routes(routes!(resume_all))
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tenant {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// `active`, `paused` (events are taken in and wait) or `suspended` (its keys are refused).
    #[schema(value_type = String)]
    state: TenantState,
    /// When it was made.
    created: String,
}

impl From<catalogue::Tenant> for Tenant {
    fn from(tenant: catalogue::Tenant) -> Self {
        Self { id: tenant.uid, name: tenant.name, state: tenant.state, created: rfc3339(tenant.created) }
    }
}

/// A tenant to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Small letters, digits and dashes, at most 64.
    name: String,
}

/// Makes a tenant.
#[utoipa::path(
    post, path = "/admin/v1/tenants", tag = "operator", summary = "Make a tenant", request_body = NewTenant,
    responses((status = 201, description = "The tenant", body = Tenant), (status = 409, description = "The name is taken"))
)]
async fn create(State(api): State<Api>, _: Operator, Body(new): Body<NewTenant>) -> Result<Response> {
    if !crate::manifest::is_plain_name(&new.name) {
        return Err(Problem::new(Code::FieldInvalid, "the name does not fit")
            .faults([Fault::field("name", "small letters, digits and dashes, at most 64, beginning with a letter")]));
    }
    let uid = format!("ten_{}", uuid::Uuid::now_v7().simple());
    let tenant = api.store.operator_create_tenant(&uid, &new.name, api.now()).await?;
    Ok((StatusCode::CREATED, Json(Tenant::from(tenant))).into_response())
}

/// All tenants, by name.
#[utoipa::path(
    get, path = "/admin/v1/tenants", tag = "operator", summary = "All tenants", params(Paging),
    responses((status = 200, description = "A page of tenants", body = Page<Tenant>))
)]
async fn list(State(api): State<Api>, _: Operator, Params(paging): Params<Paging>) -> Result<Json<Page<Tenant>>> {
    let tenants = api.store.operator_tenants().await?.into_iter().map(Tenant::from).collect();
    page::of_names(&api, OWNER, "tenants", &paging, tenants, |tenant: &Tenant| &tenant.name).map(Json)
}

/// The tenant with this name or id.
pub async fn tenant(api: &Api, name: &str) -> Result<catalogue::Tenant> {
    api.store.operator_tenant(name).await?.ok_or_else(|| Problem::not_found("tenant", name))
}

/// One tenant.
#[utoipa::path(
    get, path = "/admin/v1/tenants/{tenant}", tag = "operator", summary = "One tenant",
    params(("tenant" = String, Path, description = "Its name or id")),
    responses((status = 200, description = "The tenant", body = Tenant), (status = 404, description = "No such tenant"))
)]
async fn show(State(api): State<Api>, _: Operator, Path(name): Path<String>) -> Result<Json<Tenant>> {
    Ok(Json(tenant(&api, &name).await?.into()))
}

async fn turn(api: &Api, name: &str, state: TenantState) -> Result<Json<Tenant>> {
    let row = tenant(api, name).await?;
    api.store.set_tenant_state(row.id, state).await?;
    api.keyring.forget_all();
    api.changed(row.id).await;
    Ok(Json(Tenant::from(catalogue::Tenant { state, ..row })))
}

/// Takes its events in, but works nothing off.
#[utoipa::path(
    post, path = "/admin/v1/tenants/{tenant}/pause", tag = "operator", summary = "Pause a tenant",
    params(("tenant" = String, Path, description = "Its name or id")),
    responses((status = 200, description = "The tenant", body = Tenant), (status = 404, description = "No such tenant"))
)]
async fn pause(State(api): State<Api>, _: Operator, Path(name): Path<String>) -> Result<Json<Tenant>> {
    turn(&api, &name, TenantState::Paused).await
}

/// Undoes a pause or a suspension; what waited goes on.
#[utoipa::path(
    post, path = "/admin/v1/tenants/{tenant}/resume", tag = "operator", summary = "Resume a tenant",
    params(("tenant" = String, Path, description = "Its name or id")),
    responses((status = 200, description = "The tenant", body = Tenant), (status = 404, description = "No such tenant"))
)]
async fn resume(State(api): State<Api>, _: Operator, Path(name): Path<String>) -> Result<Json<Tenant>> {
    turn(&api, &name, TenantState::Active).await
}

/// Refuses its keys and works nothing off.
#[utoipa::path(
    post, path = "/admin/v1/tenants/{tenant}/suspend", tag = "operator", summary = "Suspend a tenant",
    params(("tenant" = String, Path, description = "Its name or id")),
    responses((status = 200, description = "The tenant", body = Tenant), (status = 404, description = "No such tenant"))
)]
async fn suspend(State(api): State<Api>, _: Operator, Path(name): Path<String>) -> Result<Json<Tenant>> {
    turn(&api, &name, TenantState::Suspended).await
}

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct Key {
    /// Its id, the part that is no secret.
    id: String,
    /// What it may do.
    scopes: Vec<String>,
    /// What it is for.
    note: String,
    /// When it was made.
    created: String,
    /// When it was revoked.
    revoked: Option<String>,
}

impl From<&catalogue::Key> for Key {
    fn from(key: &catalogue::Key) -> Self {
        Self {
            id: key.id.clone(),
            scopes: key.scopes.clone(),
            note: key.note.clone(),
            created: rfc3339(key.created),
            revoked: key.revoked.map(rfc3339),
        }
    }
}

/// A key that was made just now.
#[derive(Serialize, ToSchema)]
pub struct MadeKey {
    #[serde(flatten)]
    about: Key,
    /// The key itself. It is shown here and never again.
    key: String,
}

/// A key to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// `publish`, `read`, `rules`, `plugins`, `consent`, `admin`, or `*` for all.
    scopes: Vec<String>,
    /// What it is for.
    #[serde(default)]
    note: String,
}

/// Makes a key for a tenant. Its secret is in the answer, and nowhere else.
#[utoipa::path(
    post, path = "/admin/v1/tenants/{tenant}/keys", tag = "operator", summary = "Make a key", request_body = NewKey,
    params(("tenant" = String, Path, description = "The tenant's name or id")),
    responses((status = 201, description = "The key", body = MadeKey), (status = 404, description = "No such tenant"))
)]
async fn create_key(
    State(api): State<Api>,
    _: Operator,
    Path(name): Path<String>,
    Body(new): Body<NewKey>,
) -> Result<Response> {
    let known = scope::Scope::ALL.map(scope::Scope::name).join(", ");
    let unknown = new.scopes.iter().filter(|name| !scope::is_name(name)).map(|name| {
        let name: String = name.chars().take(64).flat_map(char::escape_default).collect();
        Fault::field("scopes", format!("`{name}` is no scope; there are: {known}, and `*` for all"))
    });
    let mut faults: Vec<Fault> = unknown.take(10).collect();
    if new.scopes.is_empty() {
        faults
            .push(Fault::field("scopes", format!("a key without a scope can do nothing; there are: {known}, and `*`")));
    }
    if new.note.len() > NOTE_MAX || new.note.chars().any(char::is_control) {
        faults.push(Fault::field("note", format!("a note is one line of at most {NOTE_MAX} bytes")));
    }
    if !faults.is_empty() {
        return Err(Problem::new(Code::FieldInvalid, "the key cannot be made like this").faults(faults));
    }
    let tenant = tenant(&api, &name).await?;
    let mut scopes = new.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    let (key, text) = api.keyring.create(Some(tenant.id), scopes, new.note, api.now()).await?;
    let made = MadeKey { about: Key::from(&key), key: text.expose_secret().to_owned() };
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// A tenant's keys, newest first, without their secrets.
#[utoipa::path(
    get, path = "/admin/v1/tenants/{tenant}/keys", tag = "operator", summary = "A tenant's keys",
    params(("tenant" = String, Path, description = "The tenant's name or id")),
    responses((status = 200, description = "All keys", body = Page<Key>), (status = 404, description = "No such tenant"))
)]
async fn list_keys(State(api): State<Api>, _: Operator, Path(name): Path<String>) -> Result<Json<Page<Key>>> {
    let tenant = tenant(&api, &name).await?;
    let keys = api.store.operator_keys(Some(tenant.id)).await?;
    Ok(Json(Page::whole(keys.iter().map(Key::from).collect())))
}

/// Revokes a key: it is refused from now on.
#[utoipa::path(
    delete, path = "/admin/v1/tenants/{tenant}/keys/{key}", tag = "operator", summary = "Revoke a key",
    params(("tenant" = String, Path, description = "The tenant's name or id"), ("key" = String, Path, description = "The key's id")),
    responses((status = 204, description = "It is revoked"), (status = 404, description = "No such key"))
)]
async fn revoke_key(
    State(api): State<Api>,
    _: Operator,
    Path((name, key)): Path<(String, String)>,
) -> Result<StatusCode> {
    let tenant = tenant(&api, &name).await?;
    api.store.operator_revoke_key(Some(tenant.id), &key, api.now()).await?;
    api.keyring.forget(&key);
    Ok(StatusCode::NO_CONTENT)
}

/// How a host is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Overview {
    /// The node that answers.
    node: String,
    /// All nodes of the store that are at work.
    nodes: Vec<String>,
    /// Whether everything is paused.
    paused: bool,
    /// Tenants.
    tenants: usize,
    /// Turns of dispatch that wait.
    turns_waiting: usize,
    /// Turns of dispatch under way.
    turns_running: usize,
    /// Live streams that are open.
    streams: usize,
    /// Plugins in memory.
    plugins_loaded: u64,
    /// Queues that events are taken from, as this node sees them: `name`, `state` (`starting`, `elsewhere`, `reading`,
    /// `waiting` with a `reason`, `stopped`), and what waits in them as `backlog`.
    #[schema(value_type = Vec<Object>)]
    sources: Vec<Status>,
    /// Where something waits, tenant by tenant.
    waiting: Vec<Waiting>,
}

/// How much waits in one tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct Waiting {
    /// The tenant's name.
    tenant: String,
    /// Events that no rule has seen yet.
    unread: u64,
    /// Runs that will be tried again, or wait behind another.
    retrying: u64,
    /// Runs that are held because their rule or plugin is paused.
    held: u64,
    /// Runs that wait for a person.
    parked: u64,
}

/// How the host is, and where something waits.
#[utoipa::path(
    get, path = "/admin/v1/overview", tag = "operator", summary = "How the host is",
    responses((status = 200, description = "The overview", body = Overview))
)]
async fn overview(State(api): State<Api>, _: Operator) -> Result<Json<Overview>> {
    let tenants = api.store.operator_tenants().await?;
    let depths = api.store.host_depths().await?;
    let names: HashMap<_, _> = tenants.iter().map(|tenant| (tenant.id, &tenant.name)).collect();
    let waiting = depths.into_iter().filter_map(|depth| {
        let name = *names.get(&depth.tenant)?;
        Some(Waiting {
            tenant: name.clone(),
            unread: depth.backlog,
            retrying: depth.waiting,
            held: depth.held,
            parked: depth.parked,
        })
    });
    let (turns_waiting, turns_running) = api.dispatch.depth();
    Ok(Json(Overview {
        node: api.node.clone(),
        nodes: api.store.host_nodes().await?,
        paused: api.paused.load(std::sync::atomic::Ordering::Acquire),
        tenants: tenants.len(),
        turns_waiting,
        turns_running,
        streams: api.streams.count(),
        plugins_loaded: api.sandbox.stats().loaded,
        sources: api.sources.status(),
        waiting: waiting.collect(),
    }))
}

/// Pauses everything: events are taken in and wait, nothing is delivered. It holds over restarts.
#[utoipa::path(
    post, path = "/admin/v1/pause", tag = "operator", summary = "Pause everything",
    responses((status = 204, description = "Everything is paused"))
)]
async fn pause_all(State(api): State<Api>, _: Operator) -> Result<StatusCode> {
    api.set_paused(true).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets everything go on.
#[utoipa::path(
    post, path = "/admin/v1/resume", tag = "operator", summary = "Resume everything",
    responses((status = 204, description = "Everything goes on"))
)]
async fn resume_all(State(api): State<Api>, _: Operator) -> Result<StatusCode> {
    api.set_paused(false).await?;
    Ok(StatusCode::NO_CONTENT)
}
