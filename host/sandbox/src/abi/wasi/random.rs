//! `wasi:random` on the attempt's randomness.

use wasmtime::component::Linker;

use super::Context;
use super::enter;
use super::name;
use crate::abi::host::Host;
use crate::capability::Stop;
use crate::capability::random::REQUEST_MAX;

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    for (interface, prefix) in [("random/random", "get-random"), ("random/insecure", "get-insecure-random")] {
        let mut instance = linker.instance(&name(interface))?;
        instance.func_wrap(&format!("{prefix}-bytes"), |mut context: Context<'_>, (length,): (u64,)| {
            let run = enter(&mut context)?;
            if length > REQUEST_MAX {
                let text = format!("{length} random bytes at once; at most {REQUEST_MAX} are given");
                return Err(Stop::Bytes(text).into());
            }
            let mut bytes = vec![0; usize::try_from(length)?];
            run.random.fill(&mut bytes);
            Ok((bytes,))
        })?;
        instance.func_wrap(&format!("{prefix}-u64"), |mut context: Context<'_>, (): ()| {
            Ok((enter(&mut context)?.random.number(),))
        })?;
    }
    linker.instance(&name("random/insecure-seed"))?.func_wrap("insecure-seed", |mut context: Context<'_>, (): ()| {
        let run = enter(&mut context)?;
        Ok(((run.random.number(), run.random.number()),))
    })
}
