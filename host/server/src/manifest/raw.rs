//! The file as it is written, before anything in it is believed; and the JSON Schema that is published of it.
//!
//! The doc comments here are what editors show beside each key. What a schema can say is said in the types, so that the
//! two cannot differ; a test holds both against all examples and against a table of wrong manifests.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bulkhead_domain::policy::limits::InstancePolicy;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::Value;

use crate::manifest::Setting;
use crate::manifest::Subscription;
use crate::manifest::Versions;
use crate::measure::Bytes;
use crate::measure::Span;

/// Names of plugins, sinks and secrets.
pub const NAME: &str = "^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$";
/// Types of events, with stars as whole segments.
pub const GLOB: &str = r"^([^.*]+|\*\*?)(\.([^.*]+|\*\*?))*$";
/// A host, with a port if need be.
const HOST: &str = r"^(https?://)?([A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$";
/// Settings, and entries of one grant.
pub const ENTRIES_MAX: usize = 256;
/// Places of `redact`.
pub const REDACT_MAX: usize = 64;
/// Globs of `watch`.
pub const WATCH_MAX: usize = 64;

/// The manifest of a Bulkhead plugin: what it is called, what it asks for, what it can be told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "plugin.toml")]
pub struct Raw {
    /// Who it is.
    pub plugin: Plugin,
    /// What it asks for. Nothing is granted that is not named here.
    #[serde(default)]
    pub grants: Grants,
    /// What it can be told, by name.
    #[serde(default)]
    #[schemars(extend("maxProperties" = ENTRIES_MAX))]
    pub config: BTreeMap<String, Setting>,
    /// The limits that it asks for; they only lower the operator's.
    #[serde(default)]
    pub limits: Limits,
    /// What of its calls is recorded, for `bulkhead plugin replay`.
    #[serde(default)]
    pub recorder: Recorder,
    /// What becomes of runs that began with another version.
    #[serde(default)]
    pub versions: Versions,
    /// How the component is made; for the command line.
    #[serde(default)]
    pub build: Build,
    /// Which events it is for: `bulkhead plugin push --with-rules` makes a rule of each.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub subscribe: Vec<Subscription>,
}

/// Who a plugin is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// Its name: small letters, digits and dashes, at most 64.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// Its author's version; for people.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub version: String,
    /// What it is for.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub description: String,
}

/// What a plugin asks for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Types of events that it may emit or schedule: `orders.flagged`, `orders.*`.
    #[schemars(length(max = ENTRIES_MAX), inner(regex(pattern = GLOB)))]
    pub emit: BTreeSet<String>,
    /// Sinks that it may deliver to; `*` is every sink of the tenant.
    #[schemars(length(max = ENTRIES_MAX), inner(regex(pattern = r"^([a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?|\*)$")))]
    pub deliver: BTreeSet<String>,
    /// Hosts that it may call, with a port if need be: `api.example.com`.
    #[schemars(length(max = ENTRIES_MAX), inner(regex(pattern = HOST)))]
    pub http: BTreeSet<String>,
    /// Secrets of the tenant that it may read, by name.
    #[schemars(length(max = ENTRIES_MAX), inner(regex(pattern = NAME)))]
    pub secrets: BTreeSet<String>,
    /// Whether it may set timers.
    pub schedule: bool,
    /// How much it may keep.
    pub state: Option<State>,
}

/// How much a plugin may keep.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Bytes of all keys and values together: `10MiB`.
    pub bytes: Bytes,
}

/// The limits of one invocation.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The longest that an invocation may take: `250ms`.
    pub time: Option<Span>,
    /// The most memory that an instance may have, at least one page: `32MiB`.
    pub memory: Option<Bytes>,
    /// The most instructions of one invocation.
    #[schemars(range(min = 1))]
    pub fuel: Option<u64>,
    /// How long an instance serves.
    pub instance: Instance,
}

/// How long an instance serves.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Instance {
    /// A fresh one for each batch of events.
    #[default]
    Batch,
    /// A fresh one for each event.
    Event,
    /// Kept over batches, at most 1,000 calls or 60 s.
    Warm,
}

/// What of a plugin's calls is recorded; the operator's settings are the most.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Recorder {
    /// Nothing is recorded, not even calls that fail.
    pub off: bool,
    /// Which part of successful runs is recorded: `0.01`. Calls that fail are always recorded.
    #[schemars(range(min = 0, max = 1))]
    pub sample: Option<f64>,
    /// Places in the event's data whose values are in no recording, as JSON pointers: `/customer/email`.
    #[schemars(length(max = REDACT_MAX), inner(regex(pattern = "^/")))]
    pub redact: Vec<String>,
}

/// How the component is made.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Build {
    /// The command that makes it, run by a shell in this file's folder.
    pub command: Option<String>,
    /// Where the component is afterwards, from this file's folder.
    pub artifact: Option<String>,
    /// Which files it is made of, as globs: `src/**`. `bulkhead plugin watch` builds again when one changes.
    #[schemars(length(max = WATCH_MAX))]
    pub watch: Vec<String>,
}

impl From<Instance> for InstancePolicy {
    fn from(instance: Instance) -> Self {
        match instance {
            Instance::Batch => Self::Batch,
            Instance::Event => Self::Event,
            Instance::Warm => Self::Warm,
        }
    }
}

/// Where the schema of manifests is published, on every host.
pub const SCHEMA_PATH: &str = "/schema/plugin.json";

/// The JSON Schema of a type: what an author may write.
#[must_use]
pub fn schema<T: JsonSchema>() -> Value {
    // Draft 7 is what editors' TOML and JSON plugins know best.
    let generator = SchemaSettings::draft07().into_generator();
    generator.into_root_schema_for::<T>().to_value()
}
