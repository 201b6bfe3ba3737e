//! Rules: one by one or as a whole set; every change makes a new, numbered rule set, and each can be restored.
//!
//! What is saved is checked as a whole: names of plugins and sinks, the number of rules, and cycles of the set that would
//! come of it. `If-Match` with a rule set's number refuses a change that does not know the present one.

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::time::Duration;
use std::time::Instant;

use axum::Json;
use axum::body::Body as RequestBody;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use bulkhead_domain::event::Logged;
use bulkhead_domain::rule::Diagnostic;
use bulkhead_domain::rule::cycle;
use bulkhead_domain::rule::definition::Rule;
use bulkhead_domain::rule::definition::is_name;
use bulkhead_domain::rule::document;
use bulkhead_domain::rule::document::Names;
use bulkhead_domain::rule::document::RULES_MAX;
use bulkhead_domain::rule::explain::Explanation;
use bulkhead_domain::rule::explain::explain;
use bulkhead_domain::rule::scope::Scope;
use bulkhead_flow::inbox::codec::rfc3339;
use bulkhead_store::catalogue::RuleSetRow;
use bulkhead_store::log::EventQuery;
use bulkhead_store::work::Held;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::body;
use crate::api::code::Code;
use crate::api::extract::Caller;
use crate::api::extract::Params;
use crate::api::extract::Path;
use crate::api::extract::Read;
use crate::api::extract::Rules;
use crate::api::extract::media_type;
use crate::api::extract::shown;
use crate::api::page;
use crate::api::page::Page;
use crate::api::page::Paging;
use crate::api::problem::Fault;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;

/// Past events that a new or changed rule is tried on, for warnings and previews.
const LOOK_BACK: u32 = 1_000;
/// The longest that rules are tried on past events: a condition on many events can be made to take hours.
const TRYING: Duration = Duration::from_secs(3);
/// Events that a preview explains.
const EXPLAINED: usize = 20;
/// How often a change is made again on top of somebody else's, if it does not say which one it knows.
const ATTEMPTS: usize = 8;
/// The longest note of a change.
const NOTE_MAX: usize = 256;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, put_set))
        .routes(routes!(preview))
        .routes(routes!(show, put, delete))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(history))
        .routes(routes!(show_set))
        .routes(routes!(restore))
}

/// A rule, with where its switch stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rule)]
pub struct RuleView {
    /// The rule's document.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    document: Value,
    /// Whether its runs are held.
    paused: bool,
    /// Its name, again, for paging.
    #[serde(skip)]
    name: String,
}

/// What a change led to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Saved {
    /// The number of the rule set that is the present one now.
    rule_set: i64,
    /// Odd, but not wrong.
    warnings: Vec<Fault>,
}

/// A numbered set of rules.
#[derive(Debug, Serialize, ToSchema)]
pub struct RuleSetView {
    /// Its number.
    rule_set: i64,
    /// Who made it: a key's id.
    author: String,
    /// Why.
    note: String,
    /// When.
    created: String,
    /// How many rules it has.
    count: usize,
    /// The rules; only where one set is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    rules: Option<Vec<Value>>,
}

impl RuleSetView {
    fn new(row: &RuleSetRow, whole: bool) -> Result<Self> {
        let rules = documents(row)?;
        Ok(Self {
            rule_set: row.number,
            author: row.author.clone(),
            note: row.note.clone(),
            created: rfc3339(row.created),
            count: rules.len(),
            rules: whole.then_some(rules),
        })
    }
}

fn documents(row: &RuleSetRow) -> Result<Vec<Value>> {
    serde_json::from_str(&row.rules).map_err(|error| Problem::internal(&error))
}

fn stored(row: &RuleSetRow) -> Result<Vec<Rule>> {
    let documents = documents(row)?;
    documents.iter().map(|one| Rule::from_stored(one).map_err(|error| Problem::internal(&error))).collect()
}

