//! What goes into an invocation and what comes out: values of the domain, no wasm.
//!
//! The port is message-shaped: a [`Call`] goes in, an [`Attempt`] comes out, and the only way back in between is
//! the [`StateReader`]. So a runner in a process of its own can stand behind the same types.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::Effect;
use bulkhead_domain::effect::EffectSeed;
use bulkhead_domain::effect::LogLine;
use bulkhead_domain::event::Draft;
use bulkhead_domain::event::Event;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::limits::InstancePolicy;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_domain::recording::Ended;
use bulkhead_domain::recording::Read;
use bytes::Bytes;
use secrecy::SecretString;

/// What stays the same over the calls of a batch: one version of one plugin of one tenant.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Whose state is read and written.
    pub plugin: PluginId,
    /// Its name, as the tenant gave it.
    pub plugin_name: String,
    /// Its version.
    pub version: String,
    /// What it may do: requested ∩ tenant ∩ operator's ceiling.
    pub grants: Grants,
    /// What one invocation may use.
    pub limits: Limits,
    /// How long an instance serves.
    pub policy: InstancePolicy,
    /// Its settings: name to JSON text.
    pub config: BTreeMap<String, String>,
    /// The tenant's secrets that it may read; also what is redacted in its logs and reasons.
    pub secrets: BTreeMap<String, SecretString>,
    /// The tenant's sinks.
    pub sinks: BTreeSet<String>,
}

/// One invocation.
#[derive(Clone)]
pub struct Call<'a> {
    /// What it is about.
    pub event: &'a Event,
    /// The rule by which it happens.
    pub rule: &'a str,
    /// 1 on the first try.
    pub attempt: u32,
    /// The time that the guest sees.
    pub now: Timestamp,
    /// From what its effects' ids and its random bytes are derived.
    pub seed: EffectSeed,
    /// The ordinal of its first effect; see [`Attempt::ordinals`].
    pub first_ordinal: usize,
    /// Where it reads its state.
    pub state: &'a Arc<dyn StateReader>,
    /// Set from outside to end it soon.
    pub cancelled: &'a Arc<AtomicBool>,
    /// What is kept of it for a recording.
    pub record: Record,
}

/// What is kept of a call, should somebody want a recording of it; see [`Session::record`](crate::Session::record).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Bytes of what it reads; 0 keeps nothing.
    pub bytes: usize,
    /// Makes an instance for it, whatever the policy says: what earlier calls left behind is in no recording, and would
    /// make a re-execution use another amount of fuel.
    pub fresh: bool,
}

impl Record {
    /// Nobody wants a recording.
    pub const NOTHING: Self = Self { bytes: 0, fresh: false };
}

/// What a call read, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// One by one.
    pub list: Vec<Read>,
    /// There were more than could be kept.
    pub cut: bool,
}

/// Committed state, with what earlier runs of the batch wrote on top of it.
///
/// Called on the thread that runs the guest, and blocks it: an implementation keeps to a deadline of its own.
/// The guest's own writes of the same invocation are laid over what this returns.
pub trait StateReader: Send + Sync {
    /// The value under a key of a plugin, if there is one that has not expired.
    fn get(&self, plugin: PluginId, key: &str) -> Result<Option<Held>, StateError>;

    /// Up to `limit` keys that start with `prefix`, in order of their bytes, from after `after`.
    fn keys(
        &self,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StateError>;

    /// The version of what [`get`](Self::get) gave for a key; none if it has none. For recordings only.
    fn version(&self, _plugin: PluginId, _key: &str) -> Option<i64> {
        None
    }
}

/// A value in the state of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The bytes.
    pub value: Bytes,
    /// When they cease to be; none is never. An increment keeps it.
    pub expires: Option<Timestamp>,
}

/// The state could not be read. Ends the attempt as `host:state`; the text is for the operator only.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct StateError(pub String);

/// How an invocation ended and what it left.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// How it ended.
    pub outcome: Outcome,
    /// What a transformer passes on, in order. Empty unless the outcome is done.
    pub drafts: Vec<Draft>,
    /// What it wants to happen, in order; state writes last, one for each key. Empty unless the outcome is done.
    pub effects: Vec<Effect>,
    /// How many ordinals its effects took: the next step's `first_ordinal` is this one's plus this.
    pub ordinals: usize,
    /// What it wrote to its log, whatever the outcome.
    pub logs: Vec<LogLine>,
    /// Lines that the limits dropped.
    pub logs_dropped: u32,
    /// Costs that it counted, by unit.
    pub usage: BTreeMap<String, f64>,
    /// Instructions used, those of making the instance included.
    pub fuel: u64,
    /// Wall-clock time, that of making the instance included.
    pub duration: Duration,
    /// Bytes of all its linear memories at the end, which is the most they ever were.
    pub memory: usize,
    /// Calls into the host.
    pub host_calls: u32,
    /// Whether an instance was made for it.
    pub instantiated: bool,
    /// What it read, as far as the call asked for it.
    pub reads: Reads,
}

impl Attempt {
    /// What came of it, as recordings have it: without the store's number of the plugin.
    #[must_use]
    pub fn ended(&self) -> Ended {
        let mut effects = self.effects.clone();
        for effect in &mut effects {
            match effect {
                Effect::State(write) => write.plugin = PluginId::default(),
                Effect::Cancel { plugin, .. } => *plugin = PluginId::default(),
                Effect::Emit { .. } | Effect::Deliver(_) | Effect::Schedule { .. } => {}
            }
        }
        Ended {
            outcome: self.outcome.clone(),
            drafts: self.drafts.clone(),
            effects,
            logs: self.logs.clone(),
            logs_dropped: self.logs_dropped,
            usage: self.usage.clone(),
            fuel: self.fuel,
            memory: self.memory,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A setup with default limits and no grants.
    pub(crate) fn setup() -> Setup {
        Setup {
            plugin: PluginId(1),
            plugin_name: "plugin".into(),
            version: "1".into(),
            grants: Grants::default(),
            limits: Limits::default(),
            policy: InstancePolicy::default(),
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            sinks: BTreeSet::new(),
        }
    }
}
