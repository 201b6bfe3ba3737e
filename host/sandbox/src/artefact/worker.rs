//! The compile worker: component in on stdin, machine code out on stdout, one line of JSON on stderr if it failed.
//!
//! A valid component of half a megabyte can make the compiler ask for 26 GB, which ends the process and cannot be
//! caught. So compilation has a process of its own, with limits and without an environment, which lives for one component.
//! It runs nothing of the component and decides nothing: what it says is only believed about its own input.

use std::io::Read;
use std::io::Write;
use std::panic::AssertUnwindSafe;

use serde::Deserialize;
use serde::Serialize;

use super::rlimit;
use crate::engine;
use crate::inspect::SIZE_MAX;

/// What the worker says when it failed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Complaint {
    /// True if the component is not at fault.
    pub host: bool,
    /// What went wrong.
    pub detail: String,
}

/// What a compile worker's `main` calls, before anything else: limits this process, compiles the component on stdin
/// to stdout and ends.
pub fn compile_worker_main() -> ! {
    // Whatever a panic says is about the compiler's insides; the parent wants one line that it can read.
    std::panic::set_hook(Box::new(|_| {}));
    let complaint = match std::panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => std::process::exit(0),
        Ok(Err(complaint)) => complaint,
        Err(_) => Complaint { host: false, detail: "the compiler failed on it".into() },
    };
    let line = serde_json::to_string(&complaint).expect("because a complaint is plain text");
    let _ = writeln!(std::io::stderr(), "{line}");
    std::process::exit(1)
}

fn work() -> Result<(), Complaint> {
    let ours = |detail: String| Complaint { host: true, detail };
    rlimit::lower().map_err(|error| ours(format!("the limits cannot be set: {error}")))?;
    let mut wasm = Vec::new();
    let limit = u64::try_from(SIZE_MAX).unwrap_or(u64::MAX);
    std::io::stdin().lock().take(limit).read_to_end(&mut wasm).map_err(|error| ours(format!("no input: {error}")))?;
    let engine = engine::open_compiler().map_err(|error| ours(error.to_string()))?;
    let artefact =
        engine.precompile_component(&wasm).map_err(|error| Complaint { host: false, detail: format!("{error:#}") })?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&artefact).and_then(|()| stdout.flush()).map_err(|error| ours(format!("no output: {error}")))
}
