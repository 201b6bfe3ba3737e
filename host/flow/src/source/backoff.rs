//! How long a source waits before it tries again.

use std::time::Duration;

use bulkhead_domain::policy::retry::Retry;

const FIRST: Duration = Duration::from_millis(50);
/// A source that waits for longer would be late when the trouble is over.
const MAX: Duration = Duration::from_secs(5);
/// Beyond so many attempts the wait is the longest anyway.
const COUNTED: u32 = 64;

/// Waits that double from 50 ms to 5 s, each cut by up to a half so that nodes do not come all at once. Never gives up.
#[derive(Debug)]
pub struct Backoff {
    schedule: Retry,
    /// What tells this one's waits from those of other nodes and sources.
    seed: String,
    made: u32,
}

impl Backoff {
    /// A backoff at its beginning.
    #[must_use]
    pub fn new(seed: impl Into<String>) -> Self {
        let schedule = Retry { attempts: u32::MAX, first: FIRST, factor_percent: 200, max: MAX };
        Self { schedule, seed: seed.into(), made: 0 }
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        self.made = (self.made + 1).min(COUNTED);
        self.schedule.wait(self.made, self.seed.as_bytes()).unwrap_or(MAX)
    }

    /// It works again.
    pub fn reset(&mut self) {
        self.made = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_seconds_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new("node/orders");
        let waits: Vec<Duration> = (0..100).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2, "{:?}", waits[0]);
        assert!(waits[7..].iter().all(|wait| *wait <= MAX && *wait >= MAX / 2), "{waits:?}");
        backoff.reset();
        assert_eq!(backoff.next_wait(), waits[0]);
        assert_ne!(Backoff::new("other/orders").next_wait(), waits[0], "nodes wait differently");
    }
}
