//! The story of an event: what it is, what it follows from, what ran over it, what that led to, and why anything waits.

use serde_json::Value;

use crate::cli::error::Result;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::paint::cut;
use crate::cli::plugin::log_line;
use crate::cli::plugin::log_lines;
use crate::cli::screen;
use crate::cli::value;
use crate::cli::value::at;
use crate::cli::value::items;
use crate::cli::value::number;

/// Characters of the payload that are shown; JSON output has the whole.
const DATA_MAX: usize = 2_000;

/// Prints it.
pub fn print(story: &Value) -> Result<()> {
    tell(story, Paint::stdout()).iter().try_for_each(|line| screen::line(line))
}

/// All lines.
fn tell(story: &Value, paint: Paint) -> Vec<String> {
    let event = story.get("event").unwrap_or(story);
    let mut lines = head(event, story, paint);
    let causes = items(story, "/causes");
    if !causes.is_empty() {
        lines.push(String::new());
        lines.push(paint.bold("follows from"));
        lines.extend(causes.iter().map(|cause| format!("  {}", named(cause, paint))));
    }
    let branches = branches(story, paint);
    lines.push(String::new());
    if branches.is_empty() && items(story, "/waits").is_empty() {
        lines.push("no rule matched it".to_owned());
    }
    for why in items(story, "/waits") {
        lines.push(format!("{} {}", paint.yellow("waits:"), clean(&at(why, "/detail"))));
    }
    lines.extend(tree(&branches, paint));
    lines
}

/// What it is.
fn head(event: &Value, story: &Value, paint: Paint) -> Vec<String> {
    let mut lines = vec![named(event, paint)];
    let known = ["specversion", "id", "type", "data", "data_base64", "datacontenttype"];
    let fields = event.as_object().into_iter().flatten().filter(|(name, _)| !known.contains(&name.as_str()));
    for (name, value) in fields {
        lines.push(format!("  {} {}", paint.dim(&format!("{name:14}")), clean(&value::text(value))));
    }
    for (name, title) in [("/recorded", "recorded"), ("/hash", "hash")] {
        let value = at(story, name);
        if !value.is_empty() {
            lines.push(format!("  {} {}", paint.dim(&format!("{title:14}")), clean(&value)));
        }
    }
    if let Some(data) = event.get("data") {
        let whole = format!("{data:#}");
        let shown: String = whole.chars().take(DATA_MAX).collect();
        lines.extend(shown.lines().map(|line| format!("  {}", clean(line))));
        if shown.len() < whole.len() {
            lines.push(paint.dim("  … (--output json shows the whole)"));
        }
    }
    lines
}

/// `orders.created  shop-0001`
fn named(event: &Value, paint: Paint) -> String {
    format!("{}  {}", paint.cyan(&clean(&at(event, "/type"))), paint.bold(&clean(&at(event, "/id"))))
}

/// Something that came of the event, with what belongs to it.
struct Branch {
    title: String,
    below: Vec<String>,
}

fn branches(story: &Value, paint: Paint) -> Vec<Branch> {
    let runs = items(story, "/runs").iter().map(|run| of_run(run, paint));
    let deliveries = items(story, "/deliveries").iter().map(|delivery| of_delivery(delivery, paint));
    let follow_ups = items(story, "/follow_ups").iter();
    let follow_ups =
        follow_ups.map(|event| Branch { title: format!("event {}", named(event, paint)), below: Vec::new() });
    runs.chain(deliveries).chain(follow_ups).collect()
}

fn of_run(run: &Value, paint: Paint) -> Branch {
    let state = at(run, "/state");
    let mut title = format!("rule {}  {}", paint.bold(&clean(&at(run, "/rule"))), paint.state(&clean(&state)));
    let plugin = at(run, "/plugin");
    if !plugin.is_empty() {
        title += &format!("  {} v{}", clean(&plugin), at(run, "/version"));
    }
    let attempts = number(run, "/attempts");
    if attempts > 1 {
        title += &format!("  attempt {attempts}");
    }
    if number(run, "/duration_us") > 0 {
        title += &paint.dim(&format!("  {}", value::micros(number(run, "/duration_us"))));
    }
    if number(run, "/fuel") > 0 {
        title += &paint.dim(&format!("  fuel {}", value::fuel(number(run, "/fuel"))));
    }
    let mut below = Vec::new();
    below.extend(reason(run));
    below.extend(waits(run, paint));
    below.extend(log_lines(run.get("logs").unwrap_or(&Value::Null)).iter().map(|line| log_line(line, paint)));
    let next: &[&str] = match state.as_str() {
        "parked" => &["plugin replay", "parked redrive"],
        "retrying" => &["run show"],
        _ => &[],
    };
    let id = clean(&at(run, "/id"));
    below.extend(next.iter().map(|command| paint.dim(&format!("bulkhead {command} {id}"))));
    Branch { title, below }
}

