//! Events: what a publisher hands in, and what the log holds.

use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::EventKey;
use crate::id::Position;
use crate::id::Shard;

/// A CloudEvents 1.0 event, checked and stamped; immutable from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The publisher's id, unique within its source.
    pub id: String,
    /// Where it happened (a URI reference).
    pub source: String,
    /// Its type, dotted: `orders.created`.
    pub kind: String,
    /// What it is about.
    pub subject: Option<String>,
    /// When it happened, as the publisher said; else when it was accepted.
    pub time: Timestamp,
    /// The ordering key (`partitionkey`); see [`Event::ordering_key`].
    pub key: Option<String>,
    /// Shared by everything that follows from one first event; a first event's own id unless the publisher gave one.
    pub correlation: String,
    /// The id of the event that this one follows from.
    pub causation: Option<String>,
    /// Media type of `data`; `application/json` unless the publisher said otherwise.
    pub content_type: String,
    /// The payload, byte for byte as it came.
    #[serde(with = "crate::blob")]
    pub data: Bytes,
    /// Every other attribute (CloudEvents extensions), names in lower case, sorted by name.
    pub attributes: Vec<(String, String)>,
}

impl Event {
    /// Runs of a rule with `order: key` follow each other per this key: `partitionkey`, else the subject, else none.
    #[must_use]
    pub fn ordering_key(&self) -> Option<&str> {
        self.key.as_deref().or(self.subject.as_deref())
    }

    /// Names the event within its tenant.
    #[must_use]
    pub fn event_key(&self) -> EventKey {
        EventKey::of(&self.source, &self.id)
    }

    /// True if `data` is JSON by its media type.
    #[must_use]
    pub fn is_json(&self) -> bool {
        let media = self.content_type.split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case("application/json")
            || media.eq_ignore_ascii_case("text/json")
            || (media.len() > 5 && media.as_bytes()[media.len() - 5..].eq_ignore_ascii_case(b"+json"))
    }

    /// BLAKE3 over every field, each with its length in front: altering a stored event changes it.
    #[must_use]
    pub fn integrity(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(self.id.as_bytes());
        field(self.source.as_bytes());
        field(self.kind.as_bytes());
        field(self.subject.as_deref().unwrap_or_default().as_bytes());
        field(&self.time.0.to_le_bytes());
        field(self.key.as_deref().unwrap_or_default().as_bytes());
        field(self.correlation.as_bytes());
        field(self.causation.as_deref().unwrap_or_default().as_bytes());
        field(self.content_type.as_bytes());
        field(&self.data);
        for (name, value) in &self.attributes {
            field(name.as_bytes());
            field(value.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// How far an event is from its first cause, and how many events may still follow from it.
///
/// The budget is divided among the runs that an event starts and again among the events that a run emits, so the
/// number of descendants of a first event is bounded without anybody counting them in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lineage {
    /// 0 for a first event, one more for each event that follows.
    pub hops: u16,
    /// Descendants that this event may still have.
    pub budget: u32,
}

impl Lineage {
    /// The share of each of `runs` runs that this event starts.
    #[must_use]
    pub fn share(self, runs: usize) -> Self {
        let runs = u32::try_from(runs.max(1)).unwrap_or(u32::MAX);
        Self { hops: self.hops, budget: self.budget / runs }
    }

    /// What each of `emitted` events of one run carries on, or none if the run's share does not cover them
    /// or they would be more than `hops_max` hops away from the first event.
    #[must_use]
    pub fn descend(self, emitted: usize, hops_max: u16) -> Option<Self> {
        let emitted = u32::try_from(emitted).ok()?;
        if emitted == 0 || self.hops >= hops_max || emitted > self.budget {
            return None;
        }
        Some(Self { hops: self.hops + 1, budget: (self.budget - emitted) / emitted })
    }
}

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its place.
    pub position: Position,
    /// The shard it is in.
    pub shard: Shard,
    /// When it was accepted.
    pub recorded: Timestamp,
    /// How it descends.
    pub lineage: Lineage,
    /// The event.
    pub event: Event,
}

/// An event to be: what a plugin emits or passes on. The host adds identity and causation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Draft {
    /// Its type.
    pub kind: String,
    /// What it is about.
    pub subject: Option<String>,
    /// Its ordering key.
    pub key: Option<String>,
    /// Media type of `data`.
    pub content_type: String,
    /// The payload.
    #[serde(with = "crate::blob")]
    pub data: Bytes,
    /// Further attributes.
    pub attributes: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_bounds_all_descendants() {
        // The worst a tree can do: every event emits as many as its budget allows to go on.
        fn descendants(of: Lineage, fan: u32) -> u64 {
            match of.descend(fan as usize, 16) {
                None => 0,
                Some(child) => u64::from(fan) * (1 + descendants(child, fan)),
            }
        }
        for fan in [1, 2, 3, 10, 100, 999, 1_000] {
            let total = descendants(Lineage { hops: 0, budget: 1_000 }, fan);
            assert!((1..=1_000).contains(&total), "fan {fan}: {total}");
        }
        assert_eq!(Lineage { hops: 16, budget: 1_000 }.descend(1, 16), None);
        assert_eq!(Lineage { hops: 0, budget: 1_000 }.descend(1_001, 16), None);
    }

    #[test]
    fn json_is_told_by_the_media_type() {
        let event = |content_type: &str| Event {
            id: "1".into(),
            source: "/".into(),
            kind: "a".into(),
            subject: None,
            time: Timestamp(0),
            key: None,
            correlation: "1".into(),
            causation: None,
            content_type: content_type.into(),
            data: Bytes::new(),
            attributes: vec![],
        };
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"] {
            assert!(event(json).is_json(), "{json}");
        }
        for other in ["text/plain", "application/jsonx", "json", ""] {
            assert!(!event(other).is_json(), "{other}");
        }
    }
}
