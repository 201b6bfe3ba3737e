//! Roll-outs: which events a candidate version gets, and when it has done badly enough to be taken back.
//!
//! Pure: who counts, and who ends a roll-out, is dispatch's and the store's business.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::event::Event;
use crate::id::PluginId;
use crate::id::hash64;

/// In how many parts a slice is cut: hundredths of a percent.
pub const PARTS: u16 = 10_000;

/// In how many parts a logarithm is counted.
const LOG_PARTS: f64 = 1_000_000.0;

/// A part of all keys, from a point of the circle of hashes to another, in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// The first part that is in it.
    pub from: u16,
    /// The first part behind it.
    pub to: u16,
}

impl Slice {
    /// Is this event in it? By its ordering key (else its id) and the plugin, and by nothing else: the same event is
    /// always in or always out, on every node, and a slice that grows keeps whom it has.
    #[must_use]
    pub fn has(self, plugin: PluginId, event: &Event) -> bool {
        let name = event.ordering_key().unwrap_or(&event.id);
        let mut text = Vec::with_capacity(8 + name.len());
        text.extend_from_slice(&plugin.0.to_le_bytes());
        text.extend_from_slice(name.as_bytes());
        let part = hash64(&text) % u64::from(PARTS);
        u64::from(self.from) <= part && part < u64::from(self.to)
    }

    /// How large it is, in percent.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.to.saturating_sub(self.from)) / 100.0
    }
}

/// What a candidate may cost and how often it may fail before it is taken back by itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Failed attempts per attempt, from 0 to 1. Below the active version's own rate nothing is taken back: what both
    /// cannot handle is no fault of the candidate.
    pub max_failure_rate: f64,
    /// Fuel per attempt, against the active version's.
    pub max_fuel_ratio: f64,
    /// Time of an ordinary attempt ([`Counts::typical_micros`]), against the active version's.
    pub max_latency_ratio: f64,
    /// Attempts of the candidate before anything is judged; fuel and time need as many of the active version, too.
    pub min_runs: u64,
}

impl Default for Guard {
    fn default() -> Self {
        Self { max_failure_rate: 0.05, max_fuel_ratio: 2.0, max_latency_ratio: 3.0, min_runs: 100 }
    }
}

/// What the attempts of one version came to, summed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Attempts.
    pub runs: u64,
    /// Those that failed in the plugin.
    pub failed: u64,
    /// Fuel.
    pub fuel: u64,
    /// Microseconds.
    pub micros: u64,
    /// What the geometric mean of the microseconds follows from: the sum of `ln(1 + micros)`, in millionths.
    pub log_micros: u64,
}

impl Counts {
    /// Of one attempt.
    #[must_use]
    pub fn of(failed: bool, fuel: u64, time: Duration) -> Self {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 45 millions")]
        let log_micros = ((micros as f64).ln_1p() * LOG_PARTS).round() as u64;
        Self { runs: 1, failed: u64::from(failed), fuel, micros, log_micros }
    }

    /// Adds what somebody else counted.
    pub fn add(&mut self, more: &Self) {
        self.runs = self.runs.saturating_add(more.runs);
        self.failed = self.failed.saturating_add(more.failed);
        self.fuel = self.fuel.saturating_add(more.fuel);
        self.micros = self.micros.saturating_add(more.micros);
        self.log_micros = self.log_micros.saturating_add(more.log_micros);
    }

    fn per_run(&self, sum: u64) -> f64 {
        if self.runs == 0 { 0.0 } else { sum as f64 / self.runs as f64 }
    }

    /// Failed attempts per attempt.
    #[must_use]
    pub fn failure_rate(&self) -> f64 {
        self.per_run(self.failed)
    }

    /// Fuel per attempt.
    #[must_use]
    pub fn fuel_per_run(&self) -> f64 {
        self.per_run(self.fuel)
    }

    /// Microseconds per attempt.
    #[must_use]
    pub fn micros_per_run(&self) -> f64 {
        self.per_run(self.micros)
    }

    /// Microseconds of an ordinary attempt: the geometric mean. One that had to wait ten seconds for a busy machine makes
    /// hardly any difference among a hundred, while it would decide about their mean.
    #[must_use]
    pub fn typical_micros(&self) -> f64 {
        (self.per_run(self.log_micros) / LOG_PARTS).exp_m1()
    }
}

/// What a candidate did too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// It failed too often.
    FailureRate,
    /// It took too much fuel.
    Fuel,
    /// It took too long.
    Latency,
}

/// Why a candidate is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// By what it is measured.
    pub measure: Measure,
    /// What it came to: a rate, or a ratio to the active version's.
    pub found: f64,
    /// What it may be.
    pub limit: f64,
}

