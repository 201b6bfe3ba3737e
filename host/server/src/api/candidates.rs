//! Candidates: versions that are tried on live events, as a canary (for a part of them, for real) or as a shadow (beside
//! the active version, with nothing applied).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bulkhead_domain::policy::rollout::Counts;
use bulkhead_domain::policy::rollout::Guard;
use bulkhead_domain::policy::rollout::PARTS;
use bulkhead_domain::policy::rollout::Slice;
use bulkhead_flow::inbox::codec::rfc3339;
use bulkhead_flow::tenants::Terms;
use bulkhead_store::releases::Ending;
use bulkhead_store::releases::Kind;
use bulkhead_store::releases::Rollout;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::code::Code;
use crate::api::extract::Body;
use crate::api::extract::Caller;
use crate::api::extract::Path;
use crate::api::extract::Plugins;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::releases::act;
use crate::api::state::Api;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(start_canary, stop_canary))
        .routes(routes!(promote_canary))
        .routes(routes!(start_shadow, stop_shadow))
}

/// A canary to be.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewCanary)]
#[serde(deny_unknown_fields)]
pub struct NewCanary {
    /// The candidate.
    version: u32,
    /// How many of the ordering keys (of events without one: of the events) it gets, in percent: from 0.01 to 100. Either
    /// this or `key_hash`.
    #[serde(default)]
    percent: Option<f64>,
    /// Which of them: from one point to another of the circle of their hashes, in percent. `percent: 10` is `[0, 10]`.
    #[serde(default)]
    key_hash: Option<[f64; 2]>,
    /// Failed attempts per attempt, from 0 to 1, above which it is taken back; 0.05 if it is left out.
    #[serde(default)]
    max_failure_rate: Option<f64>,
    /// Fuel per attempt against the active version's, above which it is taken back; 2 if it is left out.
    #[serde(default)]
    max_fuel_ratio: Option<f64>,
    /// Time of an ordinary attempt (the geometric mean), likewise; 3 if it is left out.
    #[serde(default)]
    max_latency_ratio: Option<f64>,
    /// Attempts of each before they are judged; 100 if it is left out.
    #[serde(default)]
    min_runs: Option<u64>,
}

/// A shadow to be.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewShadow)]
#[serde(deny_unknown_fields)]
pub struct NewShadow {
    /// The candidate.
    version: u32,
    /// How many of the ordering keys it sees, in percent; all if it is left out.
    #[serde(default)]
    percent: Option<f64>,
}

/// A candidate under way.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PluginCandidate)]
pub struct CandidateView {
    /// `canary` or `shadow`.
    kind: &'static str,
    /// The candidate.
    version: u32,
    /// Who began it.
    author: String,
    /// When.
    started: String,
    /// Which events it gets, in percent of the circle of hashes.
    key_hash: [f64; 2],
    /// When it is taken back by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    guard: Option<Guard>,
    /// What the active version came to meanwhile.
    active: Figures,
    /// What the candidate came to.
    candidate: Figures,
    /// Shadow: how its runs compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<Compared>,
}

/// What the attempts of a version came to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CandidateFigures)]
pub struct Figures {
    /// Attempts.
    runs: u64,
    /// Those that failed in the plugin.
    failed: u64,
    /// Fuel per attempt.
    fuel: f64,
    /// Microseconds per attempt.
    micros: f64,
    /// Microseconds of an ordinary attempt (the geometric mean): what `max_latency_ratio` compares.
    typical_micros: f64,
}

/// How a shadow's runs compare with those of the active version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ShadowCompared)]
pub struct Compared {
    /// The same effects.
    same: u64,
    /// Other effects.
    changed: u64,
    /// A failure where the active version had none.
    new_failure: u64,
    /// Not run, because a shadow may only cost so much.
    skipped: u64,
    /// Some of those that differ.
    #[schema(value_type = Vec<Object>)]
    samples: Vec<Value>,
}

