//! Patterns: what `match` asks of an event, in the manner of EventBridge.
//!
//! A pattern has the shape of the event. At its leaves are lists of tests, of which one must hold for the value there;
//! all leaves must be met. Where the event has an array, one of its elements must do: for a leaf one that passes a
//! test, for a map one that meets the whole map.
//!
//! ```text
//! { data: { customer: { country: [DE, FR] }, total: [{ numeric: [">", 100] }] } }
//! ```
//!
//! Reading order: [`mod@test`], [`shape`], [`tree`], [`plan`].

pub mod plan;
pub mod shape;
pub mod test;
pub mod tree;

use std::fmt;

use test::Test;

/// How many alternatives a pattern may have once every `$or` is multiplied out.
pub const ALTERNATIVES_MAX: usize = 32;
/// The most leaves of one alternative.
pub const LEAVES_MAX: usize = 64;
/// The most tests of one leaf.
pub const TESTS_MAX: usize = 256;
/// How deep a pattern may be.
pub const DEPTH_MAX: usize = 16;
/// The longest text in a test.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// The most `*` of all `wildcard` tests of a pattern: each may go over the whole text once more.
pub const STARS_MAX: usize = 32;

/// The parts of an event that patterns may ask about.
pub const ROOTS: [&str; 5] = ["attributes", "data", "source", "subject", "type"];

/// A checked pattern: one of its alternatives must be met.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    /// At least one.
    pub alternatives: Vec<Alternative>,
}

/// What must hold together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Alternative {
    /// Every one of them.
    pub leaves: Vec<Leaf>,
}

/// What one field must be.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// Where the field is, from the event.
    pub path: Vec<String>,
    /// One of them must hold.
    pub tests: Vec<Test>,
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is ", self.path.join("."))?;
        for (at, test) in self.tests.iter().enumerate() {
            match at {
                0 => write!(f, "{test}")?,
                8 => return write!(f, " or one of {} more", self.tests.len() - at),
                _ => write!(f, " or {test}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
