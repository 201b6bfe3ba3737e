//! From bytes to machine code in this process. The one step where trust in the bytes is absolute.

use wasmtime::Engine;
use wasmtime::component::Component;

use super::Verified;

/// Loads machine code.
#[allow(unsafe_code, reason = "machine code is executed as it is; `Verified` is only made from what this node wrote")]
pub(super) fn deserialize(engine: &Engine, artefact: &Verified) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are the output of `Engine::precompile_component` by our own compile worker: they come
    // directly from its pipe, or from a file whose MAC, made with this node's key, was checked over these very bytes
    // (`Verified` has no other constructors). They are copied here, so nobody changes them afterwards.
    unsafe { Component::deserialize(engine, artefact.bytes()) }
}
