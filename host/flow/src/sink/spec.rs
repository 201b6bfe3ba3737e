//! What a sink is, as its tenant writes it: a JSON (or YAML) object whose `kind` says what else may stand in it.

use std::time::Duration;

use bulkhead_domain::policy::retry::Retry;
use bulkhead_domain::rule::duration;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Map;
use serde_json::Value;

use crate::sink::file;
use crate::sink::log;
use crate::sink::redis;
use crate::sink::webhook;

/// A checked sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkSpec {
    /// `webhook`: posted to a URL, signed.
    Webhook(webhook::Webhook),
    /// `file`: a line of a file on the host.
    File(file::FileSink),
    /// `redis-stream`: an entry of a stream in the operator's Redis.
    RedisStream(redis::StreamSink),
    /// `redis-channel`: a message to a channel there.
    RedisChannel(redis::ChannelSink),
    /// `log`: an entry of the host's log.
    Log(log::LogSink),
}

const KINDS: &str = "`webhook`, `file`, `redis-stream`, `redis-channel`, `log`";

/// What is wrong with a sink's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct SpecError {
    /// The field at fault, as a dotted path.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl SpecError {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl SinkSpec {
    /// Reads a sink. Everything that needs no host is checked; see [`SinkSpec::check`] for the rest.
    pub fn parse(value: &Value) -> Result<Self, SpecError> {
        let Value::Object(fields) = value else {
            return Err(SpecError::new("", "a sink is an object with a `kind`"));
        };
        let mut fields = fields.clone();
        match fields.remove("kind") {
            Some(Value::String(kind)) => match kind.as_str() {
                "webhook" => webhook::parse(fields).map(Self::Webhook),
                "file" => file::parse(fields).map(Self::File),
                "redis-stream" => redis::stream::parse(fields).map(Self::RedisStream),
                "redis-channel" => redis::channel::parse(fields).map(Self::RedisChannel),
                "log" => log::parse(fields).map(Self::Log),
                _ => Err(SpecError::new("kind", format!("`{}` is none of {KINDS}", kind.escape_debug()))),
            },
            Some(_) => Err(SpecError::new("kind", format!("must be one of the texts {KINDS}"))),
            None => Err(SpecError::new("kind", format!("is missing; it is one of {KINDS}"))),
        }
    }

    /// What the `kind` field says.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::File(_) => "file",
            Self::RedisStream(_) => "redis-stream",
            Self::RedisChannel(_) => "redis-channel",
            Self::Log(_) => "log",
        }
    }
}

/// Reads fields into their raw form; an error names the field by its path.
pub(super) fn raw<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, SpecError> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { path };
        SpecError::new(field, error.into_inner().to_string())
    })
}

/// The most attempts: at the longest waits that is a year of trying.
const ATTEMPTS_MAX: u32 = 50;
const FIRST_MIN: Duration = Duration::from_millis(10);
const WAIT_MAX: Duration = Duration::from_secs(7 * 86_400);

/// `{ attempts, first, factor, max }`, each with the default of deliveries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetry {
    attempts: Option<u32>,
    first: Option<String>,
    factor: Option<f64>,
    max: Option<String>,
}

