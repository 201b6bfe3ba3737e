//! `bulkhead plugin keygen` and `sign`: a key that vouches, and its signature beside a component.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use bulkhead_sandbox::Inspection;
use bulkhead_sandbox::script;
use clap::Args;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::plugin::Component;
use crate::cli::plugin::local;
use crate::cli::plugin::local::Bench;
use crate::cli::screen;
use crate::manifest::Manifest;
use crate::signature::Secret;
use crate::signature::Statement;

/// Where the key goes.
#[derive(Debug, Args)]
pub struct Keygen {
    /// Where the secret key goes; a file that is there is not replaced
    file: PathBuf,
}

impl Keygen {
    /// Does it.
    pub fn run(self) -> Result<()> {
        let secret = create(&self.file)?;
        screen::line(&secret.public().to_string())?;
        screen::note("that is the public key: a host trusts it by [signatures] trusted in its configuration")?;
        screen::note(&format!("{} is the secret one: whoever has it can sign in its name", self.file.display()))
    }
}

/// Makes a key. One that is lost cannot be made again, so none is replaced.
fn create(file: &Path) -> Result<Secret> {
    Secret::create(file).map_err(|error| {
        if error.downcast_ref::<io::Error>().is_none_or(|cause| cause.kind() != io::ErrorKind::AlreadyExists) {
            return Error::chain(&error);
        }
        let file = file.display();
        let hint = format!("name another file, or sign with the one there is: bulkhead plugin sign . --with {file}");
        Error::hinted(format!("{file} is there already, and a key is never replaced"), hint)
    })
}

/// What is signed.
#[derive(Debug, Args)]
pub struct Sign {
    /// A component (`.wasm`), JavaScript (`.js`), or a folder with a `plugin.toml`; as for `push`
    path: PathBuf,
    /// The secret key, as `keygen` made it
    #[arg(short, long, value_name = "FILE")]
    with: PathBuf,
    /// Its manifest [default: as for `push`]
    #[arg(short, long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// The name that it will be pushed under [default: the manifest's, else the file's]
    #[arg(long)]
    name: Option<String>,
}

impl Sign {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let secret = Secret::load(&self.with).map_err(|error| Error::chain(&error))?;
        let component = Component::read(&self.path, self.manifest.as_deref(), self.name.as_deref()).await?;
        let manifest = match &component.manifest {
            Some((file, text)) => local::parsed(file, Manifest::parse(text))?,
            None => Manifest::bare(&component.name),
        };
        let (name, file) = (component.name.clone(), component.file.with_extension("sig"));
        let inspection = inspect(component).await?;
        let envelope = secret.sign(&Statement::new(&name, &manifest, &inspection));
        std::fs::write(&file, envelope + "\n").map_err(|cause| Error::file(&file, "written", &cause))?;
        screen::line(&format!("signed {name} in {}", file.display()))?;
        screen::line(&format!("  digest   {}", inspection.digest))?;
        screen::line(&format!("  version  {}", manifest.plugin.version.escape_debug()))?;
        screen::line(&format!("  by       {}", secret.public()))
    }
}

/// What a host will find in it.
async fn inspect(component: Component) -> Result<Inspection> {
    let bench = Bench::open()?;
    if !component.is_source {
        return Ok(bench.load(component.wasm).await?.inspection);
    }
    let sandbox = bench.sandbox().clone();
    let source = String::from_utf8(component.wasm).map_err(|_| Error::failed("the source is not UTF-8 text"))?;
    let made = tokio::task::spawn_blocking(move || script::component(&sandbox, &source)).await;
    let made = made.map_err(|_| Error::failed("the check of the source broke off"))?;
    let wasm = made.map_err(|unfit| Error::chain(&unfit.into()))?;
    Ok(bench.load(wasm.to_vec()).await?.inspection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_there_stays_and_the_hint_says_what_to_do() {
        let folder = tempfile::tempdir().expect("because a temporary folder can be made");
        let file = folder.path().join("release.key");
        create(&file).map(drop).expect("because there is none yet");
        let key = std::fs::read(&file).expect("because it was made");
        let error = create(&file).map(drop).expect_err("because there is one");
        let shown = error.render(crate::cli::paint::Paint::plain());
        assert!(shown.contains("is there already") && shown.contains("hint: name another file"), "{shown}");
        assert_eq!(std::fs::read(&file).expect("because it is there"), key);
    }
}
