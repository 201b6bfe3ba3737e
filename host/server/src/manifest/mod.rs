//! Manifests: what a plugin is called, what it asks for, what it can be told (`plugin.toml`).
//!
//! ```text
//! text ──raw──▶ Manifest (checked) ──▶ Grants, LimitRequest, settings with types and defaults
//! ```
//!
//! What a manifest asks for is what the tenant grants by activating the version; the operator's ceiling is applied when the
//! plugin runs. Unknown keys are errors: a grant that is misspelt must not silently be none.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::limits::InstancePolicy;
use bulkhead_domain::policy::limits::LimitRequest;
use bulkhead_domain::rule::Diagnostic;
use bulkhead_domain::rule::definition::is_name;
use bulkhead_domain::rule::glob::Glob;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::measure::Bytes;
use crate::measure::Span;
use crate::toml_text;

/// The longest manifest.
pub const SIZE_MAX: usize = 256 << 10;
/// Bytes of state that a plugin has without asking.
const STATE_BYTES: u64 = 10 << 20;
/// Settings of a plugin, and bytes of all of them.
const SETTINGS_MAX: usize = 256;
/// The most bytes of a plugin's settings.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;
/// Entries of one grant.
const GRANT_ENTRIES_MAX: usize = 256;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PluginSettingType)]
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    plugin: RawPlugin,
    #[serde(default)]
    grants: RawGrants,
    #[serde(default)]
    config: BTreeMap<String, Setting>,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    #[expect(dead_code, reason = "checked here, used by the command line")]
    build: RawBuild,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlugin {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    description: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawGrants {
    emit: BTreeSet<String>,
    deliver: BTreeSet<String>,
    http: BTreeSet<String>,
    secrets: BTreeSet<String>,
    schedule: bool,
    state: Option<RawState>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawState {
    bytes: Bytes,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    time: Option<Span>,
    memory: Option<Bytes>,
    fuel: Option<u64>,
    instance: InstancePolicy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawBuild {
    command: Option<String>,
    artifact: Option<String>,
    watch: Vec<String>,
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
        if text.len() > SIZE_MAX {
            let message = format!("the manifest has {} bytes; at most {SIZE_MAX} are taken", text.len());
            return Err(vec![toml_text::at(text, 0, String::new(), message, None)]);
        }
        let raw: Raw = toml_text::read(text).map_err(|fault| vec![fault])?;
        let mut checker = Checker { text, faults: Vec::new() };
        checker.plugin(&raw.plugin);
        checker.grants(&raw.grants);
        checker.settings(&raw.config);
        checker.limits(&raw.limits);
        if !checker.faults.is_empty() {
            return Err(checker.faults);
        }
        let RawGrants { emit, deliver, http, secrets, schedule, state } = raw.grants;
        Ok(Self {
            plugin: Identity {
                name: raw.plugin.name,
                version: raw.plugin.version,
                description: raw.plugin.description,
            },
            grants: Grants { emit, deliver, http, secrets, schedule },
            state_bytes: state.map_or(STATE_BYTES, |state| state.bytes.0),
            config: raw.config,
            limits: LimitRequest {
                time: raw.limits.time.map(|time| time.0),
                memory: raw.limits.memory.map(Bytes::get),
                fuel: raw.limits.fuel,
                instance: raw.limits.instance,
            },
        })
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

struct Checker<'t> {
    text: &'t str,
    faults: Vec<Diagnostic>,
}

impl Checker<'_> {
    fn wrong(&mut self, table: &str, key: &str, message: String, hint: Option<String>) {
        let offset = toml_text::find(self.text, table, key).unwrap_or_default();
        let fault = toml_text::at(self.text, offset, format!("{table}.{key}"), message, hint);
        self.faults.push(fault);
    }

    fn plugin(&mut self, plugin: &RawPlugin) {
        if !is_plain_name(&plugin.name) {
            let message = format!("`{}` is no name of a plugin", plugin.name.escape_debug());
            let hint = "write small letters, digits and dashes, at most 64, such as fraud-score".to_owned();
            self.wrong("plugin", "name", message, Some(hint));
        }
        if plugin.version.len() > 64 {
            self.wrong("plugin", "version", "a version has at most 64 characters".to_owned(), None);
        }
        if plugin.description.len() > 4_096 {
            self.wrong("plugin", "description", "a description has at most 4096 bytes".to_owned(), None);
        }
    }

    fn grants(&mut self, grants: &RawGrants) {
        for pattern in &grants.emit {
            if let Err(error) = Glob::parse(pattern) {
                self.wrong("grants", "emit", error.to_string(), Some("write orders.flagged or orders.*".to_owned()));
            } else if pattern.starts_with("bulkhead.") {
                let message = format!("`{pattern}`: types that begin with `bulkhead.` are the host's own");
                self.wrong("grants", "emit", message, None);
            }
        }
        for (key, names) in [("deliver", &grants.deliver), ("secrets", &grants.secrets)] {
            for name in names.iter().filter(|name| !(is_plain_name(name) || key == "deliver" && *name == "*")) {
                let message = format!("`{}` is no name", name.escape_debug());
                let hint = "names are small letters, digits and dashes".to_owned();
                self.wrong("grants", key, message, Some(hint));
            }
        }
        for host in &grants.http {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
            if host.is_empty() || host.len() > 255 || !host.bytes().all(plain) {
                let message = format!("`{}` is no host", host.escape_debug());
                let hint = "write api.example.com or api.example.com:8443, without scheme and path".to_owned();
                self.wrong("grants", "http", message, Some(hint));
            }
        }
        for (key, entries) in
            [("emit", &grants.emit), ("deliver", &grants.deliver), ("http", &grants.http), ("secrets", &grants.secrets)]
        {
            if entries.len() > GRANT_ENTRIES_MAX {
                let message = format!("{} entries; at most {GRANT_ENTRIES_MAX} are taken", entries.len());
                self.wrong("grants", key, message, None);
            }
        }
        if grants.state.as_ref().is_some_and(|state| state.bytes.0 == 0) {
            self.wrong(
                "grants",
                "state",
                "`bytes` is 0".to_owned(),
                Some("leave `state` out for the default".to_owned()),
            );
        }
    }

    fn settings(&mut self, settings: &BTreeMap<String, Setting>) {
        if settings.len() > SETTINGS_MAX {
            let message = format!("{} settings; at most {SETTINGS_MAX} are taken", settings.len());
            self.faults.push(toml_text::at(self.text, 0, "config".to_owned(), message, None));
        }
        for (name, setting) in settings {
            if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
                self.wrong("config", name, "a setting's name has 1 to 128 characters".to_owned(), None);
            }
            if !setting.default.is_null() && !setting.kind.admits(&setting.default) {
                let message = format!("the default of `{name}` must be {}", setting.kind.words());
                self.wrong("config", name, message, None);
            }
        }
        let size: usize = settings.values().map(|setting| setting.default.to_string().len()).sum();
        if size > CONFIG_BYTES_MAX {
            let message = format!("the defaults have {size} bytes; at most {CONFIG_BYTES_MAX} are taken");
            self.faults.push(toml_text::at(self.text, 0, "config".to_owned(), message, None));
        }
    }

    fn limits(&mut self, limits: &RawLimits) {
        if limits.time.is_some_and(|time| time.0.is_zero()) {
            self.wrong("limits", "time", "no time at all is too little".to_owned(), None);
        }
        if limits.memory.is_some_and(|memory| memory.0 < 64 << 10) {
            self.wrong("limits", "memory", "less than one page, 64KiB, is too little".to_owned(), None);
        }
        if limits.fuel == Some(0) {
            self.wrong("limits", "fuel", "no fuel at all is too little".to_owned(), None);
        }
    }
}

#[cfg(test)]
mod tests;
