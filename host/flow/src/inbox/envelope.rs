//! What an event may look like: an envelope is untrusted, [`Envelope::check`] makes an event of it or says why not.

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Event;
use bytes::Bytes;

use crate::inbox::Limits;

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// For machines: `event:…`.
    pub code: &'static str,
    /// For people: what is wrong, where, and what would be right.
    pub detail: String,
}

impl Rejection {
    /// A rejection.
    #[must_use]
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// An event as it came, before anything in it is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// `specversion`
    pub specversion: Option<String>,
    /// `id`
    pub id: Option<String>,
    /// `source`
    pub source: Option<String>,
    /// `type`
    pub kind: Option<String>,
    /// `subject`
    pub subject: Option<String>,
    /// `time`, RFC 3339
    pub time: Option<String>,
    /// `datacontenttype`
    pub content_type: Option<String>,
    /// Every other attribute.
    pub attributes: Vec<(String, String)>,
    /// The payload; empty if there is none.
    pub data: Bytes,
}

/// Characters of an id, a key or a subject; of a source; of a type.
const ID_MAX: usize = 512;
const SOURCE_MAX: usize = 1_024;
const TYPE_MAX: usize = 255;
/// Attributes of an event, and bytes of one. CloudEvents asks senders to keep them few and short.
const ATTRIBUTES_MAX: usize = 64;
const ATTRIBUTE_MAX: usize = 4 << 10;
/// What the host's own events are called; nobody else may publish such.
pub const RESERVED_TYPE_PREFIX: &str = "bulkhead.";

impl Envelope {
    /// Checks everything and makes an event, recorded at `recorded`.
    pub fn check(self, limits: &Limits, recorded: Timestamp) -> Result<Event, Rejection> {
        match self.specversion.as_deref() {
            Some("1.0") => {}
            Some(other) => {
                let detail = format!("`specversion` is `{}`; this host speaks 1.0", short(other));
                return Err(Rejection::new("event:specversion", detail));
            }
            None => return Err(Rejection::new("event:specversion", "`specversion` is missing; it must be \"1.0\"")),
        }
        let id = required("id", self.id, ID_MAX)?;
        let source = required("source", self.source, SOURCE_MAX)?;
        let kind = required("type", self.kind, TYPE_MAX)?;
        check_type(&kind)?;
        let subject = optional("subject", self.subject, SOURCE_MAX)?;
        let time = match self.time {
            None => recorded,
            Some(text) => parse_time(&text)?,
        };
        if self.data.len() > limits.event_bytes {
            let detail = format!("the data has {} bytes; at most {} are taken", self.data.len(), limits.event_bytes);
            return Err(Rejection::new("event:too-large", detail));
        }
        let content_type = match self.content_type {
            None => "application/json".to_owned(),
            Some(text) => required("datacontenttype", Some(text), TYPE_MAX)?,
        };
        let (mut key, mut correlation, mut causation) = (None, None, None);
        let mut attributes = Vec::with_capacity(self.attributes.len());
        if self.attributes.len() > ATTRIBUTES_MAX {
            let detail = format!("{} extension attributes; at most {ATTRIBUTES_MAX} are taken", self.attributes.len());
            return Err(Rejection::new("event:attribute", detail));
        }
        for (name, value) in self.attributes {
            check_attribute(&name, &value)?;
            match name.as_str() {
                "partitionkey" => key = optional("partitionkey", Some(value), ID_MAX)?,
                "correlationid" => correlation = optional("correlationid", Some(value), ID_MAX)?,
                "causationid" => causation = optional("causationid", Some(value), ID_MAX)?,
                _ => attributes.push((name, value)),
            }
        }
        attributes.sort();
        let correlation = correlation.unwrap_or_else(|| id.clone());
        let data = self.data;
        let event =
            Event { id, source, kind, subject, time, key, correlation, causation, content_type, data, attributes };
        check_data(&event, limits.depth)?;
        Ok(event)
    }
}

/// A text that must be there, is not empty, not too long, and has no control characters.
fn required(name: &'static str, text: Option<String>, max: usize) -> Result<String, Rejection> {
    match optional(name, text, max)? {
        Some(text) => Ok(text),
        None => {
            let code = match name {
                "id" => "event:id",
                "source" => "event:source",
                "type" => "event:type",
                _ => "event:attribute",
            };
            Err(Rejection::new(code, format!("`{name}` is missing or empty")))
        }
    }
}

fn optional(name: &'static str, text: Option<String>, max: usize) -> Result<Option<String>, Rejection> {
    let code = match name {
        "id" => "event:id",
        "source" => "event:source",
        "type" => "event:type",
        _ => "event:attribute",
    };
    match text {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) if text.len() > max => {
            Err(Rejection::new(code, format!("`{name}` has {} bytes; at most {max} are taken", text.len())))
        }
        Some(text) if text.chars().any(char::is_control) => {
            Err(Rejection::new(code, format!("`{name}` has a control character in it")))
        }
        Some(text) => Ok(Some(text)),
    }
}

/// Types are dotted names, because rules select them by segments.
fn check_type(kind: &str) -> Result<(), Rejection> {
    let segment = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    if !kind.split('.').all(segment) {
        let detail = format!(
            "`type` is `{}`; it must be a dotted name of letters, digits, `-` and `_`, such as orders.created",
            short(kind)
        );
        return Err(Rejection::new("event:type", detail));
    }
    if kind.starts_with(RESERVED_TYPE_PREFIX) {
        let detail = format!("types that begin with `{RESERVED_TYPE_PREFIX}` are the host's own");
        return Err(Rejection::new("event:type", detail));
    }
    Ok(())
}

