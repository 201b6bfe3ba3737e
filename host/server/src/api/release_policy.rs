//! What a plugin asks of its versions before they run for real. It belongs to the plugin, not to what is uploaded: no
//! manifest has a say in it.

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

use crate::api::code::Code;
use crate::api::extract::Body;
use crate::api::extract::Caller;
use crate::api::extract::Path;
use crate::api::extract::Plugins;
use crate::api::extract::Read;
use crate::api::plugins::find;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::releases::act;
use crate::api::state::Api;

/// Previews that the answer shows.
const PREVIEWS_MAX: usize = 20;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show_policy, put_policy))
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

/// What is asked, and what there is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PluginReleasePolicy)]
pub struct Shown {
    #[serde(flatten)]
    policy: Policy,
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

async fn shown<N>(api: &Api, caller: &Caller<N>, name: &str) -> Result<Json<Shown>> {
    let (plugin, _) = find(api, caller.id(), name).await?;
    let policy = Policy { require_preview: plugin.policy.require_preview.map(Required::from) };
    let previews = api.store.previews(caller.id(), plugin.id).await?;
    let previews = previews.into_iter().take(PREVIEWS_MAX).map(PreviewView::from).collect();
    Ok(Json(Shown { policy, previews }))
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
    let policy = ReleasePolicy { require_preview: policy.require_preview.map(RequirePreview::from) };
    if let Some(fault) = policy.require_preview.as_ref().and_then(RequirePreview::fault) {
        return Err(Problem::new(Code::FieldInvalid, fault));
    }
    api.store.set_release_policy(caller.id(), &name, &policy, &act(&api, &caller)).await?;
    api.changed(caller.id()).await;
    shown(&api, &caller, &name).await
}
