//! The way of an event: in by the [`inbox`], worked off by [`dispatch`], out by `deliver` (to come); the [`keeper`] wakes what
//! sleeps.
//!
//! Nothing here calls upstream: dispatch never calls the inbox, delivery never calls dispatch. Feedback travels only
//! as rows of the store, and the store is the authority on everything; what is kept in memory here (tenant views, the
//! state cache, the ready queue) can be lost at any moment.
//!
//! Reading order: [`inbox`], [`tenants`], [`schedule`], [`dispatch`], [`keeper`], [`live`].

pub mod deliver;
pub mod dispatch;
pub mod egress;
pub mod inbox;
pub mod keeper;
pub mod live;
pub mod schedule;
pub mod sink;
pub mod tenants;
pub mod vault;
