//! Examples: builds every plugin under `example-plugins/`; the Rust ones in one cargo call.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::javascript;
use super::toolchain::{TARGET, Toolchain, toolchain};

/// What a component begins with; a core module has 01 00 00 00 after the first four bytes.
const COMPONENT: [u8; 8] = *b"\0asm\x0d\x00\x01\x00";

/// A built example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The folder's name, which is also the plugin's.
    pub name: String,
    /// The component.
    pub wasm: PathBuf,
    /// Its `plugin.toml`.
    pub manifest: PathBuf,
}

/// Builds all examples of the repository at `root` and answers them in the order of their names.
///
/// Cheap when nothing has changed: cargo decides.
pub fn build_examples(root: &Path) -> Result<Vec<Example>> {
    let toolchain = toolchain()?;
    let workspace = root.join("example-plugins");
    let target = workspace.join("target");
    let mut examples = listed(&workspace, &target)?;
    if !target.join(TARGET).exists() {
        eprintln!("building {} example plugins (1 to 4 minutes the first time)", examples.len());
    }
    let status = toolchain
        .cargo(&workspace)
        // Guests have a folder of their own: sharing one, two compilers would evict each other's
        // work.
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root, &toolchain).join("\x1f"))
        .args(["build", "--release", "--locked", "--quiet", "--target", TARGET])
        .status()
        .context("cargo could not be started for the example plugins")?;
    if !status.success() {
        bail!("the example plugins in {} do not build", workspace.display());
    }
    examples.extend(javascript::build(root)?);
    for example in &examples {
        expect_component(&example.wasm)?;
    }
    examples.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(examples)
}

/// Every folder that is a Rust package and a plugin. Examples in other languages have no
/// `Cargo.toml`.
fn listed(workspace: &Path, target: &Path) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    let entries = fs::read_dir(workspace).with_context(|| format!("{} cannot be read", workspace.display()))?;
    for entry in entries {
        let folder = entry?.path();
        let manifest = folder.join("plugin.toml");
        if !manifest.is_file() || !folder.join("Cargo.toml").is_file() {
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = format!("{}.wasm", name.replace('-', "_"));
        examples.push(Example { name, wasm: target.join(TARGET).join("release").join(file), manifest });
    }
    Ok(examples)
}

/// The same bytes wherever the repository and the registry lie, and no path of this machine in
/// them.
fn flags(root: &Path, toolchain: &Toolchain) -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let sysroot = toolchain.rustc.parent().map(Path::to_path_buf);
    [(home, "/cargo"), (sysroot, "/rust"), (Some(root.to_path_buf()), "/bulkhead")]
        .into_iter()
        .filter_map(|(from, to)| Some(format!("--remap-path-prefix={}={to}", from?.display())))
        .collect()
}

fn expect_component(wasm: &Path) -> Result<()> {
    let mut head = [0; COMPONENT.len()];
    fs::File::open(wasm)
        .and_then(|mut file| file.read_exact(&mut head))
        .with_context(|| format!("{} was not built; its package must be a cdylib of that name", wasm.display()))?;
    if head != COMPONENT {
        bail!("{} is no component; was it linked by another linker than wasm-component-ld?", wasm.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rust_plugins_are_listed() {
        let folder = std::env::temp_dir().join(format!("bulkhead-xtask-examples-{}", std::process::id()));
        for path in ["b-rust/plugin.toml", "b-rust/Cargo.toml", "a-python/plugin.toml", "target/Cargo.toml"] {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("because the path has two parts")).expect("a temporary folder");
            fs::write(path, "").expect("a file in a temporary folder");
        }
        let names: Vec<_> = listed(&folder, Path::new("/t"))
            .expect("a folder to read")
            .into_iter()
            .map(|it| (it.name, it.wasm))
            .collect();
        fs::remove_dir_all(&folder).expect("because it was just made");
        let wasm = PathBuf::from("/t/wasm32-unknown-unknown/release/b_rust.wasm");
        assert_eq!(names, [("b-rust".to_owned(), wasm)]);
    }

    #[test]
    fn a_core_module_is_told_from_a_component() {
        let path = std::env::temp_dir().join(format!("bulkhead-xtask-module-{}", std::process::id()));
        fs::write(&path, b"\0asm\x01\x00\x00\x00").expect("a temporary file");
        assert!(expect_component(&path).is_err());
        fs::write(&path, COMPONENT).expect("a temporary file");
        assert!(expect_component(&path).is_ok());
        fs::remove_file(&path).expect("because it was just written");
    }
}
