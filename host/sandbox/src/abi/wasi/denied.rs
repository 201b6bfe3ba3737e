//! `wasi:filesystem` and `wasi:sockets`: there are no files and no network.
//!
//! Nothing can be opened, so nothing can be called on what was opened. A few functions have to answer; all others
//! end the guest if it should ever come to call them.

use wasmtime::component::Component;
use wasmtime::component::Linker;
use wasmtime::component::LinkerInstance;
use wasmtime::component::ResourceType;
use wasmtime::component::Val;
use wasmtime::component::types::ComponentItem;

use super::Context;
use super::enter;
use crate::abi::host::Host;

/// Everything that could be opened, and is not.
enum Absent {}

/// Resources of other interfaces, which these only mention.
const FOREIGN: [&str; 4] = ["input-stream", "output-stream", "pollable", "error"];

/// Functions that a component may declare of the two packages; they have about a hundred.
const FUNCTIONS_MAX: usize = 500;

/// Adds what `component` needs of the two packages; none if it needs nothing of them.
pub(crate) fn link(linker: &Linker<Host>, component: &Component) -> wasmtime::Result<Option<Linker<Host>>> {
    let ty = component.component_type();
    let engine = component.engine();
    let mut extended = None;
    let mut functions = 0;
    for (name, import) in ty.imports(engine) {
        let denied = name.starts_with("wasi:filesystem/") || name.starts_with("wasi:sockets/");
        let ComponentItem::ComponentInstance(import) = import.ty else { continue };
        if !denied {
            continue;
        }
        let mut instance = extended.get_or_insert_with(|| linker.clone()).instance(name)?;
        for (item, ty) in import.exports(engine) {
            functions += 1;
            if functions > FUNCTIONS_MAX {
                return Err(wasmtime::Error::msg(format!("`{name}` does not have so many functions")));
            }
            match ty.ty {
                ComponentItem::ComponentFunc(_) => link_function(&mut instance, name, item)?,
                ComponentItem::Resource(_) if !FOREIGN.contains(&item) => {
                    instance.resource(item, ResourceType::host::<Absent>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(extended)
}

fn link_function(instance: &mut LinkerInstance<'_, Host>, interface: &str, name: &str) -> wasmtime::Result<()> {
    match name {
        "get-directories" => answer(instance, name, || Val::List(Vec::new())),
        // Errors of streams are never errors of files or sockets.
        "filesystem-error-code" | "network-error-code" => answer(instance, name, || Val::Option(None)),
        "instance-network" => instance.func_new(name, |mut context: Context<'_>, _, _, results| {
            enter(&mut context)?;
            let network = wasmtime::component::Resource::<Absent>::new_own(0);
            give(results, Val::Resource(network.try_into_resource_any(&mut context)?))
        }),
        "create-tcp-socket" | "create-udp-socket" | "resolve-addresses" => {
            answer(instance, name, || Val::Result(Err(Some(Box::new(Val::Enum("access-denied".into()))))))
        }
        _ => {
            let what = format!("{interface}#{name}");
            instance.func_new(name, move |_: Context<'_>, _, _, _| {
                Err(wasmtime::Error::msg(format!("{what} was called, and there is nothing to call it on")))
            })
        }
    }
}

fn answer(
    instance: &mut LinkerInstance<'_, Host>,
    name: &str,
    value: impl Fn() -> Val + Send + Sync + 'static,
) -> wasmtime::Result<()> {
    instance.func_new(name, move |mut context: Context<'_>, _, _, results| {
        enter(&mut context)?;
        give(results, value())
    })
}

/// A component may declare these functions with other types than WASI's; it finds out when it calls them.
fn give(results: &mut [Val], value: Val) -> wasmtime::Result<()> {
    match results.first_mut() {
        Some(result) => {
            *result = value;
            Ok(())
        }
        None => Err(wasmtime::Error::msg("the function is declared without a result")),
    }
}
