//! A plugin's folder on this machine: its manifest, its component, and the sandbox that runs it here.

use std::path::Path;
use std::path::PathBuf;

use bulkhead_domain::rule::Diagnostic;
use bulkhead_sandbox::Inspection;
use bulkhead_sandbox::Options;
use bulkhead_sandbox::Plugin;
use bulkhead_sandbox::Pool;
use bulkhead_sandbox::Refused;
use bulkhead_sandbox::Sandbox;
use bytes::Bytes;
use rand::RngCore as _;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::input;
use crate::cli::problem::Fault;
use crate::cli::problem::Problem;
use crate::cli::profile;
use crate::manifest::Build;
use crate::manifest::Document;
use crate::manifest::Manifest;

/// What the manifest is called in a plugin's folder.
pub const MANIFEST: &str = "plugin.toml";
/// Compiled components that are kept, over all plugins of this user.
const KEPT_BYTES: u64 = 1 << 30;
/// One instance at a time, of up to so many memories.
const MEMORIES: u32 = 8;

/// A folder with a manifest.
#[derive(Debug, Clone)]
pub struct Project {
    /// The folder.
    pub folder: PathBuf,
    /// The manifest.
    pub manifest: Manifest,
    /// How the component is made.
    pub build: Build,
}

impl Project {
    /// Reads the manifest of a folder; a manifest itself stands for its folder.
    pub async fn open(path: &Path) -> Result<Self> {
        let (folder, file) = if path.is_file() {
            (path.parent().unwrap_or(Path::new("")).to_path_buf(), path.to_path_buf())
        } else {
            (path.to_path_buf(), path.join(MANIFEST))
        };
        if !file.is_file() {
            return Err(Error::hinted(
                format!("there is no {}", file.display()),
                "name the plugin's folder, or begin one with `bulkhead plugin new`",
            ));
        }
        let Document { manifest, build } = document(&file).await?;
        // An empty path would not be a folder to run a command in.
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        Ok(Self { folder, manifest, build })
    }

    /// Where the component is once it is built.
    pub fn artifact(&self) -> Result<PathBuf> {
        match &self.build.artifact {
            Some(artifact) => Ok(self.folder.join(artifact)),
            None => Err(Error::hinted(
                format!("{} does not say where the component is", self.folder.join(MANIFEST).display()),
                "add `artifact = \"…\"` to its [build]",
            )),
        }
    }

    /// A command of this program about this folder, as it is typed.
    pub fn command(&self, verb: &str) -> String {
        if self.folder == Path::new(".") {
            return format!("bulkhead plugin {verb}");
        }
        format!("bulkhead plugin {verb} {}", self.folder.display())
    }

    /// The component as it was built last.
    pub async fn component(&self) -> Result<Vec<u8>> {
        let artifact = self.artifact()?;
        if !artifact.is_file() {
            return Err(Error::hinted(
                format!("{} is not there", artifact.display()),
                format!("build it first: {}", self.command("build")),
            ));
        }
        input::bytes(&artifact).await
    }
}

/// A manifest, checked; every fault with its place.
pub async fn document(file: &Path) -> Result<Document> {
    let text = input::text(file).await?;
    parsed(file, Document::parse(&text))
}

/// What was read of a manifest, or its faults with their places.
pub fn parsed<T>(file: &Path, read: std::result::Result<T, Vec<Diagnostic>>) -> Result<T> {
    read.map_err(|faults| wrong(file, "the manifest is wrong", "manifest-invalid", faults))
}

/// A file's name as it is shown with its faults.
pub fn shown(file: &Path) -> String {
    file.strip_prefix(".").unwrap_or(file).display().to_string()
}

/// Faults of a file, shown as the host's own remarks are.
pub fn wrong(file: &Path, what: &str, code: &str, faults: Vec<Diagnostic>) -> Error {
    let fault = |fault: Diagnostic| Fault {
        path: fault.path,
        line: fault.line,
        column: fault.column,
        message: fault.message,
        hint: fault.hint,
        excerpt: fault.excerpt,
        place: None,
    };
    Error::Refused(Box::new(Problem {
        code: code.to_owned(),
        detail: what.to_owned(),
        errors: faults.into_iter().map(fault).collect(),
        file: Some(shown(file)),
        ..Problem::default()
    }))
}

/// Why a component cannot run, as the host would say it at its upload.
pub fn refused(refused: Refused) -> Error {
    Error::Refused(Box::new(Problem {
        code: refused.code,
        detail: format!("the component is refused: {}", refused.detail.trim_end_matches('.')),
        hint: Some(refused.hint),
        ..Problem::default()
    }))
}

/// The sandbox of this user, with the components that it has compiled before.
pub struct Bench {
    sandbox: Sandbox,
}

/// A component that is ready to be called.
pub struct Loaded {
    /// What was found in it.
    pub inspection: Inspection,
    /// Itself.
    pub plugin: Plugin,
}

impl Bench {
    /// Opens it.
    pub fn open() -> Result<Self> {
        let folder = cache_folder()?.join("bulkhead/components");
        std::fs::create_dir_all(&folder).map_err(|cause| Error::file(&folder, "made", &cause))?;
        let key = key(&folder.join("key"))?;
        let options = Options {
            disk_bytes: KEPT_BYTES,
            pool: Pool { instances: MEMORIES, memories: MEMORIES, ..Pool::default() },
            ..Options::new(folder, key)
        };
        let sandbox = Sandbox::open(options).map_err(|error| Error::chain(&error.into()))?;
        Ok(Self { sandbox })
    }

    /// The sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Checks a component as an upload is checked, and compiles it unless that has been done before.
    pub async fn load(&self, wasm: Vec<u8>) -> Result<Loaded> {
        let sandbox = self.sandbox.clone();
        let work = move || {
            let inspection = sandbox.inspect(&wasm).map_err(refused)?;
            let wasm = Bytes::from(wasm);
            let plugin = sandbox.load(&inspection.digest, &|| Ok(wasm.clone()));
            let plugin = plugin.map_err(|error| Error::chain(&error.into()))?;
            Ok(Loaded { inspection, plugin })
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::failed("the check of the component broke off"))?
    }
}

/// Where this user's caches are.
pub fn cache_folder() -> Result<PathBuf> {
    // The standard says that a relative XDG_CACHE_HOME is to be ignored.
    let set = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    set.or_else(home).ok_or_else(|| {
        Error::hinted("nothing says where caches may be", "set HOME, or XDG_CACHE_HOME to a folder of yours")
    })
}

/// Authenticates what is in the cache; made at the first use.
fn key(path: &Path) -> Result<[u8; 32]> {
    let read = || std::fs::read_to_string(path).ok().and_then(|text| blake3::Hash::from_hex(text.trim()).ok());
    if let Some(key) = read() {
        return Ok(*key.as_bytes());
    }
    let mut key = [0; 32];
    rand::rng().fill_bytes(&mut key);
    let text = blake3::Hash::from_bytes(key).to_hex();
    profile::write_private(path, &text).map_err(|cause| Error::file(path, "written", &cause))?;
    Ok(key)
}
