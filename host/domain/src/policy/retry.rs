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
    /// About three hours in eight attempts: a receiver's bad afternoon, not its bad week.
    fn default() -> Self {
        Self { attempts: 8, first: Duration::from_secs(1), factor_percent: 300, max: Duration::from_secs(3_600) }
    }
}

impl Retry {
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