impl RawRetry {
    pub(super) fn check(self) -> Result<Retry, SpecError> {
        let mut retry = Retry::of_deliveries();
        if let Some(attempts) = self.attempts {
            if !(1..=ATTEMPTS_MAX).contains(&attempts) {
                return Err(SpecError::new("retry.attempts", format!("must be from 1 to {ATTEMPTS_MAX}")));
            }
            retry.attempts = attempts;
        }
        if let Some(factor) = self.factor {
            if !(1.0..=10.0).contains(&factor) {
                return Err(SpecError::new("retry.factor", "must be a number from 1 to 10"));
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 100 to 1,000")]
            let percent = (factor * 100.0).round() as u32;
            retry.factor_percent = percent;
        }
        if let Some(max) = self.max {
            retry.max = read_duration("retry.max", &max, FIRST_MIN, WAIT_MAX)?;
        }
        retry.first = match self.first {
            Some(first) => read_duration("retry.first", &first, FIRST_MIN, WAIT_MAX)?,
            None => retry.first.min(retry.max),
        };
        if retry.first > retry.max {
            let (first, max) = (duration::write(retry.first), duration::write(retry.max));
            return Err(SpecError::new("retry.first", format!("{first} is longer than the longest wait, {max}")));
        }
        Ok(retry)
    }
}

/// Reads `250ms`, `5s`, `1h30m` within bounds.
pub(super) fn read_duration(field: &str, text: &str, least: Duration, most: Duration) -> Result<Duration, SpecError> {
    match duration::parse(text) {
        Some(length) if (least..=most).contains(&length) => Ok(length),
        Some(_) => {
            let (least, most) = (duration::write(least), duration::write(most));
            Err(SpecError::new(field, format!("must be from {least} to {most}")))
        }
        None => {
            let message = format!("`{}` is no duration; write `250ms`, `5s` or `1h30m`", text.escape_debug());
            Err(SpecError::new(field, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The field and a part of the message of the error that a sink must give.
    fn refused(value: &Value, field: &str, part: &str) {
        let error = SinkSpec::parse(value).expect_err("because it is wrong");
        assert_eq!(error.field, field, "{value}: {error}");
        assert!(error.message.contains(part), "{value}: {error}");
    }

    #[test]
    fn the_kind_decides() {
        refused(&json!([]), "", "an object");
        refused(&json!({}), "kind", "is missing");
        refused(&json!({"kind": 1}), "kind", "must be one of");
        refused(&json!({"kind": "carrier\npigeon"}), "kind", "`carrier\\npigeon` is none of `webhook`");
        for (value, kind) in [
            (json!({"kind": "webhook", "url": "https://example.com/in"}), "webhook"),
            (json!({"kind": "file", "path": "out.ndjson"}), "file"),
            (json!({"kind": "redis-stream", "stream": "orders", "maxlen": 500}), "redis-stream"),
            (json!({"kind": "redis-channel", "channel": "orders.v2"}), "redis-channel"),
            (json!({"kind": "log"}), "log"),
        ] {
            assert_eq!(SinkSpec::parse(&value).map(|spec| spec.kind()), Ok(kind));
        }
    }

    #[test]
    fn unknown_fields_and_wrong_types_are_named() {
        refused(&json!({"kind": "webhook", "ulr": "x"}), "ulr", "unknown field `ulr`, expected one of `url`");
        refused(&json!({"kind": "webhook"}), "", "missing field `url`");
        refused(&json!({"kind": "webhook", "url": 5}), "url", "expected a string");
        refused(&json!({"kind": "webhook", "url": "x", "retry": {"tries": 3}}), "retry.tries", "unknown field `tries`");
        refused(&json!({"kind": "log", "path": "x"}), "path", "unknown field `path`");
        refused(&json!({"kind": "redis-channel", "channel": "x", "url": "redis://h"}), "url", "unknown field `url`");
    }

    #[test]
    fn names_in_redis_keep_their_place_in_a_key() {
        for name in ["", "Orders", "a:b", "ten_other:stream:x", "a b", "a\nb", "*", "ü", &"x".repeat(65)] {
            refused(&json!({"kind": "redis-stream", "stream": name}), "stream", "is no name of at most 64");
            refused(&json!({"kind": "redis-channel", "channel": name}), "channel", "is no name of at most 64");
        }
        refused(&json!({"kind": "redis-stream", "stream": "x", "maxlen": 0}), "maxlen", "at least one");
        refused(&json!({"kind": "redis-stream", "stream": "x", "maxlen": -1}), "maxlen", "invalid value");
    }

    #[test]
    fn retry_has_bounds_and_the_defaults_of_deliveries() {
        let parse = |retry: Value| SinkSpec::parse(&json!({"kind": "webhook", "url": "x", "retry": retry}));
        assert_eq!(parse(json!({})).expect("because all is optional").retry(), Retry::of_deliveries());
        let retry = parse(json!({"attempts": 3, "first": "2s", "factor": 1.5, "max": "1m"}));
        let expected =
            Retry { attempts: 3, first: Duration::from_secs(2), factor_percent: 150, max: Duration::from_secs(60) };
        assert_eq!(retry.expect("because all is within bounds").retry(), expected);
        let short = parse(json!({"max": "200ms"})).expect("because the first wait follows");
        assert_eq!(short.retry().first, Duration::from_millis(200));
        for (retry, field) in [
            (json!({"attempts": 0}), "retry.attempts"),
            (json!({"attempts": 51}), "retry.attempts"),
            (json!({"factor": 0.5}), "retry.factor"),
            (json!({"first": "5"}), "retry.first"),
            (json!({"first": "1ms"}), "retry.first"),
            (json!({"max": "8d"}), "retry.max"),
            (json!({"first": "2m", "max": "1m"}), "retry.first"),
        ] {
            assert_eq!(parse(retry).expect_err("because it is out of bounds").field, field);
        }
    }
}
