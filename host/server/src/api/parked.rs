//! Parked runs: those that wait for a person, and what a person can do with them.

use axum::Json;
use axum::extract::State;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::Shard;
use bulkhead_store::work::ParkedFilter;
use serde::Deserialize;
use serde::Serialize;
use utoipa::IntoParams;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::code::Code;
use crate::api::extract::Admin;
use crate::api::extract::Body;
use crate::api::extract::Caller;
use crate::api::extract::Params;
use crate::api::extract::Read;
use crate::api::page;
use crate::api::page::Page;
use crate::api::problem::Document;
use crate::api::problem::Fault;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::runs;
use crate::api::runs::Run;
use crate::api::runs::Source;
use crate::api::state::Api;

/// Runs that may be named in one request.
const RUNS_MAX: usize = 1_000;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(redrive)).routes(routes!(discard))
}

/// Which parked runs.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// This run.
    run: Option<String>,
    /// Of this rule.
    rule: Option<String>,
    /// With this ordering key.
    key: Option<String>,
    /// Of this plugin.
    plugin: Option<String>,
    /// With this code.
    code: Option<String>,
    /// The same as `code`.
    reason: Option<String>,
    /// Go on here: the `next` of the page before.
    after: Option<String>,
    /// At most this many items (default 50, at most 1000).
    limit: Option<u32>,
}

/// What is parked, newest event first.
#[utoipa::path(
    get,
    path = "/v1/parked",
    tag = "parked",
    summary = "Parked runs",
    params(Query),
    responses(
        (status = 200, description = "Runs that wait for a person", body = Page<Run>),
        (status = "4XX", description = "The query is not valid", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(api): State<Api>,
    caller: Caller<Read>,
    Params(query): Params<Query>,
) -> Result<Json<Page<Run>>> {
    const LIST: &str = "parked";
    let limit = page::limit(query.limit)?;
    let run = query.run.as_deref().map(run_id).transpose()?;
    let filter = ParkedFilter {
        runs: run.into_iter().collect(),
        rule: query.rule,
        key: query.key,
        plugin: query.plugin,
        code: query.code.or(query.reason),
    };
    let source = Source::Parked(filter);
    runs::page_of(&api, &caller, LIST, source, None, query.after.as_deref(), limit).await.map(Json)
}

fn run_id(text: &str) -> Result<RunId> {
    RunId::parse(text).ok_or_else(|| {
        let detail = format!("`{}` is no run's id; it looks like run_0123…", crate::api::extract::shown(text));
        Problem::new(Code::FieldInvalid, detail)
    })
}

/// Which parked runs are meant: those for which all that is given holds. An empty object means all.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = WhichParked)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// These runs.
    runs: Option<Vec<String>>,
    /// Of this rule.
    rule: Option<String>,
    /// With this ordering key.
    key: Option<String>,
    /// Of this plugin.
    plugin: Option<String>,
    /// With this code.
    #[serde(alias = "reason")]
    code: Option<String>,
}

impl Which {
    fn filter(self) -> Result<ParkedFilter> {
        let runs = match self.runs {
            None => Vec::new(),
            // Whoever made a list and found nothing for it does not mean all.
            Some(runs) if runs.is_empty() || runs.len() > RUNS_MAX => {
                let message = format!("`runs` names {} runs; name 1 to {RUNS_MAX}, or leave it out", runs.len());
                return Err(Problem::new(Code::FieldInvalid, message.clone()).faults([Fault::field("runs", message)]));
            }
            Some(runs) => runs.iter().map(|run| run_id(run)).collect::<Result<_>>()?,
        };
        Ok(ParkedFilter { runs, rule: self.rule, key: self.key, plugin: self.plugin, code: self.code })
    }
}

/// How many run again.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Redriven {
    /// Runs that will be tried again, attempts counted anew.
    redriven: u64,
}

/// Makes parked runs due, in order, with their attempts counted anew.
#[utoipa::path(
    post,
    path = "/v1/parked/redrive",
    tag = "parked",
    summary = "Run parked runs again",
    request_body = Which,
    responses(
        (status = 200, description = "How many", body = Redriven),
        (status = "4XX", description = "The filter is not valid", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn redrive(
    State(api): State<Api>,
    caller: Caller<Admin>,
    Body(which): Body<Which>,
) -> Result<Json<Redriven>> {
    let (redriven, shards) = api.store.redrive(caller.id(), &which.filter()?, api.now()).await?;
    done(&api, &caller, "redriven", redriven, &shards);
    Ok(Json(Redriven { redriven }))
}

/// How many were let go.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Discarded {
    /// Runs that are over; what waited behind them goes on.
    discarded: u64,
}

/// Ends parked runs as dropped, for good; what waits behind them goes on.
#[utoipa::path(
    post,
    path = "/v1/parked/discard",
    tag = "parked",
    summary = "Let parked runs go",
    request_body = Which,
    responses(
        (status = 200, description = "How many", body = Discarded),
        (status = "4XX", description = "The filter is not valid", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn discard(
    State(api): State<Api>,
    caller: Caller<Admin>,
    Body(which): Body<Which>,
) -> Result<Json<Discarded>> {
    let (discarded, shards) = api.store.discard(caller.id(), &which.filter()?, api.now()).await?;
    done(&api, &caller, "discarded", discarded, &shards);
    Ok(Json(Discarded { discarded }))
}

fn done(api: &Api, caller: &Caller<Admin>, what: &str, count: u64, shards: &[Shard]) {
    api.dispatch.wake(caller.id(), shards);
    tracing::info!(tenant = caller.tenant.name, key = caller.key, count, "parked runs were {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn which(text: &str) -> Result<ParkedFilter> {
        crate::api::extract::parse::<Which>(text.as_bytes())?.filter()
    }

    #[test]
    fn only_an_empty_object_means_all() {
        assert!(which("{}").expect("because it means all").runs.is_empty());
        for wrong in [r#"{"runs":[]}"#, r#"{"runs":["run_1"]}"#, r#"{"rules":"x"}"#, r#"{"rule":7}"#] {
            assert_eq!(which(wrong).expect_err(wrong).code, Code::FieldInvalid, "{wrong}");
        }
        assert_eq!(which("").expect_err("because it is no JSON").code, Code::BodyMalformed);
        let by_reason = which(r#"{"reason":"limit:fuel","rule":"flag"}"#).expect("because it is a filter");
        assert_eq!((by_reason.code.as_deref(), by_reason.rule.as_deref()), (Some("limit:fuel"), Some("flag")));
        let id = format!("run_{}", "0".repeat(40));
        assert_eq!(which(&format!(r#"{{"runs":["{id}"]}}"#)).expect("because it is an id").runs.len(), 1);
    }
}
