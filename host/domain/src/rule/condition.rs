//! Conditions: expressions that say yes or no.

use std::sync::Arc;

use crate::rule::diagnostic::Diagnostic;
use crate::rule::diagnostic::Source;
use crate::rule::expression::Budget;
use crate::rule::expression::Expression;
use crate::rule::expression::Fail;
use crate::rule::expression::Kind;
use crate::rule::expression::Problem;
use crate::rule::expression::Value;
use crate::rule::focus::Focus;
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

/// A checked condition. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Condition {
    expression: Expression,
    /// What it looks at.
    focus: Arc<Focus>,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression
    }
}

impl Eq for Condition {}

impl Condition {
    /// Reads a condition that stands alone, such as a filter in a query. Positions are within `source`.
    pub fn parse(source: &str) -> Result<Self, Vec<Diagnostic>> {
        Self::compile(source).map_err(|problems| {
            let text = Source::new(source);
            problems.into_iter().map(|problem| text.problem(problem)).collect()
        })
    }

    /// Reads a condition within a document.
    pub(in crate::rule) fn compile(source: &str) -> Result<Self, Vec<Problem>> {
        let expression = Expression::compile(source)?;
        match expression.kind() {
            None | Some(Kind::Bool) => Ok(Self { focus: Arc::new(Focus::of(&expression)), expression }),
            Some(kind) => {
                let hint = match kind {
                    Kind::Optional => Some("end it with `.orValue(false)`".to_owned()),
                    _ => None,
                };
                let message = format!("a condition must be true or false; this is {kind}");
                Err(vec![Problem { offset: 0, message, hint }])
            }
        }
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        self.expression.source()
    }

    /// Always this, whatever the event is, as far as that can be seen.
    pub(in crate::rule) fn constant(&self) -> Option<bool> {
        match self.expression.constant() {
            Some(Value::Bool(bool)) => Some(bool),
            _ => None,
        }
    }

    pub(in crate::rule) fn expression(&self) -> &Expression {
        &self.expression
    }

    /// Evaluates it. Of a payload that nobody has needed yet only what the condition looks at is parsed.
    #[must_use]
    pub fn evaluate(&self, scope: &Scope<'_>) -> Truth {
        self.evaluate_within(scope, &mut Budget::default())
    }

    /// Evaluates it within a budget that the caller may share among several.
    #[must_use]
    pub fn evaluate_within(&self, scope: &Scope<'_>, budget: &mut Budget) -> Truth {
        if scope.is_parsed() || self.focus.whole || self.focus.is_empty() {
            return self.truth(scope, budget);
        }
        let data = self.focus.parse(scope.event());
        self.truth(&Scope::focused(scope.event(), scope.tenant(), data), budget)
    }

    fn truth(&self, scope: &Scope<'_>, budget: &mut Budget) -> Truth {
        match self.expression.evaluate(scope, budget) {
            Ok(Value::Bool(true)) => Truth::Yes,
            Ok(Value::Bool(false)) => Truth::No,
            Ok(other) => Truth::Error(format!("the condition gave {}, not true or false", other.kind())),
            Err(Fail::Missing(field)) => Truth::MissingField(field),
            Err(Fail::Impossible(reason)) => Truth::Error(reason),
            Err(Fail::OverBudget) => Truth::OverBudget,
        }
    }
}
