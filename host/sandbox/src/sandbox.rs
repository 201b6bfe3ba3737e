//! The door: [`Sandbox`] inspects, loads and starts plugins.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::inspect::Inspection;
use crate::inspect::Refused;
use crate::options::Options;
use crate::port::Setup;
use crate::session::Session;

/// The engine, its caches and its compilers. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {}

/// A component that is loaded and ready to be instantiated. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {}

impl Sandbox {
    /// Starts the engine and opens the artefact cache.
    pub fn open(options: Options) -> Result<Self, Error> {
        Err(Error::Engine { detail: format!("not built yet ({})", options.cache_dir.display()) })
    }

    /// Checks an upload: what it is, what it needs, whether it runs here. Compiles it and keeps the artefact, so a
    /// plugin that passed starts at once. Blocks for as long as the compiler takes.
    pub fn inspect(&self, wasm: &[u8]) -> Result<Inspection, Refused> {
        Err(Refused { code: "host:missing".into(), detail: wasm.len().to_string(), hint: String::new() })
    }

    /// The plugin with this digest: from memory, else from the artefact cache, else compiled anew from what `wasm`
    /// fetches. Blocks.
    pub fn load(&self, digest: &str, wasm: &dyn Fn() -> Result<Bytes, Error>) -> Result<Plugin, Error> {
        wasm().and_then(|_| Err(Error::source(digest, "not built yet")))
    }

    /// A place for the calls of one batch; makes the instance at the first call.
    #[must_use]
    pub fn session(&self, plugin: &Plugin, setup: Arc<Setup>) -> Session {
        Session::new(plugin.clone(), setup)
    }
}
