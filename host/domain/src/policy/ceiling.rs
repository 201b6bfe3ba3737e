//! Ceilings: the most that a plugin may be granted, whatever it asks for.
//!
//! ```text
//! effective = requested by the manifest ∩ what the operator allows the tenant ∩ the host's own ceiling
//! ```
//!
//! A ceiling that says nothing of a kind of grant allows all of it; an empty list allows none.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;

use crate::policy::grants::Grants;
use crate::rule::glob::Glob;

/// The most that may be granted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ceiling {
    /// Types of events: dotted globs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emit: Option<BTreeSet<String>>,
    /// Sinks; `*` is every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver: Option<BTreeSet<String>>,
    /// Hosts; `*` is every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<BTreeSet<String>>,
    /// Secrets; `*` is every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<BTreeSet<String>>,
    /// Timers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<bool>,
}

impl Ceiling {
    /// What is left of `grants` below it. Of a request that is wider than the ceiling, what the ceiling allows is left;
    /// of two that only overlap, nothing.
    #[must_use]
    pub fn cut(&self, grants: &Grants) -> Grants {
        Grants {
            emit: cut(&grants.emit, self.emit.as_ref(), covers_kinds),
            deliver: cut(&grants.deliver, self.deliver.as_ref(), covers_names),
            http: cut(&grants.http, self.http.as_ref(), covers_names),
            secrets: cut(&grants.secrets, self.secrets.as_ref(), covers_names),
            schedule: grants.schedule && self.schedule.unwrap_or(true),
        }
    }

    /// What is wrong with it, as (list, entry); none if nothing is.
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, String)> {
        let kinds = self.emit.iter().flatten().find(|kind| Glob::parse(kind).is_err());
        if let Some(kind) = kinds {
            return Some(("emit", kind.clone()));
        }
        [("deliver", &self.deliver), ("http", &self.http), ("secrets", &self.secrets)].into_iter().find_map(
            |(list, entries)| {
                let wrong = |entry: &&String| entry.is_empty() || entry.len() > 255 || entry.contains(char::is_control);
                entries.iter().flatten().find(wrong).map(|entry| (list, entry.clone()))
            },
        )
    }
}

fn covers_kinds(wide: &str, narrow: &str) -> bool {
    match (Glob::parse(wide), Glob::parse(narrow)) {
        (Ok(wide), Ok(narrow)) => wide.covers(&narrow),
        _ => false,
    }
}

fn covers_names(wide: &str, narrow: &str) -> bool {
    wide == "*" || wide == narrow
}

fn cut(
    wanted: &BTreeSet<String>,
    ceiling: Option<&BTreeSet<String>>,
    covers: fn(&str, &str) -> bool,
) -> BTreeSet<String> {
    let Some(ceiling) = ceiling else { return wanted.clone() };
    let mut left = BTreeSet::new();
    for wanted in wanted {
        if ceiling.iter().any(|allowed| covers(allowed, wanted)) {
            left.insert(wanted.clone());
        } else {
            left.extend(ceiling.iter().filter(|allowed| covers(wanted, allowed)).cloned());
        }
    }
    left
}

/// What the operator allows one tenant's plugins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantPolicy {
    /// The most that they may be granted.
    pub grants: Ceiling,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(entries: &[&str]) -> BTreeSet<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    #[test]
    fn what_is_left_is_within_both() {
        let wanted = Grants {
            emit: set(&["orders.**", "audit.written", "other.*"]),
            deliver: set(&["*"]),
            http: set(&["api.example.com"]),
            secrets: set(&["token"]),
            schedule: true,
        };
        assert_eq!(Ceiling::default().cut(&wanted), wanted, "nothing said is nothing cut");
        let ceiling = Ceiling {
            emit: Some(set(&["orders.flagged", "audit.*"])),
            deliver: Some(set(&["crm"])),
            http: Some(set(&[])),
            secrets: Some(set(&["*"])),
            schedule: Some(false),
        };
        let left = ceiling.cut(&wanted);
        assert_eq!(left.emit, set(&["orders.flagged", "audit.written"]));
        assert_eq!((left.deliver, left.http, left.secrets), (set(&["crm"]), set(&[]), set(&["token"])));
        assert!(!left.schedule);
        assert_eq!(ceiling.cut(&left_again(&ceiling, &wanted)), left_again(&ceiling, &wanted), "twice is once");
    }

    fn left_again(ceiling: &Ceiling, wanted: &Grants) -> Grants {
        ceiling.cut(wanted)
    }

    #[test]
    fn a_ceiling_that_does_not_read_is_found() {
        let ceiling = |text: &str| serde_json::from_str::<Ceiling>(text).expect("because its fields are known");
        assert_eq!(ceiling(r#"{"emit":["a.*"],"deliver":["crm"]}"#).fault(), None);
        assert_eq!(ceiling(r#"{"emit":["a..b"]}"#).fault(), Some(("emit", "a..b".to_owned())));
        assert_eq!(ceiling(r#"{"http":[""]}"#).fault(), Some(("http", String::new())));
        assert!(serde_json::from_str::<Ceiling>(r#"{"emits":[]}"#).is_err());
    }
}
