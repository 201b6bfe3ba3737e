//! Releases: which version of a plugin runs, who agreed to it, and the history of that.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bulkhead_domain::id::Position;
use bulkhead_domain::policy::proof::Preview;
use bulkhead_flow::inbox::codec::rfc3339;
use bulkhead_store::catalogue;
use bulkhead_store::releases::Act;
use bulkhead_store::releases::Action;
use bulkhead_store::releases::Entry;
use bulkhead_store::releases::Switch;
use bulkhead_store::releases::proven;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::extract::Body;
use crate::api::extract::Caller;
use crate::api::extract::Consent;
use crate::api::extract::Params;
use crate::api::extract::Path;
use crate::api::extract::Plugins;
use crate::api::extract::Read;
use crate::api::page;
use crate::api::page::Page;
use crate::api::page::Paging;
use crate::api::plugins::Plugin;
use crate::api::plugins::Version;
use crate::api::plugins::find;
use crate::api::plugins::present;
use crate::api::plugins::refused;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::auth::scope::Scope;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(activate))
        .routes(routes!(roll_back))
        .routes(routes!(retire))
        .routes(routes!(approve))
        .routes(routes!(history))
}

/// What a caller does now. Whoever has the scope `consent` agrees with it to what it needs.
pub(super) fn act<N>(api: &Api, caller: &Caller<N>) -> Act {
    Act::by(&caller.key, api.now()).consenting(caller.may(Scope::Consent)).asking(api.installer.asks())
}

/// Which version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// The version's number.
    version: u32,
}

/// Makes a version the one that new runs use. What has begun ends on the version that began it.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/activate", tag = "plugins", summary = "Activate a version", request_body = Number,
    params(("name" = String, Path, description = "The plugin's name")),
    responses(
        (status = 200, description = "The plugin", body = Plugin),
        (status = 403, description = "It asks for more than the active one, and nobody agreed to that"),
        (status = 404, description = "No such plugin or version"),
        (status = 409, description = "It is retired, another became active meanwhile, or the plugin asks for a preview of it")
    )
)]
async fn activate(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
    Body(number): Body<Number>,
) -> Result<Json<Plugin>> {
    let (plugin, _) = find(&api, caller.id(), &name).await?;
    let switch = Switch { seen: Some(plugin.active), ..Switch::to(number.version, act(&api, &caller)) };
    let plugin = api.installer.switch(caller.id(), &name, &switch).await.map_err(refused)?;
    api.changed(caller.id()).await;
    Ok(Json(Plugin::from(&plugin)))
}

/// To which version.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Back {
    /// The version's number; the one that was active before if it is left out.
    #[serde(default)]
    version: Option<u32>,
}

/// Goes back to the version that was active before, or to one that is named.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/rollback", tag = "plugins", summary = "Roll back", request_body = Back,
    params(("name" = String, Path, description = "The plugin's name")),
    responses(
        (status = 200, description = "The plugin", body = Plugin),
        (status = 409, description = "There is no version before, or it is retired")
    )
)]
async fn roll_back(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
    body: axum::body::Bytes,
) -> Result<Json<Plugin>> {
    // A body is no must: the way back has to be short.
    let back: Back = if body.is_empty() { Back::default() } else { crate::api::extract::parse(&body)? };
    let mut switch = Switch::back(act(&api, &caller));
    if let Some(version) = back.version {
        let (plugin, _) = find(&api, caller.id(), &name).await?;
        (switch.to, switch.seen) = (Some(version), Some(plugin.active));
    }
    let plugin = api.installer.switch(caller.id(), &name, &switch).await.map_err(refused)?;
    api.changed(caller.id()).await;
    Ok(Json(Plugin::from(&plugin)))
}

/// Takes a version out of use for good: it cannot be activated again, and retries of runs that began with it move to the
/// active one. A plugin keeps so many retired versions (`limits.api.retired_versions`); the oldest go beyond that.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/retire", tag = "plugins", summary = "Retire a version", request_body = Number,
    params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 204, description = "It is retired"), (status = 409, description = "It is active, or a candidate"))
)]
async fn retire(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
    Body(number): Body<Number>,
) -> Result<StatusCode> {
    let kept = api.limits.room.retired;
    api.store.retire(caller.id(), &name, number.version, kept, &act(&api, &caller)).await?;
    api.changed(caller.id()).await;
    Ok(StatusCode::NO_CONTENT)
}

