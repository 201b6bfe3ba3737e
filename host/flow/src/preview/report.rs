//! What a preview found, in a form for people and programs.

use std::collections::BTreeMap;

use bulkhead_domain::comparison;
use bulkhead_domain::comparison::Comparison;
use bulkhead_domain::comparison::Difference;
use bulkhead_domain::comparison::Kind;
use bulkhead_domain::effect::LogLine;
use bulkhead_domain::policy::proof::Counts;
use serde::Serialize;

use crate::preview::did::Did;

/// Runs of each kind that the report shows.
const SAMPLES_MAX: usize = 5;
/// Log lines of the newer version that a sample shows.
const LINES_MAX: usize = 5;

/// How the newer version did beside the older one.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The older version; none if the plugin has none.
    pub against: Option<u32>,
    /// The newer version.
    pub version: u32,
    /// Events of the log that were looked at.
    pub looked_at: usize,
    /// Events that reach the plugin.
    pub events: usize,
    /// Runs compared: an event can start several.
    pub runs: usize,
    /// Events that were left out, or not run by all of their rules, because the time was up.
    pub left_out: usize,
    /// Fuel of all plugins, in all runs of both versions.
    #[serde(skip)]
    pub burned: u64,
    /// How many runs saw which state.
    pub state: States,
    /// How many runs of each kind, with samples.
    pub groups: BTreeMap<&'static str, Group>,
    /// Fuel of the plugin in a run: older and newer.
    pub fuel: Change,
    /// Microseconds of the plugin in a run: older and newer. Of few runs, and on a busy host, this says little.
    pub micros: Change,
}

/// Which state a run saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// What its recording says that the run itself saw.
    Recorded,
    /// That, and what the recording does not know as it is now.
    Partly,
    /// State as it is now.
    Now,
}

/// How many runs saw which state.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct States {
    /// What the run itself saw.
    pub recorded: usize,
    /// In part that, in part state as it is now.
    pub partly: usize,
    /// State as it is now.
    pub now: usize,
}

/// Runs with which the newer version did the same kind of thing.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Group {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub samples: Vec<Sample>,
}

/// One run with both versions.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The event's id.
    pub event: String,
    /// The rule.
    pub rule: String,
    /// Which state both saw.
    pub state: Seen,
    /// In what they differ.
    pub differences: Vec<Difference>,
    /// Differences beyond those.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
    /// Fuel: older and newer.
    pub fuel: [u64; 2],
    /// What the newer version logged, the first lines.
    pub logs: Vec<LogLine>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// A measure over all runs.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Change {
    /// Medians: older and newer.
    pub p50: [u64; 2],
    /// 99th percentiles.
    pub p99: [u64; 2],
}

/// One run with both versions, as the report takes it in.
pub(super) struct Pair<'a> {
    pub(super) event: &'a str,
    pub(super) rule: &'a str,
    pub(super) state: Seen,
    pub(super) older: Did,
    pub(super) newer: Did,
    /// Of the newer version.
    pub(super) logs: Vec<LogLine>,
}

impl Report {
    pub(super) fn add(&mut self, pair: Pair<'_>) {
        let Pair { event, rule, state, older, newer, logs } = pair;
        self.runs += 1;
        *match state {
            Seen::Recorded => &mut self.state.recorded,
            Seen::Partly => &mut self.state.partly,
            Seen::Now => &mut self.state.now,
        } += 1;
        let Comparison { mut kind, differences, more } = comparison::compare(older.ended(), newer.ended());
        if self.against.is_none() && newer.counts.failed > 0 {
            // There is nothing to compare with; that it fails is what counts.
            kind = Kind::NewFailure;
        }
        let group = self.groups.entry(name(kind)).or_default();
        group.count += 1;
        if group.samples.len() < SAMPLES_MAX && kind != Kind::Same {
            group.samples.push(Sample {
                event: event.to_owned(),
                rule: rule.to_owned(),
                state,
                differences,
                more,
                fuel: [older.counts.fuel, newer.counts.fuel],
                logs: logs.into_iter().take(LINES_MAX).collect(),
            });
        }
    }

    /// What is remembered of it.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let of = |kinds: &[Kind]| -> u64 {
            let groups = kinds.iter().filter_map(|kind| self.groups.get(name(*kind)));
            groups.map(|group| group.count as u64).sum()
        };
        Counts {
            runs: self.runs as u64,
            new_failures: of(&[Kind::NewFailure]),
            changed: of(&[Kind::Changed, Kind::FewerEffects]),
        }
    }
}

/// As the report writes it.
fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Same => "same",
        Kind::Changed => "changed",
        Kind::FewerEffects => "fewer_effects",
        Kind::NewFailure => "new_failure",
        Kind::Mended => "mended",
    }
}

impl Change {
    pub(super) fn of(values: [Vec<u64>; 2]) -> Self {
        let [older, newer] = values.map(|mut values| {
            values.sort_unstable();
            let at = |percent: usize| values.get((values.len() * percent / 100).min(values.len().saturating_sub(1)));
            [at(50), at(99)].map(|value| value.copied().unwrap_or_default())
        });
        Self { p50: [older[0], newer[0]], p99: [older[1], newer[1]] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_nothing_are_nothing() {
        let none = Change::of([Vec::new(), Vec::new()]);
        assert_eq!((none.p50, none.p99), ([0, 0], [0, 0]));
        let some = Change::of([(1..=100).collect(), vec![7]]);
        assert_eq!((some.p50, some.p99), ([51, 7], [100, 7]));
    }
}
