//! Hot swaps: a tenant's plugin changes its version again and again under load.
//!
//! ```text
//! swap ─── half a turn: "with" ─── half a turn: "without" ─── swap ─── …
//! ```
//!
//! With and without a swap take turns in one run, so whatever else changes with time is in both. What was under way at
//! some moment of "with" counts there. Then versions that were never compiled before are uploaded and made active under the
//! same load, and what falls between the beginning of an upload and its end is held against "without", too.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use bulkhead_tests::guest;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;

use crate::load::Books;
use crate::load::Ended;
use crate::load::KEYS;
use crate::load::Load;
use crate::load::Seen;
use crate::millis;
use crate::quantile;
use crate::verdict;

const SWAPS: u32 = 20;
/// The marks: of the changing tenant, and how much the p99 of the others may grow.
const PAUSE_MAX: Duration = Duration::from_millis(20);
const OTHERS_MAX: f64 = 1.1;
/// The first moments warm everything up and count for nothing.
const WARM_UP: Duration = Duration::from_secs(3);
/// Between two uploads.
const REST: Duration = Duration::from_secs(2);
/// What is uploaded under load, and how often. Only `checker` is at work: the others only compile.
const UPLOADS: [(&str, usize); 3] = [("checker", 5), ("order-totals-ts", 3), ("sentiment-py", 1)];

/// A time of interest, from the epoch.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Duration,
    to: Duration,
    /// Whether what was under way when it began or ended is left out.
    strict: bool,
}

impl Window {
    /// With everything that was under way at some moment of it.
    fn with(from: Duration, to: Duration) -> Self {
        Self { from, to, strict: false }
    }

    /// With what began and ended in it.
    fn without(from: Duration, to: Duration) -> Self {
        Self { from, to, strict: true }
    }

    fn has(&self, seen: &Seen) -> bool {
        if self.strict {
            seen.due >= self.from && seen.seen < self.to
        } else {
            seen.due < self.to && seen.seen >= self.from
        }
    }

    fn latencies(&self, seen: &[Seen]) -> Vec<Duration> {
        seen.iter().filter(|seen| self.has(seen)).map(Seen::latency).collect()
    }

    /// The longest time without a follow-up that ends in the window, beyond the time between two batches. `seen` is in the
    /// order in which it was seen.
    fn longest_gap(&self, seen: &[Seen], schedule: Duration) -> Duration {
        let within = |pair: &&[Seen]| (self.from..self.to).contains(&pair[1].seen);
        let gaps = seen.windows(2).filter(within).map(|pair| pair[1].seen.saturating_sub(pair[0].seen));
        gaps.max().unwrap_or_default().saturating_sub(schedule)
    }
}

/// One or more uploads of a component under load.
struct Uploads {
    name: &'static str,
    windows: Vec<Window>,
}

