//! How a candidate does beside the active version: what is compared, how far each guard is from biting, what comes next.

use serde_json::Value;
use serde_json::json;

use crate::cli::error::Result;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Output;
use crate::cli::value;
use crate::cli::value::at;
use crate::cli::value::number;

/// Of candidates among other things; they need [`with_share`].
pub const COLUMNS: &[Column] = &[
    ("CANDIDATE", "/kind", Cell::State),
    ("VERSION", "/version", Cell::Count),
    ("KEYS", "/share", Cell::Text),
    ("RUNS", "/candidate/runs", Cell::Count),
    ("FAILED", "/candidate/failed", Cell::Count),
    ("BY", "/author", Cell::Text),
    ("STARTED", "/started", Cell::Time),
];

const SIDES: &[Column] = &[
    ("ROLE", "/role", Cell::State),
    ("VERSION", "/version", Cell::Count),
    ("RUNS", "/runs", Cell::Count),
    ("FAILED", "/failed", Cell::Count),
    ("FUEL A RUN", "/fuel", Cell::Count),
    ("TIME A RUN", "/typical_micros", Cell::Micros),
];

const GUARDS: &[Column] = &[
    ("GUARD", "/guard", Cell::Text),
    ("NOW", "/found", Cell::Text),
    ("BITES ABOVE", "/limit", Cell::Text),
    ("USED", "/used", Cell::Text),
    ("JUDGED", "/judged", Cell::Text),
];

/// A candidate, with the part of the keys that it gets as a text.
pub fn with_share(mut candidate: Value) -> Value {
    let part = |side: u8| candidate.pointer(&format!("/key_hash/{side}")).and_then(Value::as_f64);
    if let (Some(from), Some(to)) = (part(0), part(1)) {
        candidate["share"] = percent((to - from) / 100.0).into();
    }
    candidate
}

/// Prints all there is to know of one under way.
pub fn print(name: &str, active: &Value, candidate: &Value) -> Result<()> {
    let candidate = with_share(candidate.clone());
    screen::line(&headline(name, active, &candidate))?;
    sides(&candidate, active)?;
    let guards = guards(&candidate);
    if !guards.is_empty() {
        screen::line("")?;
        screen::list(guards, Output::Table, GUARDS, "")?;
    }
    screen::note(&next(name, &candidate))
}

/// Prints what both versions came to.
pub fn sides(candidate: &Value, active: &Value) -> Result<()> {
    let side = |role: &str, version: &Value, place: &str| {
        let mut side = candidate.get(place).cloned().unwrap_or_default();
        // Fractions of fuel and of microseconds say nothing.
        for field in ["fuel", "typical_micros"] {
            side[field] = whole(&side[field]);
        }
        side["role"] = role.into();
        side["version"] = version.clone();
        side
    };
    let version = candidate.get("version").cloned().unwrap_or_default();
    let sides = vec![side("active", active, "active"), side(&at(candidate, "/kind"), &version, "candidate")];
    screen::list(sides, Output::Table, SIDES, "")?;
    if candidate.get("compared").is_some() {
        let of = |name: &str| value::count(number(candidate, &format!("/compared/{name}")));
        let (same, changed, failure, skipped) = (of("same"), of("changed"), of("new_failure"), of("skipped"));
        let text = format!("compared  {same} same, {changed} changed, {failure} new failures, {skipped} left out");
        screen::line(&Paint::stdout().bold(&text))?;
    }
    Ok(())
}

/// `plugin p: version 4 gets 10 % of the keys, version 3 the others; since 2026-01-31 12:00:00, begun by key_1`
fn headline(name: &str, active: &Value, candidate: &Value) -> String {
    let of = |field: &str| clean(&at(candidate, &format!("/{field}")));
    let (version, share) = (of("version"), of("share"));
    let active =
        if active.is_null() { "no active version".to_owned() } else { format!("version {}", value::text(active)) };
    let what = match of("kind").as_str() {
        "shadow" => {
            format!("version {version} runs beside {active} on {share} of the keys, and nothing of it is applied")
        }
        _ => format!("version {version} gets {share} of the keys, {active} the others"),
    };
    let since = candidate.get("started").map(value::time).unwrap_or_default();
    format!("plugin {name}: {what}; since {since}, begun by {}", of("author"))
}

