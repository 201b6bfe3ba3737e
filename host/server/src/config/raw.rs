//! The configuration as it is written. Nothing but [`super::check`] reads it.

use std::fmt;

use bulkhead_domain::policy::ceiling::Ceiling;
use bulkhead_domain::rule::duration;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;
use serde::de::Visitor;

use crate::measure::Bytes;
use crate::measure::Span;

/// A whole configuration. What is missing in one layer is in the layer below; the lowest has everything.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub listen: String,
    pub store: String,
    pub store_owner: Option<String>,
    pub store_connections: u32,
    pub synchronous: Synchronous,
    pub data_dir: String,
    pub keys_dir: Option<String>,
    pub node: Option<String>,
    pub plugins_dir: Option<String>,
    pub redis: Option<String>,
    pub drain_grace: Span,
    pub log: Log,
    pub egress: Egress,
    pub causation: Causation,
    pub limits: Limits,
    pub sandbox: Sandbox,
    pub retention: Retention,
    pub recorder: Recorder,
    pub ceiling: Ceiling,
    pub signatures: Signatures,
    pub previews: Previews,
    pub sources: Vec<Source>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    #[default]
    Full,
    Normal,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: Format,
    pub level: String,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    pub allow: Vec<String>,
    pub plugins: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Causation {
    pub hops: u16,
    pub descendants: u32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub event: EventLimits,
    pub plugin: PluginLimits,
    pub tenant: TenantLimits,
    pub api: ApiLimits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventLimits {
    pub bytes: Bytes,
    pub batch_bytes: Bytes,
    pub batch_events: u32,
    pub stream_bytes: Bytes,
    pub depth: u32,
    pub under_way_bytes: Bytes,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginLimits {
    pub time: Span,
    pub fuel: u64,
    pub memory: Bytes,
    pub table_elements: u32,
    pub host_calls: u32,
    pub log_bytes: Bytes,
    pub log_lines: u32,
    pub log_line: Bytes,
    pub effects: u32,
    pub effect_bytes: Bytes,
    pub effect_body: Bytes,
    pub state_writes: u32,
    pub state_bytes: Bytes,
    pub state_key: Bytes,
    pub state_value: Bytes,
    pub http_requests: u32,
    pub http_request_bytes: Bytes,
    pub http_response_bytes: Bytes,
    pub http_time: Span,
    pub http_wait: Span,
}

/// 0 is no limit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantLimits {
    pub events_per_second: u64,
    pub events_burst: u64,
    pub concurrency: u16,
    pub backlog_events: u64,
    pub storage_bytes: Bytes,
    pub fuel_per_minute: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiLimits {
    pub upload_bytes: Bytes,
    pub uploads: u32,
    pub plugins: u32,
    pub plugin_versions: u32,
    pub retired_versions: u32,
    pub document_bytes: Bytes,
    pub streams: u32,
    pub requests: u32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    pub instances: u32,
    pub memories: u32,
    pub cache_bytes: Bytes,
    pub disk_bytes: Bytes,
    pub compilers: u32,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    pub events: Keep,
    pub parked: Keep,
    pub usage: Keep,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Signatures {
    pub required: bool,
    pub trusted: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Previews {
    pub required: bool,
    pub min_runs: u64,
    pub max_new_failures: u64,
    pub max_changed_percent: f64,
    pub within_hours: u32,
}

/// For how long something is kept; none is for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep(pub Option<Span>);

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kept;
        impl Visitor<'_> for Kept {
            type Value = Keep;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"30d\" or \"12h\", or \"forever\"")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Keep, E> {
                if number == 0 { Ok(Keep(None)) } else { Err(E::custom("a duration has a unit; write \"30d\"")) }
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Keep, E> {
                match text.trim() {
                    "forever" | "0" => Ok(Keep(None)),
                    text => duration::parse(text)
                        .map(|kept| Keep((!kept.is_zero()).then_some(Span(kept))))
                        .ok_or_else(|| E::custom(format!("`{text}` is no duration; write 30d, 12h or forever"))),
                }
            }
        }
        deserializer.deserialize_any(Kept)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recorder {
    pub sample: f64,
    pub bytes: Bytes,
    pub kept: u32,
    pub kept_bytes: Bytes,
}

/// A table of `[[sources]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    RedisStream {
        name: String,
        tenant: String,
        stream: String,
        url: Option<String>,
        group: Option<String>,
        #[serde(default)]
        format: bulkhead_flow::source::redis::Format,
        batch: Option<u32>,
        claim_idle: Option<Span>,
        gone_after: Option<Span>,
        rejected_max: Option<u32>,
        #[serde(default)]
        parallel: bool,
    },
    Outbox {
        name: String,
        url: String,
        table: Option<String>,
        batch: Option<u32>,
        poll: Option<Span>,
    },
}
