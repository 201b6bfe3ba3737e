//! Runs: one event through one rule each, with its attempts and what plugins wrote in them.

use axum::Json;
use axum::extract::State;
use bulkhead_domain::effect::LogLine;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::TenantId;
use bulkhead_store::work::ParkedFilter;
use bulkhead_store::work::RunQuery;
use bulkhead_store::work::RunRecord;
use bulkhead_store::work::RunState;
use bulkhead_store::work::RunView;
use bulkhead_store::work::Waiting;
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

/// Runs that are read from the store at a time, and looked through for one page at most.
const CHUNK: u32 = 200;
const LOOKED_MAX: usize = 5_000;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(logs))
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = RunState)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Its effects are committed.
    Done,
    /// It will be tried again.
    Retrying,
    /// It waits for a person.
    Parked,
    /// It was let go, by its rule or by a person.
    Dropped,
    /// It waits behind an earlier run of its rule and key.
    Blocked,
    /// It waits for its rule or plugin to be resumed.
    Held,
}

/// A run.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// Its event's id.
    pub event: String,
    /// When its event was accepted.
    pub recorded: String,
    /// Its rule.
    pub rule: String,
    /// The rule set that it ran under.
    pub rule_set: i64,
    /// The ordering key, while it is unfinished and its rule asks for order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The plugin of its last plugin step; null if it has none.
    pub plugin: Option<String>,
    /// That plugin's version.
    pub version: Option<u32>,
    /// Where it stands.
    pub state: Standing,
    /// Attempts made; counted anew after a redrive.
    pub attempts: u32,
    /// The last failure's code; empty if there was none.
    pub code: String,
    /// The last failure's reason.
    pub reason: String,
    /// Fuel that its last attempt used.
    pub fuel: u64,
    /// Time that its last attempt spent in plugins, in microseconds.
    pub duration_us: u64,
    /// Effects that its last attempt committed.
    pub effects: u32,
    /// When its last attempt ended; null if there was none yet.
    pub ended: Option<String>,
    /// When its next attempt is due, while it is retrying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
}

impl Run {
    /// As the store sees it.
    pub fn of(view: &RunView) -> Option<Self> {
        let (record, unfinished) = (view.record.as_ref(), view.unfinished.as_ref());
        let (event, rule, rule_set) = match (record, unfinished) {
            (Some(record), _) => (record.event, &record.rule, record.rule_set),
            (None, Some(run)) => (run.event, &run.rule, run.rule_set),
            (None, None) => return None,
        };
        let held_for = unfinished.and_then(|run| run.plugin.clone());
        let plugin = record.and_then(|record| record.plugin.clone());
        let failure = match unfinished.filter(|run| !run.code.is_empty()) {
            Some(run) => Some((&run.code, &run.reason)),
            None => record.map(|record| (&record.code, &record.reason)),
        };
        let (code, reason) = failure.map(|(code, reason)| (code.clone(), reason.clone())).unwrap_or_default();
        Some(Self {
            id: RunId::of(event, rule).to_string(),
            event: view.event_id.clone(),
            recorded: rfc3339(view.recorded),
            rule: rule.clone(),
            rule_set,
            key: unfinished.and_then(|run| run.key.clone()),
            version: plugin.as_ref().map(|(_, version)| *version),
            plugin: plugin.map(|(name, _)| name).or(held_for),
            state: standing(view),
            attempts: unfinished.map_or_else(|| record.map_or(0, |record| record.attempt), |run| run.attempts),
            code,
            reason,
            fuel: record.map_or(0, |record| record.fuel),
            duration_us: record.map_or(0, micros),
            effects: record.map_or(0, |record| record.effects),
            ended: record.map(|record| rfc3339(record.ended)),
            due: unfinished.and_then(|run| match run.waiting {
                Waiting::Retry(due) => Some(rfc3339(due)),
                _ => None,
            }),
        })
    }
}

/// What a run waits for counts more than how its last attempt ended: between a redrive and the next attempt they differ.
fn standing(view: &RunView) -> Standing {
    if let Some(run) = &view.unfinished {
        return match run.waiting {
            Waiting::Retry(_) => Standing::Retrying,
            Waiting::Blocked => Standing::Blocked,
            Waiting::Held => Standing::Held,
            Waiting::Parked => Standing::Parked,
        };
    }
    view.record.as_ref().map_or(Standing::Done, |record| left(record.state))
}

const fn left(state: RunState) -> Standing {
    match state {
        RunState::Done => Standing::Done,
        RunState::Retrying => Standing::Retrying,
        RunState::Parked => Standing::Parked,
        RunState::Dropped => Standing::Dropped,
    }
}

