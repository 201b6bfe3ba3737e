//! Why a configuration is not taken.

use std::fmt;

use bulkhead_domain::rule::Diagnostic;

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value comes from: a file, a variable, a flag.
    pub origin: String,
    /// The setting, or the place in the file; the place is 0 where there is none.
    pub fault: Diagnostic,
}

impl Problem {
    /// About a setting.
    pub(super) fn setting(origin: impl Into<String>, path: &str, message: impl Into<String>) -> Self {
        let (message, path) = (message.into(), path.to_owned());
        let fault = Diagnostic { line: 0, column: 0, path, message, hint: None, excerpt: String::new() };
        Self { origin: origin.into(), fault }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.fault.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        if self.fault.line > 0 {
            write!(f, ":{}:{}", self.fault.line, self.fault.column)?;
        }
        if !self.fault.path.is_empty() && self.fault.path != self.origin {
            write!(f, ": {}", self.fault.path)?;
        }
        write!(f, ": {}", self.fault.message)?;
        for line in self.fault.excerpt.lines() {
            write!(f, "\n  {line}")?;
        }
        if let Some(hint) = &self.fault.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(f, "the configuration has {count} problem{}", if count == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            write!(f, "\n{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}
