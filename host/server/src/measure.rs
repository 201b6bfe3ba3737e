//! Sizes and durations as people write them: `64KiB`, `2s`. Numbers without a unit are bytes; durations need a unit.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bulkhead_domain::rule::duration;
use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error;
use serde::de::Visitor;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Bytes(pub u64);

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

/// Units of sizes, largest binary one first (as they are written).
const UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Bytes {
    /// Reads `512`, `512B`, `64KiB`, `10 MiB`, `1GB`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
        let number: u64 = digits.trim_end().replace('_', "").parse().ok()?;
        let unit = &text[digits.len()..];
        let factor = if unit.is_empty() { 1 } else { UNITS.iter().find(|(name, _)| *name == unit)?.1 };
        number.checked_mul(factor).map(Self)
    }

    /// As a number of this machine; the largest one if it does not fit.
    #[must_use]
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS[..3].iter().find(|(_, size)| self.0 > 0 && self.0.is_multiple_of(*size));
        match unit {
            Some((name, size)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration::write(self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 512, \"64KiB\" or \"10MiB\"")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Bytes, E> {
                let number = u64::try_from(number);
                number.map(Bytes).map_err(|_| E::custom("a size cannot be below zero"))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Bytes, E> {
                Ok(Bytes(number))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                Bytes::parse(text).ok_or_else(|| E::custom(format!("`{text}` is no size; write 512, 64KiB or 10MiB")))
            }
        }
        deserializer.deserialize_any(Size)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Length;
        impl Visitor<'_> for Length {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"250ms\", \"2s\" or \"1h30m\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
                let wrong = || E::custom(format!("`{text}` is no duration; write 250ms, 2s or 1h30m"));
                duration::parse(text).map(Span).ok_or_else(wrong)
            }
        }
        deserializer.deserialize_any(Length)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A size: a number of bytes, or a text such as \"64KiB\" or \"10MiB\".",
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": r"^\s*[0-9][0-9_]*\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)?$" }
            ]
        })
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration such as \"250ms\", \"2s\" or \"1h30m\".",
            "type": "string",
            "pattern": "^([0-9]+(ms|s|m|h|d))+$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        let check = |text: &str, bytes: u64, written: &str| {
            let size = Bytes::parse(text).unwrap_or_else(|| panic!("{text} is a size"));
            assert_eq!((size, size.to_string().as_str()), (Bytes(bytes), written), "{text}");
        };
        check("0", 0, "0B");
        check("512", 512, "512B");
        check("64KiB", 65_536, "64KiB");
        check("10 MiB", 10 << 20, "10MiB");
        check("1_000B", 1_000, "1000B");
        check("1GB", 1_000_000_000, "1000000000B");
        check("1GiB", 1 << 30, "1GiB");
        for wrong in ["", "KiB", "-1", "1.5MiB", "1kib", "99999999999GiB", "1 0"] {
            assert_eq!(Bytes::parse(wrong), None, "{wrong}");
        }
    }
}
