//! A row, and the event that it is meant to be.

use bulkhead_store::outbox::Body;
use bulkhead_store::outbox::Fields;
use bulkhead_store::outbox::Row;
use bytes::Bytes;
use serde_json::Map;
use serde_json::Value;

use crate::inbox::Envelope;
use crate::inbox::Rejection;
use crate::inbox::envelope::short;

/// Attributes that have a column of their own.
const COLUMNS: [&str; 9] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "partitionkey", "data"];

/// The event in a row, with what tells it from all others if it does not say so itself. `origin` is the event source of
/// this table's rows.
pub(super) fn envelope(row: Row, origin: &str) -> Result<Envelope, Rejection> {
    let fields = match row.body {
        Body::Fields(fields) => *fields,
        Body::TooLarge => {
            let detail = format!("the row has {} bytes, far more than an event may have", row.bytes);
            return Err(Rejection::new("event:too-large", detail));
        }
        Body::Unreadable(reason) => return Err(Rejection::new("event:data", format!("it cannot be read: {reason}"))),
    };
    let Fields { event_id, source, kind, subject, time, content_type, key, attributes, json, data } = fields;
    let (data, usual) = match (json, data) {
        (Some(_), Some(_)) => {
            return Err(Rejection::new("event:data", "`data` and `data_bytes` exclude each other"));
        }
        (Some(json), None) => (Bytes::from(json), None),
        (None, Some(data)) => (Bytes::from(data), Some("application/octet-stream")),
        (None, None) => (Bytes::new(), None),
    };
    let mut attributes = attributes.map_or_else(|| Ok(Vec::new()), |json| extensions(&json))?;
    attributes.extend(key.map(|key| ("partitionkey".to_owned(), key)));
    Ok(Envelope {
        specversion: Some("1.0".to_owned()),
        id: Some(event_id.unwrap_or_else(|| row.id.to_string())),
        source: Some(source.unwrap_or_else(|| origin.to_owned())),
        kind,
        subject,
        time,
        content_type: content_type.or_else(|| usual.map(str::to_owned)),
        attributes,
        data,
    })
}

/// Extension attributes. What is null is not there, as in CloudEvents.
fn extensions(json: &str) -> Result<Vec<(String, String)>, Rejection> {
    let wrong = |detail: String| Rejection::new("event:attribute", detail);
    let object: Map<String, Value> = serde_json::from_str(json)
        .map_err(|_| wrong("`attributes` must be an object of texts, numbers, true and false".to_owned()))?;
    let mut attributes = Vec::with_capacity(object.len());
    for (name, value) in object {
        if COLUMNS.contains(&name.as_str()) {
            return Err(wrong(format!("`{name}` has a column of its own; it cannot be one of the `attributes`")));
        }
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => {
                return Err(wrong(format!("`{}` is neither text, number, true nor false", short(&name))));
            }
        };
        attributes.push((name, text));
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use bulkhead_domain::clock::Timestamp;
    use bulkhead_domain::event::Event;

    use super::*;
    use crate::inbox::Limits;

    fn event(change: impl FnOnce(&mut Fields)) -> Result<Event, Rejection> {
        let mut fields = Fields { kind: Some("orders.created".to_owned()), ..Fields::default() };
        change(&mut fields);
        let row = Row { id: 7, tenant: "acme".to_owned(), bytes: 1, body: Body::Fields(Box::new(fields)) };
        envelope(row, "outbox:shop")?.check(&Limits::default(), Timestamp(1))
    }

    fn code(change: impl FnOnce(&mut Fields)) -> &'static str {
        event(change).map_or_else(|rejection| rejection.code, |_| "ok")
    }

    #[test]
    fn a_row_that_does_not_name_itself_is_named_after_its_place() {
        let event = event(|_| {}).expect("because it is right");
        assert_eq!((event.id.as_str(), event.source.as_str()), ("7", "outbox:shop"));
        assert_eq!((&*event.data, event.content_type.as_str()), (&b""[..], "application/json"));
    }

    #[test]
    fn columns_are_attributes() {
        let event = event(|fields| {
            fields.event_id = Some("A".to_owned());
            fields.source = Some("/shop".to_owned());
            fields.subject = Some("s".to_owned());
            fields.time = Some("2026-01-31 12:00:00.25+00".to_owned());
            fields.key = Some("k".to_owned());
            fields.attributes = Some(r#"{"category": "sales", "n": 1.5, "yes": true, "none": null}"#.to_owned());
            fields.data = Some(b"\xff\x00".to_vec());
        });
        let event = event.expect("because it is right");
        assert_eq!((event.id.as_str(), event.source.as_str(), event.subject.as_deref()), ("A", "/shop", Some("s")));
        assert_eq!(event.time, Timestamp(1_769_860_800_250_000));
        assert_eq!(event.key.as_deref(), Some("k"));
        let attributes = [("category", "sales"), ("n", "1.5"), ("yes", "true")];
        assert_eq!(event.attributes, attributes.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!((&*event.data, event.content_type.as_str()), (&b"\xff\x00"[..], "application/octet-stream"));
    }

    #[test]
    fn what_is_no_event_is_refused_with_the_reason() {
        assert_eq!(code(|fields| fields.json = Some("{\"total\": 1}".to_owned())), "ok");
        assert_eq!(code(|fields| fields.kind = Some("a b".to_owned())), "event:type");
        for time in ["infinity", "0044-03-15 00:00:00+00 BC", "10000-01-01 00:00:00+00"] {
            assert_eq!(code(|fields| fields.time = Some(time.to_owned())), "event:time", "{time}");
        }
        for attributes in ["[1]", "1", r#"{"a": {}}"#, r#"{"id": "x"}"#, r#"{"partitionkey": "x"}"#, r#"{"A": 1}"#] {
            assert_eq!(
                code(|fields| fields.attributes = Some(attributes.to_owned())),
                "event:attribute",
                "{attributes}"
            );
        }
        let both = |fields: &mut Fields| (fields.json, fields.data) = (Some("1".to_owned()), Some(Vec::new()));
        assert_eq!(code(both), "event:data");
        let text = |fields: &mut Fields| {
            (fields.content_type, fields.data) = (Some("application/json".to_owned()), Some(b"{".to_vec()));
        };
        assert_eq!(code(text), "event:data");
        for (body, code) in [(Body::TooLarge, "event:too-large"), (Body::Unreadable("why".to_owned()), "event:data")] {
            let row = Row { id: 7, tenant: "acme".to_owned(), bytes: 1, body };
            assert_eq!(envelope(row, "outbox:shop").expect_err("because it is none").code, code);
        }
    }
}
