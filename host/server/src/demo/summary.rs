//! What came of the events, counted from outside: over HTTP with the tenants' keys, and at the receiver.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cli::Error;
use crate::cli::Paint;
use crate::cli::Result;
use crate::cli::count;
use crate::cli::fuel;
use crate::cli::line;
use crate::cli::micros;
use crate::demo::Fed;
use crate::demo::script::Expectation;
use crate::demo::script::Seen;
use crate::demo::stage::Actor;
use crate::demo::stage::Stage;

/// More runs, deliveries or keys than any demo has.
const ALL: usize = 1_000_000;

/// The longest sample of runs that latencies are computed from.
const SAMPLE: usize = 20_000;

/// The figures of one tenant.
#[derive(Debug, Default)]
struct Figures {
    emitted: u64,
    deliveries: u64,
    arrived: u64,
    repeated: u64,
    fuel: u64,
    /// Runs that are done and that are parked, by rule.
    done: BTreeMap<String, u64>,
    parked: BTreeMap<String, u64>,
    /// From being accepted to being done, sorted.
    latencies: Vec<u64>,
    checks: Vec<Check>,
}

/// An expectation and what was seen.
#[derive(Debug, Clone)]
struct Check {
    what: String,
    expected: u64,
    seen: u64,
}

impl Check {
    fn is_well(&self) -> bool {
        self.expected == self.seen
    }
}

/// What is still to do; none if everything is as it must be.
pub async fn left(stage: &Stage, days: usize) -> Result<Option<String>> {
    for actor in &stage.actors {
        let usage = Usage::of(actor).await?;
        for expectation in actor.script.expectations {
            let check = check(actor, expectation, days, &usage).await?;
            if check.seen < check.expected {
                let tenant = actor.script.tenant;
                return Ok(Some(format!("{tenant}: {} {} of {}", check.what, check.seen, check.expected)));
            }
        }
        let pending = actor.client.list(&["v1", "deliveries"], &[("state", "pending")], 1).await?;
        if !pending.is_empty() {
            return Ok(Some(format!("{}: deliveries on their way", actor.script.tenant)));
        }
        let retrying = actor.client.list(&["v1", "runs"], &[("state", "retrying")], 1).await?;
        if !retrying.is_empty() {
            return Ok(Some(format!("{}: runs to be tried again", actor.script.tenant)));
        }
    }
    Ok(None)
}

/// The tenant's statement, summed over days.
struct Usage {
    done: BTreeMap<String, u64>,
    emitted: u64,
    deliveries: u64,
    fuel: u64,
}

impl Usage {
    async fn of(actor: &Actor) -> Result<Self> {
        let answer = actor.client.get(&["v1", "usage"], &[]).await?;
        let mut usage = Self { done: BTreeMap::new(), emitted: 0, deliveries: 0, fuel: 0 };
        for item in answer.pointer("/items").and_then(Value::as_array).into_iter().flatten() {
            let number = |name: &str| item.get(name).and_then(Value::as_u64).unwrap_or_default();
            let rule = item.get("rule").and_then(Value::as_str).unwrap_or_default();
            *usage.done.entry(rule.to_owned()).or_default() += number("done");
            usage.emitted += number("emitted");
            usage.deliveries += number("deliveries");
            usage.fuel += number("fuel");
        }
        Ok(usage)
    }
}

async fn check(actor: &Actor, expectation: &Expectation, days: usize, usage: &Usage) -> Result<Check> {
    let expected = actor.stream.count(days, expectation.of);
    let seen = match expectation.seen {
        Seen::Done(rule) => usage.done.get(rule).copied().unwrap_or_default(),
        Seen::Parked(rule) => actor.client.list(&["v1", "parked"], &[("rule", rule)], ALL).await?.len() as u64,
        Seen::State(plugin, prefix) => sum(actor, plugin, prefix).await?,
    };
    Ok(Check { what: expectation.what.to_owned(), expected, seen })
}

/// The sum of the numbers under all keys with a prefix.
async fn sum(actor: &Actor, plugin: &str, prefix: &str) -> Result<u64> {
    let keys = actor.client.list(&["v1", "plugins", plugin, "state"], &[("prefix", prefix)], ALL).await?;
    let mut sum = 0;
    for key in &keys {
        let key = key.as_str().or(key.get("key").and_then(Value::as_str)).unwrap_or_default();
        let value = actor.client.get(&["v1", "plugins", plugin, "state", key], &[]).await?;
        sum += value.as_u64().ok_or_else(|| Error::failed(format!("{plugin} keeps no number under {key}")))?;
    }
    Ok(sum)
}

