//! Checks of what guests hand in. Everything is refused that somebody later might read as something else: empty
//! names, control characters, a header in a value.

use bulkhead_domain::event::Draft;

use super::Refusal;

/// Bytes of an event's type, subject or ordering key, a sink's or a timer's name.
const NAME_MAX: usize = 256;
/// Attributes of one event or delivery.
const ATTRIBUTES_MAX: usize = 32;
/// Bytes of an attribute's name.
const ATTRIBUTE_NAME_MAX: usize = 64;
/// Bytes of an attribute's value.
const ATTRIBUTE_VALUE_MAX: usize = 1_024;
/// Types under this name are the host's own.
const RESERVED: &str = "bulkhead";

/// Attributes that an event has by itself, or that the host sets.
const RESERVED_ATTRIBUTES: [&str; 13] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "data",
    "data_base64",
    "partitionkey",
    "correlationid",
    "causationid",
    "tenantid",
];

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::Invalid(text.into())
}

/// A text that is not empty, not too long, and has no control characters.
pub(crate) fn name(what: &str, text: &str) -> Result<(), Refusal> {
    if text.is_empty() {
        return Err(invalid(format!("{what} is empty")));
    }
    if text.len() > NAME_MAX {
        return Err(invalid(format!("{what} has {} bytes; at most {NAME_MAX} are allowed", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(format!("{what} has a control character")));
    }
    Ok(())
}

/// An event's type: names of letters, digits, `-` and `_`, separated by dots.
pub(crate) fn kind(text: &str) -> Result<(), Refusal> {
    name("the event's type", text)?;
    let dotted = text.split('.').all(|segment| {
        !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    });
    if !dotted {
        return Err(invalid(format!(
            "the event's type `{}` is not a dotted name: letters, digits, `-` and `_`, separated by single dots",
            text.escape_debug()
        )));
    }
    if text.split('.').next() == Some(RESERVED) {
        return Err(Refusal::Denied(format!("event types under `{RESERVED}.` are the host's own")));
    }
    Ok(())
}

/// A media type. Empty is allowed: the host then assumes JSON.
pub(crate) fn content_type(text: &str) -> Result<(), Refusal> {
    if text.is_empty() {
        return Ok(());
    }
    let (essence, _) = text.split_once(';').unwrap_or((text, ""));
    let fits = text.len() <= NAME_MAX
        && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        && essence.trim().split_once('/').is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.is_empty());
    if fits { Ok(()) } else { Err(invalid(format!("`{}` is not a media type", text.escape_debug()))) }
}

/// Attributes of an event or a delivery: names of lower-case letters and digits (and `-`, where `dashes`), values
/// without control characters, each name once.
pub(crate) fn attributes(list: &[(String, String)], dashes: bool) -> Result<(), Refusal> {
    if list.len() > ATTRIBUTES_MAX {
        return Err(invalid(format!("there are {} attributes; at most {ATTRIBUTES_MAX} are allowed", list.len())));
    }
    for (at, (name, value)) in list.iter().enumerate() {
        let fits = !name.is_empty()
            && name.len() <= ATTRIBUTE_NAME_MAX
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || (dashes && byte == b'-'));
        if !fits {
            let allowed = if dashes { "lower-case letters, digits and `-`" } else { "lower-case letters and digits" };
            return Err(invalid(format!("the attribute name `{}` is not made of {allowed}", name.escape_debug())));
        }
        if value.len() > ATTRIBUTE_VALUE_MAX {
            return Err(invalid(format!("the attribute `{name}` is longer than {ATTRIBUTE_VALUE_MAX} bytes")));
        }
        if value.chars().any(char::is_control) {
            return Err(invalid(format!("the attribute `{name}` has a control character in its value")));
        }
        if list[..at].iter().any(|(other, _)| other == name) {
            return Err(invalid(format!("the attribute `{name}` is there twice")));
        }
    }
    Ok(())
}

/// An event to be. Its size is the caller's to check.
pub(crate) fn draft(draft: &Draft) -> Result<(), Refusal> {
    kind(&draft.kind)?;
    if let Some(subject) = &draft.subject {
        name("the event's subject", subject)?;
    }
    if let Some(key) = &draft.key {
        name("the event's key", key)?;
    }
    content_type(&draft.content_type)?;
    attributes(&draft.attributes, false)?;
    match draft.attributes.iter().find(|(name, _)| RESERVED_ATTRIBUTES.contains(&name.as_str())) {
        Some((name, _)) => {
            Err(invalid(format!("the attribute `{name}` is not the plugin's to set; use the draft's own fields")))
        }
        None => Ok(()),
    }
}

/// Bytes of an event to be, all its texts included.
pub(crate) fn draft_size(draft: &Draft) -> usize {
    let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    draft.kind.len()
        + optional(&draft.subject)
        + optional(&draft.key)
        + draft.content_type.len()
        + draft.data.len()
        + attributes_size(&draft.attributes)
}

/// Bytes of names and values.
pub(crate) fn attributes_size(list: &[(String, String)]) -> usize {
    list.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_dotted_names_and_not_the_host_s() {
        for good in ["a", "orders.created", "Orders.v2.created_by-hand", "bulkheads.x"] {
            assert_eq!(kind(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a/b", "ä", "a.*", "a\u{0}", &"x".repeat(257)] {
            assert!(matches!(kind(bad), Err(Refusal::Invalid(_))), "{bad:?}");
        }
        for reserved in ["bulkhead", "bulkhead.timer", "bulkhead.a.b"] {
            assert!(matches!(kind(reserved), Err(Refusal::Denied(_))), "{reserved}");
        }
    }

    #[test]
    fn an_attribute_cannot_smuggle_a_header() {
        let check = |name: &str, value: &str| attributes(&[(name.into(), value.into())], true);
        assert_eq!(check("x-retry", "1"), Ok(()));
        for (name, value) in [
            ("", "1"),
            ("X", "1"),
            ("a:b", "1"),
            ("a\r\nb", "1"),
            ("a", "1\r\nset-cookie: x"),
            ("a", "1\n"),
            (&"a".repeat(65), "1"),
            ("a", &"1".repeat(1_025)),
        ] {
            assert!(check(name, value).is_err(), "{name:?} {value:?}");
        }
        let twice = [("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert!(attributes(&twice, true).is_err());
        let many: Vec<_> = (0..33).map(|number| (format!("a{number}"), String::new())).collect();
        assert!(attributes(&many, true).is_err());
        assert!(attributes(&[("a-b".into(), String::new())], false).is_err(), "events have no dashes");
    }

    #[test]
    fn identity_and_causation_are_the_host_s() {
        for name in ["id", "source", "causationid", "correlationid", "tenantid", "partitionkey"] {
            let forged =
                Draft { kind: "a".into(), attributes: vec![(name.into(), "other".into())], ..Draft::default() };
            assert!(draft(&forged).is_err(), "{name}");
        }
    }

    #[test]
    fn media_types_have_two_parts() {
        for good in ["", "application/json", "text/plain; charset=utf-8", "application/vnd.x+json"] {
            assert_eq!(content_type(good), Ok(()), "{good}");
        }
        for bad in ["json", "/", "a/", "/b", "a/b\r\nx: y", "ä/b", &format!("a/{}", "b".repeat(300))] {
            assert!(content_type(bad).is_err(), "{bad:?}");
        }
    }
}
