//! How much of a host one tenant may use.
//!
//! Two kinds of quota. Rate and fuel flow: a [`Bucket`] refills while time passes, and what is used is taken from it, into
//! debt if need be. Concurrency, backlog and storage stand: a number that may not be exceeded.
//!
//! A bucket tells three levels apart, so that a tenant notices a limit before it is refused: within its quota, in debt (it
//! is served after the others), and in debt by as much as the bucket holds (it has to wait).

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;

/// The largest rate, burst, fuel, backlog or storage that can be set; beyond it numbers would lose their last digits.
pub const QUOTA_MAX: u64 = 1 << 52;

/// Events per second, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Events per second in the long run.
    pub rate: u64,
    /// Events at once, before the rate counts. Unset: what the rate allows in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

/// What one tenant may use. What is unset is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Events handed in, duplicates included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<Rate>,
    /// Batches at work at once, on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u16>,
    /// Events that no rule has looked at yet, and runs that are held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog_events: Option<u64>,
    /// Bytes of the plugins' state, keys and values, and of their components, each counted once. Kept events are not
    /// counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_bytes: Option<u64>,
    /// Fuel of plugins in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel_per_minute: Option<u64>,
}

/// A quota that is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct QuotaError {
    /// Its field: `events_per_second.rate`.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// One of the quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quota {
    /// [`Quotas::events_per_second`].
    Rate,
    /// [`Quotas::concurrency`].
    Concurrency,
    /// [`Quotas::backlog_events`].
    Backlog,
    /// [`Quotas::storage_bytes`].
    Storage,
    /// [`Quotas::fuel_per_minute`].
    Fuel,
}

impl Quota {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Rate, Self::Concurrency, Self::Backlog, Self::Storage, Self::Fuel];

    /// As it stands in answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Concurrency => "concurrency",
            Self::Backlog => "backlog",
            Self::Storage => "storage",
            Self::Fuel => "fuel",
        }
    }
}

impl Quotas {
    /// These, and where one is unset, that of `defaults`.
    #[must_use]
    pub fn or(self, defaults: &Self) -> Self {
        Self {
            events_per_second: self.events_per_second.or(defaults.events_per_second),
            concurrency: self.concurrency.or(defaults.concurrency),
            backlog_events: self.backlog_events.or(defaults.backlog_events),
            storage_bytes: self.storage_bytes.or(defaults.storage_bytes),
            fuel_per_minute: self.fuel_per_minute.or(defaults.fuel_per_minute),
        }
    }

    /// Says what cannot be: nothing may be 0, as that is what suspending a tenant is for, or beyond [`QUOTA_MAX`].
    pub fn check(&self) -> Result<(), Vec<QuotaError>> {
        let rate = self.events_per_second;
        let all = [
            ("events_per_second.rate", rate.map(|rate| rate.rate)),
            ("events_per_second.burst", rate.and_then(|rate| rate.burst)),
            ("concurrency", self.concurrency.map(u64::from)),
            ("backlog_events", self.backlog_events),
            ("storage_bytes", self.storage_bytes),
            ("fuel_per_minute", self.fuel_per_minute),
        ];
        let wrong: Vec<QuotaError> = all
            .into_iter()
            .filter_map(|(field, value)| {
                let reason = match value? {
                    0 => "at least 1; to take nothing from a tenant, suspend it".to_owned(),
                    1..=QUOTA_MAX => return None,
                    _ => format!("at most {QUOTA_MAX}; to set no limit, leave it out"),
                };
                Some(QuotaError { field, reason })
            })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The flow of events, if it is limited.
    #[must_use]
    pub fn events(&self) -> Option<Flow> {
        let rate = self.events_per_second?;
        Some(Flow { per_second: rate.rate as f64, size: rate.burst.unwrap_or(rate.rate) as f64 })
    }

    /// The flow of fuel, if it is limited. A minute's fuel may be used at once.
    #[must_use]
    pub fn fuel(&self) -> Option<Flow> {
        let minute = self.fuel_per_minute? as f64;
        Some(Flow { per_second: minute / 60.0, size: minute })
    }
}

/// How fast a bucket refills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flow {
    /// Tokens per second, above 0.
    pub per_second: f64,
    /// Tokens of a full bucket, above 0.
    pub size: f64,
}

/// Where a bucket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Within the quota.
    Within,
    /// In debt.
    Debt,
    /// In debt by more than the bucket holds.
    Spent,
}

/// A token bucket that may go into debt. Whoever calls passes the time and the flow in; a flow that changes counts from
/// then on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    level: f64,
    at: Timestamp,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub const fn full(flow: Flow, now: Timestamp) -> Self {
        Self { level: flow.size, at: now }
    }

    /// One with so much in it, below zero for a debt.
    #[must_use]
    pub const fn at_level(level: f64, now: Timestamp) -> Self {
        Self { level, at: now }
    }

    /// What is in it; below zero what is owed. A clock that goes back refills nothing.
    #[must_use]
    pub fn level(&self, flow: Flow, now: Timestamp) -> f64 {
        (self.level + now.since(self.at).as_secs_f64() * flow.per_second).min(flow.size)
    }

    /// Takes tokens, whether they are there or not.
    pub fn charge(&mut self, flow: Flow, tokens: f64, now: Timestamp) {
        self.level = self.level(flow, now) - tokens;
        self.at = self.at.max(now);
    }

    /// Takes tokens as long as the debt is no more than the bucket holds. Else takes nothing and says how long it is until
    /// they can be taken. More than there could ever be are given to whoever finds the bucket full.
    pub fn take(&mut self, flow: Flow, tokens: f64, now: Timestamp) -> Result<(), Duration> {
        let room = self.level(flow, now) + flow.size;
        let missing = tokens.min(2.0 * flow.size) - room;
        if missing > 0.0 {
            return Err(wait(missing, flow));
        }
        self.charge(flow, tokens, now);
        Ok(())
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self, flow: Flow, now: Timestamp) -> Standing {
        match self.level(flow, now) {
            level if level >= 0.0 => Standing::Within,
            level if level >= -flow.size => Standing::Debt,
            _ => Standing::Spent,
        }
    }

    /// How long it is until it is no longer [`Standing::Spent`]; zero if it is not.
    #[must_use]
    pub fn spent_for(&self, flow: Flow, now: Timestamp) -> Duration {
        wait(-flow.size - self.level(flow, now), flow)
    }
}

