//! A host in memory, for unit tests of plugins: it runs a handler natively and records what it wanted.
//!
//! It keeps what makes a host a host: effects of a run that fails are gone, state lives on from run to run,
//! time stands still unless moved, randomness repeats. It does not sandbox: limits on time, memory and
//! sizes are not enforced, and a panic is an ordinary panic of the test.
//!
//! ```
//! use bulkhead_plugin::testing::{self, Host};
//! use bulkhead_plugin::{Body, Event, Failure, OrFail, Verdict, effects, state};
//!
//! fn handle(event: Event) -> Result<(), Failure> {
//!     state::increment("seen", 1)?;
//!     let subject = event.subject.or_reject("an event without a subject")?;
//!     effects::deliver("crm", Body::text(subject))?;
//!     Ok(())
//! }
//!
//! let mut host = Host::new().with_sinks(["crm"]);
//! let mut event = testing::event("orders.created", "");
//!
//! let run = host.handle(handle, event.clone());
//! assert_eq!(run.failure().verdict, Verdict::Reject);
//! assert_eq!(host.state::<u32>("seen"), None); // discarded with the run
//!
//! event.subject = Some("A-17".into());
//! let run = host.handle(handle, event);
//! assert_eq!(run.delivered[0].body, Body::text("A-17"));
//! assert_eq!(host.state::<u32>("seen"), Some(1));
//! ```

pub(crate) mod attempt;
mod event;
mod host;
mod run;
mod store;

pub use event::{event, event_from_json};
pub use host::{Call, Host, START};
pub use run::{Delivered, LogLine, Run, Scheduled};