fn tagged(number: i64, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{number}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// All rules, by name. `ETag` is the number of the rule set.
#[utoipa::path(
    get, path = "/v1/rules", tag = "rules", summary = "All rules", params(Paging),
    responses((status = 200, description = "A page of rules", body = Page<RuleView>))
)]
async fn list(State(api): State<Api>, caller: Caller<Read>, Params(paging): Params<Paging>) -> Result<Response> {
    let snapshot = api.store.snapshot(caller.id()).await?;
    let paused: HashSet<String> = snapshot.paused_rules.into_iter().collect();
    let mut rules: Vec<RuleView> =
        documents(&snapshot.rule_set)?.into_iter().map(|document| view(document, &paused)).collect();
    rules.sort_by(|one, other| one.name.cmp(&other.name));
    let page = page::of_names(&api, caller.uid(), "rules", &paging, rules, |rule: &RuleView| &rule.name)?;
    Ok(tagged(snapshot.rule_set.number, Json(page)))
}

fn view(document: Value, paused: &HashSet<String>) -> RuleView {
    let name = document.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    RuleView { paused: paused.contains(&name), name, document }
}

/// One rule.
#[utoipa::path(
    get, path = "/v1/rules/{name}", tag = "rules", summary = "One rule",
    params(("name" = String, Path, description = "The rule's name")),
    responses((status = 200, description = "The rule", body = RuleView), (status = 404, description = "No such rule"))
)]
async fn show(State(api): State<Api>, caller: Caller<Read>, Path(name): Path<String>) -> Result<Response> {
    let snapshot = api.store.snapshot(caller.id()).await?;
    let paused: HashSet<String> = snapshot.paused_rules.into_iter().collect();
    let rules = documents(&snapshot.rule_set)?.into_iter().map(|document| view(document, &paused));
    let rule = rules.into_iter().find(|rule| rule.name == name).ok_or_else(|| Problem::not_found("rule", &name))?;
    Ok(tagged(snapshot.rule_set.number, Json(rule)))
}

/// What a change is to note.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Note {
    /// Why, for the history.
    note: Option<String>,
}

impl Note {
    fn text(&self) -> Result<&str> {
        let text = self.note.as_deref().unwrap_or_default();
        if text.len() > NOTE_MAX || text.chars().any(char::is_control) {
            let detail = format!("`note` is not one line of at most {NOTE_MAX} bytes");
            return Err(Problem::new(Code::QueryInvalid, detail));
        }
        Ok(text)
    }
}

/// Adds or replaces one rule, as YAML or JSON.
#[utoipa::path(
    put, path = "/v1/rules/{name}", tag = "rules", summary = "Add or replace a rule", request_body(content = String, content_type = "application/yaml"),
    params(("name" = String, Path, description = "The rule's name"), Note, ("If-Match" = Option<String>, Header, description = "The rule set that the change builds on")),
    responses((status = 200, description = "The new rule set", body = Saved), (status = 412, description = "Another change came first"), (status = 422, description = "The rule is not valid"))
)]
async fn put(
    State(api): State<Api>,
    caller: Caller<Rules>,
    Path(name): Path<String>,
    Params(note): Params<Note>,
    headers: HeaderMap,
    content: RequestBody,
) -> Result<Response> {
    if !is_name(&name) {
        return Err(Problem::new(Code::FieldInvalid, format!("`{}` is no name of a rule", shown(&name)))
            .hint("small letters, digits and dashes, at most 64, beginning with a letter"));
    }
    let text = text(&api, &headers, content).await?;
    let known = Known::read(&api, &caller).await?;
    let document::Checked { value: rule, warnings } =
        document::parse_as(&name, &text, &known.names()).map_err(|faults| invalid(&faults))?;
    let unseen = unseen(&api, &caller, std::slice::from_ref(&rule)).await?;
    let change = Change { expected: if_match(&headers)?, note: note.text()?, warnings, unseen };
    save(&api, &caller, change, |mut rules| {
        match rules.iter_mut().find(|other| other.name() == name) {
            Some(other) => *other = rule.clone(),
            None => rules.push(rule.clone()),
        }
        Ok(rules)
    })
    .await
}

