//! Python: builds the examples in Python with `plugin-sdk/python`, and keeps tools that come from PyPI.
//!
//! Tools are installed once for each version, into an environment of their own in the user's cache folder. Where Python
//! is missing, Debian's is installed. A plugin is built anew only if its own files, the SDK or the tool have changed.

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

/// The oldest Python that the SDK's build runs on. The one inside of a plugin comes with the tool.
const PYTHON_MIN: (u32, u32) = (3, 10);

/// Builds every plugin under `example-plugins/` that has an `app.py`.
pub fn build(root: &Path) -> Result<Vec<Example>> {
    let sdk = root.join("plugin-sdk/python/src");
    let examples = listed(&root.join("example-plugins"), &root.join("target/guest-py"))?;
    let tool = requirement(root)?;
    for example in &examples {
        let folder = example.manifest.parent().context("a manifest lies in a folder")?;
        inputs::unless_current(&example.wasm, &[folder.to_path_buf(), sdk.clone()], &tool, || {
            let step = Step::begin(format!("building the example plugin {}", example.name));
            let mut command = python(&tool)?;
            command.args(["-m", "bulkhead_plugin", "build", "--output"]).arg(&example.wasm);
            command.current_dir(folder).env("PYTHONPATH", &sdk);
            process::read(&mut command)?;
            step.done();
            Ok(())
        })?;
    }
    Ok(examples)
}

/// The unit tests of the SDK; how many there were.
pub fn test_sdk(root: &Path) -> Result<u64> {
    let folder = root.join("plugin-sdk/python");
    let mut command = python(&requirement(root)?)?;
    command.args(["-m", "unittest", "discover", "--start-directory", "tests"]);
    command.current_dir(&folder).env("PYTHONPATH", folder.join("src"));
    let output = command.output().context("Python could not be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("the tests of the Python SDK fail:\n{said}");
    }
    ran(&said).context("the tests of the Python SDK did not say how many they are")
}

/// `Ran 10 tests in 0.268s` to 10.
fn ran(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.strip_prefix("Ran ")?.split_once(' ')?.0.parse().ok())
}

/// What the SDK asks of PyPI: `componentize-py==…`.
pub fn requirement(root: &Path) -> Result<String> {
    let manifest = root.join("plugin-sdk/python/pyproject.toml");
    let text = fs::read_to_string(&manifest).with_context(|| format!("{} cannot be read", manifest.display()))?;
    pin(&text).with_context(|| format!("{} pins no componentize-py", manifest.display()))
}

fn pin(manifest: &str) -> Option<String> {
    let rest = manifest.split_once("\"componentize-py ==")?.1;
    Some(format!("componentize-py=={}", rest.split_once('"')?.0))
}

/// A Python that has this package of PyPI: from the cache, or filled now.
pub fn python(requirement: &str) -> Result<Command> {
    let shelf = Shelf::open("python-tools", "tools from PyPI")?;
    let name = requirement.replace("==", "-");
    let mut place = shelf.folder().join(&name);
    // The environment leans on the Python that made it, which may be gone.
    if process::read(Command::new(interpreter(&place)).args(["-c", ""])).is_err() {
        expect_python()?;
        let step = Step::begin(format!("installing {requirement} from PyPI into {}", place.display()));
        let room = shelf.room()?;
        process::read(Command::new("python3").args(["-m", "venv"]).arg(&room))?;
        let mut pip = Command::new(interpreter(&room));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]);
        process::run_logged(pip.arg(requirement), &room.join("pip.log"))?;
        place = shelf.keep(&room, &name)?;
        step.done();
    }
    let mut command = Command::new(interpreter(&place));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

fn interpreter(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}

/// Every folder that is a plugin in Python.
fn listed(plugins: &Path, target: &Path) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    let entries = fs::read_dir(plugins).with_context(|| format!("{} cannot be read", plugins.display()))?;
    for entry in entries {
        let folder = entry?.path();
        let manifest = folder.join("plugin.toml");
        if !manifest.is_file() || !folder.join("app.py").is_file() {
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        examples.push(Example { wasm: target.join(format!("{name}.wasm")), name, manifest });
    }
    examples.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(examples)
}

/// Python with its `venv`, from this machine or from Debian.
fn expect_python() -> Result<()> {
    // `venv` alone is there without what it needs on Debian.
    let is_here = || process::read(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_ok();
    if !is_here() {
        if !apt::is_here() {
            bail!("Python plugins are built with Python {}.{} or later and its venv", PYTHON_MIN.0, PYTHON_MIN.1);
        }
        apt::install(&["python3", "python3-venv"])?;
    }
    let version = process::read(Command::new("python3").arg("--version"))?;
    match parse_version(&version) {
        Some(found) if found >= PYTHON_MIN => Ok(()),
        _ => bail!("this is {version}; plugins are built with Python {}.{} or later", PYTHON_MIN.0, PYTHON_MIN.1),
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("Python ")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_pins_its_tool() {
        let found = pin(include_str!("../../../plugin-sdk/python/pyproject.toml")).expect("because it is a dependency");
        let version = found.strip_prefix("componentize-py==").expect("because that is the tool");
        assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{version} is no exact version");
    }

    #[test]
    fn versions_of_python_are_read() {
        assert_eq!(parse_version("Python 3.11.2"), Some((3, 11)));
        assert!(parse_version("Python 3.9.1") < Some(PYTHON_MIN));
        assert_eq!(parse_version("command not found"), None);
    }

    #[test]
    fn the_number_of_tests_is_read() {
        assert_eq!(ran("....\n-----\nRan 10 tests in 0.268s\n\nOK\n"), Some(10));
        assert_eq!(ran("no tests"), None);
    }
}
