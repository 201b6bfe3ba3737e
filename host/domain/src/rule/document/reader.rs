//! The reader: notes problems where they stand, with the path to them, and helps to take values apart.

use std::fmt::Write;

use saphyr_parser::ScalarStyle;
use serde_json::Value as Json;

use crate::rule::diagnostic::Diagnostic;
use crate::rule::diagnostic::Source;
use crate::rule::diagnostic::nearest;
use crate::rule::document::Names;
use crate::rule::document::node::Content;
use crate::rule::document::node::Key;
use crate::rule::document::node::Node;
use crate::rule::document::node::Scalar;
use crate::rule::document::node::read;
use crate::rule::expression::Problem;

/// The most problems that are reported: nobody reads more, and each draws a line of the document.
const PROBLEMS_MAX: usize = 100;

/// Walks a document.
pub struct Reader<'t> {
    pub names: Option<&'t Names<'t>>,
    text: &'t str,
    source: Source<'t>,
    characters: Vec<char>,
    /// Where each line starts, in characters.
    lines: Vec<usize>,
    path: String,
    problems: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

/// The fields of a map that are known.
pub struct Fields<'n> {
    found: Vec<(&'static str, &'n Key, &'n Node)>,
}

impl<'n> Fields<'n> {
    pub fn get(&self, name: &str) -> Option<&'n Node> {
        self.found.iter().find(|(known, ..)| *known == name).map(|(_, _, node)| *node)
    }

    pub fn key(&self, name: &str) -> Option<&'n Key> {
        self.found.iter().find(|(known, ..)| *known == name).map(|(_, key, _)| *key)
    }
}

impl<'t> Reader<'t> {
    pub fn new(text: &'t str, names: Option<&'t Names<'t>>) -> Self {
        let characters: Vec<char> = text.chars().collect();
        let ends = characters.iter().enumerate().filter(|(_, character)| **character == '\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        let source = Source::new(text);
        Self { names, text, source, characters, lines, path: String::new(), problems: Vec::new(), warnings: Vec::new() }
    }

    /// The documents of the text, or none if it is not even a document.
    pub fn documents(&mut self, bytes_max: usize) -> Option<Vec<Node>> {
        if self.text.len() > bytes_max {
            let message = format!("the document is {} bytes long; the limit is {bytes_max}", self.text.len());
            self.problem(0, message, None);
            return None;
        }
        match read(self.text) {
            Ok(documents) => Some(documents),
            Err(faults) => {
                for fault in faults {
                    self.problem(fault.at, fault.message, fault.hint);
                }
                None
            }
        }
    }

    /// All problems and all warnings, by place.
    pub fn finish(mut self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.warnings.sort_by_key(|problem| (problem.line, problem.column));
        (self.problems, self.warnings)
    }

    /// How many problems there are so far.
    pub fn problems(&self) -> usize {
        self.problems.len()
    }

    /// Notes a problem at a place, in characters from the start.
    pub fn problem(&mut self, at: usize, message: impl Into<String>, hint: Option<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            let diagnostic = self.diagnostic(at, message.into(), hint);
            self.problems.push(diagnostic);
        }
    }

    /// Notes something odd.
    pub fn warn(&mut self, at: usize, message: impl Into<String>, hint: Option<String>) {
        if self.warnings.len() < PROBLEMS_MAX {
            let diagnostic = self.diagnostic(at, message.into(), hint);
            self.warnings.push(diagnostic);
        }
    }

    fn diagnostic(&self, at: usize, message: String, hint: Option<String>) -> Diagnostic {
        self.source.diagnostic(self.place(at), self.path.clone(), message, hint)
    }

