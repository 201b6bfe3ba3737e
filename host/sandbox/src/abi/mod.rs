//! Between wasm and the capabilities: WIT values on one side, the domain's on the other, nothing decided here.
//!
//! One folder for each major track of the contract; beside it WASI 0.2, in a form without any power, and drafts of WASI
//! as other names for what the contract has.
//!
//! Reading order: [`host`] (what a store holds), [`v0`] (our contract), [`wasi`], [`http`], [`portable`], [`outcome`]
//! (what an error means).

pub(crate) mod handles;
pub(crate) mod host;
pub(crate) mod http;
pub(crate) mod outcome;
pub(crate) mod portable;
pub(crate) mod v0;
pub(crate) mod wasi;

use wasmtime::Engine;
use wasmtime::component::Linker;

use self::host::Host;

/// Everything that is the same for all plugins.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    v0::link(&mut linker)?;
    wasi::link(&mut linker)?;
    http::link(&mut linker)?;
    portable::link(&mut linker)?;
    Ok(linker)
}
