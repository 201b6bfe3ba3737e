//! Foreign: builds the same plugin with toolchains that know nothing of Bulkhead, as their documentation says.
//!
//! | component | tools, and what they take in the user's cache folder |
//! | --- | --- |
//! | `foreign-python` | componentize-py from PyPI (17 MB to download, 70 MB) |
//! | `foreign-starling` | jco with StarlingMonkey from npm (70 MB to download, 340 MB) |
//! | `foreign-c` | zig's clang from PyPI (101 MB to download, 490 MB), and jco |
//!
//! Each is built anew only if its files, the contract or the tool have changed.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;

use super::examples::Example;
use super::inputs;
use super::javascript;
use super::python;
use super::shelf::Shelf;
use crate::process;
use crate::progress::Step;

/// 1.35.0 does not find its own WIT files.
const JCO: &str = "jco-1.34.0";
const ZIG: &str = "ziglang==0.17.1";
/// Its own default is a stack of 16 MiB.
const STACK: &str = "-Wl,-z,stack-size=65536";

/// Builds all of them.
pub fn build(root: &Path) -> Result<Vec<Example>> {
    let workshop = Workshop { root, target: root.join("target/guest-foreign") };
    let componentize_py = python::requirement(root)?;
    /// From a folder of sources to a component.
    type Make<'a> = &'a dyn Fn(&Path, &Path) -> Result<()>;
    let clang = format!("{ZIG} {STACK}");
    let builders: [(&str, &str, Make<'_>); 3] = [
        ("python", &componentize_py, &|folder, output| workshop.python(&componentize_py, folder, output)),
        ("starling", JCO, &|folder, output| workshop.starling(folder, output)),
        ("c", &clang, &|folder, output| workshop.c(folder, output)),
    ];
    let sources = root.join("tests/foreign");
    let shared = [sources.join("world.wit"), root.join("wit/plugin.wit")];
    let mut built = Vec::new();
    for (language, tools, make) in builders {
        let folder = sources.join(language);
        let name = format!("foreign-{language}");
        let wasm = workshop.target.join(format!("{name}.wasm"));
        let inputs = [&shared[..], std::slice::from_ref(&folder)].concat();
        inputs::unless_current(&wasm, &inputs, tools, || {
            workshop.lay_out_wit()?;
            let step = Step::begin(format!("building {name}"));
            make(&folder, &wasm).with_context(|| format!("{name} does not build"))?;
            step.done();
            Ok(())
        })?;
        built.push(Example { name, wasm, manifest: folder.join("plugin.toml") });
    }
    Ok(built)
}

struct Workshop<'a> {
    root: &'a Path,
    target: PathBuf,
}

impl Workshop<'_> {
    fn wit(&self) -> PathBuf {
        self.target.join("wit")
    }

    /// The world and the contract, as the tools want to find them.
    fn lay_out_wit(&self) -> Result<()> {
        let deps = self.wit().join("deps");
        fs::create_dir_all(&deps)?;
        fs::copy(self.root.join("tests/foreign/world.wit"), self.wit().join("world.wit"))?;
        fs::copy(self.root.join("wit/plugin.wit"), deps.join("plugin.wit"))?;
        Ok(())
    }

    fn python(&self, requirement: &str, folder: &Path, output: &Path) -> Result<()> {
        let mut command = python::python(requirement)?;
        // The script that pip writes for it names the folder where it was installed first.
        command.args(["-c", "from componentize_py import script; script()", "--wit-path"]).arg(self.wit());
        command.args(["--world", "plugin", "componentize", "app", "--output"]).arg(output);
        process::read(command.current_dir(folder)).map(drop)
    }

    fn starling(&self, folder: &Path, output: &Path) -> Result<()> {
        let mut command = self.jco()?;
        command.arg("componentize").arg(folder.join("plugin.js")).arg("--wit").arg(self.wit());
        process::read(command.args(["--world-name", "plugin", "--out"]).arg(output)).map(drop)
    }

    fn c(&self, folder: &Path, output: &Path) -> Result<()> {
        let core = self.target.join("foreign-c.core.wasm");
        let mut command = python::python(ZIG)?;
        command.args(["-m", "ziglang", "cc", "--target=wasm32-wasi", "-mexec-model=reactor", "-Os", "-s"]);
        command.args([STACK, "-o"]);
        command.arg(&core).args(["plugin.c", "generated/plugin.c", "generated/plugin_component_type.o"]);
        let cache = Shelf::open("zig", "zig's cache")?;
        process::read(command.current_dir(folder).env("ZIG_GLOBAL_CACHE_DIR", cache.folder()))?;
        process::read(self.jco()?.arg("new").arg(&core).arg("--output").arg(output)).map(drop)
    }

    /// jco, from the cache or installed now.
    fn jco(&self) -> Result<Command> {
        let shelf = Shelf::open("foreign-tools", "jco")?;
        let mut place = shelf.folder().join(JCO);
        if !place.exists() {
            javascript::expect_node()?;
            let step = Step::begin(format!("installing jco with StarlingMonkey from npm into {}", place.display()));
            let room = shelf.room()?;
            for file in ["package.json", "package-lock.json"] {
                fs::copy(self.root.join("tests/foreign/starling").join(file), room.join(file))?;
            }
            let mut npm = Command::new("npm");
            // Not `npm ci`: the lock file names no packages of systems that its author's registry did not have. One of
            // the packages' scripts would download a compiler from elsewhere.
            npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&room);
            process::run_logged(&mut npm, &room.join("npm.log"))?;
            place = shelf.keep(&room, JCO)?;
            step.done();
        }
        let mut command = Command::new("node");
        command.arg(place.join("node_modules/@bytecodealliance/jco/dist/jco.js"));
        Ok(command)
    }
}
