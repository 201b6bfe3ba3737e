//! The focus: of a payload, only what some condition looks at is parsed. The rest is skipped, which takes a fifth of
//! the time.

use std::fmt;

use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::Error;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Value as Json;

use crate::event::Event;
use crate::rule::expression::Expression;
use crate::rule::pattern::shape::Place;
use crate::rule::pattern::shape::ROOT;
use crate::rule::pattern::shape::Shape;

/// What conditions look at.
#[derive(Debug, Default)]
pub struct Focus {
    shape: Shape,
    /// Some condition looks at the payload as a whole.
    pub whole: bool,
}

impl Focus {
    /// What an expression looks at.
    pub fn of(expression: &Expression) -> Self {
        let mut focus = Self::default();
        focus.add(expression);
        focus
    }

    /// Adds what an expression looks at.
    pub fn add(&mut self, expression: &Expression) {
        match expression.needs() {
            Some(paths) => paths.iter().for_each(|path| {
                self.shape.leaf(path);
            }),
            None => self.whole = true,
        }
    }

    /// Does nobody look at the payload?
    pub fn is_empty(&self) -> bool {
        !self.whole && self.shape.fields(ROOT) == 0
    }

    /// The payload as far as the conditions can tell, or none if it is not JSON.
    pub fn parse(&self, event: &Event) -> Option<Json> {
        if !event.is_json() {
            return None;
        }
        if self.whole {
            return serde_json::from_slice(&event.data).ok();
        }
        // What is skipped is not looked at closely, so that every text is one is checked here.
        let text = std::str::from_utf8(&event.data).ok()?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let seed = Seed { shape: &self.shape, place: ROOT };
        let json = deserializer.deserialize_any(seed).ok()?;
        deserializer.end().ok().map(|()| json)
    }
}

/// Reads a value of which only some fields are wanted.
#[derive(Clone, Copy)]
struct Seed<'s> {
    shape: &'s Shape,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        if self.shape.is_leaf(self.place) {
            return serde::Deserialize::deserialize(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    // What has no fields is null: selecting one from either finds nothing.

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Json::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut map = serde_json::Map::new();
        while let Some(found) = entries.next_key_seed(KeySeed(self))? {
            match found {
                Some((place, name)) => {
                    let value = entries.next_value_seed(Self { shape: self.shape, place })?;
                    map.insert(name, value);
                }
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Json::Object(map))
    }
}

/// Reads a key: its place and its name, if it is wanted.
struct KeySeed<'s>(Seed<'s>);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<(Place, String)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<(Place, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.shape.field(self.0.place, name).map(|place| (place, name.to_owned())))
    }
}