    /// The line and the column, both from 1.
    pub fn place(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= at).max(1);
        (line, at - self.lines[line - 1] + 1)
    }

    /// Notes a problem of an expression where it stands inside the scalar that holds it.
    pub fn expression_problem(&mut self, node: &Node, problem: Problem) {
        let at = self.inside(node, problem.offset);
        self.problem(at, problem.message, problem.hint);
    }

    /// The place of a character of a scalar: quotes, escapes, folds and indentation are in the way.
    fn inside(&self, node: &Node, offset: usize) -> usize {
        let Content::Scalar(Scalar { text, style, .. }) = &node.content else { return node.at };
        let end = node.end.min(self.characters.len());
        let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
        let mut at = node.at + usize::from(quoted);
        let in_the_way = |character: char| match style {
            ScalarStyle::DoubleQuoted => character == '\\' || character.is_whitespace(),
            ScalarStyle::SingleQuoted => character == '\'' || character.is_whitespace(),
            _ => character.is_whitespace(),
        };
        for (number, character) in text.chars().enumerate().take(offset + 1) {
            let mut next = at;
            while next < end && self.characters[next] != character && in_the_way(self.characters[next]) {
                next += 1;
            }
            at = next + usize::from(number < offset);
        }
        at.min(end)
    }

    /// Runs `body` with `segment` added to the path.
    pub fn within<T>(&mut self, segment: impl std::fmt::Display, body: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        let dot = if length == 0 { "" } else { "." };
        // Writing into a string cannot fail.
        let _ = write!(self.path, "{dot}{segment}");
        let result = body(self);
        self.path.truncate(length);
        result
    }

    /// Runs `body` with `[index]` added to the path.
    pub fn within_index<T>(&mut self, index: usize, body: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        let _ = write!(self.path, "[{index}]");
        let result = body(self);
        self.path.truncate(length);
        result
    }

    /// The known fields of a map. Others are problems.
    pub fn fields<'n>(&mut self, node: &'n Node, known: &[&'static str], what: &str) -> Option<Fields<'n>> {
        let entries = self.map(node, what)?;
        let mut found = Vec::new();
        for (key, value) in entries {
            match known.iter().find(|name| **name == key.text) {
                Some(name) => found.push((*name, key, value)),
                None => self.unknown(key, known, what),
            }
        }
        Some(Fields { found })
    }

    /// Notes that a field is unknown.
    pub fn unknown(&mut self, key: &Key, known: &[&'static str], what: &str) {
        let hint = match nearest(&key.text, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", listed(known.iter().copied())),
        };
        self.within(&key.text, |this| {
            this.problem(key.at, format!("{what} has no field `{}`", key.text), Some(hint));
        });
    }

    /// The entries of a map, or a problem.
    pub fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [(Key, Node)]> {
        match &node.content {
            Content::Map(entries) => Some(entries),
            _ => {
                self.problem(node.at, format!("{what} must be a map; this is {}", node.words()), None);
                None
            }
        }
    }

    /// The text of a scalar, or a problem. Numbers and the like need quotes.
    pub fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.content {
            Content::Scalar(Scalar { value: Json::String(_), text, .. }) => Some(text),
            Content::Scalar(scalar) if scalar.value != Json::Null => {
                let hint = Some(format!("in quotes it is one: \"{}\"", scalar.text));
                self.problem(node.at, format!("{what} must be a text; this is {}", node.words()), hint);
                None
            }
            _ => {
                self.problem(node.at, format!("{what} must be a text; this is {}", node.words()), None);
                None
            }
        }
    }

    /// One of a few words, or a problem.
    pub fn word<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(node, what)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let names = words.iter().map(|(word, _)| *word);
        let message = format!("{what} must be {}; this is `{text}`", either(names.clone()));
        let hint = nearest(text, names).map(|near| format!("did you mean `{near}`?"));
        self.problem(node.at, message, hint);
        None
    }

    /// True or false, or a problem.
    pub fn bool(&mut self, node: &Node, what: &str) -> Option<bool> {
        match &node.content {
            Content::Scalar(Scalar { value: Json::Bool(bool), .. }) => Some(*bool),
            _ => {
                self.problem(node.at, format!("{what} must be true or false; this is {}", node.words()), None);
                None
            }
        }
    }
}

/// `a`, `b` and `c`
pub fn listed<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    joined(words, "and")
}

/// `a`, `b` or `c`
pub fn either<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    joined(words, "or")
}

fn joined<'w>(words: impl IntoIterator<Item = &'w str>, last: &str) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((only, [])) => only.clone(),
        Some((end, start)) => format!("{} {last} {end}", start.join(", ")),
        None => String::new(),
    }
}
