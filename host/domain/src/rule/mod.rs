//! Rules: which events interest a tenant, and what happens with them.
//!
//! A rule is read three times, each time into a narrower type:
//!
//! ```text
//! text ──node──▶ spanned tree ──document──▶ Rule (checked) ──RuleSet::compile──▶ RuleSet (indexed)
//! ```
//!
//! Everything here is pure: no I/O, no clock, and every evaluation has a bound.
//!
//! Reading order: [`glob`], [`scope`], [`condition`], [`step`], [`definition`], [`diagnostic`], [`document`],
//! [`cycle`], [`index`], [`explain`].

pub mod condition;
pub mod cycle;
pub mod definition;
pub mod diagnostic;
pub mod document;
pub mod duration;
pub mod explain;
pub mod expression;
mod focus;
pub mod glob;
pub mod index;
pub mod pattern;
pub mod scope;
pub mod step;

#[cfg(test)]
mod fixture;

pub use condition::Condition;
pub use condition::Truth;
pub use definition::Order;
pub use definition::Rule;
pub use diagnostic::Diagnostic;
pub use index::Routed;
pub use index::RuleSet;
pub use scope::Scope;