/// How long it takes until so many tokens have come; a day at the most, as nobody waits for longer without looking again.
fn wait(tokens: f64, flow: Flow) -> Duration {
    // To the next microsecond, so that what is asked for is there when the wait is over.
    Duration::from_micros((tokens.max(0.0) / flow.per_second * 1e6).ceil().min(86_400e6) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow = Flow { per_second: 10.0, size: 20.0 };

    fn at(millis: i64) -> Timestamp {
        Timestamp(millis * 1_000)
    }

    #[test]
    fn a_bucket_gives_what_it_holds_then_as_much_again_on_credit_then_the_rate() {
        let mut bucket = Bucket::full(FLOW, at(0));
        for _ in 0..20 {
            assert_eq!(bucket.take(FLOW, 1.0, at(0)), Ok(()));
        }
        assert_eq!(bucket.standing(FLOW, at(0)), Standing::Within);
        for _ in 0..20 {
            assert_eq!(bucket.take(FLOW, 1.0, at(0)), Ok(()));
            assert_eq!(bucket.standing(FLOW, at(0)), Standing::Debt);
        }
        assert_eq!(bucket.take(FLOW, 1.0, at(0)), Err(Duration::from_millis(100)));
        let left = bucket.take(FLOW, 1.0, at(99)).expect_err("because a millisecond is missing");
        assert_eq!(left.as_millis(), 1);
        assert_eq!(bucket.take(FLOW, 1.0, at(100)), Ok(()));
        let taken = (0..10_000).filter(|millis| bucket.take(FLOW, 1.0, at(100 + millis)).is_ok()).count();
        assert!((99..=100).contains(&taken), "the rate in the long run, not {taken}");
        assert_eq!(bucket.standing(FLOW, at(60_000)), Standing::Within);
        assert!(bucket.level(FLOW, at(3_600_000)) <= FLOW.size, "it holds no more than it holds");
    }

    #[test]
    fn a_refusal_takes_nothing_and_its_wait_suffices() {
        let mut bucket = Bucket::full(FLOW, at(0));
        bucket.charge(FLOW, 35.5, at(0));
        let before = bucket;
        let wait = bucket.take(FLOW, 7.0, at(0)).expect_err("because only 4.5 are left");
        assert_eq!((bucket, wait), (before, Duration::from_millis(250)));
        assert_eq!(bucket.take(FLOW, 7.0, at(0).after(wait)), Ok(()));
    }

    #[test]
    fn more_than_it_could_ever_hold_is_given_when_it_is_full_and_paid_for_afterwards() {
        let mut bucket = Bucket::full(FLOW, at(0));
        bucket.charge(FLOW, 1.0, at(0));
        assert_eq!(bucket.take(FLOW, 1_000.0, at(0)), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(FLOW, 1_000.0, at(100)), Ok(()));
        assert_eq!(bucket.standing(FLOW, at(100)), Standing::Spent);
        assert_eq!(bucket.spent_for(FLOW, at(100)), Duration::from_secs(96));
        assert_eq!(bucket.standing(FLOW, at(96_100)), Standing::Debt);
        assert_eq!(bucket.spent_for(FLOW, at(96_100)), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut bucket = Bucket::full(FLOW, at(10_000));
        bucket.charge(FLOW, 20.0, at(10_000));
        bucket.charge(FLOW, 0.0, at(0));
        assert!(bucket.level(FLOW, at(10_000)) <= 0.0, "the time before was not counted twice");
        assert!(bucket.level(FLOW, at(0)) <= 0.0);
    }

    #[test]
    fn what_is_unset_is_the_default_and_unset_there_is_no_limit() {
        let defaults = Quotas { concurrency: Some(4), backlog_events: Some(100), ..Quotas::default() };
        let own: Quotas = serde_json::from_str(r#"{"backlog_events":7,"events_per_second":{"rate":5}}"#)
            .expect("because it is a document of quotas");
        let both = own.or(&defaults);
        assert_eq!((both.concurrency, both.backlog_events, both.fuel_per_minute), (Some(4), Some(7), None));
        assert_eq!(both.events(), Some(Flow { per_second: 5.0, size: 5.0 }));
        assert_eq!(both.fuel(), None);
        assert_eq!(serde_json::to_string(&Quotas::default()).expect("because it is plain"), "{}");
        assert!(serde_json::from_str::<Quotas>(r#"{"concurency":7}"#).is_err(), "a typing mistake sets no limit");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let quotas = Quotas {
            events_per_second: Some(Rate { rate: 0, burst: Some(QUOTA_MAX + 1) }),
            concurrency: Some(0),
            backlog_events: Some(QUOTA_MAX),
            ..Quotas::default()
        };
        let wrong = quotas.check().expect_err("because three are wrong");
        let fields: Vec<_> = wrong.iter().map(|error| error.field).collect();
        assert_eq!(fields, ["events_per_second.rate", "events_per_second.burst", "concurrency"]);
        assert_eq!(Quotas::default().check(), Ok(()));
    }
}
