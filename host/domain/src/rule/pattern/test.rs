//! Tests: what a leaf of a pattern asks of one value.

use std::fmt;

use crate::rule::expression::Budget;
use crate::rule::expression::Fail;
use crate::rule::pattern::tree::Tree;

/// One test.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// `"DE"`
    Text(String),
    /// `5`: equal as numbers, so `5.0` is the same.
    Number(f64),
    /// `true`
    Bool(bool),
    /// `null`
    Null,
    /// `{ prefix: web }`
    Prefix(String),
    /// `{ suffix: .eu }`
    Suffix(String),
    /// `{ equals-ignore-case: de }`: the text is kept as [`fold`] makes it.
    IgnoreCase(String),
    /// `{ wildcard: "a*b" }`: the pieces between the stars.
    Wildcard(Vec<String>),
    /// `{ anything-but: [a, 1] }`: a value that is none of these, and no map.
    AnythingBut(Vec<Test>),
    /// `{ numeric: [">=", 1, "<", 5] }`
    Numeric(Range),
    /// `{ exists: true }`
    Exists(bool),
}

/// A range of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The lower end and whether it is within.
    pub above: Option<(f64, bool)>,
    /// The upper end and whether it is within.
    pub below: Option<(f64, bool)>,
}

impl Range {
    /// Is the number within?
    #[must_use]
    pub fn contains(&self, number: f64) -> bool {
        self.above.is_none_or(|(end, within)| number > end || (within && number >= end))
            && self.below.is_none_or(|(end, within)| number < end || (within && number <= end))
    }
}

impl Test {
    /// Does it hold for a single value? Arrays are taken apart by the caller.
    pub fn holds(&self, value: &Tree<'_>, budget: &mut Budget) -> Result<bool, Fail> {
        budget.take(1)?;
        if let Tree::Text(text) = value {
            return self.holds_for_text(text, budget);
        }
        Ok(match (self, value) {
            (Self::Number(number), Tree::Number(value)) => number == value,
            (Self::Numeric(range), Tree::Number(value)) => range.contains(*value),
            (Self::AnythingBut(unwanted), Tree::Number(value)) => !unwanted.contains(&Self::Number(*value)),
            (Self::AnythingBut(_), Tree::Bool(_) | Tree::Null) => true,
            (Self::Bool(bool), Tree::Bool(value)) => bool == value,
            (Self::Null, Tree::Null) => true,
            (Self::Exists(wanted), _) => *wanted,
            _ => false,
        })
    }

    fn holds_for_text(&self, text: &str, budget: &mut Budget) -> Result<bool, Fail> {
        Ok(match self {
            Self::Text(wanted) => wanted == text,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::IgnoreCase(folded) => {
                budget.take_bytes(text.len())?;
                same_folded(text, folded)
            }
            Self::Wildcard(pieces) => {
                budget.take_bytes(text.len() * pieces.len())?;
                wildcard(pieces, text)
            }
            Self::AnythingBut(unwanted) => {
                budget.take(unwanted.len() / 4)?;
                !unwanted.iter().any(|test| matches!(test, Self::Text(unwanted) if unwanted == text))
            }
            Self::Exists(wanted) => *wanted,
            Self::Number(_) | Self::Bool(_) | Self::Null | Self::Numeric(_) => false,
        })
    }

    /// Does it hold where there is no value?
    #[must_use]
    pub fn holds_without(&self) -> bool {
        *self == Self::Exists(false)
    }
}

/// A text without its case.
#[must_use]
pub fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

fn same_folded(text: &str, folded: &str) -> bool {
    // A letter has at most three bytes more or fewer in the other case.
    text.len() <= folded.len() * 4 && text.chars().flat_map(char::to_lowercase).eq(folded.chars())
}

/// Do the pieces follow each other in `text`, the first at its start and the last at its end? Taking the first place
/// where a piece fits is always right, because a star takes anything.
fn wildcard(pieces: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = pieces else {
        return pieces.first().is_some_and(|only| only == text);
    };
    let Some(rest) = text.strip_prefix(first.as_str()) else { return false };
    let Some(mut rest) = rest.strip_suffix(last.as_str()) else { return false };
    for piece in middle {
        match rest.find(piece.as_str()) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bool(bool) => write!(f, "{bool}"),
            Self::Null => write!(f, "null"),
            Self::Prefix(prefix) => write!(f, "a text that starts with {prefix:?}"),
            Self::Suffix(suffix) => write!(f, "a text that ends with {suffix:?}"),
            Self::IgnoreCase(folded) => write!(f, "{folded:?} in any case"),
            Self::Wildcard(pieces) => write!(f, "like {:?}", pieces.join("*")),
            Self::AnythingBut(unwanted) => {
                write!(f, "anything but ")?;
                for (at, test) in unwanted.iter().enumerate() {
                    write!(f, "{}{test}", if at == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Numeric(range) => {
                let (above, below) = (range.above, range.below);
                if let Some((end, within)) = above {
                    write!(f, "{} {end}", if within { ">=" } else { ">" })?;
                }
                if let Some((end, within)) = below {
                    let and = if above.is_some() { " and " } else { "" };
                    write!(f, "{and}{} {end}", if within { "<=" } else { "<" })?;
                }
                Ok(())
            }
            Self::Exists(true) => write!(f, "there"),
            Self::Exists(false) => write!(f, "not there"),
        }
    }
}
