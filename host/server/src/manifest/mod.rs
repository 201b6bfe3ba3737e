//! Manifests: what a plugin is called, what it asks for, what it can be told (`plugin.toml`).
//!
//! ```text
//! text ──raw──▶ Document (checked) ──┬▶ Manifest: what the host keeps (grants, limits, settings, subscriptions)
//!                                     └▶ Build: what only the command line needs
//! ```
//!
//! What a manifest asks for is what the tenant grants by activating the version; the operator's ceiling is applied when the
//! plugin runs. Unknown keys are errors: a grant that is misspelt must not silently be none.
//!
//! Reading order: the types here, [`raw`] (the file as it is written, and its published schema), [`check`].

mod check;
pub mod raw;

use std::collections::BTreeMap;

use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::limits::LimitRequest;
use bulkhead_domain::policy::recorder::RecorderRequest;
use bulkhead_domain::rule::Diagnostic;
use bulkhead_domain::rule::definition::is_name;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::manifest::check::Checker;
use crate::manifest::raw::Raw;
use crate::measure::Bytes;
use crate::toml_text;

/// The longest manifest.
pub const SIZE_MAX: usize = 64 << 10;
/// Bytes of state that a plugin has without asking.
const STATE_BYTES: u64 = 10 << 20;
/// The most bytes of a plugin's settings.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;

/// A checked manifest with everything that is in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What goes to the host.
    pub manifest: Manifest,
    /// How the component is made.
    pub build: Build,
}

/// How the component is made: for the command line only, so that a change of it makes no new version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Build {
    /// The command, for a shell, in the manifest's folder.
    pub command: Option<String>,
    /// Where the component is afterwards, from the manifest's folder.
    pub artifact: Option<String>,
    /// Which files it is made of, as globs from the manifest's folder.
    pub watch: Vec<String>,
}

/// A checked manifest, and the form in which it is stored.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// Who it is.
    pub plugin: Identity,
    /// What it asks for.
    pub grants: Grants,
    /// How many bytes of state it may keep.
    pub state_bytes: u64,
    /// What it can be told, by name.
    pub config: BTreeMap<String, Setting>,
    /// Limits that it asks for, below the operator's.
    pub limits: LimitRequest,
    /// What of its calls is recorded.
    #[serde(skip_serializing_if = "is_unset")]
    pub recorder: RecorderRequest,
    /// What becomes of runs that began with another version.
    #[serde(skip_serializing_if = "is_usual")]
    pub versions: Versions,
    /// Which events it is for: `bulkhead plugin push --with-rules` makes a rule of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<Subscription>,
}

/// Left out of what is stored, so that a manifest without it is the same as ever.
fn is_unset(recorder: &RecorderRequest) -> bool {
    *recorder == RecorderRequest::default()
}

fn is_usual(versions: &Versions) -> bool {
    *versions == Versions::default()
}

/// What becomes of runs that began with another version than the active one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Versions {
    /// Which version a retry runs on.
    pub retry: Retry,
}

/// Which version a retry runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Retry {
    /// The active one: what is retried mostly failed, and a new version is what mends it.
    #[default]
    Move,
    /// The one that the run began with, for as long as it is not retired.
    Stay,
}

/// Which events a plugin is for: a rule without steps, which are always the plugin itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// The rule's name; the plugin's name, with a number from the second on, unless this says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = raw::NAME))]
    pub name: Option<String>,
    /// Types of events: dotted globs, `*` one segment, `**` any number.
    #[schemars(length(min = 1, max = 64), inner(regex(pattern = raw::GLOB)))]
    pub on: Vec<String>,
    /// A pattern over the event, as in rules.
    #[serde(rename = "match", default, skip_serializing_if = "Map::is_empty")]
    pub pattern: Map<String, Value>,
    /// A condition in CEL, as in rules.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// `key` keeps events with the same key in order; `none` does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["none", "key"]))]
    pub order: Option<String>,
}

/// Who a plugin is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its author's version; for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// One thing that a plugin can be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PluginSetting)]
pub struct Setting {
    /// Of which type its value is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The value if nobody sets one.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub default: Value,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether the plugin must not run without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
}

/// The type of a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PluginSettingType)]
#[schemars(inline)]
pub enum Kind {
    String,
    Number,
    Integer,
    Boolean,
    Object,
    Array,
}

impl Kind {
    fn admits(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Boolean => value.is_boolean(),
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::String => "a text",
            Self::Number => "a number",
            Self::Integer => "a whole number",
            Self::Boolean => "true or false",
            Self::Object => "an object",
            Self::Array => "a list",
        }
    }
}

