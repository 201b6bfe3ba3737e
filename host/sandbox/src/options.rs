//! What the sandbox is told at start. The composition root fills this in.

use std::ffi::OsString;
use std::path::PathBuf;

/// How components become machine code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Compiler {
    /// In a child process: this binary with [`Compiler::ARGUMENT`], whose `main` calls
    /// [`compile_worker_main`](crate::compile_worker_main) before anything else.
    #[default]
    ThisBinary,
    /// In a child process: this command (program and arguments).
    Command(Vec<OsString>),
    /// In this very process, without limits. A hostile component can then take the whole process down: only for
    /// tests and for components that the operator wrote.
    InProcess,
}

impl Compiler {
    /// The argument that makes a binary a compile worker.
    pub const ARGUMENT: &'static str = "__compile";
}

/// How much room is held ready for instances. Address space, not memory: an idle pool costs next to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// False uses memory on demand: slower instances, no reservation of address space.
    pub enabled: bool,
    /// Component instances alive at a time.
    pub instances: u32,
    /// Linear memories alive at a time; a component has one to three.
    pub memories: u32,
    /// The largest linear memory that any plugin can have.
    pub memory_max: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self { enabled: true, instances: 256, memories: 256, memory_max: 64 << 20 }
    }
}

/// What the sandbox is told at start.
#[derive(Clone)]
pub struct Options {
    /// Where compiled artefacts are kept. Made if it is not there. Nodes do not share it.
    pub cache_dir: PathBuf,
    /// Authenticates the artefacts: only what this node wrote is ever loaded.
    pub node_key: [u8; 32],
    /// Bytes of machine code kept loaded.
    pub cache_bytes: u64,
    /// Bytes of artefacts kept in `cache_dir`.
    pub disk_bytes: u64,
    /// How components are compiled.
    pub compiler: Compiler,
    /// Compilations at a time; 0 is half the cores.
    pub compilers: usize,
    /// Room for instances.
    pub pool: Pool,
}

impl Options {
    /// The defaults, with artefacts in `cache_dir`.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>, node_key: [u8; 32]) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            node_key,
            cache_bytes: 256 << 20,
            disk_bytes: 4 << 30,
            compiler: Compiler::default(),
            compilers: 0,
            pool: Pool::default(),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("cache_dir", &self.cache_dir)
            .field("node_key", &"[redacted]")
            .field("cache_bytes", &self.cache_bytes)
            .field("disk_bytes", &self.disk_bytes)
            .field("compiler", &self.compiler)
            .field("compilers", &self.compilers)
            .field("pool", &self.pool)
            .finish()
    }
}
