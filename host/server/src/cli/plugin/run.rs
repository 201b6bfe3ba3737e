//! `bulkhead plugin run`: a component on one event, once, here.

use std::path::Path;
use std::path::PathBuf;

use bulkhead_sandbox::script;
use bulkhead_sandbox::script::Unfit;
use clap::Args;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::input;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::plugin::local;
use crate::cli::plugin::local::Bench;
use crate::cli::plugin::local::Project;
use crate::cli::plugin::push;
use crate::cli::plugin::report;
use crate::cli::plugin::test;
use crate::cli::screen;
use crate::cli::screen::Format;
use crate::cli::screen::Output;
use crate::cli::value;
use crate::fixture;
use crate::fixture::Ending;
use crate::fixture::Fixture;
use crate::fixture::run::Ran;
use crate::manifest::Manifest;

const EXAMPLES: &str = "Examples:
  bulkhead plugin run . --event order.json
  bulkhead plugin run enrich.wasm --event - < order.json   # enrich.toml or plugin.toml beside it is its manifest
  bulkhead plugin run flag.js --event order.json           # a function as it is pasted, before it is
  bulkhead plugin run . --fixture tests/big-order.json -o json

Nothing leaves this machine and nothing is kept. Exit code 1 if the plugin fails.";

/// What is run.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    /// A component (`.wasm`), JavaScript (`.js`) as `push` takes it, or a plugin's folder
    #[arg(default_value = ".")]
    path: PathBuf,
    /// The event, in CloudEvents JSON; only `type` is needed; - is standard input
    #[arg(short, long, value_name = "FILE", required_unless_present = "fixture")]
    event: Option<PathBuf>,
    /// A fixture: an event with settings and state
    #[arg(long, value_name = "FILE", conflicts_with = "event")]
    fixture: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

impl Run {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let fixture = match (&self.fixture, &self.event) {
            (Some(file), _) => test::read(file).await?,
            (None, Some(file)) => Fixture::of(event(file).await?),
            (None, None) => return Err(Error::Usage("give an event with --event".to_owned())),
        };
        let bench = Bench::open()?;
        let (wasm, manifest) = component(&self.path, &bench).await?;
        let loaded = bench.load(wasm).await?;
        let case = fixture::run::Case::new(&fixture, &manifest, loaded.inspection.exports).map_err(Error::failed)?;
        let (sandbox, plugin) = (bench.sandbox().clone(), loaded.plugin.clone());
        let ran = tokio::task::spawn_blocking(move || case.run(&sandbox, &plugin)).await;
        let ran = ran.map_err(|_| Error::failed("the sandbox broke off"))?;
        match self.format.output {
            Output::Json => {
                screen::json(&json!({"happened": report::happened(&ran.happened), "used": report::used(&ran)}))?;
            }
            Output::Table => print(&ran)?,
        }
        if ran.happened.outcome == Ending::Done { Ok(()) } else { Err(Error::Told) }
    }
}

/// A component with its manifest, found as `plugin push` finds them.
async fn component(path: &Path, bench: &Bench) -> Result<(Vec<u8>, Manifest)> {
    if path.is_dir() || path.extension().is_some_and(|ending| ending == "toml") {
        let project = Project::open(path).await?;
        return Ok((project.component().await?, project.manifest));
    }
    let is_source = push::is_source(path);
    let wasm = if is_source { script(path, bench).await? } else { input::bytes(path).await? };
    let manifest = match push::beside(path, is_source) {
        Some(file) => local::document(&file).await?.manifest,
        None => Manifest::bare(&path.file_stem().unwrap_or_default().to_string_lossy()),
    };
    Ok((wasm, manifest))
}

/// The component of a pasted function.
async fn script(path: &Path, bench: &Bench) -> Result<Vec<u8>> {
    let source = input::text(path).await?;
    let sandbox = bench.sandbox().clone();
    let made = tokio::task::spawn_blocking(move || script::component(&sandbox, &source)).await;
    match made.map_err(|_| Error::failed("the sandbox broke off"))? {
        Ok(component) => Ok(component.to_vec()),
        Err(Unfit::Source { detail, place: Some((line, column)) }) => {
            Err(Error::failed(format!("{}:{line}:{column}: {}", path.display(), clean(&detail))))
        }
        Err(unfit) => Err(Error::failed(format!("{}: {unfit}", path.display()))),
    }
}

/// An event as people hand it in.
pub async fn event(file: &Path) -> Result<Map<String, Value>> {
    let text = input::text(file).await?;
    serde_json::from_str(&text).map_err(|cause| {
        Error::hinted(
            format!("{} is no event: {cause}", file.display()),
            "an event is a JSON object such as {\"type\": \"orders.created\", \"data\": {\"id\": \"A-1\"}}",
        )
    })
}

/// For people.
pub fn print(ran: &Ran) -> Result<()> {
    let paint = Paint::stdout();
    let ending = report::ending(&ran.happened);
    let shown = if ran.happened.outcome == Ending::Done { paint.green(ending) } else { paint.red(ending) };
    screen::line(&format!("{shown}  {}", report::figures(ran, paint)))?;
    let why = report::why(ran, "  ", paint);
    if !why.is_empty() {
        screen::line(why.trim_start_matches('\n'))?;
    }
    let happened = report::happened(&ran.happened);
    for (title, list) in [("effects", "/effects"), ("drafts", "/drafts")] {
        let items = value::items(&happened, list);
        if !items.is_empty() {
            screen::line(&paint.bold(title))?;
        }
        for item in items {
            for line in format!("{item:#}").lines() {
                screen::line(&format!("  {}", clean(line)))?;
            }
        }
    }
    for (title, object) in [("state", "state"), ("usage", "usage")] {
        let Some(fields) = happened[object].as_object().filter(|fields| !fields.is_empty()) else { continue };
        screen::line(&paint.bold(title))?;
        for (name, value) in fields {
            let value = if value.is_null() { paint.dim("deleted") } else { clean(&value.to_string()) };
            screen::line(&format!("  {}  {value}", clean(name)))?;
        }
    }
    Ok(())
}
