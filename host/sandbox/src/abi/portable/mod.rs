//! Drafts of WASI as other names for what the contract has, so that components written for other hosts run.
//!
//! `wasi:keyvalue` is the plugin's state, `wasi:config` its settings, `wasi:logging` its log: the same limits, the same
//! rule that nothing is written before the run commits. Drafts match by their exact version.

mod config;
mod keyvalue;
mod logging;

use wasmtime::component::HasData;
use wasmtime::component::Linker;

pub(crate) use self::keyvalue::Cas;
use super::host::Host;

/// What the WIT of the drafts becomes.
#[allow(missing_docs, reason = "generated")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "bulkhead:portable/aliases",
        imports: { default: trappable },
        with: {
            "wasi:keyvalue/store.bucket": super::keyvalue::Bucket,
            "wasi:keyvalue/atomics.cas": super::keyvalue::Cas,
        },
    });
}

/// What the host functions are given.
struct Aliased;

impl HasData for Aliased {
    type Data<'a> = &'a mut Host;
}

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    bindings::Aliases::add_to_linker::<Host, Aliased>(linker, |host| host)
}