/// Removes a rule. Its unfinished runs are parked as they come up; nothing is lost.
#[utoipa::path(
    delete, path = "/v1/rules/{name}", tag = "rules", summary = "Remove a rule",
    params(("name" = String, Path, description = "The rule's name"), Note, ("If-Match" = Option<String>, Header, description = "The rule set that the change builds on")),
    responses((status = 200, description = "The new rule set", body = Saved), (status = 404, description = "No such rule"))
)]
async fn delete(
    State(api): State<Api>,
    caller: Caller<Rules>,
    Path(name): Path<String>,
    Params(note): Params<Note>,
    headers: HeaderMap,
) -> Result<Response> {
    let change = Change { expected: if_match(&headers)?, note: note.text()?, warnings: Vec::new(), unseen: Vec::new() };
    save(&api, &caller, change, |mut rules| {
        let before = rules.len();
        rules.retain(|rule| rule.name() != name);
        if rules.len() == before { Err(Problem::not_found("rule", &name)) } else { Ok(rules) }
    })
    .await
}

/// Replaces all rules by a set: `rules: […]`, a list, or several YAML documents.
#[utoipa::path(
    put, path = "/v1/rules", tag = "rules", summary = "Replace all rules", request_body(content = String, content_type = "application/yaml"),
    params(Note, ("If-Match" = Option<String>, Header, description = "The rule set that the change builds on")),
    responses((status = 200, description = "The new rule set", body = Saved), (status = 412, description = "Another change came first"), (status = 422, description = "A rule is not valid"))
)]
async fn put_set(
    State(api): State<Api>,
    caller: Caller<Rules>,
    Params(note): Params<Note>,
    headers: HeaderMap,
    content: RequestBody,
) -> Result<Response> {
    let text = text(&api, &headers, content).await?;
    let known = Known::read(&api, &caller).await?;
    let document::Checked { value: rules, warnings } =
        document::parse_set(&text, &known.names()).map_err(|faults| invalid(&faults))?;
    let unseen = unseen(&api, &caller, &rules).await?;
    let change = Change { expected: if_match(&headers)?, note: note.text()?, warnings, unseen };
    save(&api, &caller, change, |_| Ok(rules.clone())).await
}

