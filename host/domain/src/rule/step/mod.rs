//! Steps: what a rule does with an event, one after another.
//!
//! `map` and `redact` are pure and live here whole. `transform`, `handle`, `emit` and `deliver` only carry names:
//! the dispatcher acts on them.

pub mod deliver;
pub mod emit;
pub mod handle;
pub mod map;
pub mod redact;
pub mod transform;

use crate::rule::condition::Condition;

/// One step of a rule.
#[derive(Debug, Clone)]
pub struct Step {
    /// The step is left out where this does not hold.
    pub when: Option<Condition>,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Builds a new payload.
    Map(map::Map),
    /// Blanks parts of the payload.
    Redact(redact::Redact),
    /// Passes the event through a plugin, which may change, drop or multiply it.
    Transform(transform::Transform),
    /// Hands the event to a plugin.
    Handle(handle::Handle),
    /// Emits the event, as it is now, under another type.
    Emit(emit::Emit),
    /// Delivers the event, as it is now, to a sink.
    Deliver(deliver::Deliver),
}

impl Action {
    /// The word for it in a document.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Map(_) => "map",
            Self::Redact(_) => "redact",
            Self::Transform(_) => "transform",
            Self::Handle(_) => "handle",
            Self::Emit(_) => "emit",
            Self::Deliver(_) => "deliver",
        }
    }
}

impl Step {
    /// The plugin that it calls.
    #[must_use]
    pub fn plugin(&self) -> Option<&str> {
        match &self.action {
            Action::Transform(transform) => Some(&transform.plugin),
            Action::Handle(handle) => Some(&handle.plugin),
            Action::Map(_) | Action::Redact(_) | Action::Emit(_) | Action::Deliver(_) => None,
        }
    }

    /// The sink that it delivers to.
    #[must_use]
    pub fn sink(&self) -> Option<&str> {
        match &self.action {
            Action::Deliver(deliver) => Some(&deliver.sink),
            Action::Map(_) | Action::Redact(_) | Action::Transform(_) | Action::Handle(_) | Action::Emit(_) => None,
        }
    }
}
