//! JavaScript: builds the examples in JavaScript and TypeScript with `plugin-sdk/js`.
//!
//! The tools (esbuild, componentize-qjs, TypeScript) come from npm, once for each set of versions, into the user's cache
//! folder; their versions and digests are those of the SDK's `package-lock.json`. Where Node is missing, Debian's is
//! installed. A plugin is built anew only if its own files, the SDK or the tools have changed.

use std::fs;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use super::examples::Example;
use super::shelf::Shelf;
use crate::apt;
use crate::process;
use crate::progress::Step;

/// The oldest Node that the SDK's build runs on.
const NODE_MIN: (u32, u32) = (18, 19);
/// What the build needs of npm.
const TOOLS: [&str; 3] = ["componentize-qjs", "esbuild", "typescript"];
/// What of the SDK goes into a plugin.
const SDK_PARTS: [&str; 7] = ["package.json", "package-lock.json", "bin", "build", "src", "types", "wit"];
/// What in a plugin's folder does not.
const NOT_INPUT: [&str; 4] = ["node_modules", "dist", "tests", "README.md"];

/// Builds every plugin under `example-plugins/` that is a package of npm.
pub fn build(root: &Path) -> Result<Vec<Example>> {
    let target = root.join("target/guest-js");
    let examples = listed(&root.join("example-plugins"), &target)?;
    let sdk = root.join("plugin-sdk/js");
    let mut tools = None;
    for example in &examples {
        let folder = example.manifest.parent().context("a manifest lies in a folder")?;
        let inputs = format!("{:016x}", digest(folder, &sdk)?);
        let stamp = target.join(format!("{}.inputs", example.name));
        if example.wasm.exists() && fs::read_to_string(&stamp).is_ok_and(|built| built == inputs) {
            continue;
        }
        fs::create_dir_all(&target).with_context(|| format!("{} cannot be made", target.display()))?;
        let tools = match &tools {
            Some(tools) => tools,
            None => tools.insert(install_tools(&sdk)?),
        };
        let mut command = Command::new("node");
        command.arg(sdk.join("bin/bulkhead-js.mjs")).args(["build", "--out"]).arg(&example.wasm);
        command.current_dir(folder).env("BULKHEAD_JS_TOOLS", tools);
        process::read(&mut command).with_context(|| format!("the example plugin {} does not build", example.name))?;
        fs::write(&stamp, inputs).with_context(|| format!("{} cannot be written", stamp.display()))?;
    }
    Ok(examples)
}

fn listed(plugins: &Path, target: &Path) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    let entries = fs::read_dir(plugins).with_context(|| format!("{} cannot be read", plugins.display()))?;
    for entry in entries {
        let folder = entry?.path();
        let manifest = folder.join("plugin.toml");
        if !manifest.is_file() || !folder.join("package.json").is_file() {
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        examples.push(Example { wasm: target.join(format!("{name}.wasm")), name, manifest });
    }
    Ok(examples)
}

/// A number that changes with anything that goes into the build.
fn digest(plugin: &Path, sdk: &Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    for part in SDK_PARTS {
        add(&mut hasher, sdk, &sdk.join(part), &[])?;
    }
    add(&mut hasher, plugin, plugin, &NOT_INPUT)?;
    Ok(hasher.finish())
}

/// Adds a file, or all files of a folder in the order of their names.
fn add(hasher: &mut DefaultHasher, base: &Path, path: &Path, except: &[&str]) -> Result<()> {
    let unreadable = || format!("{} cannot be read", path.display());
    if path.is_dir() {
        let entries = fs::read_dir(path).with_context(unreadable)?.collect::<Result<Vec<_>, _>>()?;
        let mut paths: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
        paths.sort();
        for path in paths {
            if !except.iter().any(|name| path.file_name().is_some_and(|this| this == *name)) {
                add(hasher, base, &path, except)?;
            }
        }
    } else {
        path.strip_prefix(base).unwrap_or(path).hash(hasher);
        fs::read(path).with_context(unreadable)?.hash(hasher);
    }
    Ok(())
}

