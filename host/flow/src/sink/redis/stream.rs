//! The `redis-stream` sink: each delivery is an entry of a stream, which keeps about the latest so many.

use bulkhead_store::deliveries::DueDelivery;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;

use crate::sink::Attempt;
use crate::sink::document;
use crate::sink::redis;
use crate::sink::redis::Outlet;
use crate::sink::spec;
use crate::sink::spec::SpecError;

/// Entries that a stream keeps unless its sink says otherwise.
const ENTRIES_DEFAULT: u64 = 10_000;

/// A checked `redis-stream` sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSink {
    /// What the tenant calls it.
    stream: String,
    /// About so many entries are kept; none is the host's default.
    maxlen: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    stream: String,
    maxlen: Option<u64>,
}

pub(in crate::sink) fn parse(fields: Map<String, Value>) -> Result<StreamSink, SpecError> {
    let Raw { stream, maxlen } = spec::raw(fields)?;
    if maxlen == Some(0) {
        return Err(SpecError::new("maxlen", "a stream keeps at least one entry"));
    }
    Ok(StreamSink { stream: redis::name("stream", stream)?, maxlen })
}

impl StreamSink {
    /// Whether this host has such streams.
    pub(in crate::sink) fn check(&self, outlet: Option<&Outlet>) -> Result<(), SpecError> {
        let most = redis::check(outlet)?.entries_max();
        match self.maxlen {
            Some(maxlen) if maxlen > most => {
                Err(SpecError::new("maxlen", format!("a stream of this host keeps at most {most} entries")))
            }
            _ => Ok(()),
        }
    }

    pub(in crate::sink) async fn deliver(&self, outlet: Option<&Outlet>, tenant: &str, due: &DueDelivery) -> Attempt {
        let Some(outlet) = outlet else { return redis::disabled() };
        let key = format!("bulkhead:{tenant}:stream:{}", self.stream);
        // The operator's bound may have become narrower since the sink was saved.
        let maxlen = self.maxlen.unwrap_or(ENTRIES_DEFAULT).min(outlet.entries_max());
        let delivery = &due.delivery;
        let attributes =
            serde_json::to_vec(&document::attributes(due)).expect("because texts under texts are JSON always");
        let mut add = ::redis::cmd("XADD");
        add.arg(&key).arg("MAXLEN").arg("~").arg(maxlen).arg("*");
        // Always all of them and in this order: entries with the same fields as the one before are stored without names.
        add.arg("id").arg(&delivery.id);
        add.arg("sink").arg(&delivery.sink);
        add.arg("rule").arg(&due.rule);
        add.arg("time").arg(document::time(due.created));
        add.arg("content_type").arg(&delivery.content_type);
        add.arg("attributes").arg(attributes);
        add.arg("body").arg(&*delivery.body);
        match outlet.ask::<String>(&add).await {
            Ok(entry) => Attempt::done(format!("entry {entry} of {key}")),
            Err(failed) => failed,
        }
    }
}
