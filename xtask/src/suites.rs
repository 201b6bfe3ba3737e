//! `cargo xtask test`: every check and every suite, one after another, and one line at the end that counts.
//!
//! Nothing is skipped silently: a suite that cannot run fails, unless the caller names it in `--without`. Suites that
//! need a Postgres and a Redis share one of each, which end with the run.

use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::cargo;
use crate::cargo::cargo;
use crate::guest;
use crate::process;
use crate::services;

#[derive(clap::Args)]
pub struct Arguments {
    /// Leave a suite out; may be repeated. The last line says how many were
    #[arg(long, value_name = "SUITE")]
    without: Vec<String>,
    /// Only these suites; may be repeated
    #[arg(long, value_name = "SUITE", conflicts_with = "without")]
    only: Vec<String>,
    /// The long forms of the fault suites (an hour rather than minutes)
    #[arg(long)]
    nightly: bool,
}

/// The suites, in order: what fails fastest first.
const SUITES: [&str; 7] = ["format", "lints", "docs", "unit", "sdk", "system", "toolchains"];

/// Tests of plugins in Python and of components of other toolchains. They have a suite of their own, because what they
/// need to download is much and not everybody's.
const TOOLCHAINS: &str = "toolchains::";

#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    for name in arguments.without.iter().chain(&arguments.only) {
        if !SUITES.contains(&name.as_str()) {
            bail!("`{name}` is no suite; there are: {}", SUITES.join(", "));
        }
    }
    let mut tally = Tally::default();
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for suite in SUITES {
        let wanted = arguments.only.is_empty() || arguments.only.iter().any(|name| name == suite);
        if !wanted || arguments.without.iter().any(|name| name == suite) {
            continue;
        }
        println!("\n=== {suite}");
        let began = Instant::now();
        if let Err(error) = run_suite(root, suite, arguments.nightly, &mut tally) {
            println!("{suite}: {error:#}");
            tally.failed += 1;
            tally.failures.push(format!("{suite}: {error:#}"));
        }
        times.push((suite, began.elapsed()));
    }
    println!();
    for (suite, time) in times {
        println!("{suite:<10} {:>5} s", time.as_secs());
    }
    for failure in &tally.failures {
        println!("FAILED   {failure}");
    }
    if !arguments.without.is_empty() {
        println!("left out on request: {}", arguments.without.join(", "));
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 && tally.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_suite(root: &Path, suite: &str, nightly: bool, tally: &mut Tally) -> Result<()> {
    match suite {
        "format" => check(suite, cargo(root).args(["fmt", "--all", "--check"]), tally),
        "lints" => check(
            suite,
            cargo(root).args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
            tally,
        ),
        "docs" => check(
            suite,
            cargo(root).args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"),
            tally,
        ),
        "unit" => {
            // The example plugins come first: tests of the sandbox run them.
            let plugins = cargo::lay_out_plugins(root)?;
            let mut command = cargo(root);
            command.args(["test", "--workspace", "--exclude", "bulkhead-tests", "--no-fail-fast", "--"]);
            command.args(["--skip", TOOLCHAINS]);
            counted(suite, command.env("BULKHEAD_PLUGINS", plugins).envs(services::environment()?), tally)
        }
        "sdk" => {
            tally.passed += guest::test_js_sdk(root)?;
            let mut command = process::clean("cargo");
            command.current_dir(root.join("plugin-sdk/rust"));
            counted(suite, command.args(["test", "--workspace", "--no-fail-fast"]), tally)
        }
        "toolchains" => {
            let plugins = cargo::lay_out_all_plugins(root)?;
            let host = cargo::build_host(root, false)?;
            tally.passed += guest::test_python_sdk(root)?;
            let mut command = cargo(root);
            command.args(["test", "--package", "bulkhead-sandbox", "--package", "bulkhead-tests", "--test", "it"]);
            command.args(["--no-fail-fast", "--", "--test-threads=1"]).arg(TOOLCHAINS);
            command.env("BULKHEAD_BIN", host).env("BULKHEAD_PLUGINS", plugins);
            counted(suite, &mut command, tally)
        }
        _ => {
            let plugins = cargo::lay_out_plugins(root)?;
            let host = cargo::build_host(root, false)?;
            services::install_clients()?;
            let mut command = cargo(root);
            command.args(["test", "--package", "bulkhead-tests", "--no-fail-fast", "--", "--nocapture"]);
            command.arg("--test-threads=1").args(["--skip", TOOLCHAINS]);
            command.env("BULKHEAD_BIN", host).env("BULKHEAD_PLUGINS", plugins).envs(services::environment()?);
            if nightly {
                command.env("BULKHEAD_NIGHTLY", "1");
            }
            counted(suite, &mut command, tally)
        }
    }
}

/// A check that either passes or fails as a whole.
fn check(suite: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().context("cargo could not be started")?;
    if status.success() {
        tally.passed += 1;
    } else {
        tally.failed += 1;
        tally.failures.push(format!("{suite}: {command:?} ended with {status}"));
    }
    Ok(())
}

/// A run of cargo's tests: passes its output on and adds up its closing lines.
fn counted(suite: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cargo could not be started")?;
    let output = child.stdout.take().context("the output of cargo is not there")?;
    let (mut passed, mut failed) = (0, 0);
    for line in BufReader::new(output).lines() {
        let line = line.context("the output of cargo broke off")?;
        println!("{line}");
        if let Some((ok, not)) = closing_line(&line) {
            passed += ok;
            failed += not;
        } else if line.starts_with("test ") && line.ends_with("FAILED") {
            tally.failures.push(format!("{suite}: {line}"));
        }
    }
    let status = child.wait().context("cargo could not be waited for")?;
    tally.passed += passed;
    tally.failed += failed;
    if !status.success() && failed == 0 {
        bail!("cargo test ended with {status}");
    }
    if passed + failed == 0 {
        bail!("no test was run");
    }
    Ok(())
}

/// `test result: ok. 12 passed; 0 failed; …` to (12, 0).
fn closing_line(line: &str) -> Option<(u64, u64)> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut parts = counts.split("; ");
    let passed = parts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = parts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_read() {
        let line = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.15s";
        assert_eq!(closing_line(line), Some((12, 0)));
        assert_eq!(closing_line("test result: FAILED. 1 passed; 2 failed; 0 ignored"), Some((1, 2)));
        assert_eq!(closing_line("running 3 tests"), None);
    }
}
