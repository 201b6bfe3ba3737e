//! Values: what expressions compute with. They borrow from the event and the expression where they can.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value as Json;

use crate::rule::expression::Kind;
use crate::rule::scope::Scope;

/// A text, borrowed or computed.
#[derive(Debug, Clone)]
pub enum Text<'v> {
    /// Of the event or the expression.
    Borrowed(&'v str),
    /// Computed.
    Shared(Rc<str>),
}

impl Text<'_> {
    /// The text itself.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// A key of a map that an expression made. Whole numbers of either type are one key if they are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `true` and `false`
    Bool(bool),
    /// Whole numbers.
    Int(i128),
    /// Texts.
    Text(Rc<str>),
}

/// A value. Cloning one is cheap and takes no memory.
#[derive(Debug, Clone)]
pub enum Value<'v> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number, written with `u` or too large for [`Value::Int`].
    UInt(u64),
    /// Any other number.
    Double(f64),
    /// A text.
    Text(Text<'v>),
    /// A list of the payload.
    JsonList(&'v [Json]),
    /// A map of the payload.
    JsonMap(&'v serde_json::Map<String, Json>),
    /// The event's attributes.
    Attributes(&'v [(String, String)]),
    /// The event's own fields.
    Event(&'v Scope<'v>),
    /// A list that the expression made.
    List(Rc<Vec<Value<'v>>>),
    /// A map that the expression made.
    Map(Rc<BTreeMap<Key, Value<'v>>>),
    /// A value that may not be there.
    Optional(Option<Rc<Value<'v>>>),
    /// A type.
    Type(Kind),
}

impl<'v> Value<'v> {
    /// A part of the payload as a value. Whole numbers are `int` where they fit, so that `data.n + 1` works.
    #[inline]
    #[must_use]
    pub fn of(json: &'v Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(bool) => Self::Bool(*bool),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Self::Int(int),
                (None, Some(uint)) => Self::UInt(uint),
                (None, None) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Text(Text::Borrowed(text)),
            Json::Array(list) => Self::JsonList(list),
            Json::Object(map) => Self::JsonMap(map),
        }
    }

    /// A text that was computed.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(Text::Shared(text.into()))
    }

    /// An optional with a value.
    #[must_use]
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// What kind of value it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Null => Kind::Null,
            Self::Bool(_) => Kind::Bool,
            Self::Int(_) => Kind::Int,
            Self::UInt(_) => Kind::UInt,
            Self::Double(_) => Kind::Double,
            Self::Text(_) => Kind::Text,
            Self::JsonList(_) | Self::List(_) => Kind::List,
            Self::JsonMap(_) | Self::Attributes(_) | Self::Event(_) | Self::Map(_) => Kind::Map,
            Self::Optional(_) => Kind::Optional,
            Self::Type(_) => Kind::Type,
        }
    }

    /// How many elements a list or entries a map has.
    #[must_use]
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::JsonList(list) => Some(list.len()),
            Self::List(list) => Some(list.len()),
            Self::JsonMap(map) => Some(map.len()),
            Self::Map(map) => Some(map.len()),
            Self::Attributes(pairs) => Some(pairs.len()),
            Self::Event(scope) => Some(scope.fields().count()),
            _ => None,
        }
    }

    /// The element of a list.
    #[must_use]
    pub fn element(&self, at: usize) -> Option<Value<'v>> {
        match self {
            Self::JsonList(list) => list.get(at).map(Value::of),
            Self::List(list) => list.get(at).cloned(),
            _ => None,
        }
    }

    /// The entry of a map under a text key. None for what is no map.
    #[inline]
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Value<'v>> {
        match self {
            Self::JsonMap(map) => map.get(name).map(Value::of),
            Self::Attributes(pairs) => attribute(pairs, name),
            Self::Event(scope) => scope.field_named(name),
            Self::Map(map) => map.get(&Key::Text(name.into())).cloned(),
            _ => None,
        }
    }

    /// The entry of a map under any key.
    #[must_use]
    pub fn entry(&self, key: &Key) -> Option<Value<'v>> {
        match (self, key) {
            (Self::Map(map), _) => map.get(key).cloned(),
            (_, Key::Text(name)) => self.field(name),
            (_, Key::Bool(_) | Key::Int(_)) => None,
        }
    }

    /// This value as a key of a map.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        match self {
            Self::Bool(bool) => Some(Key::Bool(*bool)),
            Self::Int(int) => Some(Key::Int(i128::from(*int))),
            Self::UInt(uint) => Some(Key::Int(i128::from(*uint))),
            Self::Double(double) if double.fract() == 0.0 && double.abs() < 1e18 =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "whole and within 64 bits, as just checked")]
                Some(Key::Int(*double as i128))
            }
            Self::Text(text) => Some(Key::Text(text.as_str().into())),
            _ => None,
        }
    }
}

impl Key {
    /// The key as a value.
    #[must_use]
    pub fn value<'v>(&self) -> Value<'v> {
        match self {
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Int(int) => match (i64::try_from(*int), u64::try_from(*int)) {
                (Ok(int), _) => Value::Int(int),
                (Err(_), Ok(uint)) => Value::UInt(uint),
                (Err(_), Err(_)) => Value::Null,
            },
            Self::Text(text) => Value::Text(Text::Shared(Rc::clone(text))),
        }
    }

    /// The key as JSON spells it.
    #[must_use]
    pub fn spelt(&self) -> String {
        match self {
            Self::Bool(bool) => bool.to_string(),
            Self::Int(int) => int.to_string(),
            Self::Text(text) => text.as_ref().to_owned(),
        }
    }
}

fn attribute<'v>(pairs: &'v [(String, String)], name: &str) -> Option<Value<'v>> {
    // A handful: a search by halves would not be faster.
    pairs.iter().find(|(known, _)| known == name).map(|(_, value)| Value::Text(Text::Borrowed(value)))
}
