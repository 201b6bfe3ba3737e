//! Conditions: CEL expressions that say yes or no.

use std::sync::Arc;

use crate::rule::diagnostic::Diagnostic;
use crate::rule::scope::Scope;

/// What a condition says about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    Yes,
    /// It does not hold.
    No,
    /// It asks for a field that the event does not have: does not hold.
    MissingField(String),
    /// It could not be evaluated, for this reason: does not hold.
    Error(String),
    /// It took more steps than an expression may: does not hold.
    OverBudget,
}

impl Truth {
    /// True for [`Truth::Yes`] alone.
    #[must_use]
    pub fn holds(&self) -> bool {
        matches!(self, Self::Yes)
    }
}

/// A checked condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    source: Arc<str>,
}

impl Condition {
    /// Reads a condition that stands alone, such as a filter in a query. Positions are within `source`.
    pub fn parse(source: &str) -> Result<Self, Vec<Diagnostic>> {
        Ok(Self { source: source.into() })
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Evaluates it.
    #[must_use]
    pub fn evaluate(&self, scope: &Scope<'_>) -> Truth {
        let _ = scope;
        Truth::No
    }
}
