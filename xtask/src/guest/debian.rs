//! Debian: a private compiler for guests, for machines that reach a Debian mirror but no rustup
//! server.
//!
//! Debian's `rustc-web` is the newest Rust in a stable release. Its packages are downloaded and
//! unpacked into the user's cache folder; nothing is installed and no root is needed. There is no
//! package of the standard library for `wasm32-unknown-unknown`, so it is built once from
//! `rust-web-src`, which carries std's dependencies. Only that compiler can build that source: a
//! stock one of another version fails on unknown lang items. The stock toolchain lends cargo and
//! the two linkers, which rustc-web lacks.
//!
//! ```text
//! <cache>/bulkhead/guest-toolchain/     a shelf
//!   <version>/rustc       a whole one
//!   <version>/recipe      how it was built; another number here means: build again
//! ```
//!
//! A toolchain that is there is used whatever the mirror has by now. Remove its folder to get a
//! newer one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::shelf::Shelf;
use super::toolchain::{Stock, TARGET, has_std};
use crate::apt;
use crate::process;
use crate::progress::Step;

/// Goes up when the steps below change what they leave behind.
const RECIPE: &str = "1";

/// The compiler, from the cache folder or made there now.
pub fn compiler(stock: &Stock) -> Result<PathBuf> {
    let shelf = Shelf::open("guest-toolchain", "the guest toolchain")?;
    if let Some(found) = whole_one(shelf.folder())? {
        lend_linkers(&found, stock)?;
        return Ok(found.join("rustc"));
    }
    let version = candidate()?;
    announce(&version, shelf.folder());
    let room = shelf.room()?;
    // What is at that place is not whole, or `whole_one` would have taken it.
    let made = make(&room, stock).and_then(|()| shelf.keep(&room, &version.replace(':', "_")));
    match made {
        Ok(place) => Ok(place.join("rustc")),
        Err(error) => Err(error.context(format!(
            "the guest toolchain could not be made (logs are in {} until the next run); where \
             rustup's servers can be reached, `rustup target add {TARGET}` is the shorter way",
            room.display()
        ))),
    }
}

/// The newest toolchain here that works.
fn whole_one(shelf: &Path) -> Result<Option<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(shelf)? {
        let path = entry?.path();
        let ours = fs::read_to_string(path.join("recipe")).is_ok_and(|recipe| recipe == RECIPE);
        if ours && has_std(&path.join("rustc")) {
            found.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    Ok(found.into_iter().max().map(|(_, path)| path))
}

/// The version of rustc-web that apt would give.
fn candidate() -> Result<String> {
    if !apt::is_here() {
        bail!(
            "no standard library for {TARGET}: rustup cannot add it (or may not, because of \
             RUSTUP_AUTO_INSTALL=0), and this is no Debian machine with apt. \
             Run `rustup target add {TARGET}` where that is allowed"
        );
    }
    // Debian's first rustc-web lacks the sources that std needs; its security archive has a later one.
    apt::freshen();
    known_candidate()?.with_context(|| {
        format!(
            "apt knows no `rustc-web` here (Debian 12 has it in its security archive); \
             run `rustup target add {TARGET}`, or add that archive to apt's sources"
        )
    })
}

fn known_candidate() -> Result<Option<String>> {
    let text = process::read(Command::new("apt-cache").args(["policy", "rustc-web"]).env("LC_ALL", "C"))?;
    let version = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(version.filter(|version| *version != "(none)").map(str::to_owned))
}

fn announce(version: &str, shelf: &Path) {
    eprintln!(
        "plugins need a standard library for {TARGET}, and this toolchain has none.\n\
         Making a private one from Debian's rustc-web {version}: about 140 MB to download, \
         1 to 4 minutes,\nonce for this user. It goes to {} (470 MB); nothing is installed.",
        shelf.display()
    );
}

/// Everything, in a folder that counts for nothing until it is renamed.
fn make(room: &Path, stock: &Stock) -> Result<()> {
    let root = room.join("root");
    let debs = room.join("debs");
    fs::create_dir_all(&root)?;
    fs::create_dir_all(&debs)?;
    download(room, &debs)?;
    unpack(&debs, &root)?;
    write_wrapper(room)?;
    lend_linkers(room, stock)?;
    process::read(Command::new(room.join("rustc")).arg("-vV")).context(
        "the unpacked compiler does not start; it needs what libllvm22 needs: \
         `apt-get install --no-install-recommends libllvm22` as root brings it",
    )?;
    build_std(room, stock)?;
    fs::write(room.join("recipe"), RECIPE)?;
    if !has_std(&room.join("rustc")) {
        bail!("the standard library was built but the compiler does not see it");
    }
    Ok(())
}

fn download(room: &Path, debs: &Path) -> Result<()> {
    let fetch = || -> Result<()> {
        let packages = packages()?;
        let step = Step::begin(format!("downloading {} packages", packages.len()));
        let mut command = Command::new("apt-get");
        command.arg("download").args(packages).current_dir(debs);
        process::run_logged(&mut command, &room.join("download.log"))?;
        step.done();
        Ok(())
    };
    fetch().or_else(|first| {
        // The usual cause: the lists name a version that the mirror has replaced.
        eprintln!("  {first:#}");
        apt::update()?;
        fetch()
    })
}

/// The compiler, its library, its std for the host (build scripts and macros run there), the
/// source, LLVM.
fn packages() -> Result<Vec<String>> {
    let std = dependency("libstd-rust-web-dev", "libstd-rust-web-")?;
    let llvm = dependency(&std, "libllvm")?;
    let fixed = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"].map(str::to_owned);
    Ok(fixed.into_iter().chain([std, llvm]).collect())
}

/// Names carry versions (`libllvm22`), so they are asked for, not written down.
fn dependency(package: &str, prefix: &str) -> Result<String> {
    let text = process::read(Command::new("apt-cache").args(["depends", package]).env("LC_ALL", "C"))?;
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .with_context(|| format!("Debian's `{package}` depends on no `{prefix}…`; its packaging has changed"))
}

fn unpack(debs: &Path, root: &Path) -> Result<()> {
    let step = Step::begin("unpacking");
    for entry in fs::read_dir(debs)? {
        let deb = entry?.path();
        process::read(Command::new("dpkg").arg("-x").arg(&deb).arg(root))?;
        fs::remove_file(&deb)?;
    }
    fs::remove_dir(debs)?;
    step.done();
    Ok(())
}

/// The compiler finds its libraries beside itself, wherever the folder is moved: `$0` is an
/// absolute path because cargo calls it by one.
fn write_wrapper(room: &Path) -> Result<()> {
    let libraries = format!("root/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let text = format!(
        "#!/bin/sh\nhere=${{0%/*}}\n\
         LD_LIBRARY_PATH=$here/{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}} \\\n  \
         exec \"$here/root/usr/bin/rustc\" \"$@\"\n"
    );
    let path = room.join("rustc");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Links the stock linkers into the compiler's own folder. Done at every use: the stock toolchain
/// may have moved since.
fn lend_linkers(place: &Path, stock: &Stock) -> Result<()> {
    let folder = rustlib(place).join(&stock.host).join("bin");
    fs::create_dir_all(&folder)?;
    for name in ["rust-lld", "wasm-component-ld"] {
        let (link, tool) = (folder.join(name), stock.linkers.join(name));
        if fs::read_link(&link).is_ok_and(|to| to == tool) || !tool.exists() {
            continue;
        }
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link)?;
        }
        std::os::unix::fs::symlink(&tool, &link)?;
    }
    Ok(())
}

