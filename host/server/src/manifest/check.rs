//! What the types cannot say: faults of a file that reads well, each at its key.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bulkhead_domain::policy::origin::Origin;
use bulkhead_domain::rule::Diagnostic;
use bulkhead_domain::rule::document;
use bulkhead_domain::rule::document::Names;
use bulkhead_domain::rule::glob::Glob;

use crate::manifest::CONFIG_BYTES_MAX;
use crate::manifest::Setting;
use crate::manifest::Subscription;
use crate::manifest::is_plain_name;
use crate::manifest::raw;
use crate::manifest::raw::Raw;
use crate::toml_text;

/// Rules that one plugin may bring.
const SUBSCRIPTIONS_MAX: usize = 32;

/// What is found on the way through a file.
pub(super) struct Checker<'t> {
    text: &'t str,
    faults: Vec<Diagnostic>,
}

impl<'t> Checker<'t> {
    /// For this file.
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, faults: Vec::new() }
    }

    /// All that is wrong with what was read from it.
    pub(super) fn faults(mut self, raw: &Raw) -> Vec<Diagnostic> {
        self.plugin(&raw.plugin);
        self.grants(&raw.grants);
        self.settings(&raw.config);
        self.limits(&raw.limits);
        self.recorder(&raw.recorder);
        self.build(&raw.build);
        self.subscriptions(&raw.plugin.name, &raw.subscribe);
        self.faults
    }

    fn wrong(&mut self, table: &str, key: &str, message: String, hint: Option<String>) {
        let offset = toml_text::find(self.text, table, key).unwrap_or_default();
        let fault = toml_text::at(self.text, offset, format!("{table}.{key}"), message, hint);
        self.faults.push(fault);
    }

    fn plugin(&mut self, plugin: &raw::Plugin) {
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

    fn grants(&mut self, grants: &raw::Grants) {
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
            if Origin::parse(host).is_none() {
                let message = format!("`{}` is no host", host.escape_debug());
                let hint = "write api.example.com or api.example.com:8443, without scheme and path; \
                            http://host:port is one without TLS";
                let hint = hint.to_owned();
                self.wrong("grants", "http", message, Some(hint));
            }
        }
        for (key, entries) in
            [("emit", &grants.emit), ("deliver", &grants.deliver), ("http", &grants.http), ("secrets", &grants.secrets)]
        {
            if entries.len() > raw::ENTRIES_MAX {
                let message = format!("{} entries; at most {} are taken", entries.len(), raw::ENTRIES_MAX);
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
        if settings.len() > raw::ENTRIES_MAX {
            let message = format!("{} settings; at most {} are taken", settings.len(), raw::ENTRIES_MAX);
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

    fn recorder(&mut self, recorder: &raw::Recorder) {
        if recorder.sample.is_some_and(|part| !(0.0..=1.0).contains(&part)) {
            let hint = "0.01 is one run of a hundred".to_owned();
            self.wrong("recorder", "sample", "a part is from 0 to 1".to_owned(), Some(hint));
        }
        if recorder.redact.len() > raw::REDACT_MAX {
            let message = format!("{} places; at most {} are taken", recorder.redact.len(), raw::REDACT_MAX);
            self.wrong("recorder", "redact", message, None);
        }
        if let Some(place) = recorder.redact.iter().find(|place| !place.starts_with('/')) {
            let hint = format!("write `/{}`", place.replace('.', "/"));
            self.wrong("recorder", "redact", format!("`{place}` is no JSON pointer"), Some(hint));
        }
    }

    fn limits(&mut self, limits: &raw::Limits) {
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

    fn build(&mut self, build: &raw::Build) {
        for (key, value) in [("command", &build.command), ("artifact", &build.artifact)] {
            if value.as_ref().is_some_and(|value| value.trim().is_empty()) {
                self.wrong("build", key, format!("`{key}` is empty"), Some("leave it out instead".to_owned()));
            }
        }
        for pattern in &build.watch {
            if let Err(error) = glob::Pattern::new(pattern) {
                let hint = Some("write src/**/*.rs or Cargo.toml".to_owned());
                self.wrong("build", "watch", format!("`{}`: {error}", pattern.escape_debug()), hint);
            }
        }
        if build.watch.len() > raw::WATCH_MAX {
            let message = format!("{} globs; at most {} are taken", build.watch.len(), raw::WATCH_MAX);
            self.wrong("build", "watch", message, None);
        }
    }

    /// A subscription is checked as the rule that it means.
    fn subscriptions(&mut self, plugin: &str, subscriptions: &[Subscription]) {
        if subscriptions.len() > SUBSCRIPTIONS_MAX {
            let message = format!("{} subscriptions; at most {SUBSCRIPTIONS_MAX} are taken", subscriptions.len());
            self.faults.push(toml_text::at(self.text, 0, "subscribe".to_owned(), message, None));
            return;
        }
        let (plugins, sinks) = (BTreeSet::from([plugin.to_owned()]), BTreeSet::new());
        let names = Names { plugins: &plugins, sinks: &sinks };
        let mut seen = BTreeSet::new();
        for (at, subscription) in subscriptions.iter().enumerate() {
            let rule = subscription.rule(plugin, at);
            if !seen.insert(rule["name"].to_string()) {
                let message = format!("two subscriptions are called {}", rule["name"]);
                self.of_subscription(at, "name", message, None);
            }
            // The plugin's own name has been checked; a fault of it would come back for each subscription.
            let Err(faults) = document::parse(&rule.to_string(), &names) else { continue };
            for fault in faults.into_iter().filter(|fault| !fault.path.starts_with("steps")) {
                let key = fault.path.split(['.', '[']).next().unwrap_or_default().to_owned();
                if key == "name" && subscription.name.is_none() {
                    continue;
                }
                self.of_subscription(at, &key, fault.message, fault.hint);
            }
        }
    }

    fn of_subscription(&mut self, at: usize, key: &str, message: String, hint: Option<String>) {
        let heading = self.text.match_indices("[[subscribe]]").nth(at).map_or(0, |(offset, _)| offset);
        // The heading is two brackets longer than the table's own, which `find` reads.
        let within = heading + 1;
        let offset = toml_text::find(&self.text[within..], "subscribe", key).map_or(heading, |found| within + found);
        self.faults.push(toml_text::at(self.text, offset, format!("subscribe[{at}].{key}"), message, hint));
    }
}
