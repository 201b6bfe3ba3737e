//! Artefacts: machine code made from components, by a compiler that may die, kept in files that nobody else wrote.
//!
//! ```text
//! component ──compile (a process of its own)──▶ bytes ──cache (file with a MAC)──▶ bytes, verified ──load──▶ plugin
//! ```
//!
//! Machine code is executed as it is found, and the engine accepts damaged code: of 300 artefacts with one byte
//! changed, 265 were accepted and some of them crashed the process. So a file is only believed if its MAC, made
//! with this node's key over every byte, holds.
//!
//! Reading order: [`worker`], [`compile`], [`cache`], [`load`].

mod cache;
mod compile;
mod load;
mod rlimit;
mod worker;

use std::ops::Range;

use wasmtime::Engine;
use wasmtime::component::Component;

pub(crate) use self::cache::Cache;
pub use self::worker::compile_worker_main;
use crate::inspect::Refused;
use crate::options::Compiler;

/// Machine code that this node made. Only this module makes one.
pub(crate) struct Verified {
    bytes: Vec<u8>,
    range: Range<usize>,
}

impl Verified {
    /// The machine code.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

/// Compiles a component.
pub(crate) fn compile(compiler: &Compiler, wasm: &[u8]) -> Result<Verified, Refused> {
    compile::compile(compiler, wasm)
}

/// Loads machine code.
pub(crate) fn load(engine: &Engine, artefact: &Verified) -> wasmtime::Result<Component> {
    load::deserialize(engine, artefact)
}
