//! `map: { total: data.total * data.rate }`: builds a new payload.

use serde_json::Value;

use crate::rule::scope::Scope;

/// Why a payload could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// An expression asks for a field that the event does not have.
    #[error(
        "`map` key `{key}`: `{expression}` asks for `{field}`, which this event does not have; write `{field}` with `.?` to leave the key out instead"
    )]
    MissingField {
        /// Where in the new payload.
        key: String,
        /// The expression.
        expression: String,
        /// The missing field.
        field: String,
    },
    /// An expression failed.
    #[error("`map` key `{key}`: `{expression}`: {reason}")]
    Failed {
        /// Where in the new payload.
        key: String,
        /// The expression.
        expression: String,
        /// Why.
        reason: String,
    },
    /// The expressions took more steps than a step may.
    #[error("`map` key `{key}`: more steps than an expression may take")]
    OverBudget {
        /// Where in the new payload.
        key: String,
    },
}

/// A template of a payload.
#[derive(Debug, Clone)]
pub struct Map {}

impl Map {
    /// Builds the payload.
    pub fn apply(&self, scope: &Scope<'_>) -> Result<Value, EvalError> {
        let _ = scope;
        Ok(Value::Null)
    }
}
