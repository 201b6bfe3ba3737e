//! The parent's side of a compilation: starts a worker, feeds it, and judges how it ended.

use std::ffi::OsString;
use std::io::Read;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use super::Verified;
use super::worker::Complaint;
use crate::engine;
use crate::inspect::Refused;
use crate::options::Compiler;

/// The largest artefact. The heaviest real plugins make 37 MB.
pub(crate) const ARTEFACT_MAX: usize = 64 << 20;

/// How long a compilation may take. Twice the CPU it is given, for a machine that is busy.
const WALL: Duration = Duration::from_secs(120);

/// Threads of one compilation: more make it faster, and its memory grows with each.
const THREADS_MAX: usize = 4;

/// What is kept of the worker's complaint.
const COMPLAINT_MAX: usize = 16 << 10;

/// Machine code for `wasm`.
pub(super) fn compile(compiler: &Compiler, wasm: &[u8]) -> Result<Verified, Refused> {
    let (program, arguments): (OsString, Vec<OsString>) = match compiler {
        Compiler::InProcess => return compile_here(wasm),
        Compiler::ThisBinary => (this_binary()?, vec![Compiler::ARGUMENT.into()]),
        Compiler::Command(command) => match command.split_first() {
            Some((program, arguments)) => (program.clone(), arguments.to_vec()),
            None => return Err(Refused::host("the compile command is empty")),
        },
    };
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_MAX));
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        // Each thread and each arena of the allocator takes address space, which is limited.
        .env("RAYON_NUM_THREADS", threads.to_string())
        .env("MALLOC_ARENA_MAX", "2")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Refused::host(format!("the compile worker cannot start: {error}")))?;
    attend(child, wasm)
}

fn compile_here(wasm: &[u8]) -> Result<Verified, Refused> {
    let engine = engine::open_compiler().map_err(|error| Refused::host(error.to_string()))?;
    match engine.precompile_component(wasm) {
        Ok(artefact) => accept(artefact),
        Err(error) => Err(Refused::not_compiled(&format!("{error:#}"))),
    }
}

/// The running binary, even if its file was replaced since: the worker must be of the same build.
fn this_binary() -> Result<OsString, Refused> {
    let own = std::path::Path::new("/proc/self/exe");
    if own.exists() {
        return Ok(own.as_os_str().to_owned());
    }
    std::env::current_exe()
        .map(std::path::PathBuf::into_os_string)
        .map_err(|error| Refused::host(format!("the compile worker cannot be found: {error}")))
}

/// Feeds the worker, collects what it says, and ends it in time.
fn attend(mut child: Child, wasm: &[u8]) -> Result<Verified, Refused> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Refused::host("the compile worker has no pipes"));
    };
    let (status, artefact, complaint) = std::thread::scope(|scope| {
        // A worker that dies early closes its end; that it died is seen below.
        scope.spawn(move || drop(stdin.write_all(wasm)));
        let artefact = scope.spawn(move || read(stdout, ARTEFACT_MAX + 1));
        let complaint = scope.spawn(move || read(stderr, COMPLAINT_MAX));
        let status = wait(&mut child);
        (status, artefact.join().unwrap_or_default(), complaint.join().unwrap_or_default())
    });
    match status {
        Err(refused) => Err(refused),
        Ok(status) if status.success() => accept(artefact),
        Ok(_) if artefact.len() > ARTEFACT_MAX => Err(too_large()),
        Ok(status) => Err(judge(status, &complaint)),
    }
}

fn accept(artefact: Vec<u8>) -> Result<Verified, Refused> {
    if artefact.len() > ARTEFACT_MAX {
        return Err(too_large());
    }
    Ok(Verified { range: 0..artefact.len(), bytes: artefact })
}

fn too_large() -> Refused {
    Refused::upload(
        "artefact",
        format!("its machine code is larger than {} MiB.", ARTEFACT_MAX >> 20),
        "Build it with size optimisation, or split it into several plugins.",
    )
}

fn read(from: impl Read, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What came before an error is what there is.
    let _ = from.take(u64::try_from(limit).unwrap_or(u64::MAX)).read_to_end(&mut bytes);
    bytes
}

/// Waits, not longer than [`WALL`]. Looks often at first: small components take a few milliseconds.
fn wait(child: &mut Child) -> Result<ExitStatus, Refused> {
    let started = Instant::now();
    let mut nap = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if started.elapsed() < WALL => {
                std::thread::sleep(nap);
                nap = (nap * 2).min(Duration::from_millis(20));
            }
            Ok(None) => {
                end(child);
                return Err(too_costly("more than its time"));
            }
            Err(error) => {
                end(child);
                return Err(Refused::host(format!("the compile worker is lost: {error}")));
            }
        }
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// What a worker that did not succeed died of.
fn judge(status: ExitStatus, complaint: &[u8]) -> Refused {
    match status.signal() {
        Some(libc::SIGXCPU | libc::SIGKILL) => return too_costly("more than its processor time"),
        Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS) => return too_costly("more than its memory"),
        Some(signal) => return Refused::host(format!("the compile worker was ended by signal {signal}")),
        None => {}
    }
    match serde_json::from_slice::<Complaint>(complaint) {
        Ok(complaint) if complaint.host => Refused::host(complaint.detail),
        Ok(complaint) => Refused::not_compiled(&complaint.detail),
        Err(_) => Refused::host(format!(
            "the compile worker ended with {status} and said: {}",
            String::from_utf8_lossy(complaint).chars().take(200).collect::<String>().escape_debug()
        )),
    }
}

fn too_costly(what: &str) -> Refused {
    Refused::upload(
        "compile",
        format!("compiling it takes {what}."),
        "Ordinary plugins take a small part of the limits (2 GiB, 60 s of processor time). Look for generated \
         functions with thousands of variables and branches and split them.",
    )
}
