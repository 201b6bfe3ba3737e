//! `cargo xtask …`: the one place for set-up and tests.
//!
//! Every command does its own set-up, says what it is about to do, and can be repeated at any time.

mod cargo;
mod guest;
mod suites;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use clap::Subcommand;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, demo, checks and tests of Bulkhead", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every check and every suite; closes with `N passed, N failed`
    Test(suites::Arguments),
    /// Find or make the compiler for plugins, and build the example plugins
    Guest {
        /// Print shell assignments for building a plugin of your own: eval "$(cargo xtask guest --env)"
        #[arg(long)]
        env: bool,
    },
}

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies inside the repository")?;
    match Arguments::parse().command {
        Task::Test(arguments) => suites::run(root, &arguments),
        Task::Guest { env: true } => {
            for (name, value) in guest::toolchain()?.environment() {
                println!("export {name}='{}'", value.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Task::Guest { env: false } => {
            for example in guest::build_examples(root)? {
                println!("{}\t{}", example.name, example.wasm.display());
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