/// Holds a rule's runs. Its switch is no part of the rule set: undoing an edit does not undo a pause.
#[utoipa::path(
    post, path = "/v1/rules/{name}/pause", tag = "rules", summary = "Pause a rule",
    params(("name" = String, Path, description = "The rule's name")),
    responses((status = 204, description = "It is paused"), (status = 404, description = "No such rule"))
)]
async fn pause(State(api): State<Api>, caller: Caller<Rules>, Path(name): Path<String>) -> Result<StatusCode> {
    let present = stored(&api.store.rules(caller.id()).await?)?;
    if !present.iter().any(|rule| rule.name() == name) {
        return Err(Problem::not_found("rule", &name));
    }
    api.store.pause_rule(caller.id(), &name, true).await?;
    api.changed(caller.id()).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets held runs go on, in order.
#[utoipa::path(
    post, path = "/v1/rules/{name}/resume", tag = "rules", summary = "Resume a rule",
    params(("name" = String, Path, description = "The rule's name")),
    responses((status = 204, description = "It goes on"), (status = 404, description = "No such rule, and none of this name is paused"))
)]
async fn resume(State(api): State<Api>, caller: Caller<Rules>, Path(name): Path<String>) -> Result<StatusCode> {
    let snapshot = api.store.snapshot(caller.id()).await?;
    let is_paused = snapshot.paused_rules.contains(&name);
    if !is_paused && !stored(&snapshot.rule_set)?.iter().any(|rule| rule.name() == name) {
        return Err(Problem::not_found("rule", &name));
    }
    api.store.pause_rule(caller.id(), &name, false).await?;
    api.store.resume_held(caller.id(), &Held::Rule(name), api.now()).await?;
    api.changed(caller.id()).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Rule sets, newest first.
#[utoipa::path(
    get, path = "/v1/rule-sets", tag = "rules", summary = "The history of rules", params(Paging),
    responses((status = 200, description = "A page of rule sets", body = Page<RuleSetView>))
)]
async fn history(
    State(api): State<Api>,
    caller: Caller<Read>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<RuleSetView>>> {
    let limit = page::limit(paging.limit)?;
    let before = paging
        .after
        .as_deref()
        .map(|cursor| api.cursors.read_position(caller.uid(), "rule-sets", cursor).map(|position| position.0));
    let mut rows = api.store.rule_sets(caller.id(), before.transpose()?, limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let last = rows.last().filter(|_| more).map(|row| bulkhead_domain::id::Position(row.number));
    let next = last.map(|last| api.cursors.write_position(caller.uid(), "rule-sets", last));
    let items = rows.iter().map(|row| RuleSetView::new(row, false)).collect::<Result<_>>()?;
    Ok(Json(Page { items, next }))
}

/// One rule set with its rules.
#[utoipa::path(
    get, path = "/v1/rule-sets/{number}", tag = "rules", summary = "One rule set",
    params(("number" = i64, Path, description = "Its number")),
    responses((status = 200, description = "The rule set", body = RuleSetView), (status = 404, description = "No such rule set"))
)]
async fn show_set(State(api): State<Api>, caller: Caller<Read>, Path(number): Path<i64>) -> Result<Json<RuleSetView>> {
    let row = api.store.rule_set(caller.id(), number).await?;
    let row = row.ok_or_else(|| Problem::not_found("rule set", &number.to_string()))?;
    RuleSetView::new(&row, true).map(Json)
}

/// Makes a past rule set the present one, under a new number.
#[utoipa::path(
    post, path = "/v1/rule-sets/{number}/restore", tag = "rules", summary = "Restore a rule set",
    params(("number" = i64, Path, description = "Its number"), ("If-Match" = Option<String>, Header, description = "The rule set that the change builds on")),
    responses((status = 200, description = "The new rule set", body = Saved), (status = 404, description = "No such rule set"))
)]
async fn restore(
    State(api): State<Api>,
    caller: Caller<Rules>,
    Path(number): Path<i64>,
    headers: HeaderMap,
) -> Result<Response> {
    let row = api.store.rule_set(caller.id(), number).await?;
    let row = row.ok_or_else(|| Problem::not_found("rule set", &number.to_string()))?;
    let rules = stored(&row)?;
    let known = Known::read(&api, &caller).await?;
    let unseen = known.missing(&rules);
    let note = format!("restored from {number}");
    let change = Change { expected: if_match(&headers)?, note: &note, warnings: Vec::new(), unseen };
    save(&api, &caller, change, |_| Ok(rules.clone())).await
}

/// What a preview is about.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PreviewQuery {
    /// The last so many events (default and most: 1000).
    events: Option<u32>,
}

/// What rules would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct Preview {
    /// Past events that were looked at.
    events: usize,
    /// One entry for each rule.
    rules: Vec<PreviewedRule>,
    /// Odd, but not wrong.
    warnings: Vec<Fault>,
}

/// What one rule would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewedRule {
    /// Its name.
    rule: String,
    /// Events that it would match.
    matched: usize,
    /// Events that the present rule of this name matches; none if there is no such rule.
    matched_now: Option<usize>,
    /// The newest of these events, and why each matches or does not.
    explained: Vec<Explained>,
}

