//! The `log` sink: a delivery becomes an entry of the host's log. For development; the operator switches it on.

use bulkhead_store::deliveries::DueDelivery;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;

use crate::sink::Attempt;
use crate::sink::spec;
use crate::sink::spec::SpecError;

/// Writing an entry takes no time, so there is nothing to overlap.
pub(super) const CONCURRENCY: usize = 1;
/// More of a body is not shown.
const BODY_BYTES_MAX: usize = 8 << 10;

/// A checked `log` sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSink;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {}

pub(super) fn parse(fields: Map<String, Value>) -> Result<LogSink, SpecError> {
    let Raw {} = spec::raw(fields)?;
    Ok(LogSink)
}

impl LogSink {
    pub(super) fn deliver(&self, allowed: bool, tenant: &str, due: &DueDelivery) -> Attempt {
        if !allowed {
            return Attempt::refused("sink:disabled", "this host has no log sinks");
        }
        let delivery = &due.delivery;
        let shown = &delivery.body[..delivery.body.len().min(BODY_BYTES_MAX)];
        let body = printable(&String::from_utf8_lossy(shown));
        tracing::info!(
            target: "bulkhead::sink",
            tenant,
            sink = delivery.sink,
            id = delivery.id,
            content_type = delivery.content_type,
            bytes = delivery.body.len(),
            body,
            "delivery"
        );
        Attempt::done("logged")
    }
}

/// A tenant's text cannot end a line, colour a terminal or turn its direction around.
fn printable(text: &str) -> String {
    let hidden = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if hidden(character) { safe.extend(character.escape_default()) } else { safe.push(character) }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_cannot_forge_a_line_or_steer_a_terminal() {
        assert_eq!(printable("a\u{1b}[31m\r\nb\u{202e}c é 日"), "a\\u{1b}[31m\\r\\nb\\u{202e}c é 日");
    }
}