fn of_delivery(delivery: &Value, paint: Paint) -> Branch {
    let state = at(delivery, "/state");
    let mut title = format!("to {}  {}", paint.bold(&clean(&at(delivery, "/sink"))), paint.state(&clean(&state)));
    title += &paint.dim(&format!("  {}", clean(&at(delivery, "/id"))));
    let attempts = number(delivery, "/attempts");
    if attempts > 1 {
        title += &format!("  attempt {attempts}");
    }
    let mut below: Vec<String> = reason(delivery).into_iter().chain(waits(delivery, paint)).collect();
    if state == "parked" {
        below.push(paint.dim(&format!("bulkhead delivery redeliver {}", clean(&at(delivery, "/id")))));
    }
    Branch { title, below }
}

fn waits(of: &Value, paint: Paint) -> Option<String> {
    let why = at(of, "/waits");
    (!why.is_empty()).then(|| format!("{} {}", paint.yellow("waits:"), clean(&why)))
}

/// `plugin:reject: a total below zero`
fn reason(of: &Value) -> Option<String> {
    let (code, reason) = (clean(&at(of, "/code")), clean(&at(of, "/reason")));
    match (code.is_empty(), reason.is_empty()) {
        (true, true) => None,
        (false, true) => Some(code),
        (true, false) => Some(cut(&reason, 400)),
        (false, false) => Some(format!("{code}: {}", cut(&reason, 400))),
    }
}

fn tree(branches: &[Branch], paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, branch) in branches.iter().enumerate() {
        let last = index + 1 == branches.len();
        let (fork, stem) = if last { ("└─", "  ") } else { ("├─", "│ ") };
        lines.push(format!("{} {}", paint.dim(fork), branch.title));
        lines.extend(branch.below.iter().map(|line| format!("{}   {line}", paint.dim(stem))));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_story_says_what_ran_what_came_of_it_and_why_it_waits() {
        let story = json!({
            "event": {"specversion": "1.0", "id": "17", "source": "/shop", "type": "orders.created", "data": {"n": 1}},
            "recorded": "2026-01-31T12:00:00Z", "hash": "ab", "causes": [],
            "runs": [{
                "id": "run_1", "rule": "flag", "state": "parked", "plugin": "score", "version": 2, "attempts": 3,
                "code": "limit:fuel", "reason": "too much", "duration_us": 1_500, "fuel": 0, "waits": "for a person",
                "logs": [{"level": "info", "message": "hello"}],
            }, {
                "id": "run_2", "rule": "count", "state": "retrying", "plugin": "meter", "version": 1, "attempts": 1,
                "code": "plugin:retry", "reason": "not yet", "waits": "for its next attempt", "logs": [],
            }],
            "deliveries": [{"id": "eff_1", "sink": "crm", "state": "pending", "attempts": 0, "waits": "the sink is down"}],
            "follow_ups": [{"id": "eff_2", "type": "orders.flagged"}],
            "waits": [{"code": "tenant-paused", "detail": "the tenant is paused"}],
        });
        let expected = [
            "orders.created  17",
            "  source         /shop",
            "  recorded       2026-01-31T12:00:00Z",
            "  hash           ab",
            "  {",
            "    \"n\": 1",
            "  }",
            "",
            "waits: the tenant is paused",
            "├─ rule flag  parked  score v2  attempt 3  1.5 ms",
            "│    limit:fuel: too much",
            "│    waits: for a person",
            "│    info  hello",
            "│    bulkhead plugin replay run_1",
            "│    bulkhead parked redrive run_1",
            "├─ rule count  retrying  meter v1",
            "│    plugin:retry: not yet",
            "│    waits: for its next attempt",
            "│    bulkhead run show run_2",
            "├─ to crm  pending  eff_1",
            "│    waits: the sink is down",
            "└─ event orders.flagged  eff_2",
        ];
        assert_eq!(tell(&story, Paint::plain()), expected);
    }
}
