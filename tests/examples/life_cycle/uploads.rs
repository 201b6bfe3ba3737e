//! From upload to active: a component that was never seen before is uploaded and made active, and an event goes through it.
//! Beside it wasmtime alone compiles the same bytes with the same settings, in a process of its own.
//!
//! Ours and bare take turns, and every other round begins with the other one. Each round has other bytes: a custom section
//! at the end, which nobody looks at, makes another digest.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use bulkhead_tests::guest;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::event;
use bulkhead_tests::stream::Stream;
use serde_json::Value;
use serde_json::json;

use crate::millis;
use crate::quantile;
use crate::verdict;

/// The mark: so many times the bare compile, and so much more.
const RATIO_MAX: f64 = 1.3;
const MORE_MAX: Duration = Duration::from_millis(100);
/// The largest component compiles for a while, on a busy machine for long.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs it and prints what it showed.
pub async fn run(host: &Host, folder: &Path, rounds: usize) -> Result<()> {
    let compile = std::env::current_exe()?.with_file_name("bare_compile");
    if !compile.exists() {
        bail!("{} is not there: build the example `bare_compile` of bulkhead-sandbox", compile.display());
    }
    let subjects = [
        ("bench-standard", json!({"id": "A-1", "total": 17.5, "channel": "web"})),
        ("greeter-js", json!({"name": "Amira"})),
        ("sentiment-py", json!({"product": "KB-87", "text": "A great keyboard, and quick to arrive."})),
    ];
    println!("\nfrom upload to active, medians of {rounds} rounds:");
    println!(
        "{:16} {:>8} {:>9} {:>10} {:>11} {:>7} {:>9}  mark",
        "component", "KiB", "bare ms", "active ms", "handled ms", "ratio", "limit ms"
    );
    for (name, data) in subjects {
        let Ok((wasm, manifest)) = bulkhead_tests::plugin(name) else {
            println!("{name:16} is not built here");
            continue;
        };
        let mut subject = Subject::prepare(host, name, manifest, data).await?;
        // Once without counting: the rule and the stream are at work before the first round.
        subject.upload(guest::marked(&wasm, rand::random())).await?;
        let (mut bare, mut active, mut handled) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let fresh = guest::marked(&wasm, rand::random());
            let file = folder.join("fresh.wasm");
            std::fs::write(&file, &fresh)?;
            if round % 2 == 0 {
                bare.push(compiled(&compile, &file)?);
            }
            let (first, second) = subject.upload(fresh).await?;
            active.push(first);
            handled.push(second);
            if round % 2 == 1 {
                bare.push(compiled(&compile, &file)?);
            }
        }
        let [bare, active, handled] = [bare, active, handled].map(|times| quantile(&times, 0.5));
        let limit = bare.mul_f64(RATIO_MAX) + MORE_MAX;
        println!(
            "{name:16} {:>8} {:>9.0} {:>10.0} {:>11.0} {:>7.2} {:>9.0}  {}",
            wasm.len() >> 10,
            millis(bare),
            millis(active),
            millis(handled),
            handled.as_secs_f64() / bare.as_secs_f64(),
            millis(limit),
            verdict(handled <= limit)
        );
    }
    println!("mark: an event handled within {RATIO_MAX} times the bare compile and {MORE_MAX:?}");
    Ok(())
}

/// What wasmtime alone takes.
fn compiled(compile: &Path, wasm: &Path) -> Result<Duration> {
    let output = Command::new(compile).arg(wasm).output()?;
    if !output.status.success() {
        bail!("the bare compile failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let said = String::from_utf8(output.stdout)?;
    let seconds = said.split_whitespace().next().context("the bare compile said nothing")?;
    Ok(Duration::from_secs_f64(seconds.parse()?))
}

/// A tenant with a plugin that is uploaded again and again, and a rule that says when it has handled something.
struct Subject {
    client: Client,
    stream: Stream,
    name: &'static str,
    manifest: String,
    data: Value,
    events: u32,
}

impl Subject {
    async fn prepare(host: &Host, name: &'static str, manifest: String, data: Value) -> Result<Self> {
        let client = host.tenant(name).await?.within(PATIENCE);
        client.push_as(name, bulkhead_tests::plugin(name)?.0, Some(manifest.clone())).await?;
        let steps = json!([{"handle": name}, {"emit": "handled"}]);
        client.rule(json!({"name": "first", "on": "first", "steps": steps})).await?;
        let stream = Stream::open(&client, "/v1/events/stream?type=handled", None).await?;
        Ok(Self { client, stream, name, manifest, data, events: 0 })
    }

    /// Uploads and activates a version, and sends an event through it. Until active, and until that was handled.
    async fn upload(&mut self, wasm: Vec<u8>) -> Result<(Duration, Duration)> {
        self.events += 1;
        let id = format!("first-{}", self.events);
        let first = event(&id, "first", self.data.clone());
        let manifest = Some(self.manifest.clone());
        let began = Instant::now();
        let pushed = self.client.push_as(self.name, wasm, manifest).await?;
        let active = began.elapsed();
        self.client.publish(&[first]).await?;
        let Some(_) = self.stream.next(PATIENCE).await? else { bail!("the live stream has ended") };
        let handled = began.elapsed();
        let run = self.client.run_in(&id, "first", "done").await?;
        if pushed["state"] != "active" || run["version"] != pushed["version"] {
            bail!("another version handled it: {pushed}, {run}");
        }
        Ok((active, handled))
    }
}
