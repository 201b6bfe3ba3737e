//! `bulkhead plugin history`: what was done to a plugin's versions, by whom and when.

use bulkhead_domain::clock::Timestamp;
use bulkhead_flow::inbox::codec::rfc3339;
use clap::Args;
use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::error::Result;
use crate::cli::plugin::candidate::percent;
use crate::cli::plugin::candidate::times;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Listing;
use crate::cli::screen::Output;
use crate::cli::value;
use crate::cli::value::at;
use crate::cli::value::number;

const ENTRIES: &[Column] = &[
    ("AT", "/at", Cell::Time),
    ("WHAT", "/action", Cell::State),
    ("VERSION", "/version", Cell::Count),
    ("BY", "/author", Cell::Text),
    ("MORE", "/more", Cell::Text),
];

/// What was done to its versions, by whom and when; newest first
#[derive(Debug, Args)]
pub struct History {
    /// Its name
    name: String,
    #[command(flatten)]
    listing: Listing,
}

impl History {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        let path = ["v1", "plugins", &self.name, "history"];
        let mut entries = client.list(&path, &[], self.listing.limit).await?;
        for entry in &mut entries {
            timed(entry);
            if self.listing.output == Output::Table {
                entry["more"] = more(entry).into();
            }
        }
        screen::list(entries, self.listing.output, ENTRIES, "nothing was done to its versions yet")
    }
}

/// The time of the preview that let a version through, as all other times are: the host keeps it in microseconds.
fn timed(entry: &mut Value) {
    if let Some(time) = entry.pointer_mut("/detail/preview/at")
        && let Some(micros) = time.as_i64()
    {
        *time = rfc3339(Timestamp(micros)).into();
    }
}

/// What there is to say beyond the action, in words.
fn more(entry: &Value) -> String {
    let of = |pointer: &str| at(entry, &format!("/detail/{pointer}"));
    let has = |pointer: &str| entry.pointer(&format!("/detail/{pointer}")).is_some_and(|value| !value.is_null());
    let count = |pointer: &str| value::count(number(entry, &format!("/detail/{pointer}")));
    let mut said = Vec::new();
    if has("from") {
        said.push(format!("from version {}", of("from")));
    }
    if has("slice") {
        let (from, to) = (number(entry, "/detail/slice/from"), number(entry, "/detail/slice/to"));
        // Hundredths of a percent.
        said.push(format!("{} of the keys", percent(to.saturating_sub(from) as f64 / 10_000.0)));
    }
    if has("reason") {
        said.push(match of("reason").as_str() {
            "rolled-back" => breach(entry),
            "became-active" => "became the active version".to_owned(),
            "asks-for-more" => format!("asks for more than the active version: {}", of("added")),
            other => other.to_owned(),
        });
    }
    if has("tally/candidate") {
        said.push(format!("{} runs, {} failed", count("tally/candidate/runs"), count("tally/candidate/failed")));
    }
    if has("preview/counts") {
        let (runs, failures) = (count("preview/counts/runs"), count("preview/counts/new_failures"));
        said.push(format!("after a preview of {runs} runs, {failures} new failures"));
    }
    if at(entry, "/action") == "policy-changed" {
        said.push(if has("require_preview") {
            format!("asks for a preview of {} runs", count("require_preview/min_runs"))
        } else {
            "asks for no preview".to_owned()
        });
    }
    said.join("; ")
}

/// What a candidate did too much of.
fn breach(entry: &Value) -> String {
    let figure = |name: &str| entry.pointer(&format!("/detail/breach/{name}")).and_then(Value::as_f64);
    let (Some(found), Some(limit)) = (figure("found"), figure("limit")) else { return "taken back".to_owned() };
    match at(entry, "/detail/breach/measure").as_str() {
        "failure-rate" => format!("taken back: {} failed, {} may", percent(found), percent(limit)),
        measure => {
            let what = if measure == "latency" { "time" } else { measure };
            format!("taken back: {} the {what}, {} may be", times(found), times(limit))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_told_in_words() {
        for (action, detail, expected) in [
            ("approved", json!({}), ""),
            ("rolled-back", json!({"from": 3}), "from version 3"),
            (
                "activated",
                json!({"from": 1, "preview": {"at": 1, "counts": {"runs": 1_200, "new_failures": 0}}}),
                "from version 1; after a preview of 1,200 runs, 0 new failures",
            ),
            ("canary-started", json!({"slice": {"from": 1_000, "to": 2_250}, "guard": {}}), "12.5 % of the keys"),
            (
                "canary-ended",
                json!({
                    "reason": "rolled-back", "breach": {"measure": "failure-rate", "found": 0.12, "limit": 0.05},
                    "tally": {"candidate": {"runs": 100, "failed": 12}},
                }),
                "taken back: 12 % failed, 5 % may; 100 runs, 12 failed",
            ),
            (
                "canary-ended",
                json!({"reason": "rolled-back", "breach": {"measure": "latency", "found": 3.456, "limit": 3.0}}),
                "taken back: 3.46 times the time, 3 times may be",
            ),
            ("shadow-ended", json!({"reason": "stopped"}), "stopped"),
            (
                "shadow-ended",
                json!({"reason": "asks-for-more", "added": ["emit x", "schedule"]}),
                "asks for more than the active version: emit x, schedule",
            ),
            ("policy-changed", json!({"require_preview": {"min_runs": 20}}), "asks for a preview of 20 runs"),
            ("policy-changed", json!({}), "asks for no preview"),
        ] {
            assert_eq!(more(&json!({"action": action, "detail": detail})), expected, "{action} {detail}");
        }
    }

    #[test]
    fn a_preview_s_time_is_as_all_times_are() {
        let mut entry = json!({"detail": {"preview": {"at": 1_769_860_800_000_000_i64}}});
        timed(&mut entry);
        assert_eq!(entry["detail"]["preview"]["at"], "2026-01-31T12:00:00Z");
        timed(&mut entry);
        assert_eq!(entry["detail"]["preview"]["at"], "2026-01-31T12:00:00Z", "a host that says so itself");
    }
}