/// How the last attempt of runs that stand so ended, where that is the same thing.
const fn left_so(standing: Standing) -> Option<RunState> {
    match standing {
        Standing::Done => Some(RunState::Done),
        Standing::Retrying => Some(RunState::Retrying),
        Standing::Dropped => Some(RunState::Dropped),
        Standing::Parked | Standing::Blocked | Standing::Held => None,
    }
}

fn micros(record: &RunRecord) -> u64 {
    u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX)
}

/// Which runs.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Of the event with this id.
    event: Option<String>,
    /// Of the event from this source, where several have the same id.
    source: Option<String>,
    /// Of this rule.
    rule: Option<String>,
    /// Of this plugin.
    plugin: Option<String>,
    /// Only those that stand so.
    #[param(inline)]
    state: Option<Standing>,
    /// Go on here: the `next` of the page before.
    after: Option<String>,
    /// At most this many items (default 50, at most 1000).
    limit: Option<u32>,
}

/// What ran, newest event first.
#[utoipa::path(
    get,
    path = "/v1/runs",
    tag = "runs",
    summary = "Runs",
    params(Query),
    responses(
        (status = 200, description = "Runs", body = Page<Run>),
        (status = "4XX", description = "The query is not valid", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(api): State<Api>,
    caller: Caller<Read>,
    Params(query): Params<Query>,
) -> Result<Json<Page<Run>>> {
    const LIST: &str = "runs";
    let limit = page::limit(query.limit)?;
    if let Some(id) = &query.event {
        return of_event(&api, caller.id(), id, &query).await.map(|runs| Json(Page::whole(runs)));
    }
    if query.source.is_some() {
        let detail = "`source` only tells events with one id apart; give `event`, too";
        return Err(Problem::new(Code::QueryInvalid, detail));
    }
    let source = match query.state {
        Some(Standing::Parked) => {
            Source::Parked(ParkedFilter { rule: query.rule, plugin: query.plugin, ..ParkedFilter::default() })
        }
        state => {
            let state = state.and_then(left_so);
            Source::All(RunQuery { rule: query.rule, plugin: query.plugin, state, ..RunQuery::default() })
        }
    };
    page_of(&api, &caller, LIST, source, query.state, query.after.as_deref(), limit).await.map(Json)
}

/// The runs of the events with an id, as far as they are wanted; there are so few that no page is needed.
async fn of_event(api: &Api, tenant: TenantId, id: &str, query: &Query) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut events = api.store.events_by_id(tenant, id).await?;
    events.retain(|logged| query.source.as_ref().is_none_or(|source| logged.event.source == *source));
    for logged in events {
        let wanted = RunQuery {
            position: Some(logged.position),
            rule: query.rule.clone(),
            plugin: query.plugin.clone(),
            limit: page::LIMIT_MAX,
            ..RunQuery::default()
        };
        let views = api.store.runs(tenant, &wanted).await?;
        let fitting = views.iter().filter(|view| query.state.is_none_or(|state| standing(view) == state));
        runs.extend(fitting.filter_map(Run::of));
    }
    Ok(runs)
}

/// Where runs come from.
pub enum Source {
    /// All, by query.
    All(RunQuery),
    /// Those that are parked.
    Parked(ParkedFilter),
}

impl Source {
    /// The next ones, newest event first and rules backwards; never a part of an event's runs.
    async fn read(&self, api: &Api, tenant: TenantId, before: Option<Position>, limit: u32) -> Result<Vec<RunView>> {
        let found = match self {
            Self::All(query) => api.store.runs(tenant, &RunQuery { before, limit, ..query.clone() }).await,
            Self::Parked(filter) => api.store.parked(tenant, filter, before, limit).await,
        };
        Ok(found?)
    }
}

/// A page of runs. The store knows how the last attempt ended; what a run waits for is looked at here.
pub async fn page_of(
    api: &Api,
    caller: &Caller<Read>,
    list: &str,
    source: Source,
    state: Option<Standing>,
    after: Option<&str>,
    limit: u32,
) -> Result<Page<Run>> {
    let after = after.map(|cursor| read_place(&api.cursors.read(caller.uid(), list, cursor)?)).transpose()?;
    let write = |place: &Place| api.cursors.write(caller.uid(), list, &write_place(place));
    let mut before = after.as_ref().map(|(position, _)| Position(position.0.saturating_add(1)));
    let (mut items, mut last, mut looked) = (Vec::new(), None, 0);
    loop {
        // One more than is wanted says whether there is a next page.
        let chunk = limit.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX)).saturating_add(1).min(CHUNK);
        let views = source.read(api, caller.id(), before, chunk).await?;
        let Some(end) = views.last().and_then(place) else { return Ok(Page { items, next: None }) };
        for view in &views {
            let (Some(run), Some(place)) = (Run::of(view), place(view)) else { continue };
            let is_before = after.as_ref().is_some_and(|after| place >= *after);
            if is_before || state.is_some_and(|state| state != run.state) {
                continue;
            }
            if items.len() == limit as usize {
                return Ok(Page { items, next: last.as_ref().map(write) });
            }
            items.push(run);
            last = Some(place);
        }
        looked += views.len();
        before = Some(end.0);
        if looked >= LOOKED_MAX {
            // Nothing of this event is left.
            return Ok(Page { items, next: Some(write(&(end.0, String::new()))) });
        }
    }
}