/// The folder whose `node_modules` has the tools: from the cache, or filled now.
pub fn install_tools(sdk: &Path) -> Result<PathBuf> {
    expect_node()?;
    let shelf = Shelf::open("js-tools", "the tools for JavaScript plugins")?;
    let manifest = sdk.join("package.json");
    let text = fs::read_to_string(&manifest).with_context(|| format!("{} cannot be read", manifest.display()))?;
    let mut words = Vec::new();
    for tool in TOOLS {
        let version = pin(&text, tool).with_context(|| format!("{} pins no {tool}", manifest.display()))?;
        words.push(format!("{tool}-{version}"));
    }
    let name = words.join("+");
    let place = shelf.folder().join(&name);
    if place.exists() {
        return Ok(place);
    }
    eprintln!(
        "JavaScript plugins need {}: 80 MB, once for this user. They go to {}; nothing is installed.",
        words.join(", "),
        place.display()
    );
    let room = shelf.room()?;
    let step = Step::begin("installing them with npm");
    for file in ["package.json", "package-lock.json"] {
        fs::copy(sdk.join(file), room.join(file)).with_context(|| format!("the SDK has no {file}"))?;
    }
    let mut npm = Command::new("npm");
    // Scripts of packages have no business here: the tools work without theirs. Not `npm ci`: it insists on a binary of
    // componentize-qjs for every system, and some were never published.
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&room);
    process::run_logged(&mut npm, &room.join("npm.log"))?;
    step.done();
    shelf.keep(&room, &name)
}

/// The exact version of a tool in a `package.json`: `"esbuild": "0.28.2"`.
fn pin<'a>(manifest: &'a str, tool: &str) -> Option<&'a str> {
    let rest = manifest.split_once(&format!("\"{tool}\": \""))?.1;
    rest.split_once('"').map(|(version, _)| version)
}

/// Node, from this machine or from Debian.
pub(super) fn expect_node() -> Result<()> {
    let has_npm = || process::read(Command::new("npm").arg("--version")).is_ok();
    if node_version().is_none() || !has_npm() {
        if !apt::is_here() {
            bail!("JavaScript plugins are built with Node and npm, and neither is here; install Node {}", words());
        }
        apt::install(&["nodejs", "npm"])?;
    }
    match node_version() {
        Some(version) if version >= NODE_MIN => Ok(()),
        Some((major, minor)) => bail!("this is Node {major}.{minor}; JavaScript plugins are built with {}", words()),
        None => bail!("`node --version` gives no version; JavaScript plugins are built with Node {}", words()),
    }
}

fn words() -> String {
    format!("{}.{} or later", NODE_MIN.0, NODE_MIN.1)
}

fn node_version() -> Option<(u32, u32)> {
    parse_version(&process::read(Command::new("node").arg("--version")).ok()?)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix('v')?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, files: &[&str]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("bulkhead-xtask-{name}-{}", std::process::id()));
        for path in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("because the path has two parts")).expect("a temporary folder");
            fs::write(path, "").expect("a file in a temporary folder");
        }
        folder
    }

    #[test]
    fn only_packages_of_npm_that_are_plugins_are_listed() {
        let plugins = folder("js-listed", &["a/plugin.toml", "a/package.json", "b/plugin.toml", "c/package.json"]);
        let found = listed(&plugins, Path::new("/t")).expect("a folder to read");
        fs::remove_dir_all(&plugins).expect("because it was just made");
        let names: Vec<_> = found.into_iter().map(|example| (example.name, example.wasm)).collect();
        assert_eq!(names, [("a".to_owned(), PathBuf::from("/t/a.wasm"))]);
    }

    #[test]
    fn the_number_changes_with_sources_and_not_with_what_is_built() {
        let sdk_files = SDK_PARTS.map(|part| if part.contains('.') { part.to_owned() } else { format!("{part}/x") });
        let sdk = folder("js-sdk", &sdk_files.each_ref().map(String::as_str));
        let plugin = folder("js-plugin", &["src/index.js", "dist/plugin.wasm", "node_modules/a/index.js"]);
        let number = || digest(&plugin, &sdk).expect("files to read");
        let first = number();
        fs::write(plugin.join("dist/plugin.wasm"), "other").expect("a file in a temporary folder");
        assert_eq!(number(), first);
        fs::write(plugin.join("src/index.js"), "other").expect("a file in a temporary folder");
        let second = number();
        assert_ne!(second, first);
        fs::write(sdk.join("src/x"), "other").expect("a file in a temporary folder");
        assert_ne!(number(), second);
        fs::remove_dir_all(&plugin).expect("because it was just made");
        fs::remove_dir_all(&sdk).expect("because it was just made");
    }

    #[test]
    fn the_sdk_pins_every_tool() {
        let text = include_str!("../../../plugin-sdk/js/package.json");
        for tool in TOOLS {
            let version = pin(text, tool).expect("because the tool is among the dependencies");
            assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{tool} {version} is no exact version");
        }
    }

    #[test]
    fn versions_of_node_are_read() {
        assert_eq!(parse_version("v20.20.2"), Some((20, 20)));
        assert!(parse_version("v18.20.4") >= Some(NODE_MIN));
        assert_eq!(parse_version("command not found"), None);
    }
}