/// Each guard: what it has found, above what it bites, and from when on.
fn guards(candidate: &Value) -> Vec<Value> {
    let Some(guard) = candidate.get("guard").filter(|guard| guard.is_object()) else { return Vec::new() };
    let figure = |pointer: &str| candidate.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    let limit = |name: &str| guard.get(name).and_then(Value::as_f64).unwrap_or_default();
    let rate = |side: &str| part(figure(&format!("/{side}/failed")), figure(&format!("/{side}/runs")));
    let ratio = |field: &str| part(figure(&format!("/candidate/{field}")), figure(&format!("/active/{field}")));
    let row = |name: &str, found: Option<f64>, limit: f64, show: fn(f64) -> String, judged: String| {
        let used = found.and_then(|found| part(found, limit)).map(percent_round);
        json!({"guard": name, "found": found.map(show), "limit": show(limit), "used": used, "judged": judged})
    };
    let (own, others) = (missing(candidate, "candidate"), missing(candidate, "active"));
    let later = |runs: u64, of: &str| format!("after {} more runs of the {of}", value::count(runs));
    let failures = match (own, rate("candidate"), rate("active")) {
        (0, Some(found), Some(usual)) if found > limit("max_failure_rate") && found <= usual => {
            "now; the active version fails as often".to_owned()
        }
        (0, ..) => "now".to_owned(),
        (own, ..) => later(own, "candidate"),
    };
    let ratios = match (own, others) {
        (0, 0) => "now".to_owned(),
        (0, others) => later(others, "active version"),
        (own, _) => later(own, "candidate"),
    };
    vec![
        row("failures", rate("candidate"), limit("max_failure_rate"), percent, failures),
        row("fuel", ratio("fuel"), limit("max_fuel_ratio"), times, ratios.clone()),
        row("time", ratio("typical_micros"), limit("max_latency_ratio"), times, ratios),
    ]
}

/// The runs of a side that are missing before it is judged.
fn missing(candidate: &Value, side: &str) -> u64 {
    number(candidate, "/guard/min_runs").max(1).saturating_sub(number(candidate, &format!("/{side}/runs")))
}

/// What can be done with it.
fn next(name: &str, candidate: &Value) -> String {
    if at(candidate, "/kind") == "shadow" {
        let version = at(candidate, "/version");
        return format!(
            "next: bulkhead plugin canary start {name} {version} --percent 10, or bulkhead plugin shadow stop {name}"
        );
    }
    format!(
        "next: bulkhead plugin canary promote {name}, or bulkhead plugin canary stop {name}; a guard that bites stops it, too"
    )
}

/// None of nothing.
fn part(of: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| of / whole)
}

/// `0.7 %`
pub fn percent(part: f64) -> String {
    format!("{} %", (part * 10_000.0).round() / 100.0)
}

fn percent_round(part: f64) -> String {
    format!("{} %", (part * 100.0).round())
}

/// `1.25 times`
pub fn times(ratio: f64) -> String {
    format!("{} times", (ratio * 100.0).round() / 100.0)
}

/// A figure without its fraction.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates, and below 0 there is none")]
fn whole(figure: &Value) -> Value {
    figure.as_f64().map_or(Value::Null, |figure| (figure.round() as u64).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(active: (u64, u64), candidate: (u64, u64)) -> Value {
        let side = |(runs, failed): (u64, u64), fuel: f64, micros: f64| json!({"runs": runs, "failed": failed, "fuel": fuel, "micros": micros, "typical_micros": micros});
        json!({
            "kind": "canary", "version": 4, "author": "key_1", "started": "2026-01-31T12:00:00Z", "key_hash": [10.0, 22.5],
            "guard": {"max_failure_rate": 0.05, "max_fuel_ratio": 2.0, "max_latency_ratio": 3.0, "min_runs": 100},
            "active": side(active, 12_000.4, 1_000.0), "candidate": side(candidate, 15_000.0, 1_500.0),
        })
    }

    fn cells(candidate: &Value) -> Vec<String> {
        let row =
            |row: &Value| ["found", "limit", "used", "judged"].map(|field| at(row, &format!("/{field}"))).join("; ");
        guards(candidate).iter().map(row).collect()
    }

    #[test]
    fn guards_say_how_far_they_are_from_biting() {
        let expected = ["2.5 %; 5 %; 50 %; now", "1.25 times; 2 times; 62 %; now", "1.5 times; 3 times; 50 %; now"];
        assert_eq!(cells(&canary((1_000, 1), (200, 5))), expected);
    }

    #[test]
    fn what_is_not_judged_yet_says_when_it_will_be() {
        let judged = |active, candidate| {
            let rows = guards(&canary(active, candidate));
            [0, 1].map(|row| at(&rows[row], "/judged"))
        };
        assert_eq!(judged((1_000, 0), (63, 1)), ["after 37 more runs of the candidate"; 2]);
        assert_eq!(judged((80, 0), (100, 1)), ["now", "after 20 more runs of the active version"]);
        assert_eq!(judged((100, 30), (100, 20)), ["now; the active version fails as often", "now"]);
        let fresh = guards(&canary((0, 0), (0, 0)));
        assert_eq!((at(&fresh[0], "/found"), at(&fresh[0], "/used")), (String::new(), String::new()));
    }

    #[test]
    fn it_is_said_what_is_compared_and_what_comes_next() {
        let candidate = with_share(canary((1, 0), (1, 0)));
        assert_eq!(
            headline("p", &json!(3), &candidate),
            "plugin p: version 4 gets 12.5 % of the keys, version 3 the others; since 2026-01-31 12:00:00, begun by key_1"
        );
        assert!(next("p", &candidate).starts_with("next: bulkhead plugin canary promote p, or"));
        let shadow = json!({"kind": "shadow", "version": 4});
        assert!(next("p", &shadow).contains("canary start p 4 "), "{}", next("p", &shadow));
        assert!(guards(&shadow).is_empty());
    }

    #[test]
    fn figures_are_whole_numbers() {
        assert_eq!((whole(&json!(12_000.4)), whole(&Value::Null)), (json!(12_000), Value::Null));
    }
}