/// Why a rule matches an event or does not.
#[derive(Debug, Serialize, ToSchema)]
pub struct Explained {
    /// The event's id.
    event: String,
    /// The event's type.
    #[serde(rename = "type")]
    kind: String,
    /// What every condition says.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    explanation: Explanation,
}

/// Tries rules (YAML or JSON, one or several) on the last events. Nothing is saved, nothing runs.
#[utoipa::path(
    post, path = "/v1/rules/preview", tag = "rules", summary = "Preview rules", request_body(content = String, content_type = "application/yaml"),
    params(PreviewQuery),
    responses((status = 200, description = "What the rules would match", body = Preview), (status = 422, description = "A rule is not valid"))
)]
async fn preview(
    State(api): State<Api>,
    caller: Caller<Read>,
    Params(query): Params<PreviewQuery>,
    headers: HeaderMap,
    content: RequestBody,
) -> Result<Json<Preview>> {
    let count = query.events.unwrap_or(LOOK_BACK);
    if !(1..=LOOK_BACK).contains(&count) {
        let detail = format!("`events` is {count}; it must be from 1 to {LOOK_BACK}");
        return Err(Problem::new(Code::QueryInvalid, detail));
    }
    let text = text(&api, &headers, content).await?;
    let known = Known::read(&api, &caller).await?;
    let document::Checked { value: rules, warnings } =
        document::parse_set(&text, &known.names()).map_err(|faults| invalid(&faults))?;
    let present = stored(&api.store.rules(caller.id()).await?)?;
    let past = past(&api, &caller, count).await?;
    let tenant = caller.tenant.name.clone();
    let trial = api.trials.begin(caller.id()).await.ok_or_else(|| {
        Problem::new(Code::Busy, "other rules are being tried on past events").retry_after(Duration::from_secs(2))
    })?;
    // Explaining is work for the processor, not for the threads that serve others.
    let preview = tokio::task::spawn_blocking(move || {
        let _trial = trial;
        let until = Instant::now() + TRYING;
        let rules = rules.iter().map(|rule| previewed(rule, &present, &past, &tenant, until));
        Some(Preview {
            events: past.len(),
            rules: rules.collect::<Option<_>>()?,
            warnings: warnings.into_iter().map(Fault::from).collect(),
        })
    });
    let preview = preview.await.map_err(|error| Problem::internal(&error))?;
    preview.map(Json).ok_or_else(|| {
        let detail = format!("trying the rules on {count} events takes longer than {} s", TRYING.as_secs());
        Problem::new(Code::RuleInvalid, detail).hint("try fewer rules at a time, or fewer events with `?events=`")
    })
}

/// None if it would go on after `until`.
fn previewed(rule: &Rule, present: &[Rule], past: &[Logged], tenant: &str, until: Instant) -> Option<PreviewedRule> {
    let explain = |rule: &Rule, logged: &Logged| {
        (Instant::now() < until).then(|| explain(rule, &Scope::new(&logged.event, tenant)))
    };
    let matches = |rule: &Rule| {
        let mut count = 0;
        for logged in past {
            count += usize::from(explain(rule, logged)?.matched);
        }
        Some(count)
    };
    let explained = past.iter().take(EXPLAINED).map(|logged| {
        Some(Explained {
            event: logged.event.id.clone(),
            kind: logged.event.kind.clone(),
            explanation: explain(rule, logged)?,
        })
    });
    let now = present.iter().find(|other| other.name() == rule.name());
    Some(PreviewedRule {
        rule: rule.name().to_owned(),
        matched: matches(rule)?,
        matched_now: match now {
            Some(now) => Some(matches(now)?),
            None => None,
        },
        explained: explained.collect::<Option<_>>()?,
    })
}

/// What rules may refer to.
struct Known {
    plugins: BTreeSet<String>,
    sinks: BTreeSet<String>,
}

