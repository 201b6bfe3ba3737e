//! `wasi:io`: streams that lead to the log, into requests or out of answers, and pollables that are ready when they are
//! asked.
//!
//! A pollable of an exchange with another host is over as soon as somebody looks at it: looking waits. So what a guest
//! sees does not depend on who was faster, and a re-execution sees the same.

use wasmtime::component::ComponentType;
use wasmtime::component::Linker;
use wasmtime::component::Lower;
use wasmtime::component::Resource;
use wasmtime::component::ResourceType;

use super::Context;
use super::enter;
use super::name;
use crate::abi::host::Host;
use crate::abi::http::Written;
use crate::capability::Stop;
use crate::capability::log::Stream;

/// Timers that a guest may hold at a time.
const TIMERS_MAX: usize = 256;

/// Bytes that a guest is told it may write at once.
const WRITE_MAX: u64 = 16 << 10;

/// `error`; its number says which.
pub enum IoError {}
/// `pollable`; its number is 0 for one that is always ready, else that of what is waited for.
pub enum Pollable {}
/// `input-stream`; its number is 0 for standard input, else that of an answer's body.
pub enum Input {}
/// `output-stream`; its number is that of a standard stream, or what is above them of a request's body.
pub enum Output {}

/// The number of the error of a request's body that is too large.
pub(crate) const TOO_LARGE: u32 = 1;

/// The number of the pollable that is always ready.
const READY: u32 = 0;
/// The number of standard output.
pub(super) const STDOUT: u32 = 1;
/// The number of standard error.
pub(super) const STDERR: u32 = 2;

/// What guests of this instance wait for, by the pollables' numbers.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    slots: Vec<Option<Awaited>>,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// A moment of the monotonic clock.
    Moment(u64),
    /// The end of an exchange, by the number of its future.
    Exchange(u32),
}

impl Timers {
    /// A pollable that is ready at `instant`.
    pub(super) fn add(&mut self, instant: u64) -> Result<u32, Stop> {
        self.take_slot(Awaited::Moment(instant))
    }

    /// A pollable that is ready when an exchange is over.
    pub(crate) fn add_exchange(&mut self, future: u32) -> Result<Resource<Pollable>, Stop> {
        Ok(Resource::new_own(self.take_slot(Awaited::Exchange(future))?))
    }

    fn take_slot(&mut self, awaited: Awaited) -> Result<u32, Stop> {
        let free = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.slots.len() < TIMERS_MAX => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return Err(Stop::Handles(TIMERS_MAX)),
        };
        self.slots[free] = Some(awaited);
        u32::try_from(free + 1).map_err(|_| Stop::Handles(TIMERS_MAX))
    }

    fn remove(&mut self, number: u32) {
        if let Some(slot) = index(number).and_then(|index| self.slots.get_mut(index)) {
            *slot = None;
        }
    }

    fn awaited(&self, number: u32) -> Option<Awaited> {
        index(number).and_then(|index| self.slots.get(index).copied().flatten())
    }
}

/// When a pollable is ready; the beginning of time for one that always is, and for an exchange, which is waited for.
fn instant(context: &mut Context<'_>, pollable: &Resource<Pollable>) -> wasmtime::Result<u64> {
    match context.data().timers.awaited(pollable.rep()) {
        Some(Awaited::Moment(instant)) => Ok(instant),
        Some(Awaited::Exchange(future)) => context.data_mut().await_exchange(future).map(|()| 0),
        None => Ok(0),
    }
}

/// A pollable that is always ready.
pub(crate) fn always_ready() -> Resource<Pollable> {
    Resource::new_own(READY)
}

/// The stream into a request's body.
pub(crate) fn body_stream(body: u32) -> Result<Resource<Output>, Stop> {
    let number = body.checked_add(STDERR).ok_or(Stop::Handles(crate::limits::HANDLES))?;
    Ok(Resource::new_own(number))
}

fn index(number: u32) -> Option<usize> {
    usize::try_from(number).ok()?.checked_sub(1)
}

