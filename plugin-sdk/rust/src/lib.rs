//! Write Bulkhead plugins in Rust.
//!
//! A plugin is a function over an event. A [`macro@handler`] acts on it; a [`macro@transformer`] turns it into
//! others, which go on through the pipeline of the rule that called it. What a plugin wants to happen is
//! an *effect*: the host holds it back and commits it together with the run, or discards it with a run that
//! fails. So a plugin may be run again at any time and never has to undo anything.
//!
//! ```
//! use bulkhead_plugin::{Draft, Event, Failure, context, effects, handler, log, state};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     total: f64,
//! }
//!
//! /// Flags orders above a threshold, and counts them.
//! #[handler]
//! fn handle(event: Event<Order>) -> Result<(), Failure> {
//!     let threshold = context::config_or("threshold", 1_000.0)?;
//!     if event.data.total > threshold {
//!         let nth = state::increment("flagged", 1)?;
//!         log::info!(total = event.data.total; "flagged the order number {nth}");
//!         effects::emit(Draft::json("orders.flagged", &event.data.total)?)?;
//!     }
//!     Ok(())
//! }
//!
//! // Natively the same function runs against a host in memory.
//! use bulkhead_plugin::testing::{self, Host};
//!
//! let mut host = Host::new().with_config("threshold", 100);
//! let run = host.handle(handle, testing::event("orders.created", serde_json::json!({ "total": 250 })));
//! assert_eq!(run.emitted[0].kind, "orders.flagged");
//! assert_eq!(host.state::<u32>("flagged"), Some(1));
//! ```
//!
//! # Failing
//!
//! [`Failure::retry`] asks for another attempt later, [`Failure::reject`] parks the run for a person. `?` on
//! any error rejects, because what follows from the event alone would follow again; the exception is a
//! [`Refusal`] that time may lift. [`OrFail`] chooses at the call.
//!
//! A panic ends the instance. Its message is logged first, and the host tries the run again.
//!
//! # What a plugin has not
//!
//! No files, sockets, threads or clock: the target has none. Time is [`context::current`]`().now` and
//! randomness is [`context::random`], both the same when the host re-executes an attempt.

mod data;
mod decode;
mod draft;
mod event;
mod failure;
mod port;
mod refusal;
mod timestamp;

pub mod context;
pub mod effects;
pub mod log;
pub mod state;
pub mod usage;

#[cfg(not(target_family = "wasm"))]
pub mod testing;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

/// Exports a function as the plugin's handler: the host calls it once for each event.
///
/// The function takes an [`Event`], whose data is bytes, or an `Event<T>` where `T` is `Deserialize`; data
/// that does not fit `T` is rejected with the reason before the function is called. It answers
/// `Result<(), E>` where `E` is [`Failure`] or converts into it. One handler a plugin.
///
/// ```
/// use bulkhead_plugin::{Event, Failure, handler, log};
///
/// #[handler]
/// fn handle(event: Event) -> Result<(), Failure> {
///     log::info!("{} has {} bytes", event.kind, event.data.len());
///     Ok(())
/// }
/// ```
///
/// ```compile_fail
/// use bulkhead_plugin::{Event, Failure, handler};
///
/// #[handler]
/// async fn handle(event: Event) -> Result<(), Failure> { // not async
///     Ok(())
/// }
/// ```
pub use bulkhead_plugin_macros::handler;

/// Exports a function as the plugin's transformer: it turns an event into none (drop), one (map) or several
/// (split) drafts that go on through the pipeline.
///
/// Takes what a [`macro@handler`] takes. A plugin may have both.
///
/// ```
/// use bulkhead_plugin::{Draft, Event, Failure, transformer};
///
/// #[transformer]
/// fn transform(event: Event) -> Result<Vec<Draft>, Failure> {
///     let keep = !event.data.is_empty();
///     Ok(keep.then(|| event.pass_on()).into_iter().collect())
/// }
/// ```
///
/// ```compile_fail
/// use bulkhead_plugin::{Draft, Event, Failure, transformer};
///
/// #[transformer]
/// fn transform(event: Event, more: u32) -> Result<Vec<Draft>, Failure> { // one argument
///     Ok(vec![])
/// }
/// ```
pub use bulkhead_plugin_macros::transformer;

pub use data::Data;
pub use decode::DecodeError;
pub use draft::{Body, Draft};
pub use event::{Event, Payload};
pub use failure::{Failure, OrFail, Verdict};
pub use refusal::Refusal;
pub use timestamp::{NoTimestamp, Timestamp};