/// A version that somebody agreed to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApprovedVersion)]
pub struct Approved {
    #[serde(flatten)]
    version: Version,
    /// What is missing still before it can become active.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Agrees to what a version asks for beyond the active one. It can be activated then by anybody who may activate, once it
/// has the preview that is asked of it.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/versions/{version}/approve", tag = "plugins", summary = "Approve a version",
    params(("name" = String, Path, description = "The plugin's name"), ("version" = u32, Path, description = "Its number")),
    responses((status = 200, description = "The version", body = Approved), (status = 404, description = "No such version"))
)]
async fn approve(
    State(api): State<Api>,
    caller: Caller<Consent>,
    Path((name, number)): Path<(String, u32)>,
) -> Result<Json<Approved>> {
    let version = api.store.approve(caller.id(), &name, number, &act(&api, &caller)).await?;
    api.changed(caller.id()).await;
    let known = find(&api, caller.id(), &name).await?;
    let rollouts = api.store.rollouts(caller.id(), known.0.id).await?;
    let tenant = present(&api, &caller.tenant).await?;
    let hint = unproven(&api, &tenant, &known.0, &version).await?;
    Ok(Json(Approved { version: Version::new(&api, &tenant, &known, &rollouts, &version), hint }))
}

/// What a version lacks before it can become active, if it lacks anything. The store looks at it again by then.
async fn unproven(
    api: &Api,
    tenant: &catalogue::Tenant,
    plugin: &catalogue::Plugin,
    version: &catalogue::Version,
) -> Result<Option<String>> {
    let asked = plugin.policy.and(tenant.asks).and(api.installer.asks());
    if asked.require_preview.is_none() {
        return Ok(None);
    }
    let previews = api.store.previews(tenant.id, plugin.id).await?;
    let of_it = |preview: &&Preview| preview.version == version.number && preview.against == plugin.active;
    match proven(plugin, &asked, version, previews.iter().find(of_it), api.now()) {
        Err(bulkhead_store::Error::Unproven { version, lack, .. }) => {
            let next = format!("bulkhead plugin preview {} {version}", plugin.name);
            Ok(Some(format!("before it can become active it needs a preview: {lack}; {next}")))
        }
        judged => Ok(judged.map(|()| None)?),
    }
}

/// Something that was done to a plugin's versions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PluginHistoryEntry)]
pub struct EntryView {
    /// From 1.
    number: i64,
    /// When.
    at: String,
    /// `activated`, `rolled-back`, `retired`, `approved`, `canary-started`, `canary-ended`, `shadow-started`,
    /// `shadow-ended`, `policy-changed`.
    #[schema(value_type = String)]
    action: Action,
    /// The version.
    version: u32,
    /// Who: a key's id, `watch`, or `host`.
    author: String,
    /// More about it.
    #[schema(value_type = Object)]
    detail: Value,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        let detail = serde_json::from_str(&entry.detail).unwrap_or_default();
        let Entry { number, action, version, author, at, .. } = entry;
        Self { number, at: rfc3339(at), action, version, author, detail }
    }
}

/// What was done to a plugin's versions, by whom and when; newest first.
#[utoipa::path(
    get, path = "/v1/plugins/{name}/history", tag = "plugins", summary = "The history of a plugin's versions",
    params(("name" = String, Path, description = "The plugin's name"), Paging),
    responses((status = 200, description = "A page of entries", body = Page<EntryView>), (status = 404, description = "No such plugin"))
)]
async fn history(
    State(api): State<Api>,
    caller: Caller<Read>,
    Path(name): Path<String>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<EntryView>>> {
    let limit = page::limit(paging.limit)?;
    let list = format!("plugin-history {name}");
    let read = |cursor: &String| api.cursors.read_position(caller.uid(), &list, cursor);
    let before = paging.after.as_ref().map(read).transpose()?.map(|position| position.0);
    let mut entries = api.store.history(caller.id(), &name, before, limit + 1).await?;
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let last = entries.last().filter(|_| more).map(|entry| Position(entry.number));
    let next = last.map(|number| api.cursors.write_position(caller.uid(), &list, number));
    Ok(Json(Page { items: entries.into_iter().map(EntryView::from).collect(), next }))
}
