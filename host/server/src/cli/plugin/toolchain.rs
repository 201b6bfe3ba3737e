//! The compiler for plugins in Rust: what `cargo build --target wasm32-unknown-unknown` needs in its environment.
//!
//! ```text
//! the active toolchain has the target ──▶ use it
//!   └─ a private one was made earlier (`cargo xtask guest`, in a checkout of Bulkhead) ──▶ use that
//!        └─ say how to get one
//! ```
//!
//! Only looks: adding a target to somebody's toolchain is theirs to do.

use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::plugin::local;

/// What plugins are compiled for.
const TARGET: &str = "wasm32-unknown-unknown";
/// Writes components instead of bare modules. Ships with Rust.
const LINKER: &str = "wasm-component-ld";
const LINKER_VARIABLE: &str = "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER";

/// What a build command needs in its environment; nothing if it builds no Rust.
pub fn environment(command: &str, folder: &Path) -> Result<Vec<(&'static str, OsString)>> {
    if !command.contains("cargo") || !command.contains(TARGET) {
        return Ok(Vec::new());
    }
    let mut variables = Vec::new();
    if std::env::var_os(LINKER_VARIABLE).is_none() {
        variables.push((LINKER_VARIABLE, LINKER.into()));
    }
    let active = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    if has_std(&active, folder) {
        return Ok(variables);
    }
    match private() {
        Some(rustc) => variables.push(("RUSTC", rustc.into_os_string())),
        None => {
            return Err(Error::hinted(
                format!("this machine's Rust cannot compile for {TARGET} yet"),
                format!(
                    "rustup target add {TARGET}\nwhere rustup's servers cannot be reached: `cargo xtask guest` in a \
                     checkout of Bulkhead makes a compiler that is then found here"
                ),
            ));
        }
    }
    Ok(variables)
}

/// The newest private toolchain that works.
fn private() -> Option<PathBuf> {
    let shelf = local::cache_folder().ok()?.join("bulkhead/guest-toolchain");
    let mut found: Vec<_> = std::fs::read_dir(shelf)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        // A recipe is written last: without one it is not whole.
        .filter(|path| path.join("recipe").is_file())
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path.join("rustc"))))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, rustc)| rustc).find(|rustc| has_std(rustc, Path::new(".")))
}

/// Whether a compiler has the standard library for plugins, by looking at the file.
fn has_std(rustc: &Path, folder: &Path) -> bool {
    let mut ask = Command::new(rustc);
    ask.args(["--print", "target-libdir", "--target", TARGET]).current_dir(folder).stderr(Stdio::null());
    let Ok(answer) = ask.output() else { return false };
    let library = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    let Ok(entries) = std::fs::read_dir(library) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    })
}
