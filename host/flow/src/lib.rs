//! The way of an event: in by the [`inbox`], worked off by [`dispatch`], out by [`deliver`]; the [`keeper`] wakes what
//! sleeps. [`Flow`] puts the parts together.
//!
//! Nothing here calls upstream: dispatch never calls the inbox, delivery never calls dispatch. Feedback travels only
//! as rows of the store, and the store is the authority on everything; what is kept in memory here (tenant views, the
//! state cache, the ready queue) can be lost at any moment.
//!
//! Reading order: [`inbox`], [`tenants`], [`schedule`], [`quota`], [`dispatch`], [`deliver`], [`keeper`], [`live`], [`preview`].

pub mod bus;
pub mod deliver;
pub mod dispatch;
pub mod egress;
mod flow;
pub mod inbox;
pub mod keeper;
pub mod link;
pub mod live;
pub mod outbound;
pub mod preview;
pub mod quota;
pub mod schedule;
pub mod shards;
pub mod sink;
pub mod source;
pub mod tenants;
pub mod vault;

pub use flow::Flow;
pub use flow::Options;
pub use flow::Parts;
