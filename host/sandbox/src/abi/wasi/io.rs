//! `wasi:io`: streams that lead to the log or come from nowhere, and pollables that are ready when they are asked.

use wasmtime::component::ComponentType;
use wasmtime::component::Linker;
use wasmtime::component::Lower;
use wasmtime::component::Resource;
use wasmtime::component::ResourceType;

use super::Context;
use super::enter;
use super::name;
use crate::abi::host::Host;
use crate::capability::Stop;
use crate::capability::log::Stream;

/// Timers that a guest may hold at a time.
const TIMERS_MAX: usize = 256;

/// Bytes that a guest is told it may write at once.
const WRITE_MAX: u64 = 16 << 10;

/// `error`; there are none.
pub(super) enum IoError {}
/// `pollable`; its number is 0 for one that is always ready, else that of a timer.
pub(super) enum Pollable {}
/// `input-stream`; standard input is the only one.
pub(super) enum Input {}
/// `output-stream`; its number says which.
pub(super) enum Output {}

/// The number of the pollable that is always ready.
const READY: u32 = 0;
/// The number of standard output.
pub(super) const STDOUT: u32 = 1;
/// The number of standard error.
pub(super) const STDERR: u32 = 2;

/// What guests of this instance wait for: moments of the monotonic clock, by the pollables' numbers.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    slots: Vec<Option<u64>>,
}

impl Timers {
    /// A pollable that is ready at `instant`.
    pub(super) fn add(&mut self, instant: u64) -> Result<u32, Stop> {
        let free = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.slots.len() < TIMERS_MAX => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return Err(Stop::Handles(TIMERS_MAX)),
        };
        self.slots[free] = Some(instant);
        u32::try_from(free + 1).map_err(|_| Stop::Handles(TIMERS_MAX))
    }

    fn remove(&mut self, number: u32) {
        if let Some(slot) = index(number).and_then(|index| self.slots.get_mut(index)) {
            *slot = None;
        }
    }

    /// When a pollable is ready; the beginning of time for one that always is.
    fn instant(&self, number: u32) -> u64 {
        index(number).and_then(|index| self.slots.get(index).copied().flatten()).unwrap_or_default()
    }
}

fn index(number: u32) -> Option<usize> {
    usize::try_from(number).ok()?.checked_sub(1)
}

/// `stream-error`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[allow(dead_code, reason = "the contract has it; nothing here fails")]
    Failed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

type Answer<T> = wasmtime::Result<(Result<T, StreamError>,)>;

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    link_error(linker)?;
    link_poll(linker)?;
    let mut streams = linker.instance(&name("io/streams"))?;
    streams.resource("input-stream", ResourceType::host::<Input>(), |_, _| Ok(()))?;
    streams.resource("output-stream", ResourceType::host::<Output>(), |_, _| Ok(()))?;
    for method in ["read", "blocking-read"] {
        let method = format!("[method]input-stream.{method}");
        streams.func_wrap(&method, |mut context: Context<'_>, (_, _): (Resource<Input>, u64)| -> Answer<Vec<u8>> {
            enter(&mut context)?;
            Ok((Err(StreamError::Closed),))
        })?;
    }
    for method in ["skip", "blocking-skip"] {
        let method = format!("[method]input-stream.{method}");
        streams.func_wrap(&method, |mut context: Context<'_>, (_, _): (Resource<Input>, u64)| -> Answer<u64> {
            enter(&mut context)?;
            Ok((Err(StreamError::Closed),))
        })?;
    }
    streams.func_wrap("[method]input-stream.subscribe", |mut context: Context<'_>, (_,): (Resource<Input>,)| {
        enter(&mut context)?;
        Ok((Resource::<Pollable>::new_own(READY),))
    })?;
    link_output(linker)
}

fn link_error(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut error = linker.instance(&name("io/error"))?;
    error.resource("error", ResourceType::host::<IoError>(), |_, _| Ok(()))?;
    error.func_wrap("[method]error.to-debug-string", |mut context: Context<'_>, (_,): (Resource<IoError>,)| {
        enter(&mut context)?;
        Ok((String::new(),))
    })
}

