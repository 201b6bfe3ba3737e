//! Trees: the parts of one event that a shape asks about, borrowed from its bytes.

use std::borrow::Cow;
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
use crate::rule::pattern::shape::Place;
use crate::rule::pattern::shape::ROOT;
use crate::rule::pattern::shape::Shape;

/// A part of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree<'e> {
    /// `null`, or something that nobody asks about.
    Null,
    /// `true`, `false`
    Bool(bool),
    /// Any number.
    Number(f64),
    /// A text.
    Text(Cow<'e, str>),
    /// An array.
    List(Vec<Tree<'e>>),
    /// A map: only the fields that are asked about, ordered by place, each once.
    Map(Vec<(Place, Tree<'e>)>),
}

impl<'e> Tree<'e> {
    /// The parts of `event` that `shape` asks about. A payload that is not JSON is not there.
    #[must_use]
    pub fn of(event: &'e Event, shape: &Shape) -> Self {
        let data = |place| {
            if !event.is_json() {
                return None;
            }
            // What is skipped is not looked at closely, so that every text is one is checked here.
            let text = std::str::from_utf8(&event.data).ok()?;
            let mut deserializer = serde_json::Deserializer::from_str(text);
            let tree = Seed { shape, place }.deserialize(&mut deserializer).ok()?;
            deserializer.end().ok().map(|()| tree)
        };
        Self::assemble(event, shape, data)
    }

    /// The same with a payload that a step has changed.
    #[must_use]
    pub fn with_data(event: &'e Event, shape: &Shape, data: &'e Json) -> Self {
        Self::assemble(event, shape, |place| Seed { shape, place }.deserialize(data).ok())
    }

    fn assemble(event: &'e Event, shape: &Shape, data: impl FnOnce(Place) -> Option<Self>) -> Self {
        let mut fields = Vec::with_capacity(4);
        let text = |text: &'e str| Tree::Text(Cow::Borrowed(text));
        let mut add = |name: &str, tree: Option<Self>| {
            if let (Some(place), Some(tree)) = (shape.field(ROOT, name), tree) {
                fields.push((place, tree));
            }
        };
        add("type", Some(text(&event.kind)));
        add("source", Some(text(&event.source)));
        add("subject", event.subject.as_deref().map(text));
        if let Some(place) = shape.field(ROOT, "attributes") {
            let known = |(name, value): &'e (String, String)| Some((shape.field(place, name)?, text(value)));
            add("attributes", Some(map(event.attributes.iter().filter_map(known).collect())));
        }
        if let Some(place) = shape.field(ROOT, "data") {
            add("data", data(place));
        }
        map(fields)
    }

    /// The field at a place, of a map.
    #[must_use]
    pub fn field(&self, place: Place) -> Option<&Self> {
        let Self::Map(fields) = self else { return None };
        let at = fields.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        fields.get(at).map(|(_, tree)| tree)
    }
}

/// A map with its fields in order. Of a field that came twice the last counts, as everywhere.
fn map<'e>(mut fields: Vec<(Place, Tree<'e>)>) -> Tree<'e> {
    if !fields.is_sorted_by(|(one, _), (other, _)| one < other) {
        fields.reverse();
        fields.sort_by_key(|(place, _)| *place);
        fields.dedup_by_key(|(place, _)| *place);
    }
    Tree::Map(fields)
}

/// Reads a value at a place, and of it only what is asked about.
#[derive(Clone, Copy)]
struct Seed<'s> {
    shape: &'s Shape,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Tree<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Tree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree<'de>, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E: Error>(self, bool: bool) -> Result<Tree<'de>, E> {
        Ok(Tree::Bool(bool))
    }

    #[expect(clippy::cast_precision_loss, reason = "patterns compare numbers as doubles, as JSON mostly does")]
    fn visit_i64<E: Error>(self, int: i64) -> Result<Tree<'de>, E> {
        Ok(Tree::Number(int as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "patterns compare numbers as doubles, as JSON mostly does")]
    fn visit_u64<E: Error>(self, uint: u64) -> Result<Tree<'de>, E> {
        Ok(Tree::Number(uint as f64))
    }

    fn visit_f64<E: Error>(self, double: f64) -> Result<Tree<'de>, E> {
        Ok(Tree::Number(double))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree<'de>, A::Error> {
        let leaf = self.shape.is_leaf(self.place);
        let mut list = Vec::new();
        let mut bare = false;
        while let Some(element) = elements.next_element_seed(self)? {
            if leaf || matches!(element, Tree::Map(_) | Tree::List(_)) {
                list.push(element);
            } else if !bare {
                // Where only fields are asked about, one element without any stands for all of them.
                bare = true;
                list.push(Tree::Null);
            }
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree<'de>, A::Error> {
        let asked = self.shape.fields(self.place);
        // Room for what is asked about, but not for a thousand rules' fields in an event that has three.
        let mut fields = Vec::with_capacity(asked.min(16));
        if asked == 0 {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Tree::Map(fields));
        }
        let key = KeySeed(self);
        while let Some(place) = entries.next_key_seed(key)? {
            match place {
                Some(place) => fields.push((place, entries.next_value_seed(Self { shape: self.shape, place })?)),
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(map(fields))
    }
}

/// Reads a key: the place of the field, if it is asked about.
#[derive(Clone, Copy)]
struct KeySeed<'s>(Seed<'s>);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<Place>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Place>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<Place>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<Place>, E> {
        Ok(self.0.shape.field(self.0.place, name))
    }
}
