//! An entry of a stream, and the event that it is meant to be.

use std::collections::HashSet;

use bytes::Bytes;

use crate::inbox::Envelope;
use crate::inbox::Rejection;
use crate::inbox::envelope::short;
use crate::source::redis::Format;

/// An entry as the server gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// `<milliseconds>-<sequence>`, unique in its stream.
    pub id: String,
    /// Names and values in their order; none if the entry was trimmed away before anybody acknowledged it.
    pub fields: Option<Vec<(Bytes, Bytes)>>,
}

/// As it comes over the wire.
pub(super) type RawEntry = (String, Option<Vec<(Bytes, Bytes)>>);

impl From<RawEntry> for Entry {
    fn from((id, fields): RawEntry) -> Self {
        Self { id, fields }
    }
}

impl Entry {
    /// Bytes of names and values.
    pub fn bytes(&self) -> usize {
        self.fields.iter().flatten().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The event in it, with what tells it from all others if it does not say so itself. `origin` is the event source of
    /// this stream's entries.
    pub fn envelope(&self, format: Format, origin: &str) -> Result<Envelope, Rejection> {
        let fields = self.fields.as_deref().unwrap_or_default();
        let mut envelope = match format {
            Format::CloudEvents => structured(fields)?,
            Format::Fields => plain(fields)?,
        };
        // The same at every delivery of this entry, so that only the first is taken in.
        envelope.id.get_or_insert_with(|| self.id.clone());
        envelope.source.get_or_insert_with(|| origin.to_owned());
        Ok(envelope)
    }
}

/// The event source of entries that name none. The source's name is in it because entry ids are unique in one stream of
/// one server only.
pub(super) fn origin(name: &str, stream: &str) -> String {
    format!("redis:{}/{}", encoded(name), encoded(stream))
}

/// As part of a URI reference (RFC 3986, section 3.3: characters of a path segment).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A CloudEvent in JSON, in the field `event`, or `data` where there is none. Other fields are the publisher's own.
fn structured(fields: &[(Bytes, Bytes)]) -> Result<Envelope, Rejection> {
    let named = |wanted: &str| fields.iter().find(|(name, _)| name == wanted.as_bytes()).map(|(_, value)| value);
    match named("event").or_else(|| named("data")) {
        Some(json) => Envelope::from_json(json),
        None => Err(Rejection::new("event:json", "the entry has neither a field `event` nor a field `data`")),
    }
}

/// One attribute per field, and the payload in `data`.
fn plain(fields: &[(Bytes, Bytes)]) -> Result<Envelope, Rejection> {
    let mut envelope = Envelope::default();
    let mut seen = HashSet::new();
    for (name, value) in fields {
        if !seen.insert(name) {
            let name = String::from_utf8_lossy(name);
            return Err(Rejection::new("event:attribute", format!("the field `{}` is there twice", short(&name))));
        }
        if name == "data" {
            envelope.data = value.clone();
            continue;
        }
        let name = text(name, "the name of a field")?;
        let value = text(value, &name)?;
        match &*name {
            "specversion" => envelope.specversion = Some(value),
            "id" => envelope.id = Some(value),
            "source" => envelope.source = Some(value),
            "type" => envelope.kind = Some(value),
            "subject" => envelope.subject = Some(value),
            "time" => envelope.time = Some(value),
            "datacontenttype" => envelope.content_type = Some(value),
            _ => envelope.attributes.push((name, value)),
        }
    }
    envelope.specversion.get_or_insert_with(|| "1.0".to_owned());
    Ok(envelope)
}

fn text(bytes: &Bytes, what: &str) -> Result<String, Rejection> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|_| Rejection::new("event:attribute", format!("{} is not UTF-8", short(what))))
}

#[cfg(test)]
mod tests {
    use bulkhead_domain::clock::Timestamp;
    use bulkhead_domain::event::Event;

    use super::*;
    use crate::inbox::Limits;

