//! What an error of the engine means: a code for machines, a reason that the plugin's author can act on.
//!
//! Reasons carry the guest's own last words and its own function names. Nothing of the host is in them: no path, no
//! address, no text of the store.

use std::fmt::Write;

use bulkhead_domain::policy::verdict::Failure;
use wasmtime::PoolConcurrencyLimitError;
use wasmtime::Trap;
use wasmtime::WasmBacktrace;

use crate::capability::Stop;
use crate::capability::redact::escape;
use crate::capability::run::Run;
use crate::engine::FRAMES;
use crate::limits::HANDLES;
use crate::limits::Limiter;

/// Bytes of a function's name in a trace.
const NAME_MAX: usize = 160;
/// Longer names are shown as they are: taking them apart costs more than they say.
const MANGLED_MAX: usize = 1_024;
/// Bytes of the engine's own text.
const TEXT_MAX: usize = 300;

/// What the attempt failed of.
pub(crate) fn failure(error: &wasmtime::Error, run: Option<&Run>, limiter: &mut Limiter) -> Failure {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stopped(stop, run);
    }
    let refused_memory = limiter.take_refused();
    let (code, text) = match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) if refused_memory => return out_of_memory(limiter, run),
        Some(trap) => trapped(*trap, run),
        None if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() => {
            return Failure::new("host:capacity", "the host has no room for another instance at the moment");
        }
        None => engine(&error.root_cause().to_string(), limiter),
    };
    let mut reason = text;
    // A budget that is used up is no bug at the place where it happened to run out.
    if code.starts_with("trap:") {
        add_frames(&mut reason, error);
    }
    Failure::new(code, reason)
}

/// What is left when a host function panicked. The panic's text is for the operator's log.
pub(crate) fn panicked() -> Failure {
    Failure::new("host:panic", "the host failed while the plugin called it; its operator can see why")
}

fn stopped(stop: &Stop, run: Option<&Run>) -> Failure {
    let code = match stop {
        Stop::Wall(_) => "limit:wall",
        Stop::Cancelled => "host:cancelled",
        Stop::HostCalls(_) => "limit:hostcalls",
        Stop::Bytes(_) => "limit:bytes",
        Stop::Handles(_) => "limit:handles",
        Stop::Exit(_) => "trap:exit",
        Stop::State(source) => {
            tracing::warn!(%source, "a plugin's state cannot be read");
            "host:state"
        }
    };
    let reason = match stop {
        Stop::Exit(_) => with_last_words(&stop.to_string(), run),
        _ => stop.to_string(),
    };
    Failure::new(code, reason)
}

fn out_of_memory(limiter: &Limiter, run: Option<&Run>) -> Failure {
    let text = format!(
        "the plugin asked for more memory than its limit of {} MiB and gave up; raise `memory` under [limits] in \
         plugin.toml if the plan allows it",
        limiter.memory_max() >> 20
    );
    Failure::new("limit:memory", with_last_words(&text, run))
}

fn trapped(trap: Trap, run: Option<&Run>) -> (&'static str, String) {
    let text = |text: &str| text.to_owned();
    match trap {
        Trap::UnreachableCodeReached => {
            ("trap:unreachable", with_last_words("the plugin ended itself (`unreachable`, as after a panic)", run))
        }
        Trap::StackOverflow => ("trap:stack", text("the plugin's stack is used up: it calls itself too deeply")),
        Trap::OutOfFuel => (
            "limit:fuel",
            text("the plugin used up its fuel; raise `fuel` under [limits] in plugin.toml if the plan allows it"),
        ),
        Trap::Interrupt => ("limit:wall", text("the call took too long")),
        Trap::MemoryOutOfBounds | Trap::HeapMisaligned => {
            ("trap:memory", text("the plugin accessed memory that it does not have"))
        }
        Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature | Trap::NullReference => {
            ("trap:call", text("the plugin called through a function pointer that leads nowhere"))
        }
        Trap::IntegerOverflow | Trap::IntegerDivisionByZero | Trap::BadConversionToInteger => {
            ("trap:arithmetic", format!("the plugin calculated what has no result ({trap})"))
        }
        Trap::CannotEnterComponent | Trap::CannotLeaveComponent => {
            ("trap:reenter", text("the plugin called back into a component that is busy"))
        }
        Trap::AllocationTooLarge => ("limit:memory", text("the plugin asked for more memory than can be given")),
        other => ("trap:abi", format!("the plugin broke the rules of calls between components ({other})")),
    }
}

/// Errors that the engine has no type for, told by their texts; the tests of this crate hold them in place.
fn engine(text: &str, limiter: &Limiter) -> (&'static str, String) {
    let has = |part: &str| text.contains(part);
    if has("fuel allocated for hostcalls has been exhausted") {
        ("limit:bytes", "the plugin handed over more bytes in one call than are taken".into())
    } else if has("store handle limit exceeded") {
        ("limit:handles", format!("more than {HANDLES} handles"))
    } else if has("exceeds memory limits") || has("exceeds the limit of") {
        (
            "limit:memory",
            format!("the plugin begins with more memory than its limit of {} MiB", limiter.memory_max() >> 20),
        )
    } else if has("exceeds table limits") {
        ("limit:table", "the plugin has larger tables than its limit".into())
    } else if has("resource limit exceeded") {
        ("limit:instances", "the plugin is made of more parts than its limit".into())
    } else {
        ("trap:abi", format!("the plugin broke the rules of calls between components: {}", escape(text, TEXT_MAX)))
    }
}

/// The text and what the guest said before: a panic message, an uncaught exception.
fn with_last_words(text: &str, run: Option<&Run>) -> String {
    match run.and_then(|run| run.log.last_words()) {
        Some(words) => format!("{text}: {words}"),
        None => text.to_owned(),
    }
}

/// The guest's functions, innermost first, one on each line.
fn add_frames(reason: &mut String, error: &wasmtime::Error) {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return };
    for frame in trace.frames().iter().take(FRAMES) {
        let name = match frame.func_name() {
            Some(name) if name.len() <= MANGLED_MAX => match rustc_demangle::try_demangle(name) {
                Ok(demangled) => escape(&format!("{demangled:#}"), NAME_MAX),
                Err(_) => escape(name, NAME_MAX),
            },
            Some(name) => escape(name, NAME_MAX),
            None => format!("function {}", frame.func_index()),
        };
        write!(reason, "\n  at {name}").expect("because a string takes everything");
    }
}
