//! What is asked of a plugin's versions before they run for real: by the plugin's own settings, by the operator of its
//! tenant, and by the host's configuration. What counts is the strictest of each. No manifest has a say in it, and a tenant
//! none in what the operator asks.

use axum::Json;
use axum::extract::State;
use bulkhead_domain::policy::proof::Preview;
use bulkhead_domain::policy::proof::ReleasePolicy;
use bulkhead_domain::policy::proof::RequirePreview;
use bulkhead_flow::inbox::codec::rfc3339;
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
use crate::api::extract::Plugins;
use crate::api::extract::Read;
use crate::api::plugins::find;
use crate::api::plugins::present;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::releases::act;
use crate::api::state::Api;

/// Previews that the answer shows.
const PREVIEWS_MAX: usize = 20;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show_policy, put_policy)).routes(routes!(show_asked, put_asked))
}

/// What is asked.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[schema(as = ReleasePolicy)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What a preview has to show before a version becomes active or gets a part of the events; null: none is needed.
    require_preview: Option<Required>,
}

/// What a preview has to show. What is left out has its default.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[schema(as = RequiredPreview)]
#[serde(deny_unknown_fields, default)]
pub struct Required {
    /// Runs that it compared, at least; 20.
    min_runs: u64,
    /// Runs that failed and did not with the active version, at most; 0.
    max_new_failures: u64,
    /// Runs that did something else or less than with the active version, at most, in percent; null: as many as do.
    max_changed_percent: Option<f64>,
    /// How old it may be; 24.
    within_hours: u32,
}

/// What is asked, by whom, and what there is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PluginReleasePolicy)]
pub struct Shown {
    /// What the plugin's own settings ask.
    #[serde(flatten)]
    policy: Policy,
    /// What counts: the strictest of what the plugin, the operator of its tenant and the host's configuration ask; null if
    /// nobody asks anything.
    effective: Option<Required>,
    /// What the operator asks of this tenant's plugins; null: nothing.
    tenant: Option<Required>,
    /// What the host's configuration asks of all; null: nothing.
    host: Option<Required>,
    /// The last preview of each pair of versions, newest first; at most 20.
    previews: Vec<PreviewView>,
}

/// What a preview came to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RememberedPreview)]
pub struct PreviewView {
    /// The version that was tried.
    version: u32,
    /// The one that it was compared with.
    against: Option<u32>,
    /// When.
    at: String,
    /// Who: a key's id.
    author: String,
    /// Runs compared.
    runs: u64,
    /// Those that fail, and did not before.
    new_failures: u64,
    /// Those that do something else or less than before.
    changed: u64,
}

impl Default for Required {
    fn default() -> Self {
        RequirePreview::default().into()
    }
}

impl From<RequirePreview> for Required {
    fn from(required: RequirePreview) -> Self {
        let RequirePreview { min_runs, max_new_failures, max_changed_percent, within_hours } = required;
        Self { min_runs, max_new_failures, max_changed_percent, within_hours }
    }
}

impl From<Required> for RequirePreview {
    fn from(required: Required) -> Self {
        let Required { min_runs, max_new_failures, max_changed_percent, within_hours } = required;
        Self { min_runs, max_new_failures, max_changed_percent, within_hours }
    }
}

impl From<Preview> for PreviewView {
    fn from(preview: Preview) -> Self {
        let Preview { version, against, author, at, counts } = preview;
        let (runs, new_failures, changed) = (counts.runs, counts.new_failures, counts.changed);
        Self { version, against, at: rfc3339(at), author, runs, new_failures, changed }
    }
}

fn required(policy: ReleasePolicy) -> Option<Required> {
    policy.require_preview.map(Required::from)
}

impl From<ReleasePolicy> for Policy {
    fn from(policy: ReleasePolicy) -> Self {
        Self { require_preview: required(policy) }
    }
}

impl Policy {
    /// As it is judged by, if that can be.
    fn check(self) -> Result<ReleasePolicy> {
        let policy = ReleasePolicy { require_preview: self.require_preview.map(RequirePreview::from) };
        match policy.require_preview.as_ref().and_then(RequirePreview::fault) {
            Some(fault) => Err(Problem::new(Code::FieldInvalid, fault)),
            None => Ok(policy),
        }
    }
}

