//! `cargo xtask …`: the one place for set-up, demo, tests and benchmarks.
//!
//! Every command does its own set-up, says what it is about to do, and can be repeated at any time.

mod apt;
mod bench;
mod cargo;
mod demo;
mod guest;
mod process;
mod progress;
mod services;
mod suites;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use clap::Subcommand;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, demo, tests and benchmarks of Bulkhead",
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build what is missing and run the demo: two tenants, example plugins, real events
    Demo(demo::Arguments),
    /// Run every check and every suite; closes with `N passed, N failed`
    ///
    /// Starts a Postgres and a Redis for the suites, on free ports and in temporary folders, and installs the Debian
    /// packages postgresql and redis-server (as root or by sudo) where their programs are missing. A server that
    /// BULKHEAD_TEST_POSTGRES (the address of a superuser) or BULKHEAD_TEST_REDIS names is used instead.
    Test(suites::Arguments),
    /// Start a Postgres and a Redis for tests that are run by hand, until Ctrl-C
    ///
    /// Prints two `export` lines for the shell in which you run `cargo test`. Without them every test program starts
    /// servers of its own, which takes a second. Installs the Debian packages that are missing.
    Services,
    /// Measure the limits of this machine and ours beside them
    Bench(bench::Arguments),
    /// Find or make the compiler for plugins, and build the example plugins
    ///
    /// Rust's are built with this machine's toolchain or Debian's rustc-web (140 MB to download), those in JavaScript
    /// with tools from npm (80 MB). --all adds those in Python with componentize-py from PyPI (17 MB), and the test
    /// fixtures of other toolchains: jco with StarlingMonkey from npm (70 MB) and zig's clang from PyPI (101 MB). Each is
    /// fetched once for this user, into the cache folder; Node and Python are installed from Debian where they are
    /// missing.
    Guest {
        /// Print shell assignments for building a plugin of your own: eval "$(cargo xtask guest --env)"
        #[arg(long)]
        env: bool,
        /// Also those in Python, and the components of other toolchains that tests need
        #[arg(long, conflicts_with = "env")]
        all: bool,
    },
}

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies inside the repository")?;
    match Arguments::parse().command {
        Task::Demo(arguments) => demo::run(root, &arguments),
        Task::Test(arguments) => suites::run(root, &arguments),
        Task::Services => services::run(),
        Task::Bench(arguments) => bench::run(root, &arguments),
        Task::Guest { env: true, .. } => {
            for (name, value) in guest::toolchain()?.environment() {
                println!("export {name}='{}'", value.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Task::Guest { all, .. } => {
            let mut built = guest::build_examples(root)?;
            if all {
                built.extend(guest::build_python(root)?);
                built.extend(guest::build_foreign(root)?);
            }
            for example in built {
                println!("{}\t{}", example.name, example.wasm.display());
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
