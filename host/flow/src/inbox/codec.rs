//! CloudEvents 1.0 JSON, in and out. The payload is never re-serialised: it leaves as it came.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Event;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

use crate::inbox::envelope::Envelope;
use crate::inbox::envelope::Rejection;
use crate::inbox::envelope::depth;
use crate::inbox::envelope::short;

/// A whole body may nest this much deeper than an event's data: an array, the event, the data.
const FRAME_DEPTH: usize = 3;
/// Deeper bodies are refused before any recursive parser sees them; far below serde_json's own 128.
const BODY_DEPTH_MAX: usize = 100;

impl Envelope {
    /// Reads one event in structured mode.
    pub fn from_json(bytes: &Bytes) -> Result<Self, Rejection> {
        if depth(bytes) > BODY_DEPTH_MAX {
            return Err(Rejection::new(
                "event:too-deep",
                format!("nests deeper than {} levels", BODY_DEPTH_MAX - FRAME_DEPTH),
            ));
        }
        let raw: RawEnvelope<'_> =
            serde_json::from_slice(bytes).map_err(|error| Rejection::new("event:json", json_error(&error)))?;
        let mut envelope = raw.envelope;
        let json = envelope.content_type.as_deref().is_none_or(is_json);
        envelope.data = match (raw.data, raw.data_base64) {
            (Some(_), Some(_)) => {
                return Err(Rejection::new("event:data", "`data` and `data_base64` exclude each other"));
            }
            (None, None) => Bytes::new(),
            // Not JSON, yet a JSON string: the text itself is the payload (CloudEvents JSON format, section 3.1).
            (Some(data), None) if !json && data.get().starts_with('"') => serde_json::from_str::<String>(data.get())
                .map(Bytes::from)
                .map_err(|error| Rejection::new("event:data", json_error(&error)))?,
            (Some(data), None) => bytes.slice_ref(data.get().as_bytes()),
            (None, Some(text)) => STANDARD
                .decode(text.as_bytes())
                .map(Bytes::from)
                .map_err(|error| Rejection::new("event:data", format!("`data_base64` is not base64: {error}")))?,
        };
        Ok(envelope)
    }

    /// Reads an event in binary mode: attributes from `ce-*` headers, the payload from the body.
    pub fn from_binary<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>, body: Bytes) -> Result<Self, Rejection> {
        let mut envelope = Self { data: body, ..Self::default() };
        let mut seen = HashSet::new();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            let attribute = match name.strip_prefix("ce-") {
                Some(attribute) => attribute.to_owned(),
                None if name == "content-type" => "datacontenttype".to_owned(),
                None => continue,
            };
            let value = std::str::from_utf8(value)
                .map_err(|_| Rejection::new("event:attribute", format!("header `{}` is not UTF-8", short(&name))))?;
            if !seen.insert(attribute.clone()) {
                return Err(Rejection::new("event:attribute", format!("header `{}` comes twice", short(&name))));
            }
            envelope.set(&attribute, percent_decode(value)?);
        }
        Ok(envelope)
    }

    fn set(&mut self, name: &str, value: String) {
        match name {
            "specversion" => self.specversion = Some(value),
            "id" => self.id = Some(value),
            "source" => self.source = Some(value),
            "type" => self.kind = Some(value),
            "subject" => self.subject = Some(value),
            "time" => self.time = Some(value),
            "datacontenttype" => self.content_type = Some(value),
            _ => self.attributes.push((name.to_owned(), value)),
        }
    }
}

/// The elements of a batch, as they stand in the body. Only the list itself is looked at here: what is wrong within an
/// element is that element's trouble alone, so no parser reads the whole. Of more than `most` elements one more is given,
/// and the rest is not looked at.
pub fn split_batch(body: &Bytes, most: usize) -> Result<Vec<Bytes>, Rejection> {
    let wrong = |what: &str| Rejection::new("event:json", format!("not a JSON array of events: {what}"));
    let text = body.trim_ascii();
    let inner = text.strip_prefix(b"[").ok_or_else(|| wrong("it does not begin with `[`"))?;
    let (mut elements, mut start, mut level) = (Vec::new(), 0, 0_usize);
    let (mut in_string, mut escaped, mut end) = (false, false, None);
    for (at, byte) in inner.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => level += 1,
            b']' if level == 0 => {
                end = Some(at);
                break;
            }
            b'}' | b']' => level = level.saturating_sub(1),
            b',' if level == 0 => {
                elements.push(&inner[start..at]);
                start = at + 1;
                if elements.len() > most {
                    break;
                }
            }
            _ => {}
        }
    }
    if elements.len() <= most {
        let end = end.ok_or_else(|| wrong("it does not end with `]`"))?;
        if end + 1 != inner.len() {
            return Err(wrong("something stands behind it"));
        }
        let last = &inner[start..end];
        if elements.is_empty() && last.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        elements.push(last);
    }
    let trimmed = elements.into_iter().map(<[u8]>::trim_ascii);
    trimmed
        .map(|element| match element {
            [] => Err(wrong("an event is missing between two commas")),
            element => Ok(body.slice_ref(element)),
        })
        .collect()
}

