//! Recordings: what one call of a plugin saw and what came of it, so that it can be re-executed elsewhere, bit for bit.
//!
//! A recording has everything that reaches a guest: the event, the time, the seed of its randomness and of its effects'
//! ids, its settings, and in order what it read. So it depends on no store, no network and no clock. Secrets' values are
//! never in it; what was taken out is named in [`Recording::redacted`].
//!
//! This is also the form in which recordings are stored and handed out (JSON): a field that is added has a default.

mod difference;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::effect::Effect;
use crate::effect::EffectSeed;
use crate::effect::LogLine;
use crate::event::Draft;
use crate::event::Event;
use crate::policy::grants::Grants;
use crate::policy::limits::InstancePolicy;
use crate::policy::limits::Limits;
use crate::policy::verdict::Outcome;

pub use self::difference::Change;
pub use self::difference::Difference;

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// What stands in the place of what was taken out; a re-execution gives it to the guest as the value of every secret.
pub const REDACTED: &str = "[redacted]";

/// One call of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// The format; see [`FORMAT`].
    pub format: u32,
    /// Which call it was.
    pub call: Place,
    /// The plugin's name.
    pub plugin: String,
    /// The number of its version, as the guest saw it.
    pub version: String,
    /// `sha256:…` of the component.
    pub digest: String,
    /// What was asked of it.
    pub duty: Duty,
    /// 1 on the first try.
    pub attempt: u32,
    /// The time that the guest saw.
    pub now: Timestamp,
    /// From what its effects' ids and its random bytes are derived; of this run alone, and derived itself.
    pub seed: EffectSeed,
    /// The ordinal of its first effect.
    pub first_ordinal: usize,
    /// The event as the guest was given it.
    pub event: Event,
    /// What it was allowed.
    pub grants: Grants,
    /// What it could use.
    pub limits: Limits,
    /// How long its instances serve.
    pub instance: InstancePolicy,
    /// Its settings: name to JSON text.
    pub config: BTreeMap<String, String>,
    /// The tenant's sinks.
    pub sinks: BTreeSet<String>,
    /// Whether an instance was made for this call. If not, what earlier calls left in its memory is not in here, and the
    /// fuel of a re-execution may differ.
    pub fresh: bool,
    /// What it read, in order.
    pub reads: Vec<Read>,
    /// More was read, or larger, than is kept. Then it cannot be re-executed.
    #[serde(default)]
    pub cut: bool,
    /// Where something was taken out. Then a re-execution may differ.
    #[serde(default)]
    pub redacted: BTreeSet<String>,
    /// What came of it.
    pub ended: Ended,
}

/// Which call of which run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The run's id.
    pub run: String,
    /// Its rule.
    pub rule: String,
    /// The step, from 0.
    pub step: usize,
    /// Which of the documents at that step, from 0.
    pub item: usize,
    /// The version of the tenant's settings.
    pub settings: i64,
}

/// What is asked of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duty {
    /// To act on the event.
    Handle,
    /// To turn the event into others.
    Transform,
}

/// One thing that a guest read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "read", rename_all = "lowercase")]
pub enum Read {
    /// A key of its state.
    State {
        /// The key.
        key: String,
        /// What was under it.
        held: Option<Held>,
    },
    /// Keys of its state.
    Keys {
        /// The prefix asked for.
        prefix: String,
        /// From after this key.
        #[serde(default)]
        after: Option<String>,
        /// At most this many.
        limit: usize,
        /// What came.
        keys: Vec<String>,
    },
    /// A secret; its value is not kept.
    Secret {
        /// Its name.
        name: String,
    },
    /// An answer from outside.
    Http {
        /// `GET https://…`: what was asked, and with which body, as a digest.
        request: String,
        /// The status; none if there was no answer.
        #[serde(default)]
        status: Option<u16>,
        /// Its headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// Its body.
        #[serde(with = "crate::blob")]
        body: Bytes,
    },
}

/// A value in the state, as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The bytes.
    #[serde(with = "crate::blob")]
    pub value: Bytes,
    /// When they cease to be.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// Its version in the store; none if a run of the same batch had written it.
    #[serde(default)]
    pub version: Option<i64>,
}

impl Read {
    /// About how many bytes it takes to keep.
    #[must_use]
    pub fn size(&self) -> usize {
        /// What a read costs beside its texts.
        const AROUND: usize = 64;
        AROUND
            + match self {
                Self::State { key, held } => key.len() + held.as_ref().map_or(0, |held| held.value.len()),
                Self::Keys { prefix, after, keys, .. } => {
                    let keys: usize = keys.iter().map(|key| key.len() + 3).sum();
                    prefix.len() + after.as_ref().map_or(0, String::len) + keys
                }
                Self::Secret { name } => name.len(),
                Self::Http { request, headers, body, .. } => {
                    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
                    request.len() + headers + body.len()
                }
            }
    }
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// What a transformer passed on.
    #[serde(default)]
    pub drafts: Vec<Draft>,
    /// What it wanted to happen; writes to state last.
    #[serde(default)]
    pub effects: Vec<Effect>,
    /// What it wrote to its log.
    #[serde(default)]
    pub logs: Vec<LogLine>,
    /// Lines that the limits dropped.
    #[serde(default)]
    pub logs_dropped: u32,
    /// Costs that it counted, by unit.
    #[serde(default)]
    pub usage: BTreeMap<String, f64>,
    /// Instructions used.
    pub fuel: u64,
    /// Bytes of its linear memories.
    pub memory: usize,
}
