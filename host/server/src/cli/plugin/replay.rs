//! `bulkhead plugin replay`: a recorded call of a host once more, here, on the same component or on another build.

use std::path::Path;
use std::path::PathBuf;

use bulkhead_domain::recording::Change;
use bulkhead_domain::recording::Difference;
use bulkhead_domain::recording::Recording;
use bulkhead_sandbox::Replayed;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::input;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::plugin::local::Bench;
use crate::cli::plugin::local::Project;
use crate::cli::plugin::recording::Which;
use crate::cli::screen;
use crate::cli::screen::Format;
use crate::cli::screen::Output;
use crate::cli::value;

const EXAMPLES: &str = "Examples:
  bulkhead plugin replay RUN                       # the version that ran: is it the same again?
  bulkhead plugin replay RUN --component .         # what this folder's build does instead
  bulkhead plugin replay RUN --component new.wasm --attempt 1 -o json

The call sees what it saw then: event, time, randomness, settings, state; and nothing else. Exit code 1 if anything
differs.";

/// What is re-executed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Replay {
    #[command(flatten)]
    which: Which,
    /// Another build: a component (`.wasm`), or a plugin's folder
    #[arg(short, long, value_name = "FILE|DIR")]
    component: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

impl Replay {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        let recording = self.which.fetch(client).await?;
        let wasm = match &self.component {
            Some(path) => local(path).await?,
            None => remote(client, &recording).await?,
        };
        let bench = Bench::open()?;
        let loaded = bench.load(wasm).await?;
        if self.component.is_none() && loaded.inspection.digest != recording.digest {
            return Err(Error::failed(format!("the host's component is not {}", recording.digest)));
        }
        let (sandbox, plugin) = (bench.sandbox().clone(), loaded.plugin.clone());
        let work = tokio::task::spawn_blocking(move || (sandbox.replay(&plugin, &recording), recording));
        let (replayed, recording) = work.await.map_err(|_| Error::failed("the sandbox broke off"))?;
        let replayed = replayed.map_err(|unfit| Error::failed(unfit.to_string()))?;
        match self.format.output {
            Output::Json => screen::json(&json!({
                "run": recording.call.run,
                "plugin": recording.plugin,
                "recorded": {"version": recording.version, "digest": recording.digest, "fuel": recording.ended.fuel},
                "replayed": {"digest": loaded.inspection.digest, "fuel": replayed.ended.fuel},
                "exact": replayed.exact,
                "redacted": recording.redacted,
                "identical": replayed.difference.is_none(),
                "difference": replayed.difference,
            }))?,
            Output::Table => {
                for line in report(&recording, &replayed, Paint::stdout()) {
                    screen::line(&line)?;
                }
            }
        }
        if replayed.difference.is_none() { Ok(()) } else { Err(Error::Told) }
    }
}

async fn local(path: &Path) -> Result<Vec<u8>> {
    if path.is_dir() { Project::open(path).await?.component().await } else { input::bytes(path).await }
}

async fn remote(client: &Client, recording: &Recording) -> Result<Vec<u8>> {
    let path = ["v1", "plugins", &recording.plugin, "versions", &recording.version, "component"];
    let response = client.accepted(client.request(reqwest::Method::GET, &path, &[])?).await?;
    let bytes = response.bytes().await;
    Ok(bytes.map_err(|cause| Error::failed(format!("the component did not arrive: {cause}")))?.to_vec())
}

/// For people.
fn report(recording: &Recording, replayed: &Replayed, paint: Paint) -> Vec<String> {
    let Replayed { ended, difference, exact } = replayed;
    let mut lines = Vec::new();
    if !recording.redacted.is_empty() {
        let places: Vec<String> = recording.redacted.iter().map(|place| clean(place)).collect();
        lines.push(paint.dim(&format!("taken out of the recording, so results may differ: {}", places.join(", "))));
    }
    if !recording.fresh {
        lines.push(paint.dim("recorded on an instance that had served others, so its fuel is not compared"));
    }
    let fuel = value::count(ended.fuel);
    if difference.is_none() {
        let what = if *exact { format!("effects, logs, fuel {fuel}") } else { "effects, logs".to_owned() };
        lines.push(format!("{}: {what}", paint.green("identical")));
        return lines;
    }
    lines.push(format!("{} from run {}, attempt {}", paint.red("different"), recording.call.run, recording.attempt));
    let Difference { outcome, effects, drafts, logs, usage, fuel: changed, unrecorded } = difference;
    changes("outcome", outcome.as_slice(), paint, &mut lines);
    changes("effect", effects, paint, &mut lines);
    changes("draft", drafts, paint, &mut lines);
    changes("log", logs, paint, &mut lines);
    changes("usage", usage, paint, &mut lines);
    changes("fuel", changed.as_slice(), paint, &mut lines);
    for what in unrecorded {
        lines.push(format!("read now and not then, so answered with nothing: {}", clean(what)));
    }
    lines
}

fn changes<T: Serialize>(what: &str, changes: &[Change<T>], paint: Paint, lines: &mut Vec<String>) {
    for Change { at, before, after } in changes {
        let shown = |value: &T| clean(&serde_json::to_string(value).unwrap_or_default());
        lines.push(paint.bold(&format!("{what} {at}")));
        lines.extend(before.as_ref().map(|value| format!("  {}", paint.red(&format!("- {}", shown(value))))));
        lines.extend(after.as_ref().map(|value| format!("  {}", paint.green(&format!("+ {}", shown(value))))));
    }
}
