//! A component that is loaded: everything that is the same for all its instances, worked out once.

use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::InstancePre;
use wasmtime::component::Linker;

use crate::abi;
use crate::abi::host::Host;
use crate::abi::v0::handler;
use crate::abi::v0::transformer;
use crate::inspect::Exports;
use crate::inspect::Refused;
use crate::inspect::contract::Contract;

/// A component that is loaded and ready to be instantiated. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    loaded: Arc<Loaded>,
}

struct Loaded {
    digest: String,
    artefact_size: usize,
    exports: Exports,
    instance: InstancePre<Host>,
    handler: Option<handler::GuestIndices>,
    transformer: Option<transformer::GuestIndices>,
}

impl Plugin {
    /// Checks the component against the contract and links it.
    pub(crate) fn link(
        engine: &Engine,
        linker: &Linker<Host>,
        contract: &Contract,
        component: &Component,
        digest: &str,
        artefact_size: usize,
    ) -> Result<Self, Refused> {
        let exports = contract.check(engine, component)?;
        let misfit = |error: wasmtime::Error| Refused::not_linked(&format!("{error:#}"));
        let extended = abi::wasi::link_denied(linker, component).map_err(misfit)?;
        let instance = extended.as_ref().unwrap_or(linker).instantiate_pre(component).map_err(misfit)?;
        let handler = exports.handler.then(|| handler::GuestIndices::new(&instance)).transpose().map_err(misfit)?;
        let transformer =
            exports.transformer.then(|| transformer::GuestIndices::new(&instance)).transpose().map_err(misfit)?;
        let loaded = Loaded { digest: digest.to_owned(), artefact_size, exports, instance, handler, transformer };
        Ok(Self { loaded: Arc::new(loaded) })
    }

    /// `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.loaded.digest
    }

    /// What it can be called for.
    #[must_use]
    pub fn exports(&self) -> Exports {
        self.loaded.exports
    }

    /// Bytes of its machine code.
    #[must_use]
    pub fn artefact_size(&self) -> usize {
        self.loaded.artefact_size
    }

    pub(crate) fn instance(&self) -> &InstancePre<Host> {
        &self.loaded.instance
    }

    pub(crate) fn handler(&self) -> Option<&handler::GuestIndices> {
        self.loaded.handler.as_ref()
    }

    pub(crate) fn transformer(&self) -> Option<&transformer::GuestIndices> {
        self.loaded.transformer.as_ref()
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("digest", &self.loaded.digest).finish_non_exhaustive()
    }
}