impl Guard {
    /// Has the candidate done something too much? Nothing is said before there are enough attempts.
    #[must_use]
    pub fn judge(&self, active: &Counts, candidate: &Counts) -> Option<Breach> {
        if candidate.runs < self.min_runs.max(1) {
            return None;
        }
        let rate = candidate.failure_rate();
        if rate > self.max_failure_rate && rate > active.failure_rate() {
            return Some(Breach { measure: Measure::FailureRate, found: rate, limit: self.max_failure_rate });
        }
        if active.runs < self.min_runs.max(1) {
            return None;
        }
        let pairs = [
            (Measure::Fuel, candidate.fuel_per_run(), active.fuel_per_run(), self.max_fuel_ratio),
            (Measure::Latency, candidate.typical_micros(), active.typical_micros(), self.max_latency_ratio),
        ];
        pairs.into_iter().find_map(|(measure, candidate, active, limit)| {
            let found = candidate / active;
            // Nothing over nothing is no ratio, and breaches nothing.
            (active > 0.0 && found > limit).then_some(Breach { measure, found, limit })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn event(id: &str, key: Option<&str>) -> Event {
        Event {
            id: id.to_owned(),
            source: "/s".to_owned(),
            kind: "a.b".to_owned(),
            subject: None,
            time: Timestamp(0),
            key: key.map(str::to_owned),
            correlation: id.to_owned(),
            causation: None,
            content_type: "application/json".to_owned(),
            data: bytes::Bytes::new(),
            attributes: Vec::new(),
        }
    }

    #[test]
    fn a_slice_has_its_share_and_the_same_events_always() {
        let slice = |from, to| Slice { from, to };
        let count = |slice: Slice| {
            (0..20_000).filter(|number| slice.has(PluginId(3), &event(&number.to_string(), None))).count()
        };
        let tenth = count(slice(0, 1_000));
        assert!((1_800..2_200).contains(&tenth), "{tenth}");
        assert_eq!((count(slice(0, PARTS)), count(slice(0, 0))), (20_000, 0));
        assert_eq!(tenth + count(slice(1_000, PARTS)), 20_000, "what one slice leaves the other has");
        for number in 0..500 {
            let event = event(&number.to_string(), Some("one key"));
            assert_eq!(
                slice(0, 5_000).has(PluginId(3), &event),
                slice(0, 5_000).has(PluginId(3), &self::event("x", Some("one key")))
            );
        }
        let grown = |number: &i32| slice(0, 2_000).has(PluginId(3), &event(&number.to_string(), None));
        let kept = (0..20_000).filter(|number| slice(0, 1_000).has(PluginId(3), &event(&number.to_string(), None)));
        assert!(kept.into_iter().all(|number| grown(&number)));
    }

    #[test]
    fn a_candidate_is_judged_by_what_it_does_beyond_the_active_version() {
        let guard = Guard { max_failure_rate: 0.1, max_fuel_ratio: 2.0, max_latency_ratio: 2.0, min_runs: 10 };
        let counts = |runs: u64, failed, fuel, micros: u64| {
            let mut sum = Counts::default();
            (0..runs).for_each(|_| sum.add(&Counts::of(false, 0, Duration::from_micros(micros / runs))));
            Counts { failed, fuel, ..sum }
        };
        let good = counts(100, 0, 1_000, 100_000);
        let found = |active, candidate| guard.judge(&active, &candidate).map(|breach| breach.measure);
        assert_eq!(found(good, counts(9, 9, 0, 0)), None, "too few to say");
        assert_eq!(found(good, counts(10, 1, 100, 10_000)), None);
        assert_eq!(found(good, counts(10, 2, 100, 10_000)), Some(Measure::FailureRate));
        assert_eq!(
            found(counts(100, 30, 1_000, 100_000), counts(10, 2, 100, 10_000)),
            None,
            "the active one fails more"
        );
        assert_eq!(found(good, counts(10, 0, 201, 10_000)), Some(Measure::Fuel));
        assert_eq!(found(good, counts(10, 0, 200, 20_100)), Some(Measure::Latency));
        assert_eq!(found(counts(9, 0, 9, 9), counts(10, 0, 900, 900)), None, "nothing to compare with");
        assert_eq!(found(counts(100, 0, 0, 0), counts(10, 0, 900, 900)), None);
    }

    #[test]
    fn a_slow_run_among_many_is_no_slow_version() {
        let sum = |slow: u64, of: u64, ms: u64| {
            let mut sum = Counts::default();
            for run in 0..of {
                sum.add(&Counts::of(false, 1, Duration::from_millis(if run < slow { 10_000 } else { ms })));
            }
            sum
        };
        let guard = Guard::default();
        let active = sum(0, 100, 1);
        assert!((active.typical_micros() - 1_000.0).abs() < 0.1, "{}", active.typical_micros());
        assert_eq!(guard.judge(&active, &sum(1, 100, 1)), None, "an outlier");
        assert_eq!(guard.judge(&sum(1, 100, 1), &sum(0, 100, 4)).map(|it| it.measure), Some(Measure::Latency));
        assert_eq!(guard.judge(&active, &sum(0, 100, 4)).map(|it| it.measure), Some(Measure::Latency));
        assert_eq!(guard.judge(&active, &sum(20, 100, 1)).map(|it| it.measure), Some(Measure::Latency), "one in five");
    }
}
