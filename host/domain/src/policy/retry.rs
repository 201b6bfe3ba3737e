//! When the next attempt is: exponential backoff with seeded jitter.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::id::hash64;

/// A schedule of attempts. `attempts` counts the first one too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// The wait before the second attempt.
    pub first: Duration,
    /// By how much each wait is longer than the one before, in hundredths (300 = three times).
    pub factor_percent: u32,
    /// No wait is longer.
    pub max: Duration,
}

impl Default for Retry {
    /// Eight attempts in 9 to 18 minutes: a run that fails for longer is something to look at, and others may wait for it.
    fn default() -> Self {
        Self { attempts: 8, first: Duration::from_secs(1), factor_percent: 300, max: Duration::from_secs(3_600) }
    }
}

impl Retry {
    /// For deliveries: twelve attempts in 2 to 4 hours, a receiver's bad afternoon, not its bad week.
    #[must_use]
    pub fn of_deliveries() -> Self {
        Self { attempts: 12, ..Self::default() }
    }

    /// The wait after `made` attempts, or none if they are used up.
    ///
    /// Between 50 % and 100 % of the schedule's wait ("equal jitter"), by a hash of `seed` and `made`: spread over
    /// runs, yet the same for one run wherever it is computed.
    #[must_use]
    pub fn wait(&self, made: u32, seed: &[u8]) -> Option<Duration> {
        if made >= self.attempts {
            return None;
        }
        let mut micros = self.first.as_micros();
        for _ in 1..made {
            micros = (micros.saturating_mul(u128::from(self.factor_percent)) / 100).min(self.max.as_micros());
        }
        let micros = u64::try_from(micros.min(self.max.as_micros())).unwrap_or(u64::MAX);
        let mut seeded = seed.to_vec();
        seeded.extend(made.to_le_bytes());
        let half = micros / 2;
        Some(Duration::from_micros(half + hash64(&seeded) % (micros - half + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_tried_for_hours_and_a_run_for_minutes() {
        for (retry, least, most) in [(Retry::default(), 9, 19), (Retry::of_deliveries(), 117, 235)] {
            for seed in 0..100_u8 {
                let waits = (1..retry.attempts).map(|made| retry.wait(made, &[seed]).expect("because one is left"));
                let all: Duration = waits.sum();
                assert!((least * 60..most * 60).contains(&all.as_secs()), "{all:?}");
            }
        }
    }

    #[test]
    fn waits_grow_to_the_maximum_and_end() {
        let retry =
            Retry { attempts: 5, first: Duration::from_secs(1), factor_percent: 300, max: Duration::from_secs(10) };
        for (made, full) in [(1, 1), (2, 3), (3, 9), (4, 10)] {
            let wait = retry.wait(made, b"run").expect("because attempts are left");
            let full = Duration::from_secs(full);
            assert!(wait >= full / 2 && wait <= full, "{made}: {wait:?}");
            assert_eq!(retry.wait(made, b"run"), Some(wait), "the same for the same run");
        }
        assert_eq!(retry.wait(5, b"run"), None);
    }
}
