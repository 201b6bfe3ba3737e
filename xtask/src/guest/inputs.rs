//! Inputs: tells whether what a tool made is still what it would make.

use std::fs;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

/// What lies in a plugin's folder and does not go into the plugin.
const NOT_INPUT: [&str; 7] = ["__pycache__", ".mypy_cache", "build", "node_modules", "dist", "tests", "README.md"];

/// Makes `output` by calling `make`, unless it is there and was made from the same files by the same tools.
///
/// `tools` says which they are. Beside the output a file `<output>.inputs` keeps what it was made from.
pub fn unless_current(output: &Path, inputs: &[PathBuf], tools: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut hasher = DefaultHasher::new();
    tools.hash(&mut hasher);
    for input in inputs {
        add(&mut hasher, input, input)?;
    }
    let inputs = format!("{:016x}", hasher.finish());
    let mut stamp = output.as_os_str().to_owned();
    stamp.push(".inputs");
    let stamp = PathBuf::from(stamp);
    if output.exists() && fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == inputs) {
        return Ok(());
    }
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    make()?;
    fs::write(&stamp, inputs).with_context(|| format!("{} cannot be written", stamp.display()))
}

/// Adds a file, or all files of a folder in the order of their names.
fn add(hasher: &mut DefaultHasher, base: &Path, path: &Path) -> Result<()> {
    let unreadable = || format!("{} cannot be read", path.display());
    if path.is_dir() {
        let entries = fs::read_dir(path).with_context(unreadable)?.collect::<Result<Vec<_>, _>>()?;
        let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
        paths.sort();
        for path in paths {
            if !NOT_INPUT.iter().any(|name| path.file_name().is_some_and(|this| this == *name)) {
                add(hasher, base, &path)?;
            }
        }
    } else {
        path.strip_prefix(base).unwrap_or(path).hash(hasher);
        fs::read(path).with_context(unreadable)?.hash(hasher);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_again_when_a_source_or_a_tool_changes_and_not_otherwise() {
        let folder = std::env::temp_dir().join(format!("bulkhead-xtask-inputs-{}", std::process::id()));
        fs::create_dir_all(folder.join("plugin/build")).expect("a temporary folder");
        let (source, product) = (folder.join("plugin/app.py"), folder.join("out/plugin.wasm"));
        fs::write(&source, "1").expect("a file in a temporary folder");
        let made = |tools: &str| {
            let mut made = false;
            unless_current(&product, &[folder.join("plugin")], tools, || {
                made = true;
                Ok(fs::write(&product, "")?)
            })
            .expect("because everything can be read and written");
            made
        };
        assert!(made("tool-1"));
        assert!(!made("tool-1"));
        fs::write(folder.join("plugin/build/plugin.wasm"), "1").expect("a file in a temporary folder");
        assert!(!made("tool-1"));
        fs::write(&source, "2").expect("a file in a temporary folder");
        assert!(made("tool-1"));
        assert!(made("tool-2"));
        fs::remove_file(&product).expect("because it was just made");
        assert!(made("tool-2"));
        fs::remove_dir_all(&folder).expect("because it was just made");
    }
}
