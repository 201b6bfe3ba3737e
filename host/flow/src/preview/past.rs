//! A run of the past as its recordings tell it: the time, the attempt, the plugin's settings, and the state that was read.
//!
//! A recording knows what was read and nothing else. What another version reads beyond that is not in it, nor is what was
//! taken out of it as private, nor what an earlier call of the same run may have changed: all that is read as it is now.

use std::collections::BTreeMap;
use std::collections::HashSet;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::Effect;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::recording::REDACTED;
use bulkhead_domain::recording::Read;
use bulkhead_domain::recording::Recording;
use bulkhead_domain::rule::definition::Rule;
use bulkhead_store::state::Versioned;

use crate::dispatch::overlay::Known;

/// A run of the past.
#[derive(Default)]
pub(super) struct Past {
    /// Which try it was, from 1, and the time that it saw; none if nothing is recorded.
    pub(super) attempt: Option<(u32, Timestamp)>,
    /// The state that it saw.
    pub(super) known: Known,
    /// The settings of the previewed plugin, with its version at the time.
    pub(super) settings: Option<(String, BTreeMap<String, String>)>,
}

impl Past {
    /// From the recordings of one attempt. `id_of` gives the number of a plugin by its name.
    pub(super) fn of(
        mut calls: Vec<Recording>,
        rule: &Rule,
        plugin: &str,
        id_of: impl Fn(&str) -> Option<PluginId>,
    ) -> Self {
        calls.sort_by_key(|call| (call.call.step, call.call.item));
        let mut past = Self::default();
        let mut seen = Seen::default();
        for call in calls {
            past.attempt.get_or_insert((call.attempt, call.now));
            let Some(id) = id_of(&call.plugin) else { continue };
            let first_step = rule.steps().iter().position(|step| step.plugin() == Some(&call.plugin));
            if call.call.item == 0 && first_step == Some(call.call.step) {
                seen.begun.insert(id);
                past.list(id, &call);
            }
            past.read(id, &call, &mut seen);
            if call.plugin == plugin && past.settings.is_none() {
                past.settings = Some((call.version, call.config));
            }
        }
        past
    }

    fn read(&mut self, plugin: PluginId, call: &Recording, seen: &mut Seen) {
        for read in &call.reads {
            let Read::State { key, held } = read else { continue };
            let at = (plugin, key.clone());
            // What is not known to be committed may be the work of a call before it, of which there is no recording.
            let is_committed = held.as_ref().is_some_and(|held| held.version.is_some());
            let is_of_before = seen.begun.contains(&plugin) || is_committed;
            if seen.written.contains(&at) || !is_of_before || is_redacted(call, read) {
                continue;
            }
            let held = held.as_ref().map(|held| Versioned {
                value: held.value.clone(),
                version: held.version.unwrap_or_default(),
                expires: held.expires,
            });
            self.known.values.entry(at).or_insert(held);
        }
        let writes = call.ended.effects.iter().filter_map(|effect| match effect {
            Effect::State(write) => Some((plugin, write.key.clone())),
            _ => None,
        });
        seen.written.extend(writes);
    }

    fn list(&mut self, plugin: PluginId, call: &Recording) {
        for read in &call.reads {
            if let Read::Keys { prefix, after, limit, keys } = read
                && !is_redacted(call, read)
            {
                let asked = (plugin, prefix.clone(), after.clone(), *limit);
                self.known.listings.entry(asked).or_insert_with(|| keys.clone());
            }
        }
    }

    /// How the settings differ from what they are now with the same version: as they were, none if they were not there.
    /// Nothing is said if another version ran, because its defaults may have been others.
    pub(super) fn settings_since(
        &self,
        version: &str,
        now: &BTreeMap<String, String>,
    ) -> BTreeMap<String, Option<String>> {
        let Some((_, then)) = self.settings.as_ref().filter(|(ran, _)| ran == version) else { return BTreeMap::new() };
        let changed = then.iter().filter(|(name, value)| now.get(*name) != Some(value) && !value.contains(REDACTED));
        let changed = changed.map(|(name, value)| (name.clone(), Some(value.clone())));
        let new = now.keys().filter(|name| !then.contains_key(*name)).map(|name| (name.clone(), None));
        changed.chain(new).collect()
    }
}

/// What the calls before the present one did.
#[derive(Default)]
struct Seen {
    /// Plugins whose first call is recorded.
    begun: HashSet<PluginId>,
    /// Keys that the run had written.
    written: HashSet<(PluginId, String)>,
}

fn is_redacted(call: &Recording, read: &Read) -> bool {
    let has = |text: &str| text.contains(REDACTED);
    call.redacted.contains("state")
        && match read {
            Read::State { key, held } => {
                let within = |bytes: &[u8]| bytes.windows(REDACTED.len()).any(|part| part == REDACTED.as_bytes());
                has(key) || held.as_ref().is_some_and(|held| within(&held.value))
            }
            Read::Keys { prefix, after, keys, .. } => {
                has(prefix) || after.as_deref().is_some_and(has) || keys.iter().any(|key| has(key))
            }
            Read::Secret { .. } | Read::Http { .. } => false,
        }
}

#[cfg(test)]
mod tests;
