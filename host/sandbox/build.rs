//! Tells the crate which wasmtime it was built with: wasmtime itself does not say, and the engine refuses to start
//! below the patch that the advisories ask for.

use std::path::Path;

fn main() {
    // Asked for when it runs: a target folder may be shared by several checkouts.
    let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR").expect("because cargo says where the crate is");
    let lock = Path::new(&crate_dir).join("../../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    println!("cargo::rerun-if-changed=../../wit/plugin.wit");
    println!("cargo::rerun-if-changed=wit");
    let text = std::fs::read_to_string(&lock).expect("because the workspace keeps its lock file in the repository");
    let version = text
        .split("[[package]]")
        .find(|entry| entry.trim_start().starts_with("name = \"wasmtime\"\n"))
        .and_then(|entry| entry.lines().find_map(|line| line.strip_prefix("version = \"")))
        .and_then(|rest| rest.strip_suffix('"'))
        .expect("because the sandbox depends on wasmtime");
    println!("cargo::rustc-env=BULKHEAD_WASMTIME_VERSION={version}");
}