impl Known {
    async fn read<N>(api: &Api, caller: &Caller<N>) -> Result<Self> {
        let plugins = api.store.plugins(caller.id()).await?;
        let sinks = api.store.sinks(caller.id()).await?;
        Ok(Self {
            plugins: plugins.into_iter().map(|(plugin, _)| plugin.name).collect(),
            sinks: sinks.into_iter().map(|sink| sink.name).collect(),
        })
    }

    fn names(&self) -> Names<'_> {
        Names { plugins: &self.plugins, sinks: &self.sinks }
    }

    /// What restored rules refer to and is not there any more: their runs would park.
    fn missing(&self, rules: &[Rule]) -> Vec<Fault> {
        let mut missing = Vec::new();
        for rule in rules {
            let plugins = rule.plugins().filter(|name| !self.plugins.contains(*name)).map(|name| ("plugin", name));
            let sinks = rule.sinks().filter(|name| !self.sinks.contains(*name)).map(|name| ("sink", name));
            missing.extend(plugins.chain(sinks).map(|(what, name)| {
                Fault::field(rule.name(), format!("there is no {what} `{name}` any more; runs of this rule are parked"))
            }));
        }
        missing
    }
}

async fn text(api: &Api, headers: &HeaderMap, content: RequestBody) -> Result<String> {
    let media = media_type(headers);
    let taken = ["", "application/yaml", "application/x-yaml", "text/yaml", "application/json", "text/plain"];
    if !taken.contains(&media.as_str()) {
        return Err(Problem::new(Code::MediaType, format!("`{}` is not taken here", shown(&media)))
            .hint("send application/yaml or application/json"));
    }
    let bytes = body::read(headers, content, api.limits.document_bytes).await?;
    String::from_utf8(bytes.into()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problem::new(Code::BodyMalformed, format!("the rule is not UTF-8 text: byte {at} does not belong"))
    })
}

fn invalid(faults: &[Diagnostic]) -> Problem {
    let detail = match faults {
        [only] => only.message.clone(),
        many => format!("{} problems; the first: {}", many.len(), many.first().map_or("", |fault| &fault.message)),
    };
    Problem::new(Code::RuleInvalid, detail).faults(faults.iter().cloned())
}

/// The number in `If-Match`.
fn if_match(headers: &HeaderMap) -> Result<Option<i64>> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).parse();
    number.map(Some).map_err(|_| {
        Problem::new(Code::PreconditionFailed, "`If-Match` names no rule set")
            .hint("send the number of the rule set that the change builds on: the `ETag` of GET /v1/rules")
    })
}

/// The last events, newest first.
async fn past<N>(api: &Api, caller: &Caller<N>, limit: u32) -> Result<Vec<Logged>> {
    Ok(api.store.events(caller.id(), &EventQuery { limit, ..EventQuery::default() }).await?)
}

/// A rule none of whose events came lately is probably misspelt; that is worth saying, though it may be right.
async fn unseen<N>(api: &Api, caller: &Caller<N>, rules: &[Rule]) -> Result<Vec<Fault>> {
    let past = past(api, caller, LOOK_BACK).await?;
    if past.is_empty() {
        return Ok(Vec::new());
    }
    // A warning is worth no waiting in a crowd.
    let Some(trial) = api.trials.begin(caller.id()).await else { return Ok(Vec::new()) };
    let (rules, tenant) = (rules.to_vec(), caller.tenant.name.clone());
    let looked = tokio::task::spawn_blocking(move || {
        let _trial = trial;
        let scopes: Vec<Scope<'_>> = past.iter().map(|logged| Scope::new(&logged.event, &tenant)).collect();
        let until = Instant::now() + TRYING;
        rules.iter().filter(|rule| rule.enabled()).filter_map(|rule| never(rule, &scopes, until)).collect()
    });
    looked.await.map_err(|error| Problem::internal(&error))
}