fn build_std(room: &Path, stock: &Stock) -> Result<()> {
    let step = Step::begin(format!("building the standard library for {TARGET} (half a minute to 3 minutes)"));
    let library = fs::canonicalize(rustlib(room).join("src/rust"))
        .context("rust-web-src has no library source where it used to be")?
        .join("library");
    let build = room.join("std-build");
    let mut command = process::clean(&stock.cargo);
    command
        .current_dir(room)
        .env("RUSTC", room.join("rustc"))
        // Std is written in unstable Rust, and is marked so that its users do not notice.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_DEFAULT_LIB_METADATA", "guest")
        .env("CARGO_TARGET_DIR", &build)
        .env("CARGO_ENCODED_RUSTFLAGS", std_flags(&library).join("\x1f"))
        // Without -Zavoid-dev-deps cargo wants `rand`, which the package does not carry.
        .args(["build", "--release", "--offline", "-Zavoid-dev-deps", "--target", TARGET])
        .args(["--features", "panic-unwind,compiler-builtins-mem", "--manifest-path"])
        .arg(library.join("std/Cargo.toml"))
        .args(["--config", "source.crates-io.replace-with=\"vendored\"", "--config"])
        .arg(format!("source.vendored.directory={:?}", library.join("vendor")));
    process::run_logged(&mut command, &room.join("std-build.log"))?;
    let to = rustlib(room).join(TARGET).join("lib");
    fs::create_dir_all(&to)?;
    for entry in fs::read_dir(build.join(TARGET).join("release/deps"))? {
        let from = entry?.path();
        if from.extension().is_some_and(|kind| kind == "rlib") {
            fs::copy(&from, to.join(from.file_name().unwrap_or_default()))?;
        }
    }
    fs::remove_dir_all(&build)?;
    // Most of the space, and of no use from here on.
    fs::remove_dir_all(room.join("root/usr/src"))?;
    step.done();
    Ok(())
}

fn std_flags(library: &Path) -> Vec<String> {
    vec![
        "-Zforce-unstable-if-unmarked".to_owned(),
        // Guests use `lto`, which needs bitcode in every library.
        "-Cembed-bitcode=yes".to_owned(),
        // Plugins are uploaded: they must not carry the paths of the machine that built them.
        format!("--remap-path-prefix={}=/rust/library", library.display()),
    ]
}

fn rustlib(place: &Path) -> PathBuf {
    place.join("root/usr/lib/rustlib")
}
