//! Effects: what a run wants to happen, held back until the run commits.

use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::event::Draft;
use crate::id::EventKey;
use crate::id::PluginId;

/// From what the ids of a run's effects at one step are derived.
///
/// The same attempt on another node, or the same run after a crash, derives the same ids: receivers dedupe by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectSeed([u8; 32]);

impl EffectSeed {
    /// For the `item`-th document at step `step` of `rule` over an event. `secret` is the host's own, so that a
    /// tenant cannot predict ids or random bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32], tenant: &str, event: EventKey, rule: &str, step: usize, item: usize) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(secret);
        for part in [tenant.as_bytes(), &event.0, rule.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update(&(step as u64).to_le_bytes());
        hasher.update(&(item as u64).to_le_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// A seed that was written down, for running the same attempt again.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The seed itself. Whoever has it can tell the ids and random bytes of the run.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The id of the `ordinal`-th effect (counted from 0, all kinds together).
    #[must_use]
    pub fn id(&self, ordinal: usize) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(ordinal as u64).to_le_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        format!("eff_{}", uuid::Builder::from_custom_bytes(bytes).into_uuid().simple())
    }

    /// The id of the `ordinal`-th request to another host: the same on every attempt, so that a receiver can tell that it
    /// was sent this before.
    #[must_use]
    pub fn request_id(&self, ordinal: usize) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"request");
        hasher.update(&(ordinal as u64).to_le_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        format!("req_{}", uuid::Builder::from_custom_bytes(bytes).into_uuid().simple())
    }

    /// The seed of the guest's randomness on one attempt.
    #[must_use]
    pub fn random(&self, attempt: u32) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"random");
        hasher.update(&attempt.to_le_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// One thing that a run wants to happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "lowercase")]
pub enum Effect {
    /// A write to the plugin's state.
    State(StateWrite),
    /// An event, in the same tenant.
    Emit {
        /// The id that the event will have.
        id: String,
        /// The event.
        draft: Draft,
    },
    /// Something for one of the tenant's sinks.
    Deliver(Delivery),
    /// An event at a later time.
    Schedule {
        /// The timer's id, which the event will have.
        id: String,
        /// A second timer of the plugin with this name replaces the first.
        name: Option<String>,
        /// When.
        due: Timestamp,
        /// The event.
        draft: Draft,
    },
    /// Takes a timer back, by name or id.
    Cancel {
        /// The plugin whose timer it is. Not written out: the number is the store's own.
        #[serde(skip)]
        plugin: PluginId,
        /// Its name or id.
        timer: String,
    },
}

/// A write to one key of a plugin's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateWrite {
    /// Whose state. Not written out: the number is the store's own.
    #[serde(skip)]
    pub plugin: PluginId,
    /// The key.
    pub key: String,
    /// The new value; none deletes.
    #[serde(with = "crate::blob::option")]
    pub value: Option<Bytes>,
    /// When the value ceases to be; none is never.
    pub expires: Option<Timestamp>,
}

/// A body on its way to a sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// By which the receiver can dedupe.
    pub id: String,
    /// The sink's name.
    pub sink: String,
    /// Media type of `body`.
    pub content_type: String,
    /// What is sent.
    #[serde(with = "crate::blob")]
    pub body: Bytes,
    /// Further attributes; webhooks send them as headers.
    pub attributes: Vec<(String, String)>,
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Finest.
    Trace,
    /// For developers.
    Debug,
    /// Ordinary.
    Info,
    /// Unusual.
    Warn,
    /// Wrong.
    Error,
}

/// A line that a plugin wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How loud.
    pub level: Level,
    /// Control characters escaped, cut at the line limit.
    pub message: String,
    /// Further fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effect_ids_are_stable_and_differ_in_every_part() {
        let secret = [7; 32];
        let event = EventKey::of("/a", "1");
        let base = EffectSeed::new(&secret, "ten_a", event, "rule", 1, 0);
        assert_eq!(base, EffectSeed::new(&secret, "ten_a", event, "rule", 1, 0));
        let mut ids = std::collections::HashSet::from([base.id(0), base.id(1)]);
        for other in [
            EffectSeed::new(&[8; 32], "ten_a", event, "rule", 1, 0),
            EffectSeed::new(&secret, "ten_b", event, "rule", 1, 0),
            EffectSeed::new(&secret, "ten_a", EventKey::of("/a", "2"), "rule", 1, 0),
            EffectSeed::new(&secret, "ten_a", event, "rule2", 1, 0),
            EffectSeed::new(&secret, "ten_a", event, "rule", 2, 0),
            EffectSeed::new(&secret, "ten_a", event, "rule", 1, 1),
        ] {
            assert!(ids.insert(other.id(0)));
        }
        assert_ne!(base.random(1), base.random(2));
    }
}
