//! Expressions: CEL, checked when a rule is saved and bounded when it runs.
//!
//! The `cel` crate parses. What follows is ours, because a tenant's expression runs on a tenant's data on our threads,
//! and the crate's evaluator cannot be stopped: four nested `all()` over 80 items ran for 48 s. Here every node
//! evaluated, every element visited and every 32 bytes touched is a step, and the steps are counted while they are
//! made. The crate's evaluator stays on as the oracle of the tests.
//!
//! ```text
//! text ──scan──▶ bounded text ──cel──▶ AST ──compile──▶ Expression ──evaluate(scope, budget)──▶ Value
//! ```
//!
//! Reading order: [`budget`], [`value`], [`function`], `scan`, `compile`, `evaluate`, `operator`, `pattern`.

pub mod budget;
mod compile;
mod evaluate;
pub mod function;
mod kind;
mod needs;
mod node;
mod operator;
mod pattern;
mod scan;
mod text;
pub mod value;

use std::sync::Arc;

pub use budget::Budget;
pub use kind::Kind;
pub use value::Value;

use crate::rule::scope::Scope;

/// The longest expression. Rules are for choosing and shaping; programs are plugins.
pub const SOURCE_BYTES_MAX: usize = 4 << 10;
/// The most operators, brackets and commas: bounds the parser's recursion before it starts.
pub const OPERATORS_MAX: usize = 600;
/// How deep brackets may nest in the text.
pub const BRACKETS_MAX: usize = 24;
/// The most nodes of a parsed expression.
pub const NODES_MAX: usize = 500;
/// How deep a parsed expression may be: bounds the evaluator's recursion.
pub const DEPTH_MAX: usize = 64;
/// How deep `all`, `exists`, `exists_one`, `map` and `filter` may nest. Each level multiplies the work by the length
/// of a list.
pub const NESTING_MAX: usize = 2;
/// The longest pattern of `matches`.
pub const PATTERN_BYTES_MAX: usize = 256;

/// The names that expressions start from.
pub const VARIABLES: [&str; 4] = ["attributes", "data", "event", "tenant"];

/// Something wrong in the text of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, in characters from the start of the expression.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// Why an evaluation gave no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fail {
    /// It asks for a field that is not there.
    Missing(String),
    /// It asks for something impossible.
    Impossible(String),
    /// It took more steps than it may.
    OverBudget,
}

/// A checked expression. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Expression {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    source: String,
    root: node::Node,
    kind: Option<Kind>,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.inner.source == other.inner.source
    }
}

impl Eq for Expression {}

impl Expression {
    /// Reads and checks an expression. A syntax error comes alone; everything else comes together.
    pub fn compile(source: &str) -> Result<Self, Vec<Problem>> {
        let (root, kind) = compile::compile(source)?;
        Ok(Self { inner: Arc::new(Inner { source: source.to_owned(), root, kind }) })
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// What its value will be, as far as that is known before any event.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.inner.kind
    }

    /// The value, if the expression asks for nothing of the event.
    #[must_use]
    pub fn constant(&self) -> Option<Value<'_>> {
        match &self.inner.root {
            node::Node::Constant(constant) => Some(constant.value()),
            _ => None,
        }
    }

    /// The paths into the payload that its value may depend on; none if it may depend on all of it.
    #[must_use]
    pub fn needs(&self) -> Option<Vec<Vec<String>>> {
        needs::needs(&self.inner.root)
    }

    /// Its value for one event.
    pub fn evaluate<'v>(&'v self, scope: &'v Scope<'v>, budget: &mut Budget) -> Result<Value<'v>, Fail> {
        evaluate::Evaluator::new(scope, budget).value(&self.inner.root)
    }
}

#[cfg(test)]
mod tests;