impl From<&Counts> for Figures {
    fn from(counts: &Counts) -> Self {
        let round = |value: f64| (value * 10.0).round() / 10.0;
        Self {
            runs: counts.runs,
            failed: counts.failed,
            fuel: round(counts.fuel_per_run()),
            micros: round(counts.micros_per_run()),
            typical_micros: round(counts.typical_micros()),
        }
    }
}

impl From<&Rollout> for CandidateView {
    fn from(rollout: &Rollout) -> Self {
        let whole = Terms { slice: Slice { from: 0, to: PARTS }, guard: None };
        let terms: Terms = serde_json::from_str(&rollout.terms).unwrap_or(whole);
        let tally = &rollout.tally;
        let compared = || Compared {
            same: tally.candidate.runs.saturating_sub(tally.changed).saturating_sub(tally.newly_failed),
            changed: tally.changed,
            new_failure: tally.newly_failed,
            skipped: tally.skipped,
            samples: tally.samples.clone(),
        };
        Self {
            kind: match rollout.kind {
                Kind::Canary => "canary",
                Kind::Shadow => "shadow",
            },
            version: rollout.version,
            author: rollout.author.clone(),
            started: rfc3339(rollout.started),
            key_hash: [terms.slice.from, terms.slice.to].map(|part| f64::from(part) / 100.0),
            guard: terms.guard,
            active: Figures::from(&tally.active),
            candidate: Figures::from(&tally.candidate),
            compared: (rollout.kind == Kind::Shadow).then(compared),
        }
    }
}

/// A part of the circle, from percents.
fn slice(from: f64, to: f64) -> Result<Slice> {
    let part = |percent: f64| (percent * 100.0).round();
    let fits = (0.0..=f64::from(PARTS)).contains(&part(from)) && (0.0..=f64::from(PARTS)).contains(&part(to));
    if !fits || part(from) >= part(to) {
        let detail = format!("from {from} to {to} percent is no part of the events");
        return Err(Problem::new(Code::FieldInvalid, detail).hint("from 0.01 to 100, in steps of 0.01"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was just compared with its bounds")]
    Ok(Slice { from: part(from) as u16, to: part(to) as u16 })
}

impl NewCanary {
    fn terms(&self) -> Result<Terms> {
        let slice = match (self.percent, self.key_hash) {
            (Some(percent), None) => slice(0.0, percent)?,
            (None, Some([from, to])) => slice(from, to)?,
            _ => {
                let detail = "either `percent` or `key_hash` says which events it gets";
                return Err(Problem::new(Code::FieldInvalid, detail).hint("send {\"version\": 4, \"percent\": 10}"));
            }
        };
        let usual = Guard::default();
        let guard = Guard {
            max_failure_rate: self.max_failure_rate.unwrap_or(usual.max_failure_rate),
            max_fuel_ratio: self.max_fuel_ratio.unwrap_or(usual.max_fuel_ratio),
            max_latency_ratio: self.max_latency_ratio.unwrap_or(usual.max_latency_ratio),
            min_runs: self.min_runs.unwrap_or(usual.min_runs),
        };
        if !(0.0..=1.0).contains(&guard.max_failure_rate) {
            return Err(Problem::new(Code::FieldInvalid, "`max_failure_rate` is a part of all attempts, from 0 to 1"));
        }
        for (name, ratio) in [("max_fuel_ratio", guard.max_fuel_ratio), ("max_latency_ratio", guard.max_latency_ratio)]
        {
            if !(ratio.is_finite() && ratio > 0.0) {
                return Err(Problem::new(Code::FieldInvalid, format!("`{name}` is a ratio, greater than 0")));
            }
        }
        if guard.min_runs == 0 {
            return Err(Problem::new(Code::FieldInvalid, "`min_runs` is at least 1: of nothing nothing can be said"));
        }
        Ok(Terms { slice, guard: Some(guard) })
    }
}

async fn start(
    api: &Api,
    caller: &Caller<Plugins>,
    name: &str,
    (kind, version): (Kind, u32),
    terms: Terms,
) -> Result<(StatusCode, Json<CandidateView>)> {
    let terms = serde_json::to_string(&terms).map_err(|error| Problem::internal(&error))?;
    let rollout = api.store.start_rollout(caller.id(), name, kind, version, &terms, &act(api, caller)).await?;
    api.changed(caller.id()).await;
    Ok((StatusCode::CREATED, Json(CandidateView::from(&rollout))))
}

async fn end(
    api: &Api,
    caller: &Caller<Plugins>,
    name: &str,
    kind: Kind,
    promote: bool,
) -> Result<Json<CandidateView>> {
    let mut detail = serde_json::Map::new();
    detail.insert("reason".to_owned(), if promote { "promoted" } else { "stopped" }.into());
    let ending = Ending { number: None, promote, detail, act: act(api, caller) };
    let ended = api.store.end_rollout(caller.id(), name, kind, &ending).await?;
    let ended = ended.ok_or_else(|| Problem::not_found("candidate of this kind under way in plugin", name))?;
    api.changed(caller.id()).await;
    Ok(Json(CandidateView::from(&ended)))
}

/// Lets a version handle a part of the events, for real. The same event, and all of one ordering key, always go to the
/// same version. It is taken back by itself if it fails too often, or takes too much fuel or time.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/canary", tag = "plugins", summary = "Start a canary", request_body = NewCanary,
    params(("name" = String, Path, description = "The plugin's name")),
    responses(
        (status = 201, description = "It has begun", body = CandidateView),
        (status = 403, description = "It asks for more than the active one, and nobody agreed to that"),
        (status = 409, description = "It is active or retired, a canary is under way, or the plugin asks for a preview of it")
    )
)]
async fn start_canary(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
    Body(new): Body<NewCanary>,
) -> Result<(StatusCode, Json<CandidateView>)> {
    start(&api, &caller, &name, (Kind::Canary, new.version), new.terms()?).await
}

/// Ends a canary: all events go to the active version again.
#[utoipa::path(
    delete, path = "/v1/plugins/{name}/canary", tag = "plugins", summary = "Stop a canary",
    params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 200, description = "What it came to", body = CandidateView), (status = 404, description = "None is under way"))
)]
async fn stop_canary(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
) -> Result<Json<CandidateView>> {
    end(&api, &caller, &name, Kind::Canary, false).await
}

