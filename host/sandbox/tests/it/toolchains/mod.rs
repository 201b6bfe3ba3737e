//! Components that tools of other languages built. `cargo xtask test --only toolchains` builds them and runs these tests.

mod foreign;
mod python;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use bulkhead_domain::event::Event;
use bulkhead_domain::policy::limits::InstancePolicy;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_sandbox::Attempt;
use bulkhead_sandbox::Compiler;
use bulkhead_sandbox::Inspection;
use bulkhead_sandbox::Options;
use bulkhead_sandbox::Plugin;
use bulkhead_sandbox::Pool;
use bulkhead_sandbox::Sandbox;
use bulkhead_sandbox::Session;
use bulkhead_sandbox::Setup;
use bytes::Bytes;

use crate::lab;
use crate::lab::Bench;

/// A sandbox whose artefacts outlive the run: compiling Python takes ten seconds.
pub static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    let options = Options {
        compiler: Compiler::InProcess,
        disk_bytes: 512 << 20,
        pool: Pool { instances: 32, memories: 64, ..Pool::default() },
        ..Options::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join("artefacts"), [1; 32])
    };
    Sandbox::open(options).expect("because the pool fits")
});

/// The component of this name.
pub fn wasm(name: &str) -> Bytes {
    let folder = std::env::var_os("BULKHEAD_PLUGINS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins"), PathBuf::from);
    let path = folder.join(format!("{name}.wasm"));
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{} is not there ({error}); `cargo xtask test` builds it", path.display()))
        .into()
}

/// What an upload of it is found to be.
pub fn inspect(name: &str) -> Inspection {
    SANDBOX.inspect(&wasm(name)).unwrap_or_else(|refused| panic!("{name} is refused: {refused}"))
}

/// Loads it.
pub fn load(name: &str) -> Plugin {
    let wasm = wasm(name);
    SANDBOX
        .load(&bulkhead_sandbox::inspect::digest(&wasm), &|| Ok(wasm.clone()))
        .unwrap_or_else(|error| panic!("{name} is refused: {error:?}"))
}

/// The settings of a lab, for an interpreter: a debug build of the host is slow beside the guest, and an instance
/// serves on.
pub fn setup() -> Setup {
    let limits = Limits { time: Duration::from_secs(20), memory: 48 << 20, ..Limits::default() };
    Setup {
        limits,
        policy: InstancePolicy::Warm,
        config: BTreeMap::from([("threshold".into(), "5".into())]),
        ..lab::setup()
    }
}

/// A session over it.
pub fn session(name: &str, setup: Setup) -> Session {
    SANDBOX.session(&load(name), Arc::new(setup))
}

/// An event with this id and data.
pub fn event(id: &str, data: &str) -> Event {
    Event { id: id.into(), data: Bytes::copy_from_slice(data.as_bytes()), ..lab::event() }
}

/// One call of a handler with an event that says what to do.
pub fn asks(session: &mut Session, what: &str) -> Attempt {
    let data = format!(r#"{{"do": "{what}", "customer": {{"country": "DE"}}}}"#);
    session.handle(&Bench { event: event("e-1", &data), ..Bench::default() }.call())
}
