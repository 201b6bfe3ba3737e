//! What the plugin wants to happen. Nothing happens before the run commits, and nothing if it fails.

use std::time::Duration;

use crate::draft::{Body, Draft};
use crate::port;
use crate::refusal::Refusal;

/// Publishes an event in the same tenant, and answers the id that it will have.
pub fn emit(draft: Draft) -> Result<String, Refusal> {
    port::emit(draft)
}

/// Sends a body to one of the tenant's sinks, and answers the id by which the receiver can dedupe.
///
/// ```no_run
/// use bulkhead_plugin::{Body, effects};
/// # fn example() -> Result<(), bulkhead_plugin::Failure> {
/// effects::deliver("crm", Body::json(&["A-17"])?.with_attribute("x-priority", "high"))?;
/// # Ok(())
/// # }
/// ```
pub fn deliver(sink: &str, body: Body) -> Result<String, Refusal> {
    port::deliver(sink, body)
}

/// Publishes an event later, and answers the timer's id.
pub fn schedule(after: Duration, draft: Draft) -> Result<String, Refusal> {
    port::schedule(None, after, draft)
}

/// Publishes an event later. A second timer of this name replaces the first.
pub fn schedule_named(name: &str, after: Duration, draft: Draft) -> Result<String, Refusal> {
    port::schedule(Some(name), after, draft)
}

/// Takes a timer back, by its id or name.
pub fn cancel(timer: &str) -> Result<(), Refusal> {
    port::cancel(timer)
}
