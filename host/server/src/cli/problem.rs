//! The host's refusals (RFC 9457) as text: what, where, what to do, where to read on.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::cli::paint::Paint;
use crate::cli::paint::clean;

/// An `application/problem+json` document.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// A stable link to the page about this problem; relative to the host.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// For machines.
    pub code: String,
    /// What is wrong, in one sentence.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What is wrong with the parts of what was sent.
    pub errors: Vec<Fault>,
    /// Where the page about it is, with the host in front; filled in by the client.
    #[serde(skip)]
    pub docs: Option<String>,
    /// The file that was sent, for the places of the faults; filled in by the command.
    #[serde(skip)]
    pub file: Option<String>,
}

/// One thing that is wrong with what was sent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// The field at fault.
    #[serde(alias = "field", alias = "pointer")]
    pub path: String,
    /// The line, from 1; 0 if there is none.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong.
    #[serde(alias = "detail")]
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The text at fault with a caret under it.
    pub excerpt: String,
    /// The file at fault, where the problem as a whole has several; filled in by the command.
    #[serde(skip)]
    pub place: Option<String>,
}

impl Problem {
    /// The last part of the type: `rule-invalid`.
    pub fn code(&self) -> &str {
        if self.code.is_empty() { self.kind.rsplit('/').next().unwrap_or_default() } else { &self.code }
    }

    /// For standard error.
    pub fn render(&self, paint: Paint) -> String {
        let mut text = String::new();
        let what = if self.detail.is_empty() { &self.title } else { &self.detail };
        let code = self.code();
        let code = if code.is_empty() { self.status.to_string() } else { code.to_owned() };
        _ = writeln!(text, "{} {} {}", paint.red("error:"), clean(what), paint.dim(&format!("[{}]", clean(&code))));
        for fault in &self.errors {
            // A single fault may be all that the first line says.
            let message = if fault.message == self.detail { String::new() } else { fault.message.clone() };
            Fault { message, ..fault.clone() }.render(self.file.as_deref(), paint, &mut text);
        }
        if let Some(hint) = &self.hint {
            for line in hint.lines() {
                _ = writeln!(text, "  {} {}", paint.cyan("hint:"), clean(line));
            }
        }
        if let Some(docs) = &self.docs {
            _ = writeln!(text, "  {} {}", paint.dim("more:"), clean(docs));
        }
        text
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.detail.is_empty() { &self.title } else { &self.detail };
        write!(f, "{}", clean(what))?;
        for fault in self.errors.iter().filter(|fault| fault.message != *what) {
            write!(f, "; {}", clean(&fault.message))?;
        }
        Ok(())
    }
}

impl Fault {
    /// One fault or warning, indented below what it belongs to.
    pub fn render(&self, file: Option<&str>, paint: Paint, text: &mut String) {
        let mut place = self.place.as_deref().or(file).unwrap_or_default().to_owned();
        if self.line > 0 {
            let colon = if place.is_empty() { "line " } else { ":" };
            _ = write!(place, "{colon}{}:{}", self.line, self.column);
        }
        if !place.is_empty() || !self.path.is_empty() {
            let gap = if place.is_empty() || self.path.is_empty() { "" } else { "  " };
            _ = writeln!(text, "  {} {}{gap}{}", paint.cyan("-->"), clean(&place), paint.bold(&clean(&self.path)));
        }
        for line in self.excerpt.lines() {
            // Leading blanks carry the caret's place; `clean` keeps them.
            _ = writeln!(text, "      {}", clean(line));
        }
        if !self.message.is_empty() {
            _ = writeln!(text, "      {}", clean(&self.message));
        }
        if let Some(hint) = &self.hint {
            _ = writeln!(text, "      {} {}", paint.cyan("hint:"), clean(hint));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_with_a_fault_shows_the_place() {
        let body = serde_json::json!({
            "type": "/docs/errors/rule-invalid", "title": "Invalid rule", "status": 422,
            "detail": "the rule `big` has 1 problem",
            "errors": [{
                "line": 3, "column": 8, "path": "where", "message": "`total` is not known here",
                "hint": "write `data.total`", "excerpt": "3 | where: total > 5\n  |        ^",
            }],
        });
        let mut problem: Problem = serde_json::from_value(body).expect("because it is a problem document");
        problem.file = Some("big.yaml".to_owned());
        problem.docs = Some("http://localhost/docs/errors/rule-invalid".to_owned());
        assert_eq!(
            problem.render(Paint::plain()),
            "error: the rule `big` has 1 problem [rule-invalid]\n\
             \x20 --> big.yaml:3:8  where\n\
             \x20     3 | where: total > 5\n\
             \x20       |        ^\n\
             \x20     `total` is not known here\n\
             \x20     hint: write `data.total`\n\
             \x20 more: http://localhost/docs/errors/rule-invalid\n"
        );
    }

    #[test]
    fn an_unknown_shape_still_says_something() {
        let problem: Problem =
            serde_json::from_str(r#"{"title":"Gone","status":410,"x":1}"#).expect("because all is optional");
        assert_eq!(problem.render(Paint::plain()), "error: Gone [410]\n");
    }
}
