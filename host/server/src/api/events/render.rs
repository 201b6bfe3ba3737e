//! Events as answers give them: CloudEvents JSON, the payload as it came.

use bulkhead_domain::event::Event;
use bulkhead_domain::event::Logged;
use bulkhead_flow::inbox::codec;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// An event as CloudEvents JSON.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct CloudEvent(Box<RawValue>);

impl CloudEvent {
    /// Writes it down.
    pub fn of(event: &Event) -> Self {
        let whole = String::from_utf8(codec::to_json(event)).ok().and_then(|text| RawValue::from_string(text).ok());
        Self(whole.unwrap_or_else(|| odd(event)))
    }

    /// Its JSON.
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

/// What a plugin emits may say that it is JSON, and not be. One such event must not make a whole list unreadable.
fn odd(event: &Event) -> Box<RawValue> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let bare = Event { data: Bytes::new(), ..event.clone() };
    let mut fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&codec::to_json(&bare)).unwrap_or_default();
    fields.insert("datacontenttype".to_owned(), event.content_type.clone().into());
    fields.insert("data_base64".to_owned(), STANDARD.encode(&event.data).into());
    serde_json::value::to_raw_value(&fields).expect("because it is plain JSON")
}

/// An event in a word, where another is told about.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EventRef {
    /// Its id.
    pub id: String,
    /// Where it happened.
    pub source: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it happened.
    pub time: String,
}

impl From<&Logged> for EventRef {
    fn from(logged: &Logged) -> Self {
        let event = &logged.event;
        Self {
            id: event.id.clone(),
            source: event.source.clone(),
            kind: event.kind.clone(),
            subject: event.subject.clone(),
            time: codec::rfc3339(event.time),
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_domain::clock::Timestamp;
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn event(data: &'static [u8]) -> Event {
        Event {
            id: "1".into(),
            source: "/s".into(),
            kind: "a.b".into(),
            subject: None,
            time: Timestamp(0),
            key: None,
            correlation: "1".into(),
            causation: None,
            content_type: "application/json".into(),
            data: Bytes::from_static(data),
            attributes: vec![],
        }
    }

    #[test]
    fn a_payload_leaves_as_it_came() {
        let text = CloudEvent::of(&event(b"{\"n\": 1.0}")).text().to_owned();
        assert!(text.ends_with("\"data\":{\"n\": 1.0}}"), "{text}");
    }

    #[test]
    fn a_payload_that_is_not_what_it_says_makes_no_answer_unreadable() {
        for data in [&b"{oops"[..], b"\"\xff\"", b"1,\"data\":2"] {
            let leaked: &'static [u8] = data;
            let json: Value = serde_json::from_str(CloudEvent::of(&event(leaked)).text()).expect("because it is JSON");
            assert_eq!(json["type"], json!("a.b"), "{data:?}");
            assert_eq!(json["datacontenttype"], json!("application/json"));
        }
    }
}
