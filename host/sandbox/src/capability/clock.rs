//! The guest's clock: the attempt's time, which stands still, so that a re-execution sees the same.
//!
//! A guest that waits does not wait: its monotonic clock jumps to the moment it waited for. So nobody's thread is
//! held by a sleeping guest, sleeping loops come to their end, and no clock measures the host.

use bulkhead_domain::clock::Timestamp;

/// Nanoseconds in the smallest step a guest can see.
pub(crate) const RESOLUTION: u64 = 1_000_000;

/// The clock of one call.
#[derive(Debug)]
pub(crate) struct Clock {
    now: Timestamp,
    waited: u64,
}

impl Clock {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { now, waited: 0 }
    }

    /// Whole milliseconds since the epoch.
    pub(crate) fn millis(&self) -> u64 {
        self.now.millis()
    }

    /// Nanoseconds that only grow.
    pub(crate) fn monotonic(&self) -> u64 {
        self.now.millis().saturating_mul(RESOLUTION).saturating_add(self.waited)
    }

    /// Jumps to `instant`, in whole steps, if it is ahead.
    pub(crate) fn wait_until(&mut self, instant: u64) {
        let ahead = instant.saturating_sub(self.monotonic());
        self.waited = self.waited.saturating_add(ahead.div_ceil(RESOLUTION).saturating_mul(RESOLUTION));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_until_somebody_waits() {
        let mut clock = Clock::new(Timestamp(1_234_567));
        assert_eq!(clock.millis(), 1_234);
        assert_eq!(clock.monotonic(), 1_234_000_000);
        clock.wait_until(1_234_000_001);
        assert_eq!(clock.monotonic(), 1_235_000_000);
        clock.wait_until(5);
        assert_eq!(clock.monotonic(), 1_235_000_000);
        clock.wait_until(u64::MAX);
        assert!(clock.monotonic() >= u64::MAX - RESOLUTION);
        assert_eq!(clock.millis(), 1_234, "the wall clock is the attempt's");
    }
}
