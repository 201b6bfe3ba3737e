//! JavaScript: builds the examples in JavaScript and TypeScript with `plugin-sdk/js`.
//!
//! The tools (esbuild, componentize-qjs, TypeScript) come from npm, once for each set of versions, into the user's cache
//! folder; their versions and digests are those of the SDK's `package-lock.json`. Where Node is missing, Debian's is
//! installed. A plugin is built anew only if its own files, the SDK or the tools have changed.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use super::examples::Example;
use super::inputs;
use super::shelf::Shelf;
use crate::apt;
use crate::process;
use crate::progress::Step;

/// The oldest Node that the SDK's build runs on.
const NODE_MIN: (u32, u32) = (18, 19);
/// What the build needs of npm.
const TOOLS: [&str; 3] = ["componentize-qjs", "esbuild", "typescript"];
/// What of the SDK goes into a plugin.
const SDK_PARTS: [&str; 5] = ["package.json", "build", "src", "types", "wit"];

/// Builds every plugin under `example-plugins/` that is a package of npm.
pub fn build(root: &Path) -> Result<Vec<Example>> {
    let target = root.join("target/guest-js");
    let examples = listed(&root.join("example-plugins"), &target)?;
    let sdk = root.join("plugin-sdk/js");
    let pins = pins(&sdk)?;
    for example in &examples {
        let folder = example.manifest.parent().context("a manifest lies in a folder")?;
        let mut inputs: Vec<PathBuf> = SDK_PARTS.iter().map(|part| sdk.join(part)).collect();
        inputs.push(folder.to_owned());
        inputs::unless_current(&example.wasm, &inputs, &pins, || {
            let tools = install_tools(&sdk, &pins)?;
            let mut command = Command::new("node");
            command.arg(sdk.join("bin/bulkhead-js.mjs")).args(["build", "--out"]).arg(&example.wasm);
            command.current_dir(folder).env("BULKHEAD_JS_TOOLS", tools);
            process::read(&mut command)
                .with_context(|| format!("the example plugin {} does not build", example.name))?;
            Ok(())
        })?;
    }
    Ok(examples)
}

/// Runs the tests of the SDK for JavaScript; answers how many passed.
pub fn test_sdk(root: &Path) -> Result<u64> {
    let sdk = root.join("plugin-sdk/js");
    let tools = install_tools(&sdk, &pins(&sdk)?)?;
    let mut command = Command::new("node");
    command.args(["--test", "--test-reporter", "tap", "test/"]).current_dir(&sdk).env("BULKHEAD_JS_TOOLS", tools);
    let report = process::read(&mut command).context("tests of plugin-sdk/js fail")?;
    let passed = report.lines().find_map(|line| line.strip_prefix("# pass ")?.parse().ok());
    passed.filter(|passed| *passed > 0).context("no test of plugin-sdk/js was run")
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

/// The tools and their versions, as one word: `componentize-qjs-0.4.5+esbuild-…`.
fn pins(sdk: &Path) -> Result<String> {
    let manifest = sdk.join("package.json");
    let text = fs::read_to_string(&manifest).with_context(|| format!("{} cannot be read", manifest.display()))?;
    let pin = |tool: &str| {
        let version = pin(&text, tool).with_context(|| format!("{} pins no {tool}", manifest.display()))?;
        Ok(format!("{tool}-{version}"))
    };
    Ok(TOOLS.into_iter().map(pin).collect::<Result<Vec<_>>>()?.join("+"))
}

/// The folder whose `node_modules` has the tools: from the cache, or filled now.
fn install_tools(sdk: &Path, pins: &str) -> Result<PathBuf> {
    expect_node()?;
    let shelf = Shelf::open("js-tools", "the tools for JavaScript plugins")?;
    let place = shelf.folder().join(pins);
    if place.exists() {
        return Ok(place);
    }
    eprintln!(
        "JavaScript plugins need {}: 80 MB, once for this user. They go to {}; nothing is installed.",
        pins.replace('+', ", "),
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
    shelf.keep(&room, pins)
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

    #[test]
    fn only_packages_of_npm_that_are_plugins_are_listed() {
        let plugins = std::env::temp_dir().join(format!("bulkhead-xtask-js-{}", std::process::id()));
        for path in ["a/plugin.toml", "a/package.json", "b/plugin.toml", "c/package.json"] {
            let path = plugins.join(path);
            fs::create_dir_all(path.parent().expect("because the path has two parts")).expect("a temporary folder");
            fs::write(path, "").expect("a file in a temporary folder");
        }
        let found = listed(&plugins, Path::new("/t")).expect("a folder to read");
        fs::remove_dir_all(&plugins).expect("because it was just made");
        let names: Vec<_> = found.into_iter().map(|example| (example.name, example.wasm)).collect();
        assert_eq!(names, [("a".to_owned(), PathBuf::from("/t/a.wasm"))]);
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
