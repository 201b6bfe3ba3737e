//! Event: what a plugin is called with, and how its data becomes a type.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::data::Data;
use crate::draft::Draft;
use crate::failure::Failure;
use crate::timestamp::Timestamp;

/// An event as the host stored it: a CloudEvents 1.0 event.
///
/// `T` is what its data was decoded into; [`Data`] is the bytes as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<T = Data> {
    /// The publisher's id, unique within its source.
    pub id: String,
    /// Where it happened.
    pub source: String,
    /// Its type, dotted: `orders.created`.
    pub kind: String,
    /// What it is about.
    pub subject: Option<String>,
    /// When it happened, as the publisher said.
    pub time: Timestamp,
    /// Events of one tenant with the same key can be kept in order.
    pub key: Option<String>,
    /// Shared by everything that follows from one first event.
    pub correlation: String,
    /// The event that this one follows from; none for a first event.
    pub causation: Option<String>,
    /// The media type of the data.
    pub content_type: String,
    /// The payload.
    pub data: T,
    /// Every other attribute: schema version, category, severity, actor, the publisher's own.
    pub attributes: Vec<(String, String)>,
}

impl<T> Event<T> {
    /// The value of another attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(this, _)| this == name).map(|(_, value)| value.as_str())
    }

    /// A draft of the same type, subject, key and attributes with other data: what a transformer passes on.
    ///
    /// ```
    /// # use bulkhead_plugin::{Draft, Event, Failure};
    /// fn in_cents(event: Event<f64>) -> Result<Draft, Failure> {
    ///     Ok(event.with_data(&(event.data * 100.0).round())?)
    /// }
    /// ```
    pub fn with_data(&self, data: &impl Serialize) -> Result<Draft, serde_json::Error> {
        Ok(Draft {
            subject: self.subject.clone(),
            key: self.key.clone(),
            attributes: self.attributes.clone(),
            ..Draft::json(self.kind.clone(), data)?
        })
    }

    /// The same event with other data, and its own data beside it.
    pub(crate) fn replace<U>(self, data: U) -> (Event<U>, T) {
        let event = Event {
            id: self.id,
            source: self.source,
            kind: self.kind,
            subject: self.subject,
            time: self.time,
            key: self.key,
            correlation: self.correlation,
            causation: self.causation,
            content_type: self.content_type,
            data,
            attributes: self.attributes,
        };
        (event, self.data)
    }
}

impl Event<Data> {
    /// Decodes the data as JSON. What does not fit is rejected with the place in the text.
    pub fn decode<T: DeserializeOwned>(self) -> Result<Event<T>, Failure> {
        match self.data.json() {
            Ok(data) => Ok(self.replace(data).0),
            Err(error) => Err(Failure::reject(format!(
                "the data of this `{}` ({}, {} bytes) does not fit `{}`: {error}",
                self.kind,
                self.content_type,
                self.data.len(),
                std::any::type_name::<T>(),
            ))),
        }
    }

    /// A draft that is the event as it came.
    pub fn pass_on(self) -> Draft {
        Draft {
            kind: self.kind,
            subject: self.subject,
            key: self.key,
            content_type: self.content_type,
            data: self.data.into_bytes(),
            attributes: self.attributes,
        }
    }
}

/// What the data of a handler's event may be: [`Data`] as it came, or anything that JSON is decoded into.
pub trait Payload: Sized {
    #[doc(hidden)]
    fn of(event: Event) -> Result<Event<Self>, Failure>;
}

impl Payload for Data {
    fn of(event: Event) -> Result<Event<Self>, Failure> {
        Ok(event)
    }
}

impl<T: DeserializeOwned> Payload for T {
    fn of(event: Event) -> Result<Event<Self>, Failure> {
        event.decode()
    }
}
