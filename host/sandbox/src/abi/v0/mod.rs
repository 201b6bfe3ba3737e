//! `bulkhead:plugin@0.1`: its interfaces on the capabilities.
//!
//! The host functions see a [`Run`] and nothing else of the store. Every one of them counts itself first.

mod context;
mod effects;
mod log;
mod state;
mod usage;

use bulkhead_domain::event::Draft;
use bulkhead_domain::event::Event;
use wasmtime::component::HasData;
use wasmtime::component::Linker;

use super::host::Host;
use crate::capability::Fault;
use crate::capability::Refusal;
use crate::capability::run::Run;

/// What the contract's WIT becomes. Events are lent to the guest, not copied for it.
#[allow(missing_docs, reason = "generated")]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package bulkhead:host;
            world plugin {
                include bulkhead:plugin/imports@0.1.0;
                export bulkhead:plugin/handler@0.1.0;
                export bulkhead:plugin/transformer@0.1.0;
            }
        ",
        world: "bulkhead:host/plugin",
        imports: { default: trappable },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

use self::bindings::Plugin;
use self::bindings::bulkhead::plugin::types;
pub(crate) use self::bindings::exports::bulkhead::plugin::handler;
pub(crate) use self::bindings::exports::bulkhead::plugin::transformer;

/// What the host functions of the contract are given.
struct Contract;

impl HasData for Contract {
    type Data<'a> = &'a mut Run;
}

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    Plugin::add_to_linker::<Host, Contract>(linker, Host::run)
}

impl types::Host for Run {}

/// The answer of a capability as the guest gets it; a stop ends the guest.
fn answer<T>(result: Result<T, impl Into<Fault>>) -> wasmtime::Result<Result<T, types::Refusal>> {
    match result.map_err(Into::into) {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Refused(refusal)) => Ok(Err(refusal.into())),
        Err(Fault::Stopped(stop)) => Err(stop.into()),
    }
}

impl From<Refusal> for types::Refusal {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(text) => Self::Denied(text),
            Refusal::Limit(text) => Self::Limit(text),
            Refusal::Invalid(text) => Self::Invalid(text),
            Refusal::NotFound(text) => Self::NotFound(text),
        }
    }
}

impl From<types::Draft> for Draft {
    fn from(draft: types::Draft) -> Self {
        Self {
            kind: draft.type_,
            subject: draft.subject,
            key: draft.key,
            content_type: draft.content_type,
            data: draft.data.into(),
            attributes: draft.attributes,
        }
    }
}

/// The attributes of an event in the form in which they are lent.
pub(crate) fn attributes(event: &Event) -> Vec<(&str, &str)> {
    event.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// An event in the form in which it is lent.
pub(crate) fn event<'a>(event: &'a Event, attributes: &'a [(&'a str, &'a str)]) -> types::Event<'a> {
    types::Event {
        id: &event.id,
        source: &event.source,
        type_: &event.kind,
        subject: event.subject.as_deref(),
        time: event.time.millis(),
        key: event.key.as_deref(),
        correlation_id: &event.correlation,
        causation_id: event.causation.as_deref(),
        content_type: &event.content_type,
        data: &event.data,
        attributes,
    }
}

pub(crate) use self::types::Failure;
pub(crate) use self::types::Verdict;
