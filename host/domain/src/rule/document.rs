//! Documents: YAML or JSON text becomes checked rules, or every problem that it has.

use std::collections::BTreeSet;

use crate::rule::definition::Rule;
use crate::rule::diagnostic::Diagnostic;

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
    let _ = (text, names);
    Err(Vec::new())
}

/// Reads one rule that is to have this name: `name` may be left out of the document, and must not differ.
pub fn parse_as(name: &str, text: &str, names: &Names<'_>) -> Result<Checked<Rule>, Vec<Diagnostic>> {
    let _ = name;
    parse(text, names)
}

/// Reads a whole set: `rules: […]`, a list, or several documents. Names must differ, and unconditional cycles
/// through `emit` are problems.
pub fn parse_set(text: &str, names: &Names<'_>) -> Result<Checked<Vec<Rule>>, Vec<Diagnostic>> {
    let _ = (text, names);
    Err(Vec::new())
}
