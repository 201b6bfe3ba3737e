//! Events for tests: made up, or from the JSON of a CloudEvent that was published somewhere.

use serde::Serialize;
use serde_json::{Map, Value};

use super::host::START;
use crate::data::Data;
use crate::event::Event;

/// An event with data as JSON. Its fields are public: set what matters.
///
/// Panics if the data has no JSON form.
#[track_caller]
pub fn event(kind: &str, data: impl Serialize) -> Event {
    let data = serde_json::to_vec(&data).expect("because data for a test has a JSON form");
    Event {
        id: "event-1".to_owned(),
        source: "/test".to_owned(),
        kind: kind.to_owned(),
        subject: None,
        time: START,
        key: None,
        correlation: "event-1".to_owned(),
        causation: None,
        content_type: "application/json".to_owned(),
        data: Data::from(data),
        attributes: Vec::new(),
    }
}

/// The event of a CloudEvents JSON document, as the host would hand it to a plugin: an event of production
/// becomes a test.
///
/// Panics if the document is none.
///
/// ```
/// use bulkhead_plugin::testing;
///
/// let event = testing::event_from_json(
///     r#"{"specversion": "1.0", "id": "1", "source": "/shop", "type": "orders.created",
///         "partitionkey": "c-9", "severity": "low", "data": {"total": 250}}"#,
/// );
/// assert_eq!(event.key.as_deref(), Some("c-9"));
/// assert_eq!(event.attribute("severity"), Some("low"));
/// assert_eq!(event.data.text()?, r#"{"total":250}"#);
/// # Ok::<(), bulkhead_plugin::Failure>(())
/// ```
#[track_caller]
pub fn event_from_json(document: &str) -> Event {
    let mut fields: Map<String, Value> = serde_json::from_str(document).expect("because it has to be a JSON object");
    assert!(!fields.contains_key("data_base64"), "data in base64 is not decoded here; set `event.data`");
    let mut take = |name: &str| fields.remove(name).map(text);
    let required = "because every CloudEvent has an id, a source and a type";
    let (id, source, kind) =
        (take("id").expect(required), take("source").expect(required), take("type").expect(required));
    let time = take("time").map_or(START, |time| time.parse().expect("because `time` is RFC 3339"));
    let content_type = take("datacontenttype").unwrap_or_else(|| "application/json".to_owned());
    let (subject, key) = (take("subject"), take("partitionkey"));
    let correlation = take("correlationid").unwrap_or_else(|| id.clone());
    let causation = take("causationid");
    take("specversion");
    let data = match fields.remove("data") {
        None => String::new(),
        Some(Value::String(data)) if !content_type.contains("json") => data,
        Some(data) => data.to_string(),
    };
    Event {
        id,
        source,
        kind,
        subject,
        time,
        key,
        correlation,
        causation,
        content_type,
        data: Data::from(data.as_str()),
        attributes: fields.into_iter().map(|(name, value)| (name, text(value))).collect(),
    }
}

/// Attributes are text, also those that JSON writes as numbers or booleans.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
