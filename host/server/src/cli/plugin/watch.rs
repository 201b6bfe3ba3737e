//! `bulkhead plugin watch`: builds, tests and uploads again whenever something changes.
//!
//! ```text
//! a file of `watch` or the manifest ──▶ build ──▶ tests (or one event) ──▶ push --activate, where a host is known
//! a fixture ─────────────────────────────────────▶ tests
//! ```
//!
//! Each step happens only if the one before went well: what runs on the host stays while the new one fails.

use std::io::IsTerminal as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use notify::EventKind;
use notify::RecursiveMode;
use notify::event::ModifyKind;
use notify_debouncer_full::DebounceEventResult;
use notify_debouncer_full::DebouncedEvent;
use notify_debouncer_full::Debouncer;
use notify_debouncer_full::NoCache;
use tokio::io::AsyncBufReadExt as _;
use tokio::sync::mpsc;

use crate::cli::client::Client;
use crate::cli::connection::Connection;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::paint::Paint;
use crate::cli::plugin::build;
use crate::cli::plugin::build::Built;
use crate::cli::plugin::local::Bench;
use crate::cli::plugin::local::MANIFEST;
use crate::cli::plugin::local::Project;
use crate::cli::plugin::push::Component;
use crate::cli::plugin::push::upload;
use crate::cli::plugin::run;
use crate::cli::plugin::sources::Part;
use crate::cli::plugin::sources::Sources;
use crate::cli::plugin::sources::real;
use crate::cli::plugin::test;
use crate::cli::screen;
use crate::cli::stop::stopped;
use crate::cli::value;
use crate::cli::value::at;
use crate::fixture;
use crate::fixture::Ending;
use crate::fixture::Fixture;

/// How long changes are gathered: an editor writes a file in several steps.
const GATHER: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "Examples:
  bulkhead plugin watch
  bulkhead plugin watch plugins/fraud --event order.json   # run this event instead of the fixtures
  bulkhead plugin watch --no-push

With a host (a profile of `bulkhead dev`, or BULKHEAD_KEY) each good build becomes the active version there.
Enter does everything again; Ctrl-C ends it.";

/// What is watched.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Watch {
    /// The plugin's folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Run this event instead of the fixtures
    #[arg(short, long, value_name = "FILE")]
    event: Option<PathBuf>,
    /// Upload nothing, even where a host is known
    #[arg(long)]
    no_push: bool,
}

/// What a change asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// A fixture or the event: run again.
    Case,
    /// Everything else: build again.
    Source,
}

/// The last good build.
struct Tried {
    built: Built,
    /// Whether a host has it.
    pushed: bool,
}

impl Watch {
    /// Does it, until it is interrupted.
    pub async fn run(self, connection: &Connection) -> Result<()> {
        let bench = Bench::open()?;
        let client = if self.no_push { None } else { connection.tenant().ok() };
        let (sender, mut changes) = mpsc::unbounded_channel();
        let mut built = None;
        let mut change = Change::Source;
        let mut again = lines();
        loop {
            // Watched anew each time: the manifest may name other files now.
            let watching = match Project::open(&self.folder).await {
                Ok(project) => Some(self.watch(&project, sender.clone())?),
                Err(_) => Some(watch_manifest(&self.folder, sender.clone())?),
            };
            let round = self.round(change, &bench, &mut built, client.as_ref());
            tokio::select! {
                outcome = round => told(outcome)?,
                () = stopped() => return Ok(()),
            }
            change = tokio::select! {
                Some(change) = changes.recv() => change,
                Some(()) = again.recv() => Change::Source,
                () = stopped() => return Ok(()),
            };
            while let Ok(further) = changes.try_recv() {
                change = change.max(further);
            }
            drop(watching);
        }
    }

    /// Everything that a change asks for.
    async fn round(
        &self,
        change: Change,
        bench: &Bench,
        built: &mut Option<Tried>,
        client: Option<&Client>,
    ) -> Result<()> {
        clear()?;
        let project = Project::open(&self.folder).await?;
        if change == Change::Source || built.is_none() {
            *built = None;
            *built = Some(Tried { built: build::build(&project, bench).await?, pushed: false });
        }
        let Some(Tried { built, pushed }) = built.as_mut() else { return Ok(()) };
        let took = value::micros(u64::try_from(built.took.as_micros()).unwrap_or(u64::MAX));
        let paint = Paint::stdout();
        let name = &project.manifest.plugin.name;
        screen::line(&format!("{} {}  built in {took}", paint.green("ok"), paint.bold(name)))?;
        self.check(&project, bench, built).await?;
        // A build whose fixtures were wrong is uploaded once they are mended.
        let Some(client) = client else {
            let unknown = "no host is known (BULKHEAD_KEY, or a profile), so nothing is uploaded";
            return if self.no_push { Ok(()) } else { screen::note(unknown) };
        };
        if *pushed {
            return Ok(());
        }
        let component = Component::read(&project.folder, None, None).await?;
        let answer = upload(client, &component, true).await?;
        *pushed = true;
        screen::line(&format!("{} version {} is active", paint.green("ok"), at(&answer, "/version")))
    }