/// Runs it and prints what it showed. True if nothing was lost and nothing handled twice.
pub async fn run(host: &Host, length: Duration, events: u64) -> Result<bool> {
    let load = Load::start(host, events).await?;
    let (wasm, manifest) = bulkhead_tests::plugin("checker")?;
    load.changing.store_as("checker", guest::marked(&wasm, rand::random()), Some(manifest)).await?;
    tokio::time::sleep(WARM_UP).await;
    let schedule = load.gap;
    println!("{}\n{SWAPS} swaps in {length:?}, then uploads", load.describe(events));

    let turn = length / SWAPS;
    let (mut with, mut without, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    let began = load.now();
    for swap in 0..SWAPS {
        tokio::time::sleep_until((load.epoch + began + turn * swap).into()).await;
        let from = load.now();
        let version = if swap % 2 == 0 { 2 } else { 1 };
        let body = json!({"version": version});
        load.changing.expect(200, Method::POST, "/v1/plugins/checker/activate", Some(body)).await?;
        taken.push(load.now() - from);
        with.push(Window::with(from, from + turn / 2));
        without.push(Window::without(from + turn / 2, began + turn * (swap + 1)));
    }
    tokio::time::sleep_until((load.epoch + began + length).into()).await;
    let mut uploads = Vec::new();
    for (name, times) in UPLOADS {
        // Only where the tools for it are: components in Python are not always built.
        if let Ok((wasm, manifest)) = bulkhead_tests::plugin(name) {
            uploads.push(Uploads { name, windows: upload(&load, name, times, &wasm, &manifest).await? });
        }
    }
    tokio::time::sleep(REST).await;
    let ended = load.end(host).await?;

    let whole = books(&ended).await?;
    let table = Table { seen: &ended, schedule, with: &with, without: &without };
    table.print(&taken);
    table.print_uploads(&uploads);
    Ok(whole)
}

/// Uploads a component with other bytes each time, and makes it active.
async fn upload(load: &Load, name: &str, times: usize, wasm: &[u8], manifest: &str) -> Result<Vec<Window>> {
    let client = load.changing.within(Duration::from_secs(300));
    let mut windows = Vec::new();
    for _ in 0..times {
        tokio::time::sleep(REST).await;
        let fresh = guest::marked(wasm, rand::random());
        let from = load.now();
        client.push_as(name, fresh, Some(manifest.to_owned())).await?;
        windows.push(Window::with(from, load.now()));
    }
    Ok(windows)
}

/// Compares what was acknowledged with the runs, the state and the follow-ups. Prints; true if all are the same.
async fn books(ended: &Ended) -> Result<bool> {
    let Books { sent, acknowledged } = ended.changing_books;
    let client = &ended.changing;
    let mut counted = 0;
    for key in 0..KEYS {
        counted += client.number("checker", &format!("count:key-{key}")).await?;
    }
    let follow_ups = times(client, "/v1/events?type=checked&order=asc", |event| event["data"].to_string()).await?;
    let runs = client.list("/v1/runs?state=done").await?;
    let mut versions: BTreeMap<u64, u64> = BTreeMap::new();
    let mut of_event: HashMap<&str, u64> = HashMap::new();
    for run in &runs {
        *versions.entry(run["version"].as_u64().unwrap_or_default()).or_default() += 1;
        *of_event.entry(run["event"].as_str().unwrap_or_default()).or_default() += 1;
    }
    let again = |times: u64| times.saturating_sub(1);
    let lost =
        [counted, follow_ups.len() as u64, of_event.len() as u64].map(|there| acknowledged.saturating_sub(there));
    let doubled = [
        counted.saturating_sub(acknowledged),
        follow_ups.values().copied().map(again).sum(),
        of_event.values().copied().map(again).sum(),
    ];
    println!("\nthe changing tenant: {sent} sent, {acknowledged} acknowledged, {counted} counted in state");
    let by_version = versions.iter().map(|(version, runs)| format!("{version}: {runs}")).collect::<Vec<_>>();
    println!("  handled by version {}", by_version.join(", "));
    println!("  lost    (in state, follow-ups, runs): {lost:?} (must be 0)");
    println!("  doubled (in state, follow-ups, runs): {doubled:?} (must be 0)");

    let (mut done, mut failed) = (0, 0);
    for other in &ended.others {
        for line in other.get("/v1/usage").await?["items"].as_array().into_iter().flatten() {
            done += line["done"].as_u64().unwrap_or_default();
            failed += line["failed"].as_u64().unwrap_or_default();
        }
    }
    let Books { sent, acknowledged } = ended.others_books;
    println!("the others: {sent} sent, {acknowledged} acknowledged, {done} done, {failed} failed");
    Ok(lost == [0; 3] && doubled == [0; 3] && done == acknowledged && failed == 0)
}

/// How often each item of a list is there, by what `name` makes of it.
async fn times(client: &Client, path: &str, name: impl Fn(&Value) -> String) -> Result<HashMap<String, u64>> {
    let mut times = HashMap::new();
    for item in client.list(path).await? {
        *times.entry(name(&item)).or_default() += 1;
    }
    Ok(times)
}

/// What was seen, held against the windows.
struct Table<'a> {
    seen: &'a Ended,
    schedule: Duration,
    with: &'a [Window],
    without: &'a [Window],
}

