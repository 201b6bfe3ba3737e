//! The circuit breaker of one sink: after many failures nothing is sent for a while, then one probe, then all again.
//!
//! ```text
//! closed ──20 failures in a row, or half of the last 100──▶ open ──pause over──▶ probing
//!    ▲                                                        ▲                     │
//!    └──────────────── the probe was answered ────────────────┼─────────────────────┤
//!                                                             └── it failed: twice the pause, at most a minute
//! ```
//!
//! Only failures that may pass count: a receiver that answers "no" is alive. What is held back here costs no attempt.
//! Pure: the caller brings the time.

use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens and for how long.
#[derive(Debug, Clone)]
pub struct BreakerOptions {
    /// So many failures in a row open it.
    pub in_row_max: u32,
    /// So many failures among the last hundred attempts open it, once there were a hundred.
    pub of_hundred_max: u32,
    /// The pause before the first probe.
    pub pause_first: Duration,
    /// Each pause is twice the one before, up to this.
    pub pause_max: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            in_row_max: 20,
            of_hundred_max: 50,
            pause_first: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
        }
    }
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// Everything is sent.
    Closed,
    /// Nothing is sent until the pause is over.
    Open,
    /// One delivery is under way to see whether the receiver is back.
    Probing,
}

/// Goes with an attempt and comes back with its end, so that the end of an old attempt moves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

const WINDOW: u32 = 100;

#[derive(Debug, Clone)]
pub(super) struct Breaker {
    state: BreakerState,
    era: u64,
    in_row: u32,
    /// The last attempts, the newest in the lowest bit; set is failed.
    recent: u128,
    seen: u32,
    pause: Duration,
    until: Instant,
}

impl Breaker {
    pub(super) fn new(now: Instant) -> Self {
        let state = BreakerState::Closed;
        Self { state, era: 0, in_row: 0, recent: 0, seen: 0, pause: Duration::ZERO, until: now }
    }

    /// A closed one to which the tickets of this one mean nothing.
    pub(super) fn renewed(&self, now: Instant) -> Self {
        Self { era: self.era + 1, ..Self::new(now) }
    }

    pub(super) const fn state(&self) -> BreakerState {
        self.state
    }

    pub(super) const fn failures_in_row(&self) -> u32 {
        self.in_row
    }

    /// When the next probe may go.
    pub(super) const fn until(&self) -> Instant {
        self.until
    }

    /// Whether an attempt may begin.
    pub(super) fn admits(&self, now: Instant) -> bool {
        match self.state {
            BreakerState::Closed => true,
            BreakerState::Open => now >= self.until,
            BreakerState::Probing => false,
        }
    }

    /// An attempt begins; [`Breaker::admits`] said that it may.
    pub(super) fn begin(&mut self) -> Ticket {
        if self.state == BreakerState::Open {
            self.turn(BreakerState::Probing);
        }
        Ticket(self.era)
    }

    /// It ended, and the receiver was there to answer it.
    pub(super) fn answered(&mut self, ticket: Ticket) {
        if ticket.0 != self.era {
            return;
        }
        if self.state == BreakerState::Probing {
            (self.recent, self.seen, self.pause) = (0, 0, Duration::ZERO);
            self.turn(BreakerState::Closed);
        }
        self.in_row = 0;
        self.note(false);
    }

    /// It ended in a failure that may pass.
    pub(super) fn failed(&mut self, ticket: Ticket, now: Instant, options: &BreakerOptions) {
        if ticket.0 != self.era {
            return;
        }
        self.in_row = self.in_row.saturating_add(1);
        self.note(true);
        let often = self.seen == WINDOW && self.recent.count_ones() >= options.of_hundred_max;
        if self.state == BreakerState::Probing || self.in_row >= options.in_row_max || often {
            self.pause = (self.pause * 2).clamp(options.pause_first, options.pause_max);
            self.until = now + self.pause;
            self.turn(BreakerState::Open);
        }
    }

    /// It ended without a word from the receiver and without its fault; a probe of this kind may be repeated at once.
    pub(super) fn told_nothing(&mut self, ticket: Ticket) {
        if ticket.0 == self.era && self.state == BreakerState::Probing {
            self.turn(BreakerState::Open);
        }
    }

    fn turn(&mut self, state: BreakerState) {
        self.state = state;
        self.era += 1;
    }

    fn note(&mut self, failed: bool) {
        self.recent = ((self.recent << 1) | u128::from(failed)) & ((1 << WINDOW) - 1);
        self.seen = (self.seen + 1).min(WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &mut Breaker, now: Instant) {
        let ticket = breaker.begin();
        breaker.failed(ticket, now, &BreakerOptions::default());
    }

    #[test]
    fn twenty_failures_in_a_row_open_it_and_pauses_grow_to_a_minute() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(now);
        for _ in 0..19 {
            fail(&mut breaker, now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&mut breaker, now);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = Duration::from_secs(pause);
            assert_eq!((breaker.state(), breaker.until()), (BreakerState::Open, now + pause));
            assert!(!breaker.admits(now + pause - Duration::from_millis(1)));
            now += pause;
            assert!(breaker.admits(now));
            let probe = breaker.begin();
            assert!(!breaker.admits(now + Duration::from_secs(3_600)), "one probe at a time");
            breaker.failed(probe, now, &BreakerOptions::default());
        }
        now = breaker.until();
        let probe = breaker.begin();
        breaker.answered(probe);
        assert_eq!((breaker.state(), breaker.failures_in_row()), (BreakerState::Closed, 0));
        fail(&mut breaker, now);
        assert_eq!(breaker.state(), BreakerState::Closed, "it counts from the beginning");
    }

    #[test]
    fn half_of_the_last_hundred_open_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        for round in 0..50 {
            assert_eq!(breaker.state(), BreakerState::Closed, "{round}");
            let ticket = breaker.begin();
            breaker.answered(ticket);
            fail(&mut breaker, now);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        // One in three never does.
        let mut breaker = Breaker::new(now);
        for _ in 0..500 {
            for _ in 0..2 {
                let ticket = breaker.begin();
                breaker.answered(ticket);
            }
            fail(&mut breaker, now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn the_end_of_an_old_attempt_moves_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        let old: Vec<_> = (0..30).map(|_| breaker.begin()).collect();
        for ticket in &old[..25] {
            breaker.failed(*ticket, now, &BreakerOptions::default());
        }
        assert_eq!(breaker.until(), now + Duration::from_secs(1), "failures after the twentieth add nothing");
        breaker.answered(old[25]);
        assert_eq!(breaker.state(), BreakerState::Open, "a late success does not close it");
        let probe = breaker.begin();
        breaker.failed(old[26], now, &BreakerOptions::default());
        assert_eq!(breaker.state(), BreakerState::Probing);
        breaker.told_nothing(probe);
        assert!(breaker.admits(now + Duration::from_secs(1)), "a probe that told nothing is repeated");
    }
}
