//! `cargo xtask bench`: the limits of this machine and ours beside them, measured in one run.

use std::path::Path;
use std::process::Command;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;

use crate::cargo;
use crate::cargo::cargo;
use crate::services;

#[derive(clap::Args)]
pub struct Arguments {
    /// Only these parts; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Seconds of sustained load in the end-to-end part
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// A plugin call: raw wasmtime beside ours
    Call,
    /// Matching events against rules
    Match,
    /// Durable append: bare prepared inserts beside ours
    Append,
    /// Publish to commit, through the real binary
    EndToEnd,
    /// The same on a Postgres of its own
    EndToEndPostgres,
    /// What one tenant can do to 99 others
    NoisyNeighbour,
    /// Swaps of a plugin under load, and from an upload to the first event handled, beside a bare compile
    LifeCycle,
    /// Memory of loaded plugins beside bare wasmtime, the bound of what is loaded, and a restart with 10,000 of them
    ManyPlugins,
    /// Appends and commits on Postgres beside bare inserts, and beside a transaction that somebody left open
    Postgres,
    /// A stream of Redis as a source, beside a bare loop
    Redis,
    /// Memory of an idle host and of idle tenants
    Memory,
}

/// Part, package and example of the parts that are programs of one crate.
const EXAMPLES: [(Part, &str, &str); 6] = [
    (Part::Call, "bulkhead-sandbox", "call_bench"),
    (Part::Match, "bulkhead-domain", "match_bench"),
    (Part::Append, "bulkhead-store", "append_bench"),
    (Part::Postgres, "bulkhead-store", "postgres_bench"),
    (Part::Redis, "bulkhead-flow", "redis_ingest_bench"),
    (Part::ManyPlugins, "bulkhead-sandbox", "many_bench"),
];

pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    let wanted = |part: Part| arguments.only.is_empty() || arguments.only.contains(&part);
    let plugins = cargo::lay_out_plugins(root)?;
    if [Part::Postgres, Part::Redis, Part::EndToEndPostgres].into_iter().any(wanted) {
        services::install()?;
    }
    let mut code = ExitCode::SUCCESS;
    let mut step = |command: &mut Command| -> Result<()> {
        if !command.status().context("a bench could not be started")?.success() {
            code = ExitCode::FAILURE;
        }
        Ok(())
    };
    for (part, package, example) in EXAMPLES {
        if wanted(part) {
            println!("\n=== {example}");
            let mut command = cargo(root);
            command.args(["run", "--release", "--quiet", "--package", package, "--example", example]);
            if [Part::Call, Part::ManyPlugins].contains(&part) {
                command.arg("--").arg(plugins.join("bench-standard.wasm"));
            }
            step(&mut command)?;
        }
    }
    let seconds = arguments.seconds.to_string();
    if wanted(Part::LifeCycle) {
        // The limit that uploads are held against: a program of its own, which is found beside the bench.
        let mut command = cargo(root);
        step(command.args(["build", "--release", "--package", "bulkhead-sandbox", "--example", "bare_compile"]))?;
    }
    let programs: [(Part, &str, &[&str]); 5] = [
        (Part::EndToEnd, "end_to_end", &[&seconds]),
        (Part::EndToEndPostgres, "end_to_end", &[&seconds, "10000", "postgres"]),
        (Part::NoisyNeighbour, "noisy_neighbour", &[]),
        (Part::LifeCycle, "life_cycle", &[]),
        (Part::Memory, "memory", &[&seconds]),
    ];
    for (part, name, words) in programs {
        if wanted(part) {
            println!("\n=== {name} {}", words.join(" "));
            let host = cargo::build_host(root, true)?;
            let mut command = cargo(root);
            command.args(["run", "--release", "--quiet", "--package", "bulkhead-tests", "--example", name, "--"]);
            command.args(words);
            step(command.env("BULKHEAD_BIN", host).env("BULKHEAD_PLUGINS", &plugins))?;
        }
    }
    Ok(code)
}