/// Ends a canary by making its version the active one.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/canary/promote", tag = "plugins", summary = "Promote a canary",
    params(("name" = String, Path, description = "The plugin's name")),
    responses(
        (status = 200, description = "What it came to", body = CandidateView),
        (status = 403, description = "It asks for more than the active one, and nobody agreed to that"),
        (status = 404, description = "None is under way")
    )
)]
async fn promote_canary(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
) -> Result<Json<CandidateView>> {
    end(&api, &caller, &name, Kind::Canary, true).await
}

/// Runs a version beside the active one on live events: what it wants to happen is compared and forgotten. It runs after
/// the events themselves are done, as far as its share of the host goes.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/shadow", tag = "plugins", summary = "Start a shadow", request_body = NewShadow,
    params(("name" = String, Path, description = "The plugin's name")),
    responses(
        (status = 201, description = "It has begun", body = CandidateView),
        (status = 403, description = "It asks for more than the active one, and nobody agreed to that"),
        (status = 409, description = "It is active or retired, or a shadow is under way")
    )
)]
async fn start_shadow(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
    Body(new): Body<NewShadow>,
) -> Result<(StatusCode, Json<CandidateView>)> {
    let terms = Terms { slice: slice(0.0, new.percent.unwrap_or(100.0))?, guard: None };
    start(&api, &caller, &name, (Kind::Shadow, new.version), terms).await
}

/// Ends a shadow.
#[utoipa::path(
    delete, path = "/v1/plugins/{name}/shadow", tag = "plugins", summary = "Stop a shadow",
    params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 200, description = "What it came to", body = CandidateView), (status = 404, description = "None is under way"))
)]
async fn stop_shadow(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
) -> Result<Json<CandidateView>> {
    end(&api, &caller, &name, Kind::Shadow, false).await
}