/// A place in a list of runs: its event's position, and its rule.
type Place = (Position, String);

fn place(view: &RunView) -> Option<Place> {
    let record = view.record.as_ref().map(|record| (record.position, record.rule.clone()));
    record.or_else(|| view.unfinished.as_ref().map(|run| (run.position, run.rule.clone())))
}

fn write_place((position, rule): &Place) -> Vec<u8> {
    let mut bytes = position.0.to_be_bytes().to_vec();
    bytes.extend_from_slice(rule.as_bytes());
    bytes
}

fn read_place(bytes: &[u8]) -> Result<Place> {
    let place = bytes.split_first_chunk::<8>().and_then(|(position, rule)| {
        let rule = String::from_utf8(rule.to_vec()).ok()?;
        Some((Position(i64::from_be_bytes(*position)), rule))
    });
    place.ok_or_else(|| Problem::new(Code::CursorInvalid, "the cursor is of another list"))
}

/// One attempt of a run.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Attempt {
    /// Which, from 1; counted anew after a redrive.
    attempt: u32,
    /// How it left the run.
    state: Standing,
    /// The rule set that it ran under.
    rule_set: i64,
    /// The plugin of its last plugin step.
    plugin: Option<String>,
    /// That plugin's version.
    version: Option<u32>,
    /// The failure's code; empty if there was none.
    code: String,
    /// The failure's reason.
    reason: String,
    /// Fuel used.
    fuel: u64,
    /// Time in plugins, in microseconds.
    duration_us: u64,
    /// Effects committed with it.
    effects: u32,
    /// When it ended.
    ended: String,
    /// What its plugins wrote.
    #[schema(value_type = Vec<Object>)]
    logs: Vec<LogLine>,
}

impl From<RunRecord> for Attempt {
    fn from(record: RunRecord) -> Self {
        Self {
            attempt: record.attempt,
            state: left(record.state),
            rule_set: record.rule_set,
            version: record.plugin.as_ref().map(|(_, version)| *version),
            duration_us: micros(&record),
            plugin: record.plugin.map(|(name, _)| name),
            code: record.code,
            reason: record.reason,
            fuel: record.fuel,
            effects: record.effects,
            ended: rfc3339(record.ended),
            logs: record.logs,
        }
    }
}

/// A run with all its attempts.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RunWithHistory {
    #[serde(flatten)]
    run: Run,
    /// Every attempt that ended, oldest first.
    history: Vec<Attempt>,
}

