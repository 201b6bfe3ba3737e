//! Documents: YAML or JSON text becomes checked rules, or every problem that it has.
//!
//! A reader walks the tree of a document, notes problems where they stand, and goes on: an author sees all of them
//! at once. Only what passed without a problem becomes a [`Rule`].
//!
//! Reading order: `node`, `reader`, `fields`, `steps`, `pattern`, `set`.

mod fields;
mod node;
mod pattern;
mod reader;
mod set;
mod steps;

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::rule::definition::Rule;
use crate::rule::definition::StoredError;
use crate::rule::diagnostic::Diagnostic;
use crate::rule::document::node::Node;
use crate::rule::document::reader::Reader;

/// The largest document of one rule.
pub const RULE_BYTES_MAX: usize = 256 << 10;
/// The largest document of a set.
pub const SET_BYTES_MAX: usize = 4 << 20;
/// The most rules of a tenant.
pub const RULES_MAX: usize = 10_000;
/// The most steps of a rule.
pub const STEPS_MAX: usize = 32;
/// The most patterns of `on`.
pub const TYPES_MAX: usize = 64;

/// The names that a rule may refer to.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The tenant's plugins.
    pub plugins: &'a BTreeSet<String>,
    /// The tenant's sinks.
    pub sinks: &'a BTreeSet<String>,
}

/// What a document held, and what is odd about it though not wrong.
#[derive(Debug, Clone)]
pub struct Checked<T> {
    /// The rule, or the rules in the order of the document.
    pub value: T,
    /// Worth showing to the author.
    pub warnings: Vec<Diagnostic>,
}

/// Reads one rule. All problems of the document come back together.
pub fn parse(text: &str, names: &Names<'_>) -> Result<Checked<Rule>, Vec<Diagnostic>> {
    one(text, None, names)
}

/// Reads one rule that is to have this name: `name` may be left out of the document, and must not differ.
pub fn parse_as(name: &str, text: &str, names: &Names<'_>) -> Result<Checked<Rule>, Vec<Diagnostic>> {
    one(text, Some(name), names)
}

/// Reads a whole set: `rules: […]`, a list, or several documents. Names must differ, and unconditional cycles
/// through `emit` are problems.
pub fn parse_set(text: &str, names: &Names<'_>) -> Result<Checked<Vec<Rule>>, Vec<Diagnostic>> {
    let mut reader = Reader::new(text, Some(names));
    let Some(documents) = reader.documents(SET_BYTES_MAX) else { return Err(reader.finish().0) };
    let rules = reader.set(&documents);
    match reader.finish() {
        (problems, warnings) if problems.is_empty() => Ok(Checked { value: rules, warnings }),
        (problems, _) => Err(problems),
    }
}

fn one(text: &str, name: Option<&str>, names: &Names<'_>) -> Result<Checked<Rule>, Vec<Diagnostic>> {
    let mut reader = Reader::new(text, Some(names));
    let Some(documents) = reader.documents(RULE_BYTES_MAX) else { return Err(reader.finish().0) };
    let rule = match documents.as_slice() {
        [node] => reader.rule(node, name),
        [] => {
            reader.problem(0, "the document is empty; a rule has at least `name`, `on` and `steps`", None);
            None
        }
        [_, second, ..] => {
            let hint = Some("a whole set of rules is saved at once, as a set".to_owned());
            reader.problem(second.at, "one rule is expected here; this starts a second document", hint);
            None
        }
    };
    match (rule, reader.finish()) {
        (Some(rule), (problems, warnings)) if problems.is_empty() => Ok(Checked { value: rule.rule, warnings }),
        (_, (problems, _)) => Err(problems),
    }
}

/// Reads back the canonical document of a rule.
pub(in crate::rule) fn from_stored(document: &Json) -> Result<Rule, StoredError> {
    let name = document["name"].as_str().unwrap_or_default();
    let mut reader = Reader::new("", None);
    let rule = reader.rule(&Node::of(document), None);
    match (rule, reader.finish().0.into_iter().next()) {
        (Some(rule), None) => Ok(rule.rule),
        (_, problem) => {
            let reason = problem.map_or_else(String::new, |problem| format!("{}: {}", problem.path, problem.message));
            Err(StoredError { name: name.to_owned(), reason })
        }
    }
}

#[cfg(test)]
mod tests;
