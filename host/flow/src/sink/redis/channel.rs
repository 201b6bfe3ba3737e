//! The `redis-channel` sink: each delivery is a message to whoever is subscribed to a channel at that moment.

use bulkhead_store::deliveries::DueDelivery;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;

use crate::sink::Attempt;
use crate::sink::document::document;
use crate::sink::redis;
use crate::sink::redis::Outlet;
use crate::sink::spec;
use crate::sink::spec::SpecError;

/// A checked `redis-channel` sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSink {
    /// What the tenant calls it.
    channel: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    channel: String,
}

pub(in crate::sink) fn parse(fields: Map<String, Value>) -> Result<ChannelSink, SpecError> {
    let Raw { channel } = spec::raw(fields)?;
    Ok(ChannelSink { channel: redis::name("channel", channel)? })
}

impl ChannelSink {
    pub(in crate::sink) async fn deliver(&self, outlet: Option<&Outlet>, tenant: &str, due: &DueDelivery) -> Attempt {
        let Some(outlet) = outlet else { return redis::disabled() };
        let channel = format!("bulkhead:{tenant}:channel:{}", self.channel);
        let mut publish = ::redis::cmd("PUBLISH");
        publish.arg(&channel).arg(document(due));
        match outlet.ask::<u64>(&publish).await {
            // Nobody listening is no failure: that is what a channel is.
            Ok(heard) => Attempt::done(format!("{heard} subscribed to {channel}")),
            Err(failed) => failed,
        }
    }
}
