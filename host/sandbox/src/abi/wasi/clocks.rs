//! `wasi:clocks` on the attempt's clock.

use wasmtime::component::ComponentType;
use wasmtime::component::Linker;
use wasmtime::component::Lower;
use wasmtime::component::Resource;

use super::Context;
use super::enter;
use super::io::Pollable;
use super::name;
use crate::abi::host::Host;
use crate::capability::clock::RESOLUTION;

/// `datetime`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

impl Datetime {
    fn from_millis(millis: u64) -> Self {
        let nanoseconds = u32::try_from(millis % 1_000).unwrap_or_default() * 1_000_000;
        Self { seconds: millis / 1_000, nanoseconds }
    }
}

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut wall = linker.instance(&name("clocks/wall-clock"))?;
    wall.func_wrap("now", |mut context: Context<'_>, (): ()| {
        Ok((Datetime::from_millis(enter(&mut context)?.clock.millis()),))
    })?;
    wall.func_wrap("resolution", |mut context: Context<'_>, (): ()| {
        enter(&mut context)?;
        Ok((Datetime::from_millis(1),))
    })?;

    let mut monotonic = linker.instance(&name("clocks/monotonic-clock"))?;
    monotonic.func_wrap("now", |mut context: Context<'_>, (): ()| Ok((enter(&mut context)?.clock.monotonic(),)))?;
    monotonic.func_wrap("resolution", |mut context: Context<'_>, (): ()| {
        enter(&mut context)?;
        Ok((RESOLUTION,))
    })?;
    monotonic.func_wrap("subscribe-instant", |mut context: Context<'_>, (instant,): (u64,)| {
        enter(&mut context)?;
        subscribe(&mut context, instant)
    })?;
    monotonic.func_wrap("subscribe-duration", |mut context: Context<'_>, (duration,): (u64,)| {
        let now = enter(&mut context)?.clock.monotonic();
        subscribe(&mut context, now.saturating_add(duration))
    })
}

fn subscribe(context: &mut Context<'_>, instant: u64) -> wasmtime::Result<(Resource<Pollable>,)> {
    Ok((Resource::new_own(context.data_mut().timers.add(instant)?),))
}
