//! Usage: what the tenant used, by day, plugin and rule.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use bulkhead_store::usage::UsageLine;
use serde::Deserialize;
use serde::Serialize;
use utoipa::IntoParams;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::code::Code;
use crate::api::extract::Caller;
use crate::api::extract::Params;
use crate::api::extract::Read;
use crate::api::problem::Document;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::api::time;

/// Days of a statement, if the caller does not say; and the most.
const DAYS: i64 = 30;
const DAYS_MAX: i64 = 366;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(statement))
}

/// Which days.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// The first day, like 2026-01-31 (default: 30 days up to the last).
    from: Option<String>,
    /// The last day (default: today). Days are those of UTC.
    to: Option<String>,
}

/// What was used.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Used {
    /// Events accepted from outside.
    events: u64,
    /// Attempts.
    attempts: u64,
    /// Runs done.
    done: u64,
    /// Attempts that failed.
    failed: u64,
    /// Fuel.
    fuel: u64,
    /// Time in plugins, in microseconds.
    duration_us: u64,
    /// Events emitted.
    emitted: u64,
    /// Deliveries made.
    deliveries: u64,
    /// What plugins counted themselves, by unit.
    units: BTreeMap<String, f64>,
}

impl Used {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.attempts += other.attempts;
        self.done += other.done;
        self.failed += other.failed;
        self.fuel = self.fuel.saturating_add(other.fuel);
        self.duration_us = self.duration_us.saturating_add(other.duration_us);
        self.emitted += other.emitted;
        self.deliveries += other.deliveries;
        for (unit, amount) in &other.units {
            *self.units.entry(unit.clone()).or_default() += amount;
        }
    }
}

/// A line of a statement.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = UsageLine)]
pub struct Line {
    /// The day.
    day: String,
    /// The plugin; empty for what no plugin used.
    plugin: String,
    /// The rule; empty for events accepted from outside.
    rule: String,
    #[serde(flatten)]
    used: Used,
}

impl From<UsageLine> for Line {
    fn from(line: UsageLine) -> Self {
        Self {
            day: time::day(line.day),
            plugin: line.plugin,
            rule: line.rule,
            used: Used {
                events: line.events,
                attempts: line.attempts,
                done: line.done,
                failed: line.failed,
                fuel: line.fuel,
                duration_us: line.micros,
                emitted: line.emitted,
                deliveries: line.deliveries,
                units: line.units,
            },
        }
    }
}

/// What was used in some days.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = UsageStatement)]
pub struct Statement {
    /// The first day.
    from: String,
    /// The last day.
    to: String,
    /// A line per day, plugin and rule, oldest first.
    items: Vec<Line>,
    /// All lines together.
    total: Used,
}

/// What the tenant used, by day, plugin and rule.
#[utoipa::path(
    get,
    path = "/v1/usage",
    tag = "usage",
    summary = "Usage statement",
    params(Query),
    responses(
        (status = 200, description = "The statement", body = Statement),
        (status = "4XX", description = "The query is not valid", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn statement(
    State(api): State<Api>,
    caller: Caller<Read>,
    Params(query): Params<Query>,
) -> Result<Json<Statement>> {
    let (from, to) = days(&query, api.now().day())?;
    let lines = api.store.usage(caller.id(), from, to).await?;
    let items: Vec<Line> = lines.into_iter().map(Line::from).collect();
    let mut total = Used::default();
    items.iter().for_each(|line| total.add(&line.used));
    Ok(Json(Statement { from: time::day(from), to: time::day(to), items, total }))
}

fn days(query: &Query, today: i64) -> Result<(i64, i64)> {
    let from = query.from.as_deref().map(|text| time::parse_day("from", text)).transpose()?;
    let to = query.to.as_deref().map(|text| time::parse_day("to", text)).transpose()?.unwrap_or(today);
    let from = from.unwrap_or(to - DAYS + 1);
    let wrong = |detail: String| Err(Problem::new(Code::QueryInvalid, detail));
    match to - from + 1 {
        ..1 => wrong(format!("`from` ({}) is after `to` ({})", time::day(from), time::day(to))),
        count @ 1..=DAYS_MAX => Ok((to - count + 1, to)),
        count => wrong(format!("{count} days are asked for; a statement covers at most {DAYS_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_defaults_and_bounds() {
        let today = 20_000;
        let ask = |from: Option<&str>, to: Option<&str>| {
            days(&Query { from: from.map(str::to_owned), to: to.map(str::to_owned) }, today)
        };
        assert_eq!(ask(None, None).expect("because it is right"), (today - 29, today));
        assert_eq!(ask(Some("1970-01-02"), Some("1970-01-02")).expect("because it is right"), (1, 1));
        for (from, to) in [(Some("1970-01-03"), Some("1970-01-02")), (Some("1970-01-01"), None), (Some("x"), None)] {
            assert_eq!(ask(from, to).expect_err("because it is wrong").code, Code::QueryInvalid);
        }
    }
}
