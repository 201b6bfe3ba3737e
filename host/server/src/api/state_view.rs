//! A look at what a plugin has stored. Changing it is the plugin's own business.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use serde::Deserialize;
use serde::Serialize;
use utoipa::IntoParams;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::code::Code;
use crate::api::extract::Caller;
use crate::api::extract::Params;
use crate::api::extract::Path;
use crate::api::extract::Read;
use crate::api::page;
use crate::api::page::Page;
use crate::api::problem::Document;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::api::time::rfc3339;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(keys)).routes(routes!(value))
}

/// Which keys.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Only keys that begin so.
    prefix: Option<String>,
    /// Go on here: the `next` of the page before.
    after: Option<String>,
    /// At most this many items (default 50, at most 1000).
    limit: Option<u32>,
}

/// A key that a plugin has stored something under.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = StateKey)]
pub struct Key {
    /// The key.
    key: String,
}

/// The keys of a plugin's state, in byte order.
#[utoipa::path(
    get,
    path = "/v1/plugins/{name}/state",
    tag = "plugins",
    summary = "A plugin's keys",
    params(("name" = String, Path, description = "The plugin's name"), Query),
    responses(
        (status = 200, description = "Keys", body = Page<Key>),
        (status = 404, description = "There is no such plugin", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn keys(
    State(api): State<Api>,
    caller: Caller<Read>,
    Path(name): Path<String>,
    Params(query): Params<Query>,
) -> Result<Json<Page<Key>>> {
    const LIST: &str = "state";
    let plugin = plugin(&api, caller.id(), &name).await?;
    let limit = page::limit(query.limit)?;
    let read = |cursor: &str| {
        let content = api.cursors.read(caller.uid(), LIST, cursor)?;
        String::from_utf8(content).map_err(|_| Problem::new(Code::CursorInvalid, "the cursor is of another list"))
    };
    let after = query.after.as_deref().map(read).transpose()?;
    let prefix = query.prefix.unwrap_or_default();
    let mut keys = api.store.state_keys(caller.id(), plugin, &prefix, after.as_deref(), limit + 1).await?;
    let more = keys.len() > limit as usize;
    keys.truncate(limit as usize);
    let next = keys.last().filter(|_| more).map(|key| api.cursors.write(caller.uid(), LIST, key.as_bytes()));
    Ok(Json(Page { items: keys.into_iter().map(|key| Key { key }).collect(), next }))
}

/// The value under a key, byte for byte.
#[utoipa::path(
    get,
    path = "/v1/plugins/{name}/state/{key}",
    tag = "plugins",
    summary = "A value of a plugin's state",
    params(
        ("name" = String, Path, description = "The plugin's name"),
        ("key" = String, Path, description = "The key; a `/` in it is written `%2F`"),
    ),
    responses(
        (status = 200, description = "The value; its version is the `ETag`", body = Vec<u8>,
            content_type = "application/octet-stream"),
        (status = 404, description = "There is no such plugin, or nothing under this key", body = Document,
            content_type = "application/problem+json"),
    ),
)]
pub async fn value(
    State(api): State<Api>,
    caller: Caller<Read>,
    Path((name, key)): Path<(String, String)>,
) -> Result<Response> {
    let plugin = plugin(&api, caller.id(), &name).await?;
    let found = api.store.state(caller.id(), plugin, &key).await?;
    let now = api.now();
    let found = found.filter(|found| found.expires.is_none_or(|expires| expires > now));
    let found = found.ok_or_else(|| Problem::not_found("key", &key))?;
    let mut response = found.value.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // It is the plugin's text, not the host's: nobody's browser may take it for a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let texts = [
        (header::ETAG, Some(format!("\"{}\"", found.version))),
        (header::HeaderName::from_static("bulkhead-expires"), found.expires.map(rfc3339)),
    ];
    for (name, text) in texts {
        if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}

async fn plugin(api: &Api, tenant: TenantId, name: &str) -> Result<PluginId> {
    let found = api.store.plugin(tenant, name).await?;
    found.map(|(plugin, _)| plugin.id).ok_or_else(|| Problem::not_found("plugin", name))
}
