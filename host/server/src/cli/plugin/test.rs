//! `bulkhead plugin test`: the fixtures of a folder, in the real sandbox.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::input;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::plugin::local;
use crate::cli::plugin::local::Bench;
use crate::cli::plugin::local::Loaded;
use crate::cli::plugin::local::Project;
use crate::cli::plugin::report;
use crate::cli::plugin::report::Case;
use crate::cli::plugin::report::Verdict;
use crate::cli::plugin::sources::Sources;
use crate::cli::screen;
use crate::cli::screen::Format;
use crate::cli::screen::Output;
use crate::fixture;
use crate::fixture::Expect;
use crate::fixture::Fixture;
use crate::manifest::Manifest;

/// Where fixtures are, in a plugin's folder.
pub const FOLDER: &str = "tests";

const EXAMPLES: &str = "Examples:
  bulkhead plugin test                       # tests/*.json of this folder
  bulkhead plugin test plugins/fraud burst   # only those whose name has `burst` in it
  bulkhead plugin test --update              # write what happens as what is expected
  bulkhead plugin test --junit report.xml

A fixture is {\"event\": {…}, \"config\": {…}, \"state\": {…}, \"expect\": {…}}; only `event.type` is needed.
`bulkhead plugin schema --fixture` prints its schema.";

/// What is tested.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Test {
    /// The plugin's folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Only fixtures whose name has one of these in it
    filter: Vec<String>,
    /// Write what happens into the fixtures as what is expected
    #[arg(short, long)]
    update: bool,
    /// Also write the result as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// How all cases of a plugin went.
pub struct Outcome {
    /// One for each fixture, by name.
    pub cases: Vec<Case>,
}

impl Test {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let project = Project::open(&self.folder).await?;
        let files = fixtures(&project.folder, &self.filter)?;
        if files.is_empty() {
            let what = if self.filter.is_empty() { "no fixtures" } else { "no fixture of that name" };
            return Err(Error::hinted(
                format!("there are {what} in {}", project.folder.join(FOLDER).display()),
                "write tests/NAME.json with {\"event\": {\"type\": \"…\", \"data\": {…}}}, then run this with --update",
            ));
        }
        let bench = Bench::open()?;
        let loaded = bench.load(project.component().await?).await?;
        if let Some(warning) = outdated(&project)? {
            screen::note(&format!("{} {}", Paint::stderr().yellow("warning:"), clean(&warning)))?;
        }
        let outcome = all(&project.manifest, &bench, &loaded, &files, self.update).await?;
        if let Some(junit) = &self.junit {
            report::junit(&project.manifest.plugin.name, &outcome.cases, junit)?;
        }
        match self.format.output {
            Output::Json => screen::json(&outcome.json(&project.manifest.plugin.name))?,
            Output::Table => outcome.print(&project.manifest.plugin.name)?,
        }
        if outcome.failed() == 0 { Ok(()) } else { Err(Error::Told) }
    }
}

/// What to say of a component that was built before its sources were changed.
fn outdated(project: &Project) -> Result<Option<String>> {
    let artifact = project.artifact()?;
    // Where no times are kept, nothing can be said.
    let Ok(built) = artifact.metadata().and_then(|about| about.modified()) else { return Ok(None) };
    let newer = Sources::of(project)?.newer(built);
    Ok(newer.map(|source| {
        let (source, artifact, build) = (source.display(), artifact.display(), project.command("build"));
        format!("{source} is newer than {artifact}, so an older build is tested: run `{build}`")
    }))
}