fn check_attribute(name: &str, value: &str) -> Result<(), Rejection> {
    let fits = !name.is_empty() && name.len() <= 64;
    if !fits || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        let detail = format!("`{}` is no attribute name; they consist of a-z and 0-9, at most 64", short(name));
        return Err(Rejection::new("event:attribute", detail));
    }
    if value.len() > ATTRIBUTE_MAX || value.chars().any(char::is_control) {
        let detail = format!("the value of `{name}` is longer than {ATTRIBUTE_MAX} bytes or has control characters");
        return Err(Rejection::new("event:attribute", detail));
    }
    Ok(())
}

/// Between the years 1 and 9999, so that every reader's calendar can hold it.
fn parse_time(text: &str) -> Result<Timestamp, Rejection> {
    let wrong = || {
        let detail = format!("`time` is `{}`; it must be like 2026-01-31T12:00:00Z", short(text));
        Rejection::new("event:time", detail)
    };
    let time: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    Ok(Timestamp(time.as_microsecond()))
}

/// JSON data must be JSON, whole, and not too deep for those who parse it recursively.
fn check_data(event: &Event, depth_max: usize) -> Result<(), Rejection> {
    if !event.is_json() || event.data.is_empty() {
        return Ok(());
    }
    if depth(&event.data) > depth_max {
        let detail = format!("the data nests deeper than {depth_max} levels");
        return Err(Rejection::new("event:too-deep", detail));
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(&event.data) {
        Ok(_) if std::str::from_utf8(&event.data).is_ok() => Ok(()),
        Ok(_) => Err(Rejection::new("event:data", "the data is not valid UTF-8")),
        Err(error) => Err(Rejection::new("event:data", format!("the data is not JSON: {error}"))),
    }
}

/// How deep brackets nest, strings left out. One pass, no recursion.
pub(crate) fn depth(json: &[u8]) -> usize {
    let (mut deepest, mut level, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in json {
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
            b'{' | b'[' => {
                level += 1;
                deepest = deepest.max(level);
            }
            b'}' | b']' => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The beginning of somebody's text, fit to be shown.
pub(crate) fn short(text: &str) -> String {
    let cut: String = text.chars().take(64).flat_map(char::escape_default).collect();
    if text.chars().nth(64).is_some() { format!("{cut}…") } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            specversion: Some("1.0".into()),
            id: Some("1".into()),
            source: Some("/shop".into()),
            kind: Some("orders.created".into()),
            data: Bytes::from_static(b"{\"total\":1}"),
            ..Envelope::default()
        }
    }

    fn code(change: impl FnOnce(&mut Envelope)) -> &'static str {
        let mut envelope = envelope();
        change(&mut envelope);
        match envelope.check(&Limits::default(), Timestamp(5)) {
            Ok(_) => "ok",
            Err(rejection) => rejection.code,
        }
    }

    #[test]
    fn every_field_is_checked() {
        assert_eq!(code(|_| {}), "ok");
        assert_eq!(code(|e| e.specversion = None), "event:specversion");
        assert_eq!(code(|e| e.specversion = Some("0.3".into())), "event:specversion");
        assert_eq!(code(|e| e.id = None), "event:id");
        assert_eq!(code(|e| e.id = Some("x".repeat(10_000))), "event:id");
        assert_eq!(code(|e| e.id = Some("a\nb".into())), "event:id");
        assert_eq!(code(|e| e.source = Some(String::new())), "event:source");
        for kind in ["a'; drop table--", "../../x", "a..b", "", "bulkhead.x", &"x".repeat(300), "orders created"] {
            assert_eq!(code(|e| e.kind = Some(kind.into())), "event:type", "{kind}");
        }
        for time in ["yesterday", "10000-01-01T00:00:00Z", "2026-01-01"] {
            assert_eq!(code(|e| e.time = Some(time.into())), "event:time", "{time}");
        }
        assert_eq!(code(|e| e.time = Some("1601-01-01T00:00:00Z".into())), "ok");
        assert_eq!(code(|e| e.attributes = vec![("Upper".into(), "x".into())]), "event:attribute");
        assert_eq!(code(|e| e.attributes = vec![("x".into(), "y".repeat(5_000))]), "event:attribute");
        assert_eq!(code(|e| e.data = Bytes::from(vec![b' '; 300 << 10])), "event:too-large");
        assert_eq!(code(|e| e.data = Bytes::from_static(b"{\"a\":")), "event:data");
        assert_eq!(code(|e| e.data = Bytes::from_static(b"{\"a\":1} x")), "event:data");
        assert_eq!(code(|e| e.data = Bytes::from_static(b"\"\xff\"")), "event:data");
        assert_eq!(code(|e| e.data = Bytes::from("[".repeat(10_000) + &"]".repeat(10_000))), "event:too-deep");
        assert_eq!(
            code(|e| {
                e.content_type = Some("text/plain".into());
                e.data = Bytes::from_static(b"{\"a\":");
            }),
            "ok"
        );
    }

    #[test]
    fn known_extensions_become_fields() {
        let mut envelope = envelope();
        envelope.attributes = vec![
            ("tenantid".into(), "other".into()),
            ("partitionkey".into(), "k".into()),
            ("correlationid".into(), "c".into()),
            ("causationid".into(), "p".into()),
            ("category".into(), "sales".into()),
        ];
        let event = envelope.check(&Limits::default(), Timestamp(5)).expect("because it is right");
        assert_eq!((event.key.as_deref(), event.correlation.as_str()), (Some("k"), "c"));
        assert_eq!(event.causation.as_deref(), Some("p"));
        assert_eq!(event.time, Timestamp(5));
        assert_eq!(event.attributes[0].0, "category");
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        assert_eq!(depth(br#"{"a":"[[[[\"[[","b":[1,[2]]}"#), 3);
        assert_eq!(depth(b"1"), 0);
    }
}
