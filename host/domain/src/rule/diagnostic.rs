//! Diagnostics: what is wrong with a document, where, and what would mend it.

use std::fmt;

use serde::Serialize;

use crate::rule::expression::Problem;

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

/// The widest part of a line that an excerpt shows.
const EXCERPT_WIDTH: usize = 120;

/// A text that diagnostics point into.
#[derive(Debug)]
pub(crate) struct Source<'t> {
    lines: Vec<&'t str>,
}

impl<'t> Source<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { lines: text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect() }
    }

    /// A diagnostic at a place, with the line drawn.
    pub fn diagnostic(
        &self,
        (line, column): (usize, usize),
        path: String,
        message: String,
        hint: Option<String>,
    ) -> Diagnostic {
        Diagnostic { line, column, path, message, hint, excerpt: self.excerpt(line, column) }
    }

    /// A diagnostic for an expression that is the whole text.
    pub fn problem(&self, problem: Problem) -> Diagnostic {
        let mut left = problem.offset;
        let mut place = (1, 1);
        for (at, line) in self.lines.iter().enumerate() {
            let length = line.chars().count();
            place = (at + 1, left.min(length) + 1);
            if left <= length {
                break;
            }
            left -= length + 1;
        }
        self.diagnostic(place, String::new(), problem.message, problem.hint)
    }

    /// The line and a caret under the column. Of a long line, the part around the column.
    fn excerpt(&self, line: usize, column: usize) -> String {
        let Some(text) = line.checked_sub(1).and_then(|at| self.lines.get(at)) else { return String::new() };
        let column = column.max(1) - 1;
        let start = if column < EXCERPT_WIDTH * 3 / 4 { 0 } else { column - EXCERPT_WIDTH / 2 };
        // A control character would move the caret, or worse, the reader's terminal.
        let shown: String = text
            .chars()
            .skip(start)
            .take(EXCERPT_WIDTH)
            .map(|character| if character.is_control() { ' ' } else { character })
            .collect();
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(column - start);
        format!("{number} | {}\n{margin} | {indent}^", shown.trim_end())
    }
}

/// The candidate that `word` was most likely meant to be, if any is near: at most a third of its letters differ.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word: Vec<char> = word.chars().take(64).flat_map(char::to_lowercase).collect();
    let allowed = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            let letters: Vec<char> = candidate.chars().take(64).flat_map(char::to_lowercase).collect();
            (distance(&word, &letters), candidate)
        })
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, taken away, changed, or swapped with their neighbour.
fn distance(one: &[char], other: &[char]) -> usize {
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    for (at, row) in rows.iter_mut().enumerate() {
        row[0] = at;
    }
    for (at, cell) in rows[0].iter_mut().enumerate() {
        *cell = at;
    }
    for i in 1..=one.len() {
        for j in 1..=other.len() {
            let change = usize::from(one[i - 1] != other[j - 1]);
            let mut least = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found() {
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(nearest(word, ["where", "match", "steps", "on", "on_failure"]), expected, "{word}");
        };
        check("wehre", Some("where"));
        check("Match", Some("match"));
        check("step", Some("steps"));
        check("onfailure", Some("on_failure"));
        check("colour", None);
        check("x", None);
        check("", None);
    }
}