impl Manifest {
    /// Of a component that came without one: no grants, no settings, no wishes.
    #[must_use]
    pub fn bare(name: &str) -> Self {
        let plugin = Identity { name: name.to_owned(), ..Identity::default() };
        Self { plugin, state_bytes: STATE_BYTES, ..Self::default() }
    }

    /// Reads a manifest; all that is wrong comes back.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        Document::parse(text).map(|document| document.manifest)
    }

    /// The rules that its subscriptions mean, for a plugin of this name.
    pub fn rules<'a>(&'a self, plugin: &'a str) -> impl Iterator<Item = Value> + 'a {
        self.subscribe.iter().enumerate().map(move |(at, subscription)| subscription.rule(plugin, at))
    }

    /// What is wrong with these settings, by what the manifest declares; nothing if all is well.
    #[must_use]
    pub fn check_config(&self, config: &Map<String, Value>) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        for (name, value) in config {
            match self.config.get(name) {
                Some(setting) if setting.kind.admits(value) => {}
                Some(setting) => {
                    wrong.push(Wrong::new(name, format!("it must be {}", setting.kind.words()), None));
                }
                None => {
                    let known = self.config.keys().map(String::as_str);
                    let hint = match toml_text::nearest(name, known) {
                        Some(near) => Some(format!("did you mean `{near}`?")),
                        None if self.config.is_empty() => Some("its manifest declares no settings".to_owned()),
                        None => None,
                    };
                    wrong.push(Wrong::new(name, "its manifest declares no such setting".to_owned(), hint));
                }
            }
        }
        for (name, setting) in &self.config {
            if setting.required && setting.default.is_null() && !config.contains_key(name) {
                wrong.push(Wrong::new(name, "it is required".to_owned(), None));
            }
        }
        wrong
    }
}

impl Document {
    /// Reads a manifest with what is for the command line; all that is wrong comes back.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        if text.len() > SIZE_MAX {
            let message = format!("the manifest has {} bytes; at most {SIZE_MAX} are taken", text.len());
            return Err(vec![toml_text::at(text, 0, String::new(), message, None)]);
        }
        let raw: Raw = toml_text::read(text).map_err(|fault| vec![fault])?;
        let faults = Checker::new(text).faults(&raw);
        if !faults.is_empty() {
            return Err(faults);
        }
        let raw::Grants { emit, deliver, http, secrets, schedule, state } = raw.grants;
        let plugin =
            Identity { name: raw.plugin.name, version: raw.plugin.version, description: raw.plugin.description };
        let manifest = Manifest {
            plugin,
            grants: Grants { emit, deliver, http, secrets, schedule },
            state_bytes: state.map_or(STATE_BYTES, |state| state.bytes.0),
            config: raw.config,
            limits: LimitRequest {
                time: raw.limits.time.map(|time| time.0),
                memory: raw.limits.memory.map(Bytes::get),
                fuel: raw.limits.fuel,
                instance: raw.limits.instance.into(),
            },
            versions: raw.versions,
            recorder: RecorderRequest {
                off: raw.recorder.off,
                sample: raw.recorder.sample,
                redact: raw.recorder.redact,
            },
            subscribe: raw.subscribe,
        };
        let raw::Build { command, artifact, watch } = raw.build;
        Ok(Self { manifest, build: Build { command, artifact, watch } })
    }
}

impl Subscription {
    /// The rule that it means, as the `at`-th of the plugin.
    #[must_use]
    pub fn rule(&self, plugin: &str, at: usize) -> Value {
        let numbered = || if at == 0 { plugin.to_owned() } else { format!("{plugin}-{}", at + 1) };
        let name = self.name.clone().unwrap_or_else(numbered);
        let mut rule = serde_json::json!({"name": name, "on": self.on, "steps": [{"handle": {"plugin": plugin}}]});
        if !self.pattern.is_empty() {
            rule["match"] = Value::Object(self.pattern.clone());
        }
        for (field, value) in [("where", &self.condition), ("order", &self.order)] {
            if let Some(value) = value {
                rule[field] = value.clone().into();
            }
        }
        rule
    }
}

/// A setting that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The setting.
    pub name: String,
    /// What is wrong with it.
    pub message: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

impl Wrong {
    fn new(name: &str, message: String, hint: Option<String>) -> Self {
        Self { name: name.to_owned(), message, hint }
    }
}

/// Is it a name of a plugin, a sink or a secret: as rules' names are.
#[must_use]
pub fn is_plain_name(text: &str) -> bool {
    is_name(text)
}

#[cfg(test)]
mod tests;
