//! The real host: generated bindings, and the conversion between their types and ours.

use std::panic::{self, PanicHookInfo};
use std::sync::Once;
use std::time::Duration;

use super::Page;
use crate::context::Invocation;
use crate::draft::{Body, Draft};
use crate::event::{Event, Payload};
use crate::failure::{Failure, Verdict};
use crate::log::Level;
use crate::refusal::Refusal;
use crate::timestamp::Timestamp;

use imports::bulkhead::plugin as host;

pub use handler_world::export_handler;
pub use handler_world::exports::bulkhead::plugin::handler;
pub use host::types as wit;
pub use transformer_world::export_transformer;
pub use transformer_world::exports::bulkhead::plugin::transformer;

/// All imports. The component keeps only those that the plugin uses.
#[allow(unsafe_code, missing_docs, reason = "generated: the calls across the boundary")]
mod imports {
    wit_bindgen::generate!({ path: "wit", world: "imports", generate_all });
}

// A crate exports a handler, a transformer or both, so each is a world of its own over the same imports. What
// describes the exports is emitted by the export macro, in the plugin's crate: the SDK alone exports nothing.
macro_rules! export_world {
    ($module:ident, $world:literal, $macro:literal) => {
        #[doc(hidden)]
        #[allow(unsafe_code, missing_docs, reason = "generated: the calls across the boundary")]
        pub mod $module {
            wit_bindgen::generate!({
                path: "wit",
                world: $world,
                pub_export_macro: true,
                export_macro_name: $macro,
                with: {
                    "bulkhead:plugin/types@0.1.0": crate::port::wasm::imports::bulkhead::plugin::types,
                    "bulkhead:plugin/context@0.1.0": crate::port::wasm::imports::bulkhead::plugin::context,
                    "bulkhead:plugin/effects@0.1.0": crate::port::wasm::imports::bulkhead::plugin::effects,
                    "bulkhead:plugin/state@0.1.0": crate::port::wasm::imports::bulkhead::plugin::state,
                    "bulkhead:plugin/log@0.1.0": crate::port::wasm::imports::bulkhead::plugin::log,
                    "bulkhead:plugin/usage@0.1.0": crate::port::wasm::imports::bulkhead::plugin::usage,
                },
            });
        }
    };
}

export_world!(handler_world, "handler-plugin", "export_handler");
export_world!(transformer_world, "transformer-plugin", "export_transformer");

/// The body of the exported `handle`.
pub fn run_handler<T: Payload, E>(handler: fn(Event<T>) -> Result<(), E>, event: wit::Event) -> Result<(), wit::Failure>
where
    Failure: From<E>,
{
    log_panics();
    let outcome = T::of(event.into()).and_then(|event| handler(event).map_err(Failure::from));
    outcome.map_err(Into::into)
}

/// The body of the exported `transform`.
pub fn run_transformer<T: Payload, E>(
    transformer: fn(Event<T>) -> Result<Vec<Draft>, E>,
    event: wit::Event,
) -> Result<Vec<wit::Draft>, wit::Failure>
where
    Failure: From<E>,
{
    log_panics();
    let outcome = T::of(event.into()).and_then(|event| transformer(event).map_err(Failure::from));
    outcome.map(|drafts| drafts.into_iter().map(Into::into).collect()).map_err(Into::into)
}

/// On this target a panic is a bare trap: without the hook its message is lost.
fn log_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
            log(Level::Error, &info.to_string(), &[]);
        }));
    });
}

pub fn current() -> Invocation {
    let host::context::Invocation { plugin, version, rule, attempt, now } = host::context::current();
    Invocation { plugin, version, rule, attempt, now: Timestamp::from_millis(now) }
}

pub fn config(name: &str) -> Option<String> {
    host::context::config(name)
}

pub fn secret(name: &str) -> Result<String, Refusal> {
    Ok(host::context::secret(name)?)
}

pub fn field(pointer: &str) -> Option<String> {
    host::context::field(pointer)
}

pub fn random(length: u32) -> Vec<u8> {
    host::context::random(length)
}

pub fn emit(draft: Draft) -> Result<String, Refusal> {
    Ok(host::effects::emit(&draft.into())?)
}

pub fn deliver(sink: &str, body: Body) -> Result<String, Refusal> {
    Ok(host::effects::deliver(sink, &body.content_type, &body.bytes, &body.attributes)?)
}

pub fn schedule(name: Option<&str>, after: Duration, draft: Draft) -> Result<String, Refusal> {
    Ok(host::effects::schedule(name, millis(after), &draft.into())?)
}

pub fn cancel(timer: &str) -> Result<(), Refusal> {
    Ok(host::effects::cancel(timer)?)
}

pub fn get(key: &str) -> Result<Option<Vec<u8>>, Refusal> {
    Ok(host::state::get(key)?)
}

pub fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), Refusal> {
    Ok(host::state::set(key, value, ttl.map(millis))?)
}

pub fn delete(key: &str) -> Result<(), Refusal> {
    Ok(host::state::delete(key)?)
}

pub fn increment(key: &str, by: i64) -> Result<i64, Refusal> {
    Ok(host::state::increment(key, by)?)
}

pub fn keys(prefix: &str, after: Option<&str>, limit: u32) -> Result<Page, Refusal> {
    let host::state::Page { keys, next } = host::state::keys(prefix, after, limit)?;
    Ok(Page { keys, next })
}

pub fn log(level: Level, message: &str, fields: &[(String, String)]) {
    let level = match level {
        Level::Trace => host::log::Level::Trace,
        Level::Debug => host::log::Level::Debug,
        Level::Info => host::log::Level::Info,
        Level::Warn => host::log::Level::Warn,
        Level::Error => host::log::Level::Error,
    };
    host::log::write(level, message, fields);
}

pub fn count(unit: &str, amount: f64) -> Result<(), Refusal> {
    Ok(host::usage::count(unit, amount)?)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl From<wit::Event> for Event {
    fn from(event: wit::Event) -> Self {
        Self {
            id: event.id,
            source: event.source,
            kind: event.type_,
            subject: event.subject,
            time: Timestamp::from_millis(event.time),
            key: event.key,
            correlation: event.correlation_id,
            causation: event.causation_id,
            content_type: event.content_type,
            data: event.data.into(),
            attributes: event.attributes,
        }
    }
}

impl From<Draft> for wit::Draft {
    fn from(draft: Draft) -> Self {
        Self {
            type_: draft.kind,
            subject: draft.subject,
            key: draft.key,
            content_type: draft.content_type,
            data: draft.data,
            attributes: draft.attributes,
        }
    }
}

impl From<Failure> for wit::Failure {
    fn from(failure: Failure) -> Self {
        let verdict = match failure.verdict {
            Verdict::Retry => wit::Verdict::Retry,
            Verdict::Reject => wit::Verdict::Reject,
        };
        Self { verdict, reason: failure.reason, after_ms: failure.after.map(millis), attributes: failure.attributes }
    }
}

impl From<wit::Refusal> for Refusal {
    fn from(refusal: wit::Refusal) -> Self {
        match refusal {
            wit::Refusal::Denied(text) => Self::Denied(text),
            wit::Refusal::Limit(text) => Self::Limit(text),
            wit::Refusal::Invalid(text) => Self::Invalid(text),
            wit::Refusal::NotFound(text) => Self::NotFound(text),
            wit::Refusal::Other(text) => Self::Other(text),
        }
    }
}
