//! Sources: events that others keep until we have them. A source reads, hands to the [`inbox`](crate::inbox), and lets
//! go of what it read only after the inbox says that it is durable.
//!
//! ```text
//! somebody else's queue ──read──▶ source ──accept──▶ inbox ──▶ store      then ──acknowledge──▶ somebody else's queue
//! ```
//!
//! What every source keeps to:
//!
//! - **Whose events they are is the source's own setting**, never something in the event; of an outbox, which only the
//!   platform's own application writes, it is a column.
//! - **At least once.** Whatever happens between reading and acknowledging, it is read again; the inbox knows it by its
//!   (source, id), so a source gives events that name none a (source, id) that is the same at every reading.
//! - **What can never be taken in goes to a place where people see it**, and does not hold up the rest.
//! - **What cannot be taken in now waits where it is**, in order, and the source waits with it ([`Backoff`]).
//! - **Its state is visible** ([`Status`]), and so is what waits in front of it.
//!
//! A source is a service: it has options, a `run(self, stop)`, and a `status()` to be taken before it runs. It is
//! stopped before everything that works events off.

mod backoff;
pub mod outbox;
pub mod redis;
mod status;
mod supervisor;

pub use backoff::Backoff;
pub use status::Backlog;
pub use status::Reporter;
pub use status::State;
pub use status::Status;
pub use supervisor::Spec;
pub use supervisor::Supervisor;
