//! Recordings of plugins' calls: what `bulkhead plugin replay` and `capture` begin with.
//!
//! A recording has the event's data and what the plugin read of its state, so whoever may read those may read it. Values
//! of secrets are not in it.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use bulkhead_domain::id::RunId;
use bulkhead_domain::recording::Recording;
use bulkhead_store::recordings::Head;
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
use crate::api::plugins::find_version;
use crate::api::problem::Document;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::api::time::rfc3339;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(component))
}

/// A recording, without what is in it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = RecordingHead)]
pub struct Item {
    /// The run's id.
    pub run: String,
    /// Its rule.
    pub rule: String,
    /// Which attempt of the run, from 1; counted anew after a redrive.
    pub attempt: u32,
    /// The step, from 0.
    pub step: u32,
    /// The plugin.
    pub plugin: String,
    /// Its version.
    pub version: u32,
    /// The failure's code; empty if the call was done.
    pub code: String,
    /// When it was made.
    pub recorded: String,
    /// Bytes of the recording.
    pub size: u64,
}

impl Item {
    fn of(head: Head) -> Self {
        Self {
            run: head.run().to_string(),
            rule: head.of.rule,
            attempt: head.of.attempt,
            step: head.of.step,
            plugin: head.of.plugin,
            version: head.of.version,
            code: head.of.code,
            recorded: rfc3339(head.of.recorded),
            size: head.size,
        }
    }
}

/// Which recordings.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Go on here: the `next` of the page before.
    after: Option<String>,
    /// At most this many items (default 50, at most 1000).
    limit: Option<u32>,
}

/// The recordings of a plugin's calls, newest first: of every call that failed, and of a part of those that were done.
#[utoipa::path(
    get,
    path = "/v1/plugins/{name}/recordings",
    tag = "plugins",
    summary = "Recordings of a plugin's calls",
    params(("name" = String, Path, description = "The plugin's name"), ListQuery),
    responses(
        (status = 200, description = "Recordings", body = Page<Item>),
        (status = 404, description = "There is no such plugin", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(api): State<Api>,
    caller: Caller<Read>,
    Path(name): Path<String>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Page<Item>>> {
    const LIST: &str = "recordings";
    if api.store.plugin(caller.id(), &name).await?.is_none() {
        return Err(Problem::not_found("plugin", &name));
    }
    let limit = page::limit(query.limit)?;
    let read = |cursor: &str| {
        let content = api.cursors.read(caller.uid(), LIST, cursor)?;
        let number = content.try_into().map(i64::from_be_bytes);
        number.map_err(|_| Problem::new(Code::CursorInvalid, "the cursor is of another list"))
    };
    let before = query.after.as_deref().map(read).transpose()?;
    let mut heads = api.store.recordings(caller.id(), &name, before, limit + 1).await?;
    let more = heads.len() > limit as usize;
    heads.truncate(limit as usize);
    let next = heads.last().filter(|_| more);
    let next = next.map(|head| api.cursors.write(caller.uid(), LIST, &head.number.to_be_bytes()));
    Ok(Json(Page { items: heads.into_iter().map(Item::of).collect(), next }))
}

/// Which recording of the run.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Of this attempt; else of the last one that was recorded.
    attempt: Option<u32>,
    /// Of the call at this step; else of the last call that was recorded.
    step: Option<u32>,
}

/// What a run's call of a plugin saw and what came of it, newest attempt first.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}/recording",
    tag = "runs",
    summary = "A recording of a run",
    params(("id" = String, Path, description = "The run's id"), Query),
    responses(
        (status = 200, description = "The recording; its form is described in docs/recorder.md", body = serde_json::Value),
        (status = 404, description = "Nothing of this run was recorded, or it is not kept any more", body = Document,
            content_type = "application/problem+json"),
    ),
)]
pub async fn show(
    State(api): State<Api>,
    caller: Caller<Read>,
    Path(id): Path<String>,
    Params(query): Params<Query>,
) -> Result<Json<Recording>> {
    let missing = || {
        Problem::not_found("recording of run", &id)
            .hint("every call that fails is recorded, and a part of those that are done; old ones go")
    };
    let run = RunId::parse(&id).ok_or_else(|| Problem::not_found("run", &id))?;
    let heads = api.store.recordings_of(caller.id(), run).await?;
    let wanted = |head: &&Head| {
        query.attempt.is_none_or(|attempt| attempt == head.of.attempt)
            && query.step.is_none_or(|step| step == head.of.step)
    };
    let head = heads.iter().find(wanted).ok_or_else(missing)?;
    let body = api.store.recording(caller.id(), head.number).await?.ok_or_else(missing)?;
    let recording = serde_json::from_slice(&body);
    recording.map(Json).map_err(|error| {
        tracing::error!(%error, run = id, "a stored recording does not read back");
        Problem::new(Code::Internal, "the recording does not read back")
    })
}

/// The component of a version, byte for byte.
#[utoipa::path(
    get,
    path = "/v1/plugins/{name}/versions/{version}/component",
    tag = "plugins",
    summary = "A version's component",
    params(
        ("name" = String, Path, description = "The plugin's name"),
        ("version" = u32, Path, description = "The version's number"),
    ),
    responses(
        (status = 200, description = "The component", body = Vec<u8>, content_type = "application/wasm"),
        (status = 404, description = "There is no such version, or it was let go", body = Document,
            content_type = "application/problem+json"),
    ),
)]
pub async fn component(
    State(api): State<Api>,
    caller: Caller<Read>,
    Path((name, version)): Path<(String, u32)>,
) -> Result<Response> {
    let digest = find_version(&api, caller.id(), &name, version).await?.digest;
    let missing = || Problem::not_found("version", &format!("{name} {version}"));
    let wasm = api.store.component(caller.id(), &digest).await?.ok_or_else(missing)?;
    let mut response = wasm.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/wasm"));
    Ok(response)
}