    fn entry(fields: &[(&'static str, &'static [u8])]) -> Entry {
        let fields = fields.iter().map(|(name, value)| (Bytes::from(*name), Bytes::from_static(value)));
        Entry { id: "1700000000000-3".to_owned(), fields: Some(fields.collect()) }
    }

    fn event(format: Format, fields: &[(&'static str, &'static [u8])]) -> Result<Event, Rejection> {
        let envelope = entry(fields).envelope(format, "redis:shop/orders")?;
        envelope.check(&Limits::default(), Timestamp(1))
    }

    #[test]
    fn an_entry_that_does_not_name_itself_is_named_after_its_place() {
        let event = event(Format::Fields, &[("type", b"orders.created"), ("data", b"{\"total\":1}")]);
        let event = event.expect("because it is right");
        assert_eq!((event.id.as_str(), event.source.as_str()), ("1700000000000-3", "redis:shop/orders"));
        assert_eq!((event.kind.as_str(), &*event.data), ("orders.created", &b"{\"total\":1}"[..]));
        assert_eq!(origin("shop", "orders {1}/ü"), "redis:shop/orders%20%7B1%7D%2F%C3%BC");
    }

    #[test]
    fn fields_are_attributes() {
        let fields: [(&str, &[u8]); 9] = [
            ("id", b"7"),
            ("source", b"/shop"),
            ("type", b"orders.created"),
            ("subject", b"A-1"),
            ("partitionkey", b"k"),
            ("time", b"2026-01-31T12:00:00Z"),
            ("datacontenttype", b"application/octet-stream"),
            ("category", b"sales"),
            ("data", b"\xff\x00"),
        ];
        let event = event(Format::Fields, &fields).expect("because it is right");
        assert_eq!((event.id.as_str(), event.source.as_str()), ("7", "/shop"));
        assert_eq!((event.subject.as_deref(), event.key.as_deref()), (Some("A-1"), Some("k")));
        assert_eq!(event.attributes, [("category".to_owned(), "sales".to_owned())]);
        assert_eq!(&*event.data, b"\xff\x00");
    }

    #[test]
    fn a_cloud_event_stands_in_one_field() {
        let json: &[u8] = br#"{"specversion":"1.0","id":"7","source":"/shop","type":"a","data":[1]}"#;
        for name in ["event", "data"] {
            let event = event(Format::CloudEvents, &[("trace", b"\xff"), (name, json)]).expect("because it is right");
            assert_eq!((event.id.as_str(), event.source.as_str(), &*event.data), ("7", "/shop", &b"[1]"[..]));
        }
        let nameless = event(Format::CloudEvents, &[("event", br#"{"specversion":"1.0","type":"a"}"#)]);
        assert_eq!(nameless.expect("because the rest is known").id, "1700000000000-3");
    }

    #[test]
    fn what_is_no_event_is_refused_with_the_reason() {
        let code = |format, fields: &[_]| event(format, fields).expect_err("because it is no event").code;
        assert_eq!(code(Format::CloudEvents, &[("body", b"{}")]), "event:json");
        assert_eq!(code(Format::CloudEvents, &[("event", b"<xml/>")]), "event:json");
        assert_eq!(code(Format::Fields, &[("data", b"{}")]), "event:type");
        assert_eq!(code(Format::Fields, &[("type", b"a"), ("data", b"{")]), "event:data");
        assert_eq!(code(Format::Fields, &[("type", b"a"), ("type", b"b")]), "event:attribute");
        assert_eq!(code(Format::Fields, &[("type", b"a"), ("data", b"1"), ("data", b"2")]), "event:attribute");
        assert_eq!(code(Format::Fields, &[("type", b"a"), ("x", b"1"), ("x", b"1")]), "event:attribute");
        assert_eq!(code(Format::Fields, &[("type", b"a"), ("subject", b"\xff")]), "event:attribute");
        assert_eq!(code(Format::Fields, &[("type", b"a"), ("tenant_id", b"other")]), "event:attribute");
    }
}
