//! The command line: one binary, a noun and a verb, the same words as the HTTP API.
//!
//! Commands that start a host (`serve`, `dev`, `demo`) call [`crate::app`]; all others are clients of the HTTP API and
//! can do nothing that a program with the same key could not do.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage. Results go to standard output, everything said about them to standard
//! error.
//!
//! Reading order: the tree of commands here; [`error`] and [`problem`] (what people read when it does not work);
//! [`connection`] and [`client`] (which host, as whom); [`screen`] (tables and JSON); then one file per noun.

mod asks;
mod batch;
mod ceiling;
mod client;
mod config;
mod connection;
mod delivery;
mod demo;
mod dev;
mod doctor;
mod document;
mod error;
mod event;
mod feed;
mod host;
mod input;
mod key;
mod paint;
mod parked;
mod plugin;
mod problem;
mod profile;
mod quota;
mod rule;
mod run;
mod screen;
mod secret;
mod serve;
mod sink;
mod sse;
mod stop;
mod store;
mod switch;
mod temp;
mod tenant;
mod usage;
mod value;

use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

pub use crate::cli::client::Client;
pub use crate::cli::error::Error;
pub use crate::cli::error::Result;
pub use crate::cli::feed::Options as FeedOptions;
pub use crate::cli::feed::Tally;
pub use crate::cli::feed::publish;
pub use crate::cli::host::load;
pub use crate::cli::host::new_operator_key;
pub use crate::cli::host::url;
pub use crate::cli::paint::Paint;
pub use crate::cli::plugin::Component;
pub use crate::cli::plugin::upload;
pub use crate::cli::screen::line;
pub use crate::cli::screen::note;
pub use crate::cli::stop::stopped;
pub use crate::cli::temp::TempFolder;
pub use crate::cli::value::bytes;
pub use crate::cli::value::count;
pub use crate::cli::value::fuel;
pub use crate::cli::value::micros;

const EXAMPLES: &str = "Begin here:
  bulkhead demo                 a host with two tenants, plugins and events, to look around in
  bulkhead dev                  a host of your own; the commands below then work in the same folder
  bulkhead plugin push . --activate
  bulkhead rule apply rules/
  bulkhead event publish -f events.ndjson
  bulkhead event show ID        what became of an event, and why it waits

BULKHEAD_URL and BULKHEAD_KEY, or a profile file, say which host and as whom.
Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Runs tenants' WebAssembly plugins on tenants' events; effects exactly once.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, after_help = EXAMPLES, max_term_width = 110, subcommand_required = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Dev(dev::Dev),
    Demo(demo::Demo),
    Event(event::Event),
    Rule(rule::Rule),
    Plugin(plugin::Plugin),
    Run(run::Run),
    Parked(parked::Parked),
    Delivery(delivery::Delivery),
    Sink(sink::Sink),
    Secret(secret::Secret),
    Usage(usage::Usage),
    Quota(quota::Quota),
    /// Take events in, but work nothing off
    Pause(switch::Switch),
    /// Work everything off again
    Resume(switch::Switch),
    Tenant(tenant::Tenant),
    Key(key::Key),
    Config(config::Config),
    Store(store::Store),
    Doctor(doctor::Doctor),
}

impl Command {
    /// True for those that run a host in this process.
    fn is_host(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Dev(_) | Self::Demo(_))
    }

    async fn run(self) -> Result<()> {
        match self {
            Self::Serve(command) => command.run().await,
            Self::Dev(command) => command.run().await,
            Self::Demo(command) => command.run().await,
            Self::Event(command) => command.run().await,
            Self::Rule(command) => command.run().await,
            Self::Plugin(command) => command.run().await,
            Self::Run(command) => command.run().await,
            Self::Parked(command) => command.run().await,
            Self::Delivery(command) => command.run().await,
            Self::Sink(command) => command.run().await,
            Self::Secret(command) => command.run().await,
            Self::Usage(command) => command.run().await,
            Self::Quota(command) => command.run().await,
            Self::Pause(command) => command.pause().await,
            Self::Resume(command) => command.resume().await,
            Self::Tenant(command) => command.run().await,
            Self::Key(command) => command.run().await,
            Self::Config(command) => command.run(),
            Self::Store(command) => command.run().await,
            Self::Doctor(command) => command.run().await,
        }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    // The host starts itself again to compile tenants' components where they can do no harm.
    if std::env::args_os().nth(1).is_some_and(|it| it == bulkhead_sandbox::Compiler::ARGUMENT) {
        bulkhead_sandbox::compile_worker_main();
    }
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            // Help and version are no errors; both go where they belong, coloured where that is wanted.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut builder = if command.is_host() {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => return told(&Error::failed(format!("no threads to work with: {cause}"))),
    };
    let outcome = runtime.block_on(command.run());
    // A read of standard input that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    outcome.map_or_else(|error| told(&error), |()| ExitCode::SUCCESS)
}

/// Says what went wrong.
fn told(error: &Error) -> ExitCode {
    eprint!("{}", error.render(Paint::stderr()));
    error.exit_code()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_is_for() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}");
            for argument in command.get_arguments().filter(|it| !matches!(it.get_id().as_str(), "help" | "version")) {
                assert!(argument.get_help().is_some(), "{path} {}", argument.get_id());
            }
            command.get_subcommands().for_each(|it| check(it, &path));
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn no_command_takes_a_global_flag_s_name_for_itself() {
        fn check(command: &clap::Command, globals: &[&str], path: &str) {
            let path = format!("{path} {}", command.get_name());
            let own = command.get_arguments();
            let mut known: Vec<&str> = globals.to_vec();
            for argument in own {
                let name = argument.get_id().as_str();
                assert!(!globals.contains(&name), "{path}: `{name}` is a global flag; clap would mix the two up");
                known.extend(argument.is_global_set().then_some(name));
            }
            command.get_subcommands().for_each(|it| check(it, &known, &path));
        }
        check(&Cli::command(), &[], "");
    }

    #[test]
    fn wrong_usage_is_told_from_help() {
        for (words, code) in [
            (&["bulkhead", "--help"][..], 0),
            (&["bulkhead", "event", "publish", "--help"], 0),
            (&["bulkhead"], 2),
            (&["bulkhead", "evnt"], 2),
            (&["bulkhead", "event", "publish"], 2),
            (&["bulkhead", "event", "publish", "-f", "a", "--type", "b"], 2),
            (&["bulkhead", "event", "publish", "-f", "a", "--data", "b"], 2),
        ] {
            let error = Cli::try_parse_from(words).expect_err("because it asks for help or is wrong");
            assert_eq!(error.exit_code(), code, "{words:?}");
        }
    }
}
