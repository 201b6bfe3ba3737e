//! What the tests of rules share: an event, and rules read from text.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::Value as Json;

use crate::clock::Timestamp;
use crate::event::Event;
use crate::rule::Diagnostic;
use crate::rule::Rule;
use crate::rule::document;
use crate::rule::document::Names;

/// An event of a type with a payload.
pub fn event(kind: &str, data: &Json) -> Event {
    Event {
        id: "e-1".into(),
        source: "/shop".into(),
        kind: kind.into(),
        subject: Some("order-7".into()),
        time: Timestamp(1_795_212_785_250_000),
        key: None,
        correlation: "e-1".into(),
        causation: None,
        content_type: "application/json".into(),
        data: Bytes::from(data.to_string()),
        attributes: vec![("category".into(), "retail".into()), ("severity".into(), "info".into())],
    }
}

/// The plugins `enrich-order` and `fraud-score`, the sinks `crm` and `audit`.
pub fn with_names<T>(body: impl FnOnce(&Names<'_>) -> T) -> T {
    let names = |names: [&str; 2]| -> BTreeSet<String> { names.into_iter().map(ToOwned::to_owned).collect() };
    let (plugins, sinks) = (names(["enrich-order", "fraud-score"]), names(["crm", "audit"]));
    body(&Names { plugins: &plugins, sinks: &sinks })
}

/// A rule that is right.
pub fn rule(text: &str) -> Rule {
    match with_names(|names| document::parse(text, names)) {
        Ok(checked) => checked.value,
        Err(problems) => panic!("{text}\n{}", drawn(&problems)),
    }
}

/// Rules that are right.
pub fn rules(text: &str) -> Vec<Rule> {
    match with_names(|names| document::parse_set(text, names)) {
        Ok(checked) => checked.value,
        Err(problems) => panic!("{text}\n{}", drawn(&problems)),
    }
}

/// Problems as an author sees them.
pub fn drawn(problems: &[Diagnostic]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