async fn shown<N>(api: &Api, caller: &Caller<N>, name: &str) -> Result<Json<Shown>> {
    let (plugin, _) = find(api, caller.id(), name).await?;
    let (tenant, host) = (present(api, &caller.tenant).await?.asks, api.installer.asks());
    let previews = api.store.previews(caller.id(), plugin.id).await?;
    Ok(Json(Shown {
        policy: plugin.policy.into(),
        effective: required(plugin.policy.and(tenant).and(host)),
        tenant: required(tenant),
        host: required(host),
        previews: previews.into_iter().take(PREVIEWS_MAX).map(PreviewView::from).collect(),
    }))
}

/// What is asked of the plugin's versions, and the last previews.
#[utoipa::path(
    get, path = "/v1/plugins/{name}/policy", tag = "plugins", summary = "What a plugin asks of its versions",
    params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 200, description = "The policy", body = Shown), (status = 404, description = "No such plugin"))
)]
async fn show_policy(State(api): State<Api>, caller: Caller<Read>, Path(name): Path<String>) -> Result<Json<Shown>> {
    shown(&api, &caller, &name).await
}

/// Replaces it. The history keeps who did. Whoever it binds cannot lift it: to ask for less than now needs the scope
/// `consent`.
#[utoipa::path(
    put, path = "/v1/plugins/{name}/policy", tag = "plugins", summary = "Set what a plugin asks of its versions",
    request_body = Policy, params(("name" = String, Path, description = "The plugin's name")),
    responses(
        (status = 200, description = "The policy", body = Shown),
        (status = 403, description = "It asks for less than now, and the key lacks the scope `consent`"),
        (status = 404, description = "No such plugin"),
        (status = 422, description = "It does not read")
    )
)]
async fn put_policy(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
    Body(policy): Body<Policy>,
) -> Result<Json<Shown>> {
    api.store.set_release_policy(caller.id(), &name, &policy.check()?, &act(&api, &caller)).await?;
    api.changed(caller.id()).await;
    shown(&api, &caller, &name).await
}

/// What the operator asks of versions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AskedOfVersions)]
pub struct Asked {
    /// Of this tenant's plugins.
    tenant: Policy,
    /// Of all, from the host's configuration; it counts beside.
    host: Policy,
}

fn both(api: &Api, tenant: ReleasePolicy) -> Json<Asked> {
    Json(Asked { tenant: tenant.into(), host: api.installer.asks().into() })
}

/// What the operator asks of versions of a tenant's plugins.
#[utoipa::path(
    get, path = "/admin/v1/tenants/{tenant}/policy", tag = "operator", summary = "What is asked of a tenant's versions",
    params(("tenant" = String, Path, description = "The tenant's name or id")),
    responses((status = 200, description = "What is asked", body = Asked), (status = 404, description = "No such tenant"))
)]
async fn show_asked(State(api): State<Api>, _: Operator, Path(name): Path<String>) -> Result<Json<Asked>> {
    Ok(both(&api, tenant(&api, &name).await?.asks))
}

/// Replaces it. Nothing in the tenant can take it away, whatever scopes a key has; what is active already stays.
#[utoipa::path(
    put, path = "/admin/v1/tenants/{tenant}/policy", tag = "operator", summary = "Ask something of a tenant's versions",
    request_body = Policy, params(("tenant" = String, Path, description = "The tenant's name or id")),
    responses(
        (status = 200, description = "What is asked", body = Asked),
        (status = 404, description = "No such tenant"),
        (status = 422, description = "It does not read")
    )
)]
async fn put_asked(
    State(api): State<Api>,
    _: Operator,
    Path(name): Path<String>,
    Body(policy): Body<Policy>,
) -> Result<Json<Asked>> {
    let asks = policy.check()?;
    let row = tenant(&api, &name).await?;
    api.store.set_asks(row.id, &asks).await?;
    api.changed(row.id).await;
    Ok(both(&api, asks))
}
