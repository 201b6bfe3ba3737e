//! The door: [`Sandbox`] inspects, loads and starts plugins.

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::abi;
use crate::abi::host::Host;
use crate::artefact;
use crate::artefact::Cache;
use crate::artefact::Verified;
use crate::engine;
use crate::error::Error;
use crate::inspect;
use crate::inspect::Inspection;
use crate::inspect::Refused;
use crate::inspect::contract::Contract;
use crate::options::Options;
use crate::outbound::Outbound;
use crate::plugin::Plugin;
use crate::port::Setup;
use crate::session::Session;

/// The engine, its caches and its compilers. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
    way: Option<Arc<dyn Outbound>>,
}

struct Inner {
    options: Options,
    engine: Engine,
    linker: Linker<Host>,
    contract: Contract,
    artefacts: Cache,
    plugins: moka::sync::Cache<String, Plugin>,
    compilers: Gate,
    compiled: AtomicU64,
}

/// What the sandbox did since the start, for the operator's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Components compiled.
    pub compiled: u64,
    /// Artefacts that were found in the cache and not believed.
    pub artefacts_rejected: u64,
    /// Plugins loaded at present.
    pub loaded: u64,
    /// Bytes of their machine code.
    pub loaded_bytes: u64,
}

impl Sandbox {
    /// Starts the engine and opens the artefact cache.
    pub fn open(options: Options) -> Result<Self, Error> {
        let engine = engine::open(&options.pool)?;
        let linker = abi::linker(&engine).map_err(|error| Error::Engine { detail: format!("{error:#}") })?;
        let artefacts = Cache::open(&options.cache_dir, options.disk_bytes, &options.node_key, &engine)?;
        let plugins = moka::sync::Cache::builder()
            .max_capacity(options.cache_bytes)
            .weigher(|_: &String, plugin: &Plugin| u32::try_from(plugin.artefact_size()).unwrap_or(u32::MAX))
            .build();
        let compilers = match options.compilers {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
            asked => asked,
        };
        let inner = Inner {
            engine,
            linker,
            contract: Contract::read(),
            artefacts,
            plugins,
            compilers: Gate::new(compilers),
            compiled: AtomicU64::new(0),
            options,
        };
        Ok(Self { inner: Arc::new(inner), way: None })
    }

    /// The same engine, with a way out for plugins that have the `http` grant. Without it nothing is ever sent: trials
    /// and previews take the sandbox as it is.
    #[must_use]
    pub fn with_outbound(&self, way: Arc<dyn Outbound>) -> Self {
        Self { inner: Arc::clone(&self.inner), way: Some(way) }
    }

    /// The same engine without a way out, for whatever runs beside the real thing. A session keeps what it was made with.
    #[must_use]
    pub fn without_outbound(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), way: None }
    }

    /// Checks an upload: what it is, what it needs, whether it runs here. Compiles it and keeps the artefact, so a
    /// plugin that passed starts at once. Blocks for as long as the compiler takes.
    pub fn inspect(&self, wasm: &[u8]) -> Result<Inspection, Refused> {
        let seen = inspect::look(wasm, &self.inner.options.pool)?;
        let digest = inspect::digest(wasm);
        let plugin = match self.get(&digest, &|| Ok(wasm)) {
            Ok(plugin) => plugin,
            Err(Error::Refused(refused)) => return Err(refused),
            Err(error) => return Err(Refused::host(error.to_string())),
        };
        Ok(Inspection {
            digest,
            exports: plugin.exports(),
            imports: seen.imports,
            size: wasm.len() as u64,
            artefact_size: plugin.artefact_size() as u64,
            metadata: inspect::metadata(wasm),
            engine: format!("wasmtime {}", engine::VERSION),
        })
    }

    /// The plugin with this digest: from memory, else from the artefact cache, else compiled anew from what `wasm`
    /// fetches. Blocks.
    pub fn load(&self, digest: &str, wasm: &dyn Fn() -> Result<Bytes, Error>) -> Result<Plugin, Error> {
        self.get(digest, &|| {
            let wasm = wasm()?;
            let found = inspect::digest(&wasm);
            if found == digest { Ok(wasm) } else { Err(Error::Damaged { digest: digest.to_owned(), found }) }
        })
    }

    /// A place for the calls of one batch; makes the instance at the first call.
    #[must_use]
    pub fn session(&self, plugin: &Plugin, setup: Arc<Setup>) -> Session {
        Session::new(self.inner.engine.clone(), plugin.clone(), setup, self.way.clone())
    }

    /// What was done since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.plugins.run_pending_tasks();
        Stats {
            compiled: self.inner.compiled.load(Ordering::Relaxed),
            artefacts_rejected: self.inner.artefacts.rejected(),
            loaded: self.inner.plugins.entry_count(),
            loaded_bytes: self.inner.plugins.weighted_size(),
        }
    }

    /// One load at a time for each digest; whoever comes meanwhile waits for it. What `wasm` gives has that digest.
    fn get<W>(&self, digest: &str, wasm: &dyn Fn() -> Result<W, Error>) -> Result<Plugin, Error>
    where
        W: AsRef<[u8]>,
    {
        if let Some(plugin) = self.inner.plugins.get(digest) {
            return Ok(plugin);
        }
        self.inner
            .plugins
            .try_get_with(digest.to_owned(), || self.inner.load(digest, wasm))
            .map_err(|error: Arc<Error>| Error::clone(&error))
    }
}

impl Inner {
    fn load<W>(&self, digest: &str, wasm: &dyn Fn() -> Result<W, Error>) -> Result<Plugin, Error>
    where
        W: AsRef<[u8]>,
    {
        if let Some(artefact) = self.artefacts.get(digest) {
            match self.link(digest, &artefact) {
                Ok(plugin) => return Ok(plugin),
                // It was fit when it was written; so the artefact is not, whatever its MAC says.
                Err(_) => self.artefacts.remove(digest),
            }
        }
        let artefact = self.compile(wasm()?.as_ref()).map_err(Error::Refused)?;
        let plugin = self.link(digest, &artefact).map_err(Error::Refused)?;
        // Only what is fit to run is kept.
        self.artefacts.put(digest, &artefact);
        Ok(plugin)
    }

    fn compile(&self, wasm: &[u8]) -> Result<Verified, Refused> {
        inspect::look(wasm, &self.options.pool)?;
        let _turn = self.compilers.enter();
        let artefact = artefact::compile(&self.options.compiler, wasm)?;
        self.compiled.fetch_add(1, Ordering::Relaxed);
        Ok(artefact)
    }

    fn link(&self, digest: &str, artefact: &Verified) -> Result<Plugin, Refused> {
        let component = artefact::load(&self.engine, artefact)
            .map_err(|error| Refused::not_compiled(&error.root_cause().to_string()))?;
        let size = artefact.bytes().len();
        Plugin::link(&self.engine, &self.linker, &self.contract, &component, digest, size)
    }
}

/// Lets only so many through at a time.
struct Gate {
    free: Mutex<usize>,
    left: Condvar,
}

struct Turn<'a>(&'a Gate);

impl Gate {
    fn new(places: usize) -> Self {
        Self { free: Mutex::new(places.max(1)), left: Condvar::new() }
    }

    fn enter(&self) -> Turn<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.left.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.left.notify_one();
    }
}