impl Table<'_> {
    fn print(&self, taken: &[Duration]) {
        println!("\n{:34} {:>9} {:>9} {:>9} {:>9}", "from due to seen", "p50 ms", "p99 ms", "max ms", "number");
        let (changing, others) = (&self.seen.changing_seen, &self.seen.others_seen);
        row("changing tenant, with a swap", &all(self.with, changing));
        row("changing tenant, without", &all(self.without, changing));
        let (with, without) = (all(self.with, others), all(self.without, others));
        row("others, with a swap", &with);
        row("others, without", &without);

        let swap = |share| millis(quantile(taken, share));
        println!("\na swap took (request to answer) p50 {:.1} ms, max {:.1}", swap(0.5), swap(1.0));
        let pause = self.pauses("a swap", self.with);
        self.pauses("no swap", self.without);
        println!("mark: pause of the changing tenant at most {PAUSE_MAX:?}: {}", verdict(pause <= PAUSE_MAX));
        let ratio = ratio(&with, &without);
        println!(
            "mark: p99 of the others {ratio:.2} times that without (at most {OTHERS_MAX}): {}",
            verdict(ratio <= OTHERS_MAX)
        );
    }

    /// The longest time that the changing tenant waited beyond the ordinary, in each window.
    fn pauses(&self, what: &str, windows: &[Window]) -> Duration {
        let seen = &self.seen.changing_seen;
        let ordinary = quantile(&all(self.without, seen), 0.5);
        let longest = |window: &Window| quantile(&window.latencies(seen), 1.0).saturating_sub(ordinary);
        let latencies: Vec<Duration> = windows.iter().map(longest).collect();
        let gaps: Vec<Duration> = windows.iter().map(|window| window.longest_gap(seen, self.schedule)).collect();
        let both = |times: &[Duration]| (millis(quantile(times, 0.5)), millis(quantile(times, 1.0)));
        let ((latency, latency_max), (gap, gap_max)) = (both(&latencies), both(&gaps));
        println!(
            "  {what}: longest latency beyond p50: median {latency:.1} ms, max {latency_max:.1}; \
             longest gap beyond the schedule's: median {gap:.1} ms, max {gap_max:.1}"
        );
        quantile(&latencies, 1.0).max(quantile(&gaps, 1.0))
    }

    fn print_uploads(&self, uploads: &[Uploads]) {
        let others = &self.seen.others_seen;
        let without = all(self.without, others);
        println!("\n{:34} {:>9} {:>9} {:>9} {:>9}", "others, during", "p50 ms", "p99 ms", "max ms", "number");
        row("nothing (the same run)", &without);
        for Uploads { name, windows } in uploads {
            let latencies = all(windows, others);
            row(&format!("{} uploads of {name}", windows.len()), &latencies);
            let took: Vec<Duration> = windows.iter().map(|window| window.to - window.from).collect();
            println!(
                "  upload to active: median {:.0} ms; p99 of the others {:.2} times that without",
                millis(quantile(&took, 0.5)),
                ratio(&latencies, &without)
            );
            if *name == "checker" {
                self.pauses("the changing tenant meanwhile", windows);
            }
        }
    }
}

fn all(windows: &[Window], seen: &[Seen]) -> Vec<Duration> {
    windows.iter().flat_map(|window| window.latencies(seen)).collect()
}

fn ratio(with: &[Duration], without: &[Duration]) -> f64 {
    millis(quantile(with, 0.99)) / millis(quantile(without, 0.99))
}

fn row(name: &str, latencies: &[Duration]) {
    let at = |share| millis(quantile(latencies, share));
    println!("{name:34} {:>9.1} {:>9.1} {:>9.1} {:>9}", at(0.5), at(0.99), at(1.0), latencies.len());
}