    /// The fixtures, or the event.
    async fn check(&self, project: &Project, bench: &Bench, built: &Built) -> Result<()> {
        if let Some(file) = &self.event {
            let fixture = Fixture::of(run::event(file).await?);
            let exports = built.loaded.inspection.exports;
            let case = fixture::run::Case::new(&fixture, &project.manifest, exports).map_err(Error::failed)?;
            let (sandbox, plugin) = (bench.sandbox().clone(), built.loaded.plugin.clone());
            let ran = tokio::task::spawn_blocking(move || case.run(&sandbox, &plugin)).await;
            let ran = ran.map_err(|_| Error::failed("the sandbox broke off"))?;
            run::print(&ran)?;
            return if ran.happened.outcome == Ending::Done { Ok(()) } else { Err(Error::Told) };
        }
        let files = test::fixtures(&project.folder, &[])?;
        if files.is_empty() {
            return screen::note("no fixtures in tests/");
        }
        let outcome = test::all(&project.manifest, bench, &built.loaded, &files, false).await?;
        outcome.print(&project.manifest.plugin.name)?;
        if outcome.failed() == 0 { Ok(()) } else { Err(Error::Told) }
    }

    fn watch(&self, project: &Project, sender: mpsc::UnboundedSender<Change>) -> Result<Watching> {
        let sources = Sources::of(project)?;
        let event = self.event.as_ref().and_then(|file| real(file).ok());
        let mut folders = sources.folders();
        let beside = event.as_deref().and_then(Path::parent).map(Path::to_path_buf);
        folders.extend(beside.map(|folder| (folder, RecursiveMode::NonRecursive)));
        let judge = move |path: &Path| {
            if Some(path) == event.as_deref() {
                return Some(Change::Case);
            }
            match sources.part(path)? {
                Part::Fixture => Some(Change::Case),
                Part::Source => Some(Change::Source),
            }
        };
        watching(&folders, sender, judge)
    }
}

/// Nothing but the manifest, while it is wrong.
fn watch_manifest(folder: &Path, sender: mpsc::UnboundedSender<Change>) -> Result<Watching> {
    let root = real(folder)?;
    let manifest = root.join(MANIFEST);
    let judge = move |path: &Path| (path == manifest).then_some(Change::Source);
    watching(&[(root, RecursiveMode::NonRecursive)], sender, judge)
}

/// Watches for as long as it lives.
type Watching = Debouncer<notify::RecommendedWatcher, NoCache>;

fn watching(
    folders: &[(PathBuf, RecursiveMode)],
    sender: mpsc::UnboundedSender<Change>,
    judge: impl Fn(&Path) -> Option<Change> + Send + 'static,
) -> Result<Watching> {
    let failed = |cause: notify::Error| Error::failed(format!("files cannot be watched: {cause}"));
    let handle = move |result: DebounceEventResult| {
        let events = result.unwrap_or_default();
        let paths = events.iter().filter(|event| is_change(event)).flat_map(|event| &event.paths);
        if let Some(change) = paths.filter_map(|path| judge(path)).max() {
            // Nobody listens any more when the command is about to end.
            let _ = sender.send(change);
        }
    };
    let config = notify::Config::default();
    let mut debouncer =
        notify_debouncer_full::new_debouncer_opt(GATHER, None, handle, NoCache::new(), config).map_err(failed)?;
    for (folder, mode) in folders.iter().filter(|(folder, _)| folder.is_dir()) {
        debouncer.watch(folder, *mode).map_err(failed)?;
    }
    Ok(debouncer)
}

/// A build reads its sources: that is no change.
fn is_change(event: &DebouncedEvent) -> bool {
    !matches!(event.kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)))
}

/// Lines of a person at the terminal; never any where there is none.
fn lines() -> mpsc::UnboundedReceiver<()> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        if std::io::stdin().is_terminal() {
            let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
            while let Ok(Some(_)) = lines.next_line().await {
                if sender.send(()).is_err() {
                    return;
                }
            }
        }
        // Kept open: a closed channel would look like a line.
        sender.closed().await;
    });
    receiver
}

/// Begins a round at the top of the terminal.
fn clear() -> Result<()> {
    if std::io::stdout().is_terminal() { screen::raw(b"\x1b[2J\x1b[3J\x1b[H") } else { Ok(()) }
}

/// What went wrong is said, and the watch goes on. Only what nobody can read ends it.
fn told(outcome: Result<()>) -> Result<()> {
    let paint = Paint::stderr();
    match outcome {
        Ok(()) => {}
        Err(Error::Output(cause)) => return Err(Error::Output(cause)),
        Err(error) => {
            eprint!("{}", error.render(paint));
            screen::note(&paint.yellow("what ran before stays as it is"))?;
        }
    }
    screen::note(&paint.dim("waiting for a change (Enter: again, Ctrl-C: end)"))
}
