//! Grants: deny by default; effective = requested ∩ tenant ∩ operator's ceiling.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;

use crate::policy::origin::Origin;
use crate::rule::glob::Glob;

/// What a plugin is allowed to do beyond computing, reading its own state and writing its log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Types of events that it may emit or schedule: dotted globs.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub emit: BTreeSet<String>,
    /// Sinks that it may deliver to; `*` is every sink of the tenant.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub deliver: BTreeSet<String>,
    /// Hosts that it may call; see [`Origin`].
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub http: BTreeSet<String>,
    /// Secrets that it may read.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// Whether it may set timers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub schedule: bool,
}

impl Grants {
    /// May it emit an event of this type? A pattern that is no glob allows nothing.
    #[must_use]
    pub fn may_emit(&self, kind: &str) -> bool {
        self.emit.iter().any(|pattern| Glob::parse(pattern).is_ok_and(|glob| glob.matches(kind)))
    }

    /// May it deliver to this sink?
    #[must_use]
    pub fn may_deliver(&self, sink: &str) -> bool {
        self.deliver.contains(sink) || self.deliver.contains("*")
    }

    /// May it send requests there?
    #[must_use]
    pub fn may_call(&self, origin: &Origin) -> bool {
        self.http.iter().any(|granted| Origin::parse(granted).as_ref() == Some(origin))
    }

    /// What these allow and others do not, entry by entry: `emit orders.*`.
    #[must_use]
    pub fn beyond(&self, others: &Self) -> Vec<String> {
        let lists = [
            ("emit", &self.emit, &others.emit),
            ("deliver", &self.deliver, &others.deliver),
            ("http", &self.http, &others.http),
            ("secrets", &self.secrets, &others.secrets),
        ];
        let entries = lists
            .into_iter()
            .flat_map(|(name, these, others)| these.difference(others).map(move |entry| format!("{name} {entry}")));
        let timers = (self.schedule && !others.schedule).then(|| "schedule".to_owned());
        entries.chain(timers).collect()
    }

    /// May it read this secret?
    #[must_use]
    pub fn may_read_secret(&self, name: &str) -> bool {
        self.secrets.contains(name)
    }
}
