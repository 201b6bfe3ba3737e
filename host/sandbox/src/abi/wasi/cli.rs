//! `wasi:cli`: nobody's environment, no terminal, and the standard streams.

use wasmtime::component::Linker;
use wasmtime::component::Resource;
use wasmtime::component::ResourceType;

use super::Context;
use super::enter;
use super::io::Input;
use super::io::Output;
use super::io::STDERR;
use super::io::STDOUT;
use super::name;
use crate::abi::host::Host;
use crate::capability::Stop;

/// `terminal-input` and `terminal-output`; there are none.
enum Terminal {}

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut environment = linker.instance(&name("cli/environment"))?;
    environment.func_wrap("get-environment", |mut context: Context<'_>, (): ()| {
        enter(&mut context)?;
        Ok((Vec::<(String, String)>::new(),))
    })?;
    environment.func_wrap("get-arguments", |mut context: Context<'_>, (): ()| {
        enter(&mut context)?;
        Ok((Vec::<String>::new(),))
    })?;
    environment.func_wrap("initial-cwd", |mut context: Context<'_>, (): ()| {
        enter(&mut context)?;
        Ok((None::<String>,))
    })?;

    let mut exit = linker.instance(&name("cli/exit"))?;
    exit.func_wrap("exit", |mut context: Context<'_>, (status,): (Result<(), ()>,)| -> wasmtime::Result<()> {
        enter(&mut context)?;
        Err(Stop::Exit(u8::from(status.is_err())).into())
    })?;
    exit.func_wrap("exit-with-code", |mut context: Context<'_>, (code,): (u8,)| -> wasmtime::Result<()> {
        enter(&mut context)?;
        Err(Stop::Exit(code).into())
    })?;

    linker.instance(&name("cli/stdin"))?.func_wrap("get-stdin", |mut context: Context<'_>, (): ()| {
        enter(&mut context)?;
        Ok((Resource::<Input>::new_own(0),))
    })?;
    for (stream, number) in [("stdout", STDOUT), ("stderr", STDERR)] {
        let mut instance = linker.instance(&name(&format!("cli/{stream}")))?;
        instance.func_wrap(&format!("get-{stream}"), move |mut context: Context<'_>, (): ()| {
            enter(&mut context)?;
            Ok((Resource::<Output>::new_own(number),))
        })?;
    }
    link_terminals(linker)
}

fn link_terminals(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    for kind in ["terminal-input", "terminal-output"] {
        let mut instance = linker.instance(&name(&format!("cli/{kind}")))?;
        instance.resource(kind, ResourceType::host::<Terminal>(), |_, _| Ok(()))?;
    }
    for stream in ["stdin", "stdout", "stderr"] {
        let mut instance = linker.instance(&name(&format!("cli/terminal-{stream}")))?;
        instance.func_wrap(&format!("get-terminal-{stream}"), |mut context: Context<'_>, (): ()| {
            enter(&mut context)?;
            Ok((None::<Resource<Terminal>>,))
        })?;
    }
    Ok(())
}