/// The fixtures of a plugin, by name.
pub fn fixtures(folder: &Path, filter: &[String]) -> Result<Vec<PathBuf>> {
    let folder = folder.join(FOLDER);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::file(&folder, "read", &cause)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(|cause| Error::file(&folder, "read", &cause))?.path();
        let wanted = filter.is_empty() || filter.iter().any(|part| name(&file).contains(part.as_str()));
        if wanted && file.is_file() && file.extension().is_some_and(|ending| ending == "json") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Runs fixtures one after another: figures of cases that run side by side say nothing.
pub async fn all(
    manifest: &Manifest,
    bench: &Bench,
    loaded: &Loaded,
    files: &[PathBuf],
    update: bool,
) -> Result<Outcome> {
    let mut cases = Vec::new();
    for file in files {
        cases.push(one(manifest, bench, loaded, file, update).await?);
    }
    Ok(Outcome { cases })
}

/// Runs one fixture. What is wrong with the fixture is the case's verdict; an error here is of this machine.
async fn one(manifest: &Manifest, bench: &Bench, loaded: &Loaded, file: &Path, update: bool) -> Result<Case> {
    let broken =
        |error| Case { name: name(file), file: file.to_path_buf(), verdict: Verdict::Broken(error), ran: None };
    let mut fixture = match read(file).await {
        Ok(fixture) => fixture,
        Err(error) => return Ok(broken(error)),
    };
    let case = match fixture::run::Case::new(&fixture, manifest, loaded.inspection.exports) {
        Ok(case) => case,
        Err(what) => return Ok(broken(Error::failed(format!("{}: {what}", file.display())))),
    };
    let (sandbox, plugin) = (bench.sandbox().clone(), loaded.plugin.clone());
    let ran = tokio::task::spawn_blocking(move || case.run(&sandbox, &plugin)).await;
    let ran = ran.map_err(|_| Error::failed("the sandbox broke off"))?;
    let difference = match &fixture.expect {
        Some(expected) => fixture::compare::difference(expected, &ran.happened),
        None => fixture::compare::difference(&Expect::default(), &ran.happened),
    };
    let verdict = match (&fixture.expect, difference) {
        (Some(_), None) => Verdict::Passed,
        (expected, _) if update => {
            fixture.expect = Some(match expected {
                Some(expected) => fixture::compare::told(expected, ran.happened.clone()),
                None => first_expectation(ran.happened.clone()),
            });
            let written = std::fs::write(file, fixture.to_text());
            written.map_err(|cause| Error::file(file, "written", &cause))?;
            Verdict::Updated
        }
        (Some(_), Some(lines)) => Verdict::Differs(lines),
        (None, _) => Verdict::Broken(Error::hinted(
            format!("{} expects nothing yet", file.display()),
            "run this with --update, and read what it writes before you trust it",
        )),
    };
    Ok(Case { name: name(file), file: file.to_path_buf(), verdict, ran: Some(ran) })
}

/// What is worth holding on to of a first run: everything with an effect, and why it failed.
fn first_expectation(mut happened: Expect) -> Expect {
    happened.logs = happened.logs.filter(|lines| !lines.is_empty());
    happened.usage = happened.usage.filter(|usage| !usage.is_empty());
    happened
}

/// A fixture, checked; a fault with its place.
pub async fn read(file: &Path) -> Result<Fixture> {
    let text = input::text(file).await?;
    let wrong = |fault| local::wrong(file, "the fixture is wrong", "fixture-invalid", vec![fault]);
    Fixture::parse(&text).map_err(wrong)
}

fn name(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

impl Outcome {
    /// How many somebody must look at.
    pub fn failed(&self) -> usize {
        self.cases.iter().filter(|case| !case.is_fine()).count()
    }

    /// For people.
    pub fn print(&self, plugin: &str) -> Result<()> {
        let paint = Paint::stdout();
        let width = self.cases.iter().map(|case| case.name.chars().count()).max().unwrap_or_default();
        screen::line(&paint.bold(plugin))?;
        for case in &self.cases {
            screen::line(&case.text(width, paint))?;
        }
        let (failed, all) = (self.failed(), self.cases.len());
        let closing = format!("{} passed, {failed} failed", all - failed);
        screen::line(&if failed == 0 { paint.green(&closing) } else { paint.red(&closing) })
    }

    fn json(&self, plugin: &str) -> Value {
        let failed = self.failed();
        let cases: Vec<Value> = self.cases.iter().map(Case::json).collect();
        json!({"plugin": plugin, "cases": cases, "passed": self.cases.len() - failed, "failed": failed})
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::time::SystemTime;

    use super::*;
    use crate::manifest::Build;

    #[test]
    fn an_older_component_is_told_by_the_newer_source() {
        let folder = tempfile::tempdir().expect("because a temporary folder can be made");
        let write = |name: &str, time: SystemTime| {
            let file = std::fs::File::create(folder.path().join(name)).expect("because the folder is there");
            file.set_modified(time).expect("because the file is ours");
        };
        let build = Build { artifact: Some("p.wasm".to_owned()), ..Build::default() };
        let project = Project { folder: folder.path().to_path_buf(), manifest: Manifest::bare("p"), build };
        let told = || outdated(&project).expect("because the folder is there");
        let now = SystemTime::now();
        write("lib.rs", now);
        assert_eq!(told(), None, "there is no component");
        write("p.wasm", now);
        assert_eq!(told(), None, "a file of the same time is no newer one");
        write("p.wasm", now - Duration::from_secs(1));
        let warning = told().expect("because the source is newer");
        let build = format!("run `bulkhead plugin build {}`", folder.path().display());
        assert!(warning.starts_with("lib.rs is newer than ") && warning.ends_with(&build), "{warning}");
    }
}
