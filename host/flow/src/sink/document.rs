//! A delivery as one JSON document, for sinks whose receivers get nothing beside it.
//!
//! ```text
//! {"id":"eff_…","sink":"archive","rule":"big-orders","time":"2026-11-20T…Z","content_type":"application/json","data":{…}}
//! ```
//!
//! `data` is the body if that is JSON, else its text; bytes that are no text come as `data_base64`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulkhead_domain::clock::Timestamp;
use bulkhead_store::deliveries::DueDelivery;
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    sink: &'a str,
    rule: &'a str,
    time: String,
    content_type: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Json(Box<RawValue>),
    Text(&'a str),
}

/// The document, without a line break anywhere.
pub(super) fn document(due: &DueDelivery) -> Vec<u8> {
    let delivery = &due.delivery;
    let text = std::str::from_utf8(&delivery.body).ok();
    // In valid JSON a line break can only stand between tokens, where a space says the same.
    let json = text.and_then(|text| serde_json::from_str::<Box<RawValue>>(text).ok());
    let json = json.and_then(|json| RawValue::from_string(json.get().replace(['\r', '\n'], " ")).ok());
    let document = Document {
        id: &delivery.id,
        sink: &delivery.sink,
        rule: &due.rule,
        time: time(due.created),
        content_type: &delivery.content_type,
        attributes: attributes(due),
        data: json.map(Data::Json).or(text.map(Data::Text)),
        data_base64: text.is_none().then(|| STANDARD.encode(&delivery.body)),
    };
    serde_json::to_vec(&document).expect("because every part of it is text or JSON already")
}

/// What a plugin wants to be known beside the body.
pub(super) fn attributes(due: &DueDelivery) -> BTreeMap<&str, &str> {
    due.delivery.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// When the delivery was made, as RFC 3339 has it.
pub(super) fn time(created: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(created.0).unwrap_or_default().to_string()
}
