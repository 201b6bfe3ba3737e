//! A checked rule.

use serde_json::Value;

use crate::policy::retry::Retry;
use crate::policy::verdict::OnFailure;
use crate::rule::condition::Condition;
use crate::rule::document;
use crate::rule::glob::Glob;
use crate::rule::pattern::Pattern;
use crate::rule::step::Step;

/// In which order a rule's runs happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As they come.
    #[default]
    None,
    /// One after another per key of the event.
    Key,
}

/// A stored document that is no rule any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stored rule `{name}`: {reason}")]
pub struct StoredError {
    /// The rule's name as far as it is known.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A rule whose every part has been checked. Made by [`crate::rule::document`] or [`Rule::from_stored`].
#[derive(Debug, Clone)]
pub struct Rule {
    pub(in crate::rule) name: String,
    pub(in crate::rule) description: Option<String>,
    pub(in crate::rule) on: Vec<Glob>,
    pub(in crate::rule) pattern: Option<Pattern>,
    pub(in crate::rule) condition: Option<Condition>,
    pub(in crate::rule) order: Order,
    pub(in crate::rule) steps: Vec<Step>,
    pub(in crate::rule) retry: Retry,
    pub(in crate::rule) on_failure: OnFailure,
    pub(in crate::rule) enabled: bool,
    pub(in crate::rule) document: Value,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.document == other.document
    }
}

impl Rule {
    /// Reads back what [`Rule::document`] gave. Plugins and sinks are not looked up: they may be gone, and then the
    /// run says so.
    pub fn from_stored(document: &Value) -> Result<Self, StoredError> {
        document::from_stored(document)
    }

    /// The canonical document: short forms spelt out, defaults as they were left. What is stored and shown.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Its name, unique within the set.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The types of events that interest it.
    #[must_use]
    pub fn on(&self) -> &[Glob] {
        &self.on
    }

    /// Its `match`.
    #[must_use]
    pub fn pattern(&self) -> Option<&Pattern> {
        self.pattern.as_ref()
    }

    /// Its `where`.
    #[must_use]
    pub fn condition(&self) -> Option<&Condition> {
        self.condition.as_ref()
    }

    /// In which order its runs happen.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }

    /// What it does.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// When it tries again.
    #[must_use]
    pub fn retry(&self) -> &Retry {
        &self.retry
    }

    /// What happens with a run that cannot succeed.
    #[must_use]
    pub fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    /// False if it rests.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// The plugins that its steps name, in order, possibly twice.
    pub fn plugins(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(Step::plugin)
    }

    /// The sinks that its steps name, in order, possibly twice.
    pub fn sinks(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(Step::sink)
    }
}

/// Is it a name of a rule: `[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?`
#[must_use]
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=64).contains(&bytes.len())
        && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
        && bytes.first().is_some_and(|byte| plain(*byte))
        && bytes.last().is_some_and(|byte| plain(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for name in ["a", "7", "flag-big-orders", "a--b", &"x".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a_b", "a.b", "é", &"x".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