async fn figures(stage: &Stage, actor: &Actor, days: usize, accepted: u64) -> Result<Figures> {
    let usage = Usage::of(actor).await?;
    let mut figures =
        Figures { emitted: usage.emitted, deliveries: usage.deliveries, fuel: usage.fuel, ..Figures::default() };
    let offered = (actor.stream.per_day() * days) as u64;
    figures.checks.push(Check { what: "events accepted".to_owned(), expected: offered, seen: accepted });
    for expectation in actor.script.expectations {
        figures.checks.push(check(actor, expectation, days, &usage).await?);
    }
    for run in actor.client.list(&["v1", "parked"], &[], ALL).await? {
        let rule = run.get("rule").and_then(Value::as_str).unwrap_or_default();
        *figures.parked.entry(rule.to_owned()).or_default() += 1;
    }
    let arrived = stage.arrivals.count(actor.script.tenant);
    (figures.arrived, figures.repeated) = (arrived.distinct, arrived.repeated);
    figures.checks.push(Check {
        what: "deliveries arrived".to_owned(),
        expected: figures.deliveries,
        seen: figures.arrived,
    });
    let runs = actor.client.list(&["v1", "runs"], &[("state", "done")], SAMPLE).await?;
    figures.latencies = runs.iter().filter_map(latency).collect();
    figures.latencies.sort_unstable();
    figures.done = usage.done;
    Ok(figures)
}

/// Microseconds from the event's being accepted to the run's end.
fn latency(run: &Value) -> Option<u64> {
    let time = |name: &str| run.get(name)?.as_str()?.parse::<jiff::Timestamp>().ok();
    let (from, to) = (time("recorded")?, time("ended")?);
    u64::try_from(to.as_microsecond() - from.as_microsecond()).ok()
}

/// The value that so many percent do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Prints the table and the checks; says whether all is well.
pub async fn print(stage: &Stage, days: usize, fed: &Fed) -> Result<bool> {
    let paint = Paint::stdout();
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
    table.set_header(["tenant", "events", "runs done", "emitted", "delivered", "parked", "p50", "p99", "fuel"]);
    let mut all = Vec::new();
    for (actor, tally) in stage.actors.iter().zip(&fed.tallies) {
        let figures = figures(stage, actor, days, tally.accepted).await?;
        let shown = |percent| percentile(&figures.latencies, percent).map_or_else(|| "-".to_owned(), micros);
        let mut row = vec![comfy_table::Cell::new(actor.script.tenant)];
        row.extend(
            [
                count(tally.accepted),
                count(figures.done.values().sum()),
                count(figures.emitted),
                count(figures.arrived),
                count(figures.parked.values().sum()),
                shown(50),
                shown(99),
                fuel(figures.fuel),
            ]
            .map(|text| comfy_table::Cell::new(text).set_alignment(comfy_table::CellAlignment::Right)),
        );
        table.add_row(row);
        all.push((actor, figures));
    }
    line(&format!("\n{table}"))?;
    line(&paint.dim("p50 and p99: from an event's being accepted to its run's end, while everything was fed at once"))?;
    let mut well = true;
    for (actor, figures) in &all {
        line(&format!("\n{}  {}", paint.bold(actor.script.tenant), paint.dim(actor.script.about)))?;
        for check in &figures.checks {
            let mark = if check.is_well() { paint.green("ok  ") } else { paint.red("FAIL") };
            let expected =
                if check.is_well() { String::new() } else { format!(" instead of {}", count(check.expected)) };
            line(&format!("  {mark} {:>8} {}{expected}", count(check.seen), check.what))?;
            well &= check.is_well();
        }
        if figures.repeated > 0 {
            line(&paint.dim(&format!("       {} calls repeated an id that had arrived", count(figures.repeated))))?;
        }
    }
    let (words, lost) = (if well { "nothing lost, nothing applied twice" } else { "not as it must be" }, well);
    line(&format!("\n{}", if lost { paint.green(words) } else { paint.red(words) }))?;
    Ok(well)
}

/// Says where to look and what to try, with the real address and keys.
pub fn look_further(stage: &Stage) -> Result<()> {
    let paint = Paint::stdout();
    let url = &stage.url;
    line(&format!("\n{}", paint.bold("Look around")))?;
    line(&format!("  API    {url}/docs"))?;
    line(&format!("  health {url}/readyz   metrics {url}/metrics"))?;
    line(&format!("\n{}", paint.bold("Ask it, in another terminal")))?;
    line(&format!("  export BULKHEAD_URL={url}"))?;
    for actor in &stage.actors {
        line(&format!("  export BULKHEAD_KEY={}   # {}", actor.key, actor.script.tenant))?;
    }
    for command in [
        "bulkhead event tail",
        "bulkhead parked list",
        "bulkhead event show ID        # an EVENT of that list: why it is parked",
        "bulkhead plugin list",
        "bulkhead usage",
    ] {
        line(&format!("  {command}"))?;
    }
    line(&format!("  BULKHEAD_KEY={} bulkhead tenant list", stage.operator_key))?;
    line(&format!("\n{}", paint.dim("An event comes in now and then. Ctrl-C ends the demo and forgets everything.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(
            (percentile(&hundred, 50), percentile(&hundred, 99), percentile(&[7], 99)),
            (Some(50), Some(99), Some(7))
        );
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn latency_is_from_acceptance_to_end() {
        let run = serde_json::json!({"recorded": "2026-01-01T00:00:00.000100Z", "ended": "2026-01-01T00:00:00.002Z"});
        assert_eq!(latency(&run), Some(1_900));
        assert_eq!(latency(&serde_json::json!({})), None);
    }
}