/// An event as CloudEvents JSON (structured mode).
#[must_use]
pub fn to_json(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(event.data.len() + 512);
    out.extend_from_slice(b"{\"specversion\":\"1.0\"");
    member(&mut out, "id", &event.id);
    member(&mut out, "source", &event.source);
    member(&mut out, "type", &event.kind);
    if let Some(subject) = &event.subject {
        member(&mut out, "subject", subject);
    }
    member(&mut out, "time", &rfc3339(event.time));
    if let Some(key) = &event.key {
        member(&mut out, "partitionkey", key);
    }
    member(&mut out, "correlationid", &event.correlation);
    if let Some(causation) = &event.causation {
        member(&mut out, "causationid", causation);
    }
    for (name, value) in &event.attributes {
        member(&mut out, name, value);
    }
    if !event.data.is_empty() || !event.is_json() {
        member(&mut out, "datacontenttype", &event.content_type);
    }
    if !event.data.is_empty() {
        match (event.is_json(), std::str::from_utf8(&event.data)) {
            (true, _) => {
                out.extend_from_slice(b",\"data\":");
                out.extend_from_slice(&event.data);
            }
            (false, Ok(text)) => member(&mut out, "data", text),
            (false, Err(_)) => member(&mut out, "data_base64", &STANDARD.encode(&event.data)),
        }
    }
    out.push(b'}');
    out
}

/// A time as people and CloudEvents write it.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(time.0)
        .map_or_else(|_| "9999-12-31T23:59:59Z".to_owned(), |time| time.to_string())
}

fn member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b',');
    for (text, separator) in [(name, Some(b':')), (value, None)] {
        // Writing a string into a vector cannot fail.
        let _ = serde_json::to_writer(&mut *out, text);
        out.extend(separator);
    }
}

fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || media == "text/json" || media.ends_with("+json")
}

fn json_error(error: &serde_json::Error) -> String {
    format!("not a CloudEvents JSON object: {error}")
}

/// Header values percent-encode what is not printable ASCII (CloudEvents HTTP binding, section 3.1.3.2).
fn percent_decode(value: &str) -> Result<String, Rejection> {
    if !value.contains('%') {
        return Ok(value.to_owned());
    }
    let bytes = value.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_err(|_| Rejection::new("event:attribute", "a header's percent-encoding is not UTF-8"))
}

