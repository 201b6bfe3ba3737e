//! Toolchain: which compiler builds guests on this machine, and with what environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::debian;
use crate::process;

/// What guests are compiled for: a target without any system interface, so that only ours remain.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Writes components instead of bare modules. Ships with the stock toolchain.
const LINKER: &str = "wasm-component-ld";

/// A server that answers takes seconds; a network that swallows packets would hang for ever.
const RUSTUP_LIMIT: Duration = Duration::from_secs(300);

/// A cargo and a rustc that can build guests.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The stock cargo, named directly so that no toolchain file is consulted again.
    pub cargo: PathBuf,
    /// The compiler that has a standard library for `TARGET`.
    pub rustc: PathBuf,
}

impl Toolchain {
    /// What has to be in the environment of a `cargo build --target wasm32-unknown-unknown`.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("RUSTC", self.rustc.clone().into_os_string()),
            ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", OsString::from(LINKER)),
        ]
    }

    /// The cargo of this toolchain, about to run in `folder` with that environment and no other
    /// flags.
    pub fn cargo(&self, folder: &Path) -> Command {
        let mut command = process::clean(&self.cargo);
        command.current_dir(folder).envs(self.environment());
        command
    }
}

/// Finds a toolchain for guests, or makes one. May take minutes the first time, and then says so.
pub fn toolchain() -> Result<Toolchain> {
    let stock = Stock::probe()?;
    if has_std(&stock.rustc) {
        return Ok(stock.into_toolchain());
    }
    if rustup_may_add_targets() && rustup_adds_the_target() && has_std(&stock.rustc) {
        return Ok(stock.into_toolchain());
    }
    let rustc = debian::compiler(&stock)?;
    Ok(Toolchain { cargo: stock.cargo, rustc })
}

/// The toolchain that is active here: it always gives cargo and both linkers, and sometimes the
/// rest.
pub struct Stock {
    pub cargo: PathBuf,
    pub rustc: PathBuf,
    /// As in `x86_64-unknown-linux-gnu`.
    pub host: String,
    /// The folder with `rust-lld` and `wasm-component-ld`.
    pub linkers: PathBuf,
}

impl Stock {
    fn probe() -> Result<Self> {
        // Here the outer environment counts: inside `cargo xtask` it names the toolchain that is
        // active.
        let sysroot = PathBuf::from(
            process::read(Command::new("rustc").args(["--print", "sysroot"]))
                .context("no Rust toolchain answers; install one, for example with rustup")?,
        );
        let bin = |name: &str| {
            let inside = sysroot.join("bin").join(name);
            if inside.exists() { inside } else { PathBuf::from(name) }
        };
        let rustc = bin("rustc");
        let version = process::read(process::clean(&rustc).arg("-vV"))?;
        let host = version
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .context("`rustc -vV` names no host")?
            .to_owned();
        let linkers = sysroot.join("lib/rustlib").join(&host).join("bin");
        if !linkers.join(LINKER).exists() && !on_path(LINKER) {
            bail!(
                "the active toolchain ({}) has no `{LINKER}`, which turns a plugin into a \
                 component; use a toolchain from rustup (1.95 has it), or `cargo install {LINKER}`",
                sysroot.display()
            );
        }
        Ok(Self { cargo: bin("cargo"), rustc, host, linkers })
    }

    fn into_toolchain(self) -> Toolchain {
        Toolchain { cargo: self.cargo, rustc: self.rustc }
    }
}

/// Whether a compiler has the standard library for guests. Asks the file, since tools that add it
/// have been seen to succeed without it.
pub fn has_std(rustc: &Path) -> bool {
    let folder = process::read(process::clean(rustc).args(["--print", "target-libdir", "--target", TARGET]));
    let Ok(entries) = folder.and_then(|folder| Ok(std::fs::read_dir(folder)?)) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    })
}

/// `RUSTUP_AUTO_INSTALL=0` says that the toolchain is pinned. rustup does not apply that to an
/// explicit `target add`; we do, since adding would change it under its owner's hands.
fn rustup_may_add_targets() -> bool {
    on_path("rustup") && std::env::var_os("RUSTUP_AUTO_INSTALL").is_none_or(|value| value != "0")
}

fn rustup_adds_the_target() -> bool {
    eprintln!("plugins need the `{TARGET}` standard library: adding it with rustup (about 25 MB)");
    let added = process::succeeds_within(Command::new("rustup").args(["target", "add", TARGET]), RUSTUP_LIMIT);
    if !added {
        eprintln!("rustup could not add it; trying Debian's packages instead");
    }
    added
}

fn on_path(tool: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()))
}
