//! Processes: runs tools with an environment that the outer `cargo run` has not coloured.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How much of a failed tool's log is shown; the rest stays in the file that the message names.
const TAIL_LINES: usize = 30;

/// What a person may have set for cargo itself and would miss: where things are, and how to reach
/// them.
const KEPT: &[&str] = &[
    "CARGO_HOME",
    "CARGO_BUILD_JOBS",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

/// A command without what belongs to the host's build: compiler flags, wrappers, the toolchain that
/// rustup chose for us, the package that cargo is running.
pub fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_the_outer_build) {
            command.env_remove(name);
        }
    }
    command
}

fn is_of_the_outer_build(name: &str) -> bool {
    let leaks = name.starts_with("CARGO")
        || name.starts_with("RUSTC")
        || matches!(name, "RUSTFLAGS" | "RUSTDOCFLAGS" | "RUSTUP_TOOLCHAIN" | "RUST_RECURSION_COUNT");
    leaks && !KEPT.iter().any(|kept| name.starts_with(kept))
}

/// What a command printed, trimmed; an error with its own words if it failed.
pub fn read(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("`{}` could not be started", name(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}:\n{}", name(command), String::from_utf8_lossy(&stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
}

/// Runs a command with its output in a file; a failure shows the end of that file.
pub fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("a log file could not be shared by two streams")?)
        .stderr(file)
        .status()
        .with_context(|| format!("`{}` could not be started", name(command)))?;
    if !status.success() {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        bail!("`{}` ended with {status}; the end of what it said:\n{tail}", name(command));
    }
    Ok(())
}

/// Whether a command succeeded within the time; it is killed when the time is over.
pub fn succeeds_within(command: &mut Command, limit: Duration) -> bool {
    let Ok(mut child) = command.stdin(Stdio::null()).spawn() else {
        return false;
    };
    let until = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(100)),
            // Over time, or not ours to wait for: either way it must not go on behind our back.
            Ok(None) | Err(_) => {
                drop(child.kill());
                drop(child.wait());
                return false;
            }
        }
    }
}

fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()];
    words.extend(command.get_args().take(3).map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_outer_build_is_dropped() {
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN", "CARGO"] {
            assert!(is_of_the_outer_build(name), "{name}");
        }
        for name in ["CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR", "CARGO_PROFILE_RELEASE_LTO"] {
            assert!(is_of_the_outer_build(name), "{name}");
        }
    }

    #[test]
    fn what_a_person_set_for_cargo_stays() {
        for name in ["CARGO_HOME", "CARGO_BUILD_JOBS", "CARGO_HTTP_PROXY", "CARGO_NET_OFFLINE", "PATH"] {
            assert!(!is_of_the_outer_build(name), "{name}");
        }
    }

    #[test]
    fn a_tool_that_hangs_is_ended() {
        let started = Instant::now();
        assert!(!succeeds_within(Command::new("sleep").arg("30"), Duration::from_millis(200)));
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_failure_shows_the_end_of_the_log() {
        let log = std::env::temp_dir().join(format!("bulkhead-xtask-log-{}", std::process::id()));
        let error = run_logged(Command::new("sh").args(["-c", "echo the reason; exit 3"]), &log)
            .expect_err("because the command exits with 3");
        assert!(format!("{error:#}").contains("the reason"), "{error:#}");
        std::fs::remove_file(&log).expect("because the log was just written");
    }
}
