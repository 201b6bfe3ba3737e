//! Diagnostics: what is wrong with a document, where, and what would mend it.

use std::fmt;

use serde::Serialize;

/// One problem in a document, or one thing worth a second look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The line of the value at fault, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
    /// The field at fault: `steps[1].handle.plugin`.
    pub path: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to write instead, if that can be guessed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The source line with a caret under the value at fault.
    pub excerpt: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.message)?;
        if !self.excerpt.is_empty() {
            write!(f, "\n{}", self.excerpt)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}