/// One run with all its attempts.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}",
    tag = "runs",
    summary = "A run",
    params(("id" = String, Path, description = "The run's id")),
    responses(
        (status = 200, description = "The run", body = RunWithHistory),
        (status = 404, description = "There is no such run", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn show(
    State(api): State<Api>,
    caller: Caller<Read>,
    Path(id): Path<String>,
) -> Result<Json<RunWithHistory>> {
    let missing = || Problem::not_found("run", &id);
    let name = RunId::parse(&id).ok_or_else(missing)?;
    let logged = api.store.event_by_key(caller.id(), name.event).await?.ok_or_else(missing)?;
    let query = RunQuery { position: Some(logged.position), limit: page::LIMIT_MAX, ..RunQuery::default() };
    let views = api.store.runs(caller.id(), &query).await?;
    let run = views.iter().filter_map(Run::of).find(|run| run.id == id).ok_or_else(missing)?;
    let history = api.store.attempts(caller.id(), name).await?.into_iter().map(Attempt::from).collect();
    Ok(Json(RunWithHistory { run, history }))
}

/// What an attempt's plugins wrote.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AttemptLogs {
    /// Which attempt.
    attempt: u32,
    /// How it left the run.
    state: Standing,
    /// When it ended.
    ended: String,
    /// The lines.
    #[schema(value_type = Vec<Object>)]
    logs: Vec<LogLine>,
}

/// What plugins wrote to the log in a run's attempts, oldest first.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}/logs",
    tag = "runs",
    summary = "A run's logs",
    params(("id" = String, Path, description = "The run's id")),
    responses(
        (status = 200, description = "The lines of each attempt", body = Page<AttemptLogs>),
        (status = 404, description = "There is no such run", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn logs(
    State(api): State<Api>,
    caller: Caller<Read>,
    Path(id): Path<String>,
) -> Result<Json<Page<AttemptLogs>>> {
    let missing = || Problem::not_found("run", &id);
    let name = RunId::parse(&id).ok_or_else(missing)?;
    let attempts = api.store.attempts(caller.id(), name).await?;
    if attempts.is_empty() {
        // One that has not begun has no attempts, yet it is there.
        let logged = api.store.event_by_key(caller.id(), name.event).await?.ok_or_else(missing)?;
        let query = RunQuery { position: Some(logged.position), limit: page::LIMIT_MAX, ..RunQuery::default() };
        let views = api.store.runs(caller.id(), &query).await?;
        views.iter().filter_map(Run::of).find(|run| run.id == id).ok_or_else(missing)?;
    }
    let items = attempts.into_iter().map(|record| AttemptLogs {
        attempt: record.attempt,
        state: left(record.state),
        ended: rfc3339(record.ended),
        logs: record.logs,
    });
    Ok(Json(Page::whole(items.collect())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bulkhead_domain::clock::Timestamp;
    use bulkhead_domain::event::Lineage;
    use bulkhead_domain::id::EventKey;
    use bulkhead_store::work::Unfinished;

    use super::*;

    fn record(state: RunState) -> RunRecord {
        RunRecord {
            position: Position(7),
            event: EventKey::of("/s", "1"),
            rule: "flag".into(),
            rule_set: 3,
            plugin: Some(("score".into(), 2)),
            state,
            attempt: 2,
            code: "plugin:reject".into(),
            reason: "a total below zero".into(),
            fuel: 100,
            duration: Duration::from_micros(250),
            ended: Timestamp(0),
            effects: 0,
            logs: vec![],
        }
    }

    fn unfinished(waiting: Waiting) -> Unfinished {
        Unfinished {
            position: Position(7),
            event: EventKey::of("/s", "1"),
            rule: "flag".into(),
            key: Some("k".into()),
            waiting,
            attempts: 0,
            code: String::new(),
            reason: String::new(),
            plugin: None,
            lineage: Lineage { hops: 0, budget: 0 },
            rule_set: 3,
            since: Timestamp(0),
            updated: Timestamp(0),
            pins: std::collections::BTreeMap::new(),
        }
    }

    fn view(record: Option<RunRecord>, unfinished: Option<Unfinished>) -> RunView {
        RunView { event_id: "1".into(), recorded: Timestamp(0), record, unfinished }
    }

    #[test]
    fn a_run_stands_where_it_waits_else_where_its_last_attempt_left_it() {
        let state = |view: &RunView| Run::of(view).map(|run| run.state);
        assert_eq!(state(&view(Some(record(RunState::Done)), None)), Some(Standing::Done));
        assert_eq!(state(&view(Some(record(RunState::Dropped)), None)), Some(Standing::Dropped));
        let redriven = view(Some(record(RunState::Parked)), Some(unfinished(Waiting::Retry(Timestamp(0)))));
        assert_eq!(state(&redriven), Some(Standing::Retrying));
        assert_eq!(state(&view(None, Some(unfinished(Waiting::Blocked)))), Some(Standing::Blocked));
        assert_eq!(state(&view(None, Some(unfinished(Waiting::Held)))), Some(Standing::Held));
        assert_eq!(state(&view(None, None)), None);
    }

    #[test]
    fn an_item_has_the_fields_that_scripts_read() {
        let parked =
            view(Some(record(RunState::Parked)), Some(Unfinished { attempts: 2, ..unfinished(Waiting::Parked) }));
        let run = Run::of(&parked).expect("because it has a record");
        let json = serde_json::to_value(&run).expect("because it is plain data");
        let id = RunId::of(EventKey::of("/s", "1"), "flag").to_string();
        for (name, value) in [
            ("id", serde_json::json!(id)),
            ("event", "1".into()),
            ("rule", "flag".into()),
            ("plugin", "score".into()),
            ("version", 2.into()),
            ("state", "parked".into()),
            ("attempts", 2.into()),
            ("code", "plugin:reject".into()),
            ("reason", "a total below zero".into()),
            ("fuel", 100.into()),
            ("duration_us", 250.into()),
        ] {
            assert_eq!(json[name], value, "{name}");
        }
    }
}
