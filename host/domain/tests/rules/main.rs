//! Rules against oracles and against hostile events.

mod expressions;
mod hostile;
mod patterns;
mod reference;
mod routing;

use std::collections::BTreeSet;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Event;
use bulkhead_domain::rule::Rule;
use bulkhead_domain::rule::document::Names;
use bulkhead_domain::rule::document::parse;
use bytes::Bytes;
use serde_json::Value as Json;

/// An event of a type with a payload.
fn event(kind: &str, data: impl Into<Bytes>) -> Event {
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
        data: data.into(),
        attributes: vec![("category".into(), "retail".into())],
    }
}

/// A rule that is right, from its document.
fn rule(document: &Json) -> Rule {
    let (plugins, sinks) = (BTreeSet::new(), BTreeSet::new());
    match parse(&document.to_string(), &Names { plugins: &plugins, sinks: &sinks }) {
        Ok(checked) => checked.value,
        Err(problems) => panic!("{document}: {}", problems[0]),
    }
}
