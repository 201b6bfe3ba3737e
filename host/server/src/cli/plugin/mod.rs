//! `bulkhead plugin`: write one, upload versions, switch between them, look inside.
//!
//! Reading order: the tree of commands here; on this machine `local` (a plugin's folder and its sandbox), `new`, `build`
//! with `toolchain` and `words`, `test` with `report` and `sources`, `run`, `watch`, `sign`; on a host `push` (upload),
//! `show`, `release` with `candidate` and `history` (which version runs) and `inside` (settings, state, logs).

mod build;
mod candidate;
mod capture;
mod history;
mod inside;
mod local;
mod new;
mod policy;
mod preview;
mod push;
mod recording;
mod release;
mod replay;
mod report;
mod run;
mod schema;
mod show;
mod sign;
mod sources;
mod subscribe;
mod test;
mod toolchain;
mod watch;
mod words;

use clap::Args;
use clap::Subcommand;
use serde_json::Value;
use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::error::Result;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Listing;

pub use inside::lines as log_lines;
pub use inside::log_line;
pub use push::Component;
pub use push::upload;

const EXAMPLES: &str = "Examples:
  bulkhead plugin new enrich -t rust
  bulkhead plugin build; bulkhead plugin test
  bulkhead plugin push .                       # a folder with plugin.toml and a built component
  bulkhead plugin push enrich.wasm --activate  # enrich.toml beside it is its manifest
  bulkhead plugin show enrich
  bulkhead plugin rollback enrich
  bulkhead plugin config set enrich threshold=10 currency=EUR
  bulkhead plugin state enrich --prefix order/
  bulkhead plugin logs enrich --limit 20";

const COLUMNS: &[Column] = &[
    ("NAME", "/name", Cell::Text),
    ("ACTIVE", "/active", Cell::Text),
    ("STATE", "/state", Cell::State),
    ("DIGEST", "/digest", Cell::Text),
    ("UPDATED", "/activated_at|/created", Cell::Time),
];

/// Plugins: new, build, test, run, watch, keygen, sign; push, list, show, activate, preview, policy, rollback, approve, history, canary, shadow, retire, pause, resume, config, state, logs, replay, capture
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Plugin {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    #[command(flatten)]
    Here(Work),
    #[command(flatten)]
    Host(Action),
}

/// What happens on this machine, in the plugin's folder.
#[derive(Debug, Subcommand)]
enum Work {
    /// Begin a plugin: a folder that builds, with a fixture
    New(new::New),
    /// Build the component and check it as an upload is checked
    Build(build::Build),
    /// Run the fixtures (tests/*.json) in the real sandbox, here
    Test(test::Test),
    /// Run a component on one event, once, here
    Run(run::Run),
    /// Build, test and upload again whenever something changes
    Watch(watch::Watch),
    /// Print the JSON Schema of plugin.toml, for editors
    Schema(schema::Schema),
    /// Make a key to sign with, and print the public one
    Keygen(sign::Keygen),
    /// Sign a component for its name and version: a .sig beside it, which `push` sends
    Sign(sign::Sign),
}

/// What a host is asked for.
#[derive(Debug, Subcommand)]
enum Action {
    /// Upload a version; the same bytes again change nothing
    Push(push::Push),
    /// All plugins
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// One plugin with its versions, what it may do and what is tried of it
    Show(show::Show),
    /// Let runs use a version; what is tried again moves to it, unless its manifest says `retry = "stay"`
    Activate {
        /// Its name
        name: String,
        /// The version's number, as `show` lists it
        version: u32,
    },
    /// Try a version on past events beside the active one; nothing is applied
    Preview(preview::Preview),
    /// What it asks of a version before that runs for real: show it, or set it
    Policy(policy::Policy),
    /// Go back to the version that was active before, or to one that is named
    Rollback(release::Rollback),
    /// Agree to what a version asks for beyond the active one
    Approve(release::Approve),
    /// What was done to its versions, by whom and when
    History(history::History),
    /// Let a version handle a part of the events: start, show, promote, stop
    Canary(release::Canary),
    /// Run a version beside the active one with nothing applied: start, show, stop
    Shadow(release::Shadow),
    /// Take a version that is not active out of use for good
    Retire {
        /// Its name
        name: String,
        /// The version's number
        version: u32,
    },
    /// Hold its runs; nothing is lost
    Pause {
        /// Its name
        name: String,
    },
    /// Let held runs go on, in order
    Resume {
        /// Its name
        name: String,
    },
    /// Its settings: get, set
    Config {
        #[command(subcommand)]
        action: inside::Config,
    },
    /// The keys it has stored, or the value under one of them
    State(inside::State),
    /// What it has written to its log, newest run first
    Logs(inside::Logs),
    /// Make a recorded call of a run again, here, and compare
    Replay(replay::Replay),
    /// Write a recorded call of a run as a fixture
    Capture(capture::Capture),
}

impl Plugin {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let action = match self.task {
            Task::Here(work) => return work.run(&self.connection).await,
            Task::Host(action) => action,
        };
        let client = self.connection.tenant()?;
        let plugin = |name: &str| ["v1", "plugins"].map(str::to_owned).into_iter().chain([name.to_owned()]).collect();
        let post = async |name: String, action: &'static str, body: Value| {
            let path: Vec<String> = plugin(&name);
            let path: Vec<&str> = path.iter().map(String::as_str).chain([action]).collect();
            client.post(&path, &body).await.map(|answer| (name, answer))
        };
        match action {
            Action::Push(push) => push.run(&client).await,
            Action::List { listing } => {
                let items = client.list(&["v1", "plugins"], &[], listing.limit).await?;
                screen::list(items, listing.output, COLUMNS, "no plugins yet: bulkhead plugin push FILE --activate")
            }
            Action::Show(show) => show.run(&client).await,
            Action::Activate { name, version } => release::activate(&client, &name, version).await,
            Action::Preview(preview) => preview.run(&client).await,
            Action::Policy(policy) => policy.run(&client).await,
            Action::Rollback(rollback) => rollback.run(&client).await,
            Action::Approve(approve) => approve.run(&client).await,
            Action::History(history) => history.run(&client).await,
            Action::Canary(canary) => canary.run(&client).await,
            Action::Shadow(shadow) => shadow.run(&client).await,
            Action::Retire { name, version } => {
                let (name, _) = post(name, "retire", json!({"version": version})).await?;
                screen::line(&format!("plugin {name}: version {version} is retired"))
            }
            Action::Pause { name } => {
                let (name, _) = post(name, "pause", json!({})).await?;
                screen::line(&format!("plugin {name} is paused; its runs are held"))
            }
            Action::Resume { name } => {
                let (name, _) = post(name, "resume", json!({})).await?;
                screen::line(&format!("plugin {name} goes on"))
            }
            Action::Config { action } => action.run(&client).await,
            Action::State(state) => state.run(&client).await,
            Action::Logs(logs) => logs.run(&client).await,
            Action::Replay(replay) => replay.run(&client).await,
            Action::Capture(capture) => capture.run(&client).await,
        }
    }
}

impl Work {
    async fn run(self, connection: &Connection) -> Result<()> {
        match self {
            Self::New(new) => new.run(),
            Self::Build(build) => build.run().await,
            Self::Test(test) => test.run().await,
            Self::Run(run) => run.run().await,
            Self::Watch(watch) => watch.run(connection).await,
            Self::Schema(schema) => schema.run(),
            Self::Keygen(keygen) => keygen.run(),
            Self::Sign(sign) => sign.run().await,
        }
    }
}
