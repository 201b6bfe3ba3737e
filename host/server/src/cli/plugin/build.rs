//! `bulkhead plugin build`: runs the manifest's command, and says what came out of it as an upload would see it.

use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use bulkhead_sandbox::Inspection;
use bulkhead_sandbox::inspect;
use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::input;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::plugin::local::Bench;
use crate::cli::plugin::local::Loaded;
use crate::cli::plugin::local::MANIFEST;
use crate::cli::plugin::local::Project;
use crate::cli::plugin::toolchain;
use crate::cli::plugin::words;
use crate::cli::screen;
use crate::cli::screen::Format;
use crate::cli::screen::Output;
use crate::cli::value;
use crate::needs;

/// Tells the SDKs' tools who called them.
const BUILT_BY_US: &str = "BULKHEAD_PLUGIN_BUILD";

const EXAMPLES: &str = "Examples:
  bulkhead plugin build
  bulkhead plugin build plugins/fraud -o json

Runs `[build] command` of plugin.toml in its folder, then checks the component as an upload is checked.";

/// What is built.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Build {
    /// The plugin's folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    #[command(flatten)]
    format: Format,
}

/// A component that was built and checked.
pub struct Built {
    /// How long the command took.
    pub took: Duration,
    /// The component, compiled.
    pub loaded: Loaded,
}

impl Build {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let project = Project::open(&self.folder).await?;
        let built = build(&project, &Bench::open()?).await?;
        let inspection = &built.loaded.inspection;
        let warnings = needs::warnings(&project.manifest, inspection);
        if self.format.output == Output::Json {
            return screen::json(&described(&project, &built, &warnings)?);
        }
        let paint = Paint::stdout();
        let took = value::micros(u64::try_from(built.took.as_micros()).unwrap_or(u64::MAX));
        screen::line(&format!("{} {}  built in {took}", paint.green("ok"), paint.bold(&project.manifest.plugin.name)))?;
        words::lines("component", &[project.artifact()?.display().to_string()])?;
        words::lines("digest", &[&inspection.digest])?;
        words::lines("size", &[size(inspection)])?;
        words::lines("world", &[needs::world(inspection)])?;
        words::lines("does", &needs::abilities(&project.manifest, inspection.exports, &inspection.imports))?;
        words::lines("imports", &needs::packages(&inspection.imports))?;
        words::list("made with", &inspection.metadata.made_with())?;
        for warning in &warnings {
            screen::note(&format!("{} {}", paint.yellow("warning:"), clean(warning)))?;
        }
        screen::note(&format!("next: {}, {}", project.command("test"), project.command("push")))
    }
}

/// Runs the command and checks what it made.
pub async fn build(project: &Project, bench: &Bench) -> Result<Built> {
    let (began, clock) = (SystemTime::now(), Instant::now());
    command(project).await?;
    let took = clock.elapsed();
    let artifact = project.artifact()?;
    if !artifact.is_file() {
        return Err(Error::hinted(
            format!("the build ended well, but {} is not there", artifact.display()),
            format!("let `artifact` under [build] in {MANIFEST} say where the command writes the component"),
        ));
    }
    renew(&artifact, began);
    let loaded = bench.load(input::bytes(&artifact).await?).await?;
    Ok(Built { took, loaded })
}

/// A command that finds nothing to do leaves the component as it is: it is as new as its sources all the same, and its
/// time has to say so.
fn renew(artifact: &Path, began: SystemTime) {
    let is_older = artifact.metadata().and_then(|about| about.modified()).is_ok_and(|time| time < began);
    if is_older && let Ok(file) = std::fs::File::options().append(true).open(artifact) {
        // Where that cannot be, `test` warns without need.
        let _ = file.set_modified(began);
    }
}

/// Runs the manifest's command, with what it says going to standard error as it comes.
async fn command(project: &Project) -> Result<()> {
    let Some(command) = &project.build.command else {
        return Err(Error::hinted(
            format!("{} names no command", project.folder.join(MANIFEST).display()),
            "add `command = \"…\"` to its [build]",
        ));
    };
    let paint = Paint::stderr();
    // What the terminal would obey could hide what is run.
    screen::note(&paint.dim(&format!("$ {}", clean(command))))?;
    let mut shell = tokio::process::Command::new("sh");
    shell.arg("-c").arg(command).current_dir(&project.folder).stdin(Stdio::null()).kill_on_drop(true);
    shell.envs(toolchain::environment(command, &project.folder)?);
    // Tools of the SDKs leave it to us to say what comes next.
    shell.env(BUILT_BY_US, "1");
    // It would put the component where the manifest does not look for it.
    shell.env_remove("CARGO_TARGET_DIR");
    // Results go to standard output, and this is none.
    shell.stdout(std::io::stderr());
    let status = shell.status().await.map_err(|cause| Error::failed(format!("no shell can be started: {cause}")))?;
    if status.success() {
        return Ok(());
    }
    let how = status.code().map_or_else(|| "was ended by a signal".to_owned(), |code| format!("ended with {code}"));
    Err(Error::hinted(format!("the build failed: `{command}` {how}"), hint(command, status.code())))
}

/// A shell says by 127 that it found no such program.
fn hint(command: &str, code: Option<i32>) -> String {
    match code {
        Some(127) => {
            let program = command.split_whitespace().next().unwrap_or_default();
            format!("`{program}` is not installed here, or not on PATH")
        }
        _ => "what it said stands above".to_owned(),
    }
}

fn size(inspection: &Inspection) -> String {
    let (size, code) = (value::bytes(inspection.size), value::bytes(inspection.artefact_size));
    format!("{size} ({code} of machine code)")
}

/// For programs.
fn described(project: &Project, built: &Built, warnings: &[String]) -> Result<Value> {
    let inspection = &built.loaded.inspection;
    Ok(json!({
        "plugin": project.manifest.plugin.name,
        "artifact": project.artifact()?.display().to_string(),
        "build_ms": u64::try_from(built.took.as_millis()).unwrap_or(u64::MAX),
        "world": needs::world(inspection),
        "size": inspection.size,
        "does": needs::abilities(&project.manifest, inspection.exports, &inspection.imports),
        "needs": inspect::needs(&inspection.imports),
        "imports": inspection.imports,
        "made_with": inspection.metadata.made_with(),
        "inspection": inspection,
        "grants": project.manifest.grants,
        "warnings": warnings,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_that_is_left_as_it_was_is_as_new_as_its_build() {
        let folder = tempfile::tempdir().expect("because a temporary folder can be made");
        let path = folder.path().join("p.wasm");
        std::fs::write(&path, "x").expect("because the folder is there");
        let time = || path.metadata().and_then(|about| about.modified()).expect("because it is there");
        let before = time();
        renew(&path, before - Duration::from_secs(1));
        assert_eq!(time(), before, "a new one keeps its time");
        renew(&path, before + Duration::from_secs(1));
        assert_eq!(time(), before + Duration::from_secs(1));
        assert_eq!(std::fs::read(&path).expect("because it is there"), b"x");
    }
}
