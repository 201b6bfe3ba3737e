//! Who is running, with what settings, over which event.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use secrecy::ExposeSecret;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

use super::Refusal;
use super::not_granted;
use crate::port::Setup;

/// What one call is about.
#[derive(Debug)]
pub(crate) struct Context {
    pub rule: String,
    pub attempt: u32,
    data: Bytes,
    is_json: bool,
}

impl Context {
    pub(crate) fn new(rule: &str, attempt: u32, data: Bytes, is_json: bool) -> Self {
        Self { rule: rule.to_owned(), attempt, data, is_json }
    }

    /// The value at a JSON pointer in the event's data, as JSON text.
    pub(crate) fn field(&self, pointer: &str) -> Option<String> {
        if !self.is_json {
            return None;
        }
        let path = parse_pointer(pointer)?;
        let mut deserializer = serde_json::Deserializer::from_slice(&self.data);
        // Data that is not JSON in the end has no fields.
        let found = At(&path).deserialize(&mut deserializer).ok()?;
        deserializer.end().ok()?;
        found.map(|raw| raw.get().to_owned())
    }
}

/// A secret, if it is granted and there is one.
pub(crate) fn secret(setup: &Setup, name: &str) -> Result<String, Refusal> {
    if !setup.grants.may_read_secret(name) {
        return Err(Refusal::Denied(not_granted(&format!("the secret `{}`", name.escape_debug()), "it to `secrets`")));
    }
    match setup.secrets.get(name) {
        Some(value) => Ok(value.expose_secret().to_owned()),
        None => Err(Refusal::NotFound(format!("there is no secret `{name}`"))),
    }
}

/// The names in an RFC 6901 pointer; none if it is malformed.
fn parse_pointer(pointer: &str) -> Option<Vec<Cow<'_, str>>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let names = pointer.strip_prefix('/')?.split('/');
    Some(
        names
            .map(
                |name| if name.contains('~') { name.replace("~1", "/").replace("~0", "~").into() } else { name.into() },
            )
            .collect(),
    )
}

/// Descends to a path and takes the text of the value there; skips everything else unparsed.
struct At<'p>(&'p [Cow<'p, str>]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            return serde::Deserialize::deserialize(deserializer).map(Some);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (name, rest) = (&self.0[0], &self.0[1..]);
        let mut found = None;
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if key.0 == *name {
                // Where a name is there twice, the last one counts, as in most parsers.
                found = map.next_value_seed(At(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        // "01" and "+1" are no indices.
        let index: Option<usize> = self.0[0].parse().ok().filter(|index: &usize| index.to_string() == self.0[0]);
        let mut found = None;
        let mut at = 0;
        loop {
            if Some(at) == index {
                match seq.next_element_seed(At(&self.0[1..]))? {
                    Some(value) => found = value,
                    None => return Ok(None),
                }
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            at += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn field(data: &'static str, pointer: &str) -> Option<String> {
        Context::new("rule", 1, Bytes::from_static(data.as_bytes()), true).field(pointer)
    }

    #[test]
    fn a_pointer_finds_the_text_as_it_stands() {
        let data = r#"{"a": {"b": [10, {"c": 1.50}]}, "x/y": null, "t~": "s\n", "twice": 1, "twice": 2, "é": true}"#;
        for (pointer, expected) in [
            ("/a/b/0", Some("10")),
            ("/a/b/1/c", Some("1.50")),
            ("/a/b/1", Some(r#"{"c": 1.50}"#)),
            ("/x~1y", Some("null")),
            ("/t~0", Some(r#""s\n""#)),
            ("/twice", Some("2")),
            ("/é", Some("true")),
            ("", Some(data)),
            ("/a/b/2", None),
            ("/a/b/-", None),
            ("/a/b/01", None),
            ("/a/b/0/x", None),
            ("/missing", None),
            ("a", None),
        ] {
            assert_eq!(field(data, pointer).as_deref(), expected, "{pointer}");
        }
    }

    #[test]
    fn what_is_not_json_has_no_fields() {
        for data in ["", "{", r#"{"a":1} x"#, r#"{"a":1"#, "nonsense"] {
            assert_eq!(field(data, "/a"), None, "{data}");
        }
        let text = Context::new("rule", 1, Bytes::from_static(br#"{"a":1}"#), false);
        assert_eq!(text.field("/a"), None);
    }

    #[test]
    fn deep_data_does_not_exhaust_the_stack() {
        let deep: &'static str = Box::leak("[".repeat(200_000).into_boxed_str());
        assert_eq!(field(deep, "/0"), None);
        let pointer = "/0".repeat(100_000);
        assert_eq!(field(deep, &pointer), None);
        let nested: &'static str =
            Box::leak(format!("{{\"a\":{}{},\"b\":1}}", "[".repeat(100_000), "]".repeat(100_000)).into_boxed_str());
        assert_eq!(field(nested, "/b").as_deref(), Some("1"), "what is skipped may be deep");
    }

    #[test]
    fn secrets_need_a_grant_and_a_value() {
        let mut setup = crate::port::tests::setup();
        setup.secrets.insert("token".into(), "hunter2".to_owned().into());
        assert!(matches!(secret(&setup, "token"), Err(Refusal::Denied(_))));
        setup.grants.secrets.extend(["token".to_owned(), "other".to_owned()]);
        assert_eq!(secret(&setup, "token").as_deref(), Ok("hunter2"));
        assert!(matches!(secret(&setup, "other"), Err(Refusal::NotFound(_))));
    }
}
