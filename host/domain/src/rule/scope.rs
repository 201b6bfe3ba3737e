//! The scope: what expressions see of one event.

use std::cell::OnceCell;

use serde_json::Value;

use crate::event::Event;

/// One event as expressions see it: `event`, `data`, `attributes`, `tenant`.
///
/// The payload is parsed when an expression first needs it, and once.
#[derive(Debug)]
pub struct Scope<'e> {
    event: &'e Event,
    tenant: &'e str,
    data: OnceCell<Option<Value>>,
}

impl<'e> Scope<'e> {
    /// The scope of `event`, whose payload is `event.data`.
    #[must_use]
    pub fn new(event: &'e Event, tenant: &'e str) -> Self {
        Self { event, tenant, data: OnceCell::new() }
    }

    /// The same event with a payload that a step has changed.
    #[must_use]
    pub fn with_data(event: &'e Event, tenant: &'e str, data: Value) -> Self {
        Self { event, tenant, data: OnceCell::from(Some(data)) }
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &'e Event {
        self.event
    }

    /// The tenant's name.
    #[must_use]
    pub fn tenant(&self) -> &'e str {
        self.tenant
    }

    /// The payload, or none if it is not JSON (by its media type or by its bytes).
    #[must_use]
    pub fn data(&self) -> Option<&Value> {
        self.data
            .get_or_init(|| if self.event.is_json() { serde_json::from_slice(&self.event.data).ok() } else { None })
            .as_ref()
    }

    /// The payload, taken out.
    #[must_use]
    pub fn into_data(self) -> Option<Value> {
        let _ = self.data();
        self.data.into_inner().flatten()
    }
}
