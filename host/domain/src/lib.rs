//! Facts of Bulkhead: ids, clock, events, effects, rules and policy.
//!
//! Nothing here does I/O, is asynchronous, or reads the time: whoever calls passes the time in.
//! So every decision in this crate can be tested by a table.
//!
//! Reading order: [`id`], [`clock`], [`event`], [`effect`], [`comparison`], [`policy`], [`rule`], [`recording`].

pub mod blob;
pub mod clock;
pub mod comparison;
pub mod effect;
pub mod event;
pub mod id;
pub mod policy;
pub mod recording;
pub mod rule;
