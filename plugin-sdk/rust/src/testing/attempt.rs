//! The attempt under way on this thread: what the plugin's calls see and what they leave.

use std::cell::RefCell;

use super::host::{Call, Settings};
use super::run::Run;
use super::store::Store;
use crate::context::Invocation;
use crate::refusal::Refusal;
use crate::timestamp::Timestamp;

/// Everything that a call can reach.
pub struct Attempt {
    pub settings: Settings,
    /// A copy; the host takes it over if the run succeeds.
    pub state: Store,
    pub now: Timestamp,
    pub number: u32,
    /// The event's data.
    pub data: Vec<u8>,
    /// Seeded from the event and the attempt, so a repetition sees the same.
    pub random: u64,
    pub effects: u32,
    pub record: Run,
}

thread_local! {
    static CURRENT: RefCell<Option<Attempt>> = const { RefCell::new(None) };
}

/// Ends the attempt also when the plugin panics, so that the next test on this thread starts clean.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| *current = None);
    }
}

impl Attempt {
    /// Runs `work` inside this attempt and gives back what became of it.
    pub fn run<T>(self, work: impl FnOnce() -> T) -> (T, Self) {
        let nested = CURRENT.with_borrow_mut(|current| current.replace(self)).is_some();
        let _ending = Ending;
        assert!(!nested, "a plugin was called from within a plugin");
        let answer = work();
        let attempt = CURRENT.with_borrow_mut(Option::take).expect("because only `Ending` takes it otherwise");
        (answer, attempt)
    }

    pub fn invocation(&self) -> Invocation {
        Invocation {
            plugin: self.settings.plugin.clone(),
            version: "0.0.0".to_owned(),
            rule: "test".to_owned(),
            attempt: self.number,
            now: self.now,
        }
    }

    /// Refuses what the test asked to be refused.
    pub fn permit(&self, call: Call) -> Result<(), Refusal> {
        match self.settings.refusals.iter().find(|(refused, _)| *refused == call) {
            Some((_, refusal)) => Err(refusal.clone()),
            None => Ok(()),
        }
    }

    pub fn next_id(&mut self) -> String {
        self.effects += 1;
        format!("effect-{}", self.effects)
    }

    /// SplitMix64: small, and every seed gives another sequence.
    pub fn random_byte(&mut self) -> u8 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()[0]
    }
}

/// Calls the host from within a plugin.
pub fn with_attempt<T>(call: impl FnOnce(&mut Attempt) -> T) -> T {
    with_attempt_or(
        call,
        |attempt, call| call(attempt),
        |_| panic!("there is no host here: call the plugin through `bulkhead_plugin::testing::Host`"),
    )
}

/// Calls the host if there is one.
pub fn with_attempt_or<A, T>(
    argument: A,
    inside: impl FnOnce(&mut Attempt, A) -> T,
    outside: impl FnOnce(A) -> T,
) -> T {
    CURRENT.with_borrow_mut(|current| match current {
        Some(attempt) => inside(attempt, argument),
        None => outside(argument),
    })
}
