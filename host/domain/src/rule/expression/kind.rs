//! Kinds of values, for `type()` and for what can be known before any event.

use std::fmt;

/// What kind of value something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true`, `false`
    Bool,
    /// A whole number that may be negative.
    Int,
    /// A whole number that is not negative.
    UInt,
    /// A number with a fraction.
    Double,
    /// A text.
    Text,
    /// A list.
    List,
    /// A map, which is what JSON calls an object.
    Map,
    /// A value that may not be there.
    Optional,
    /// A type itself, as `type(x)` gives it.
    Type,
}

impl Kind {
    /// The name by which CEL knows the type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::UInt => "uint",
            Self::Double => "double",
            Self::Text => "string",
            Self::List => "list",
            Self::Map => "map",
            Self::Optional => "optional_type",
            Self::Type => "type",
        }
    }

    /// The kind that CEL knows by this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Null, Self::Bool, Self::Int, Self::UInt, Self::Double, Self::Text, Self::List, Self::Map, Self::Type]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// Is it a number?
    #[must_use]
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::UInt | Self::Double)
    }
}

impl fmt::Display for Kind {
    /// In plain words, with an article.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Int | Self::UInt | Self::Double => "a number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Optional => "an optional value",
            Self::Type => "a type",
        })
    }
}
