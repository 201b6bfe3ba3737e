//! Calling cargo for the host's workspace, and collecting what later steps need.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::guest;

/// Cargo, as the one that runs us, in the repository.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// The profile's folder in the target folder.
pub fn output_dir(root: &Path, release: bool) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    target.join(if release { "release" } else { "debug" })
}

/// Builds the host; gives the binary.
pub fn build_host(root: &Path, release: bool) -> Result<PathBuf> {
    let binary = output_dir(root, release).join("bulkhead");
    if !binary.exists() {
        eprintln!("building the host (about 10 minutes on two cores the first time, seconds afterwards)");
    }
    let mut command = cargo(root);
    command.args(["build", "--package", "bulkhead", "--bin", "bulkhead"]);
    if release {
        command.arg("--release");
    }
    let status = command.status().context("cargo could not be started")?;
    if !status.success() {
        bail!("the host does not build");
    }
    Ok(binary)
}

/// Builds the example plugins and lays them out as `<name>.wasm` beside `<name>.toml`; gives the folder.
pub fn lay_out_plugins(root: &Path) -> Result<PathBuf> {
    lay_out(root, guest::build_examples(root)?)
}

/// The same with those in Python and those of toolchains of others, which take more tools.
pub fn lay_out_all_plugins(root: &Path) -> Result<PathBuf> {
    lay_out_plugins(root)?;
    lay_out(root, guest::build_python(root)?)?;
    lay_out(root, guest::build_foreign(root)?)
}

fn lay_out(root: &Path, plugins: Vec<guest::Example>) -> Result<PathBuf> {
    let folder = root.join("target").join("plugins");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    for example in plugins {
        for (from, ending) in [(&example.wasm, "wasm"), (&example.manifest, "toml")] {
            let to = folder.join(format!("{}.{ending}", example.name));
            fs::copy(from, &to).with_context(|| format!("{} cannot be written", to.display()))?;
        }
    }
    Ok(folder)
}