/// `stream-error`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
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
        streams.func_wrap(
            &method,
            |mut context: Context<'_>, (input, n): (Resource<Input>, u64)| -> Answer<Vec<u8>> {
                enter(&mut context)?;
                Ok((context.data_mut().http.read(input.rep(), n).map(Vec::from).ok_or(StreamError::Closed),))
            },
        )?;
    }
    for method in ["skip", "blocking-skip"] {
        let method = format!("[method]input-stream.{method}");
        streams.func_wrap(&method, |mut context: Context<'_>, (input, n): (Resource<Input>, u64)| -> Answer<u64> {
            enter(&mut context)?;
            let skipped = context.data_mut().http.read(input.rep(), n);
            Ok((skipped.map(|bytes| bytes.len() as u64).ok_or(StreamError::Closed),))
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
        Ok((instant(&mut context, &pollable)? <= now,))
    })?;
    poll.func_wrap("[method]pollable.block", |mut context: Context<'_>, (pollable,): (Resource<Pollable>,)| {
        enter(&mut context)?;
        let instant = instant(&mut context, &pollable)?;
        context.data_mut().run().clock.wait_until(instant);
        Ok(())
    })?;
    poll.func_wrap("poll", |mut context: Context<'_>, (pollables,): (Vec<Resource<Pollable>>,)| {
        enter(&mut context)?;
        let instants: Vec<u64> =
            pollables.iter().map(|pollable| instant(&mut context, pollable)).collect::<wasmtime::Result<_>>()?;
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
        |mut context: Context<'_>, (output,): (Resource<Output>,)| -> Answer<u64> {
            enter(&mut context)?;
            Ok((write(context.data_mut(), output.rep(), &[]).map(|()| WRITE_MAX),))
        },
    )?;
    for method in ["write", "blocking-write-and-flush"] {
        let method = format!("[method]output-stream.{method}");
        streams.func_wrap(
            &method,
            |mut context: Context<'_>, (output, bytes): (Resource<Output>, Vec<u8>)| -> Answer<()> {
                enter(&mut context)?;
                Ok((write(context.data_mut(), output.rep(), &bytes),))
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
    // Zeroes in a log are of no use to anybody, and a body of them is a mistake.
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
            |mut context: Context<'_>, (output, input, n): (Resource<Output>, Resource<Input>, u64)| -> Answer<u64> {
                enter(&mut context)?;
                let host = context.data_mut();
                let Some(bytes) = host.http.read(input.rep(), n) else { return Ok((Err(StreamError::Closed),)) };
                Ok((write(host, output.rep(), &bytes).map(|()| bytes.len() as u64),))
            },
        )?;
    }
    streams.func_wrap("[method]output-stream.subscribe", |mut context: Context<'_>, (_,): (Resource<Output>,)| {
        enter(&mut context)?;
        Ok((Resource::<Pollable>::new_own(READY),))
    })
}

/// Writes to the log or into a request's body.
fn write(host: &mut Host, output: u32, bytes: &[u8]) -> Result<(), StreamError> {
    let stream = match output {
        0..=STDOUT => Stream::Out,
        STDERR => Stream::Err,
        body => {
            let limits = host.run().setup.limits.http.clone();
            return match host.http.write(body - STDERR, bytes, &limits) {
                Written::Whole => Ok(()),
                Written::Closed => Err(StreamError::Closed),
                Written::TooLarge => Err(StreamError::Failed(Resource::new_own(TOO_LARGE))),
            };
        }
    };
    let run = host.run();
    run.log.stream(&run.setup.limits, &run.redactor, stream, bytes);
    Ok(())
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
        assert_eq!(timers.awaited(7), None);
        assert_eq!(timers.add_exchange(5).ok().map(|pollable| pollable.rep()), Some(7));
        assert_eq!(timers.awaited(7), Some(Awaited::Exchange(5)));
        assert_eq!((timers.awaited(8), timers.awaited(READY)), (Some(Awaited::Moment(80)), None));
        timers.remove(READY);
        timers.remove(u32::MAX);
    }
}
