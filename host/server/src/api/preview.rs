//! Previews: a version of a plugin on the tenant's past events, beside the active one, with nothing applied.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use bulkhead_domain::policy::proof::Preview;
use bulkhead_flow::preview;
use bulkhead_flow::preview::LOOKED_AT_MAX;
use bulkhead_flow::preview::Range;
use bulkhead_flow::preview::Report;
use bulkhead_store::releases::agreed;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::code::Code;
use crate::api::extract::Body;
use crate::api::extract::Caller;
use crate::api::extract::Path;
use crate::api::extract::Plugins;
use crate::api::plugins::find;
use crate::api::plugins::find_version;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::api::time;
use crate::auth::scope::Scope;

/// Events that a preview takes unless it is told otherwise, and at most: a thousand runs of two versions of an ordinary
/// plugin take about a second.
const LAST: usize = 100;
const LAST_MAX: usize = 1_000;
/// How long a preview may compute.
pub(super) const COMPUTING: Duration = Duration::from_secs(20);

/// The route.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(preview_version))
}

/// What to preview.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = PluginPreview)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The version to try.
    version: u32,
    /// The version to compare it with; the active one if it is left out.
    #[serde(default)]
    against: Option<u32>,
    /// Events to try it on, from 1 to 1,000: the newest that reach the plugin; 100 if it is left out.
    #[serde(default)]
    last: Option<usize>,
    /// Only events recorded at or after this time.
    #[serde(default)]
    since: Option<String>,
    /// Only events recorded before this time.
    #[serde(default)]
    until: Option<String>,
}

/// Runs a version over past events beside the active one: same inputs, state and randomness, nothing applied. The report
/// counts runs that end the same, changed, with fewer effects, with a new failure, or mended, shows some of each, and says
/// how many saw the state that the run itself saw (`recorded`), that in part (`partly`), or state as it is `now`.
///
/// Both versions run with what they are granted, so each needs the consent that it would need to be active; a preview
/// itself agrees to nothing. The report shows what is in events: it needs the scope `read` besides `plugins`.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/preview", tag = "plugins", summary = "Preview a version", request_body = Asked,
    params(("name" = String, Path, description = "The plugin's name")),
    responses(
        (status = 200, description = "How it did", body = Object),
        (status = 403, description = "A version asks for more than the active one, and nobody agreed to that; or the key may not read events"),
        (status = 404, description = "No such plugin or version"),
        (status = 409, description = "A version is retired"),
        (status = 503, description = "Another preview is under way")
    )
)]
async fn preview_version(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
    Body(asked): Body<Asked>,
) -> Result<Json<Report>> {
    let range = asked.range()?;
    caller.also(Scope::Read)?;
    let against = against(&api, &caller, &name, &asked).await?;
    let trial =
        api.trials.begin_preview(caller.id()).await.ok_or_else(|| {
            Problem::new(Code::Busy, "another preview is under way").retry_after(Duration::from_secs(5))
        })?;
    let prepared = api.previewer.prepare(caller.id(), &name, against, asked.version, range).await;
    let prepared = prepared.map_err(|error| match error {
        preview::Error::NoVersion(number) => Problem::not_found("version", &number.to_string()),
        preview::Error::Store(error) => error.into(),
    })?;
    let (limiter, tenant) = (api.limiter.clone(), caller.tenant.clone());
    let report = prepared.go(COMPUTING, move |report| {
        // What it used is the tenant's, whoever waits for what came of it.
        limiter.burned(&tenant, report.burned);
        drop(trial);
    });
    let report = report.await.map_err(|error| Problem::internal(&error))?;
    // What a plugin's policy asks for. It is all that stays of a preview.
    let (version, against) = (report.version, report.against);
    let done = Preview { version, against, author: caller.key.clone(), at: api.now(), counts: report.counts() };
    api.store.add_preview(caller.id(), &name, &done).await?;
    Ok(Json(report))
}

/// The version to compare with. Both of them may run, or it is refused.
async fn against(api: &Api, caller: &Caller<Plugins>, name: &str, asked: &Asked) -> Result<Option<u32>> {
    let (plugin, active) = find(api, caller.id(), name).await?;
    let against = asked.against.or(plugin.active);
    for number in std::iter::once(asked.version).chain(against) {
        let version = find_version(api, caller.id(), name, number).await?;
        if version.retired {
            return Err(Problem::new(Code::Conflict, format!("version {number} of plugin `{name}` is retired")));
        }
        if !caller.may(Scope::Consent) {
            agreed(&plugin, active.as_ref(), &version)?;
        }
    }
    Ok(against)
}

impl Asked {
    fn range(&self) -> Result<Range> {
        let last = self.last.unwrap_or(LAST);
        if !(1..=LAST_MAX).contains(&last) {
            let detail = format!("`last` is {last}; it must be from 1 to {LAST_MAX}");
            let hint = format!("the newest {LOOKED_AT_MAX} events are searched for events that reach the plugin");
            return Err(Problem::new(Code::FieldInvalid, detail).hint(hint));
        }
        let read = |name: &str, text: &Option<String>| text.as_deref().map(|text| time::parse(name, text)).transpose();
        Ok(Range { last, since: read("since", &self.since)?, until: read("until", &self.until)? })
    }
}