/// What could not be looked at before `until` is not warned of.
fn never(rule: &Rule, scopes: &[Scope<'_>], until: Instant) -> Option<Fault> {
    if Instant::now() >= until {
        return None;
    }
    let of_type: Vec<_> =
        scopes.iter().filter(|scope| rule.on().iter().any(|glob| glob.matches(&scope.event().kind))).collect();
    let count = scopes.len();
    if of_type.is_empty() {
        let message = format!("rule `{}`: none of the last {count} events has a type of `on`", rule.name());
        return Some(Fault::field("on", message).hint("this is no problem if such events are still to come"));
    }
    if rule.pattern().is_none() && rule.condition().is_none() {
        return None;
    }
    let explained = of_type.iter().map(|scope| (Instant::now() < until).then(|| explain(rule, scope)));
    let explained: Vec<_> = explained.collect::<Option<_>>()?;
    if explained.iter().any(|explanation| explanation.matched) {
        return None;
    }
    let never_pattern = explained.iter().all(|one| one.pattern.as_ref().is_some_and(|finding| !finding.holds));
    let (path, last) = if never_pattern {
        ("match", explained.first().and_then(|one| one.fields.iter().find(|field| !field.holds)))
    } else {
        ("where", explained.first().and_then(|one| one.condition.as_ref()))
    };
    let message =
        format!("rule `{}`: `{path}` holds for none of the last {} events of its types", rule.name(), of_type.len());
    let fault = Fault::field(path, message);
    Some(match last {
        Some(finding) => fault.hint(format!("the newest one: {}", finding.detail)),
        None => fault,
    })
}

/// A change of the rules.
struct Change<'a> {
    /// The rule set that it builds on, if it says so.
    expected: Option<i64>,
    note: &'a str,
    warnings: Vec<Diagnostic>,
    unseen: Vec<Fault>,
}

/// Makes a new rule set of the present one. A change that does not say what it builds on is made again on top of
/// another's that came first.
async fn save(
    api: &Api,
    caller: &Caller<Rules>,
    change: Change<'_>,
    make: impl Fn(Vec<Rule>) -> Result<Vec<Rule>>,
) -> Result<Response> {
    for _ in 0..ATTEMPTS {
        let present = api.store.rules(caller.id()).await?;
        if let Some(expected) = change.expected
            && expected != present.number
        {
            return Err(outdated(present.number));
        }
        let rules = make(stored(&present)?)?;
        check(&rules)?;
        let documents: Vec<&Value> = rules.iter().map(Rule::document).collect();
        let text = serde_json::to_string(&documents).map_err(|error| Problem::internal(&error))?;
        let put = api.store.put_rules(caller.id(), present.number, &text, &caller.key, change.note, api.now()).await;
        match put {
            Ok(row) => {
                api.changed(caller.id()).await;
                let warnings = change.warnings.into_iter().map(Fault::from).chain(change.unseen).collect();
                return Ok(tagged(row.number, Json(Saved { rule_set: row.number, warnings })));
            }
            Err(bulkhead_store::Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::new(Code::Conflict, "the rules are changed by others all the time; try again"))
}

fn outdated(present: i64) -> Problem {
    Problem::new(
        Code::PreconditionFailed,
        format!("the rules have changed meanwhile: the present rule set is {present}"),
    )
    .hint("look at GET /v1/rules, make the change on top of that, and send its number in `If-Match`")
    .with("rule_set", present)
}

/// What holds for a set as a whole.
fn check(rules: &[Rule]) -> Result<()> {
    if rules.len() > RULES_MAX {
        let detail = format!("there would be {} rules; a tenant has at most {RULES_MAX}", rules.len());
        return Err(Problem::new(Code::RuleInvalid, detail));
    }
    let cycles = cycle::find(rules);
    let Some(first) = cycles.first() else { return Ok(()) };
    let faults = cycles.iter().map(|cycle| Fault::field("steps", cycle.to_string()));
    Err(Problem::new(Code::RuleInvalid, first.to_string())
        .hint("give one of them a `match` or a `where` that ends the circle")
        .faults(faults))
}