fn link_poll(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut poll = linker.instance(&name("io/poll"))?;
    poll.resource("pollable", ResourceType::host::<Pollable>(), |mut context, number| {
        context.data_mut().timers.remove(number);
        Ok(())
    })?;
    poll.func_wrap("[method]pollable.ready", |mut context: Context<'_>, (pollable,): (Resource<Pollable>,)| {
        let now = enter(&mut context)?.clock.monotonic();
        Ok((context.data().timers.instant(pollable.rep()) <= now,))
    })?;
    poll.func_wrap("[method]pollable.block", |mut context: Context<'_>, (pollable,): (Resource<Pollable>,)| {
        let instant = context.data().timers.instant(pollable.rep());
        enter(&mut context)?.clock.wait_until(instant);
        Ok(())
    })?;
    poll.func_wrap("poll", |mut context: Context<'_>, (pollables,): (Vec<Resource<Pollable>>,)| {
        enter(&mut context)?;
        let instants: Vec<u64> =
            pollables.iter().map(|pollable| context.data().timers.instant(pollable.rep())).collect();
        let Some(first) = instants.iter().min() else {
            return Err(wasmtime::Error::msg("poll was called without pollables"));
        };
        let clock = &mut context.data_mut().run().clock;
        clock.wait_until(*first);
        let now = clock.monotonic();
        let ready: Vec<u32> = (0..).zip(&instants).filter(|(_, instant)| **instant <= now).map(|(at, _)| at).collect();
        Ok((ready,))
    })
}

fn link_output(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut streams = linker.instance(&name("io/streams"))?;
    streams.func_wrap(
        "[method]output-stream.check-write",
        |mut context: Context<'_>, (_,): (Resource<Output>,)| -> Answer<u64> {
            enter(&mut context)?;
            Ok((Ok(WRITE_MAX),))
        },
    )?;
    for method in ["write", "blocking-write-and-flush"] {
        let method = format!("[method]output-stream.{method}");
        streams.func_wrap(
            &method,
            |mut context: Context<'_>, (output, bytes): (Resource<Output>, Vec<u8>)| -> Answer<()> {
                let run = enter(&mut context)?;
                let stream = if output.rep() == STDERR { Stream::Err } else { Stream::Out };
                run.log.stream(&run.setup.limits, &run.redactor, stream, &bytes);
                Ok((Ok(()),))
            },
        )?;
    }
    for method in ["flush", "blocking-flush"] {
        let method = format!("[method]output-stream.{method}");
        streams.func_wrap(&method, |mut context: Context<'_>, (_,): (Resource<Output>,)| -> Answer<()> {
            enter(&mut context)?;
            Ok((Ok(()),))
        })?;
    }
    // Zeroes in a log are of no use to anybody.
    for method in ["write-zeroes", "blocking-write-zeroes-and-flush"] {
        let method = format!("[method]output-stream.{method}");
        streams.func_wrap(&method, |mut context: Context<'_>, (_, _): (Resource<Output>, u64)| -> Answer<()> {
            enter(&mut context)?;
            Ok((Ok(()),))
        })?;
    }
    for method in ["splice", "blocking-splice"] {
        let method = format!("[method]output-stream.{method}");
        streams.func_wrap(
            &method,
            |mut context: Context<'_>, _: (Resource<Output>, Resource<Input>, u64)| -> Answer<u64> {
                enter(&mut context)?;
                Ok((Err(StreamError::Closed),))
            },
        )?;
    }
    streams.func_wrap("[method]output-stream.subscribe", |mut context: Context<'_>, (_,): (Resource<Output>,)| {
        enter(&mut context)?;
        Ok((Resource::<Pollable>::new_own(READY),))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_are_numbered_freed_and_bounded() {
        let mut timers = Timers::default();
        for number in 1..=256 {
            assert_eq!(timers.add(u64::from(number) * 10).ok(), Some(number));
        }
        assert!(timers.add(1).is_err());
        timers.remove(7);
        assert_eq!(timers.instant(7), 0);
        assert_eq!(timers.add(5).ok(), Some(7));
        assert_eq!((timers.instant(7), timers.instant(8), timers.instant(READY)), (5, 80, 0));
        timers.remove(READY);
        timers.remove(u32::MAX);
    }
}