struct RawEnvelope<'a> {
    envelope: Envelope,
    data: Option<&'a RawValue>,
    data_base64: Option<Cow<'a, str>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for RawEnvelope<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RawEnvelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with specversion, id, source and type")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                use serde::de::Error;
                let mut raw = RawEnvelope { envelope: Envelope::default(), data: None, data_base64: None };
                let mut seen = HashSet::new();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("`{}` stands there twice", short(&name))));
                    }
                    match name.as_ref() {
                        // A null payload is a payload: JSON's null.
                        "data" => raw.data = Some(map.next_value()?),
                        "data_base64" => raw.data_base64 = map.next_value()?,
                        _ => {
                            let value: Attribute = map.next_value()?;
                            if let Some(text) = value.0 {
                                raw.envelope.set(&name, text);
                            }
                        }
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A string, a boolean or a whole number, as its canonical text; null is absent.
struct Attribute(Option<String>);

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Attribute;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a string, a boolean or a whole number (attributes are scalars; structure belongs into `data`)",
                )
            }

            fn visit_str<E>(self, text: &str) -> Result<Attribute, E> {
                Ok(Attribute(Some(text.to_owned())))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Attribute, E> {
                Ok(Attribute(Some(value.to_string())))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Attribute, E> {
                Ok(Attribute(Some(value.to_string())))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Attribute, E> {
                Ok(Attribute(Some(value.to_string())))
            }

            fn visit_unit<E>(self) -> Result<Attribute, E> {
                Ok(Attribute(None))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Limits;

    fn read(text: &str) -> Result<Event, Rejection> {
        Envelope::from_json(&Bytes::copy_from_slice(text.as_bytes()))?.check(&Limits::default(), Timestamp(0))
    }

    #[test]
    fn structured_events_read_and_write_back() {
        let text = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a.b","subject":"x","time":"2026-01-02T03:04:05Z","partitionkey":"k","correlationid":"c","category":"z","datacontenttype":"application/json","data":{"n":1.0, "s":"ü"}}"#;
        let event = read(text).expect("because it is right");
        assert_eq!(event.data.as_ref(), r#"{"n":1.0, "s":"ü"}"#.as_bytes(), "byte for byte");
        let again =
            read(std::str::from_utf8(&to_json(&event)).expect("because it is UTF-8")).expect("because it is ours");
        assert_eq!(again, event);
    }

    #[test]
    fn payloads_of_other_kinds_read_and_write_back() {
        let base = r#""specversion":"1.0","id":"1","source":"/s","type":"a""#;
        let text = read(&format!(r#"{{{base},"datacontenttype":"text/plain","data":"line\n"}}"#)).expect("text");
        assert_eq!(text.data.as_ref(), b"line\n");
        let binary = read(&format!(r#"{{{base},"datacontenttype":"image/png","data_base64":"/wA="}}"#)).expect("bytes");
        assert_eq!(binary.data.as_ref(), b"\xff\x00");
        let none = read(&format!("{{{base}}}")).expect("nothing");
        assert!(none.data.is_empty());
        for event in [text, binary, none] {
            let json = to_json(&event);
            assert_eq!(read(std::str::from_utf8(&json).expect("because it is UTF-8")).expect("ours"), event);
        }
    }

    #[test]
    fn what_is_no_event_says_why() {
        let check = |text: &str, code: &str| assert_eq!(read(text).expect_err(text).code, code, "{text}");
        check("", "event:json");
        check("[]", "event:json");
        check("{\"id\":\"1\"", "event:json");
        check(r#"{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"a"}"#, "event:json");
        check(r#"{"specversion":"1.0","id":{"x":1},"source":"/s","type":"a"}"#, "event:json");
        check(r#"{"specversion":"1.0","id":"1","source":"/s","type":"a","x":1.5}"#, "event:json");
        check(r#"{"specversion":"1.0","id":"1","source":"/s","type":"a","data":1,"data_base64":"eA=="}"#, "event:data");
        check(r#"{"specversion":"1.0","id":"1","source":"/s","type":"a","data_base64":"?"}"#, "event:data");
        check(&format!("{{\"data\":{}{}}}", "[".repeat(500), "]".repeat(500)), "event:too-deep");
    }

    #[test]
    fn binary_mode_reads_headers() {
        let headers: [(&str, &[u8]); 6] = [
            ("ce-specversion", b"1.0"),
            ("ce-id", b"1"),
            ("Ce-Source", b"/s%20x"),
            ("ce-type", b"a"),
            ("content-type", b"text/plain"),
            ("authorization", b"secret"),
        ];
        let event = Envelope::from_binary(headers.into_iter(), Bytes::from_static(b"hello"))
            .and_then(|envelope| envelope.check(&Limits::default(), Timestamp(0)))
            .expect("because it is right");
        assert_eq!((event.source.as_str(), event.content_type.as_str()), ("/s x", "text/plain"));
        assert!(event.attributes.is_empty());
        let twice: [(&str, &[u8]); 2] = [("ce-id", b"1"), ("ce-id", b"2")];
        assert!(Envelope::from_binary(twice.into_iter(), Bytes::new()).is_err());
    }

    #[test]
    fn a_batch_splits_without_copying() {
        let body = Bytes::from_static(br#"[ {"a":1}, {"b":[2]} ]"#);
        let parts = split_batch(&body, 9).expect("because it is an array");
        assert_eq!(parts.iter().map(Bytes::as_ref).collect::<Vec<_>>(), [&br#"{"a":1}"#[..], br#"{"b":[2]}"#]);
        for wrong in ["{}", "", "[{}", "[{},]", "[{}] x", "[\"a]"] {
            assert!(split_batch(&Bytes::from_static(wrong.as_bytes()), 9).is_err(), "{wrong}");
        }
        assert_eq!(split_batch(&Bytes::from_static(b" [ ] "), 9), Ok(Vec::new()));
        let body = Bytes::from_static(br#"[{"a":"],[\""},tru,{}]"#);
        let parts = split_batch(&body, 9).expect("because it is an array, whatever its elements are");
        assert_eq!(parts.iter().map(Bytes::as_ref).collect::<Vec<_>>(), [&br#"{"a":"],[\""}"#[..], b"tru", b"{}"]);
        assert_eq!(split_batch(&body, 1).map(|parts| parts.len()), Ok(2));
    }
}
