//! Re-execution: a recorded call once more, on the same component or on another build of it.
//!
//! The guest is given what the recording has and nothing else: no store, no secrets, no clock. What it reads now and had
//! not read then is answered as if it were not there, and named.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;

use bulkhead_domain::id::PluginId;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::recording::Difference;
use bulkhead_domain::recording::Ended;
use bulkhead_domain::recording::FORMAT;
use bulkhead_domain::recording::REDACTED;
use bulkhead_domain::recording::Read;
use bulkhead_domain::recording::Recording;
use secrecy::SecretString;

use crate::answers::Answers;
use crate::outbound::Outbound;
use crate::plugin::Plugin;
use crate::port::Attempt;
use crate::port::Call;
use crate::port::Held;
use crate::port::Record;
use crate::port::Setup;
use crate::port::StateError;
use crate::port::StateReader;
use crate::sandbox::Sandbox;

/// How many times the recorded wall-clock limit a re-execution may take: it is the one limit that depends on the machine.
const PATIENCE: u32 = 10;

/// Why a recording cannot be re-executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Something that the guest saw is missing.
    #[error("the recording is cut: the call read more, or larger things, than is kept of one")]
    Cut,
    /// A newer program made it.
    #[error("the recording has format {0}, and this program reads formats up to {FORMAT}")]
    Format(u32),
}

/// A recorded call and what the same call does now.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// What came of it now.
    pub ended: Ended,
    /// In what that differs from what was recorded.
    pub difference: Difference,
    /// Whether fuel could be compared: the recorded call had an instance of its own, and nothing was taken out.
    pub exact: bool,
}

impl Sandbox {
    /// Makes a recorded call again on a plugin, and compares.
    pub fn replay(&self, plugin: &Plugin, recording: &Recording) -> Result<Replayed, Unfit> {
        if recording.format > FORMAT {
            return Err(Unfit::Format(recording.format));
        }
        if recording.cut {
            return Err(Unfit::Cut);
        }
        let shelf = Arc::new(Shelf::of(&recording.reads));
        let state: Arc<dyn StateReader> = Arc::<Shelf>::clone(&shelf);
        let answers = Arc::new(Answers::of(&recording.reads));
        let way: Arc<dyn Outbound> = Arc::<Answers>::clone(&answers);
        let mut session = self.with_outbound(way).session(plugin, Arc::new(setup(recording)));
        let attempt: Attempt = session.call(
            &Call {
                event: &recording.event,
                rule: &recording.call.rule,
                attempt: recording.attempt,
                now: recording.now,
                seed: recording.seed,
                first_ordinal: recording.first_ordinal,
                state: &state,
                cancelled: &Arc::new(AtomicBool::new(false)),
                record: Record { bytes: 0, fresh: true },
            },
            recording.duty,
        );
        let ended = attempt.ended();
        let exact = recording.fresh && recording.redacted.is_empty();
        let mut difference = match exact {
            true => Difference::of(&recording.ended, &ended),
            false => Difference::of_results(&recording.ended, &ended),
        };
        difference.unrecorded = shelf.take_unrecorded();
        difference.unrecorded.extend(answers.take_unrecorded());
        Ok(Replayed { ended, difference, exact })
    }
}

/// What the recorded call was set up with. Secrets that it had are there, without their values.
fn setup(recording: &Recording) -> Setup {
    let secrets = recording.reads.iter().filter_map(|read| match read {
        Read::Secret { name } => Some((name.clone(), SecretString::from(REDACTED))),
        Read::State { .. } | Read::Keys { .. } | Read::Http { .. } => None,
    });
    Setup {
        plugin: PluginId::default(),
        plugin_name: recording.plugin.clone(),
        version: recording.version.clone(),
        grants: recording.grants.clone(),
        limits: Limits { time: recording.limits.time.saturating_mul(PATIENCE), ..recording.limits.clone() },
        policy: recording.instance,
        config: recording.config.clone(),
        secrets: secrets.collect(),
        sinks: recording.sinks.clone(),
    }
}

type Listing = (String, Option<String>, usize);

/// The state as the recorded call saw it.
struct Shelf {
    values: BTreeMap<String, Option<Held>>,
    listings: BTreeMap<Listing, Vec<String>>,
    unrecorded: Mutex<Vec<String>>,
}

impl Shelf {
    fn of(reads: &[Read]) -> Self {
        let mut shelf = Self { values: BTreeMap::new(), listings: BTreeMap::new(), unrecorded: Mutex::default() };
        for read in reads {
            match read {
                Read::State { key, held } => {
                    let held = held.as_ref().map(|held| Held { value: held.value.clone(), expires: held.expires });
                    shelf.values.insert(key.clone(), held);
                }
                Read::Keys { prefix, after, limit, keys } => {
                    shelf.listings.insert((prefix.clone(), after.clone(), *limit), keys.clone());
                }
                Read::Secret { .. } | Read::Http { .. } => {}
            }
        }
        shelf
    }

    fn miss(&self, what: String) {
        let mut unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        if !unrecorded.contains(&what) {
            unrecorded.push(what);
        }
    }

    fn take_unrecorded(&self) -> Vec<String> {
        std::mem::take(&mut *self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl StateReader for Shelf {
    fn get(&self, _: PluginId, key: &str) -> Result<Option<Held>, StateError> {
        Ok(self.values.get(key).cloned().unwrap_or_else(|| {
            self.miss(format!("state `{}`", key.escape_debug()));
            None
        }))
    }

    fn keys(&self, _: PluginId, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateError> {
        let listing = (prefix.to_owned(), after.map(str::to_owned), limit);
        Ok(self.listings.get(&listing).cloned().unwrap_or_else(|| {
            self.miss(format!("keys with `{}`", prefix.escape_debug()));
            Vec::new()
        }))
    }
}
