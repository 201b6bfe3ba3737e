//! What one tenant used of its quotas, as this node knows it. Time is passed in, and nothing here waits.

use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::policy::quota::Bucket;
use bulkhead_domain::policy::quota::Flow;
use bulkhead_domain::policy::quota::Quota;
use bulkhead_domain::policy::quota::Quotas;
use bulkhead_domain::policy::quota::Standing;

use crate::quota::Hold;
use crate::quota::Line;
use crate::quota::Refused;
use crate::quota::Stored;
use crate::schedule::Terms;

/// A limit that bit is said to bite for so long after.
const BITES_FOR: Duration = Duration::from_secs(10);
/// An account that nobody touched for so long goes, if nothing is owed.
const IDLE: Duration = Duration::from_secs(60);
/// When to try again what a full backlog, or full storage, refused: nobody knows when there is room.
const BACKLOG_AGAIN: Duration = Duration::from_secs(5);
const STORAGE_AGAIN: Duration = Duration::from_secs(60);
/// Counts are this old at most: near the limit, and far below it.
const BACKLOG_NEAR: Duration = Duration::from_secs(1);
const BACKLOG_FAR: Duration = Duration::from_secs(10);
const STORAGE_NEAR: Duration = Duration::from_secs(10);
const STORAGE_FAR: Duration = Duration::from_secs(60);
/// How old the level of a full bucket gets that other nodes may take from.
const FULL: Duration = Duration::from_secs(1);

/// A bucket of this node, and what the bucket that nodes share has not heard of yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    bucket: Bucket,
    untold: f64,
    /// What is on its way.
    told: f64,
    heard: Option<Timestamp>,
}

impl Meter {
    const fn full(flow: Flow, now: Timestamp) -> Self {
        Self { bucket: Bucket::full(flow, now), untold: 0.0, told: 0.0, heard: None }
    }

    fn take(&mut self, flow: Flow, tokens: f64, now: Timestamp) -> Result<(), Duration> {
        self.bucket.take(flow, tokens, now)?;
        self.untold += tokens;
        Ok(())
    }

    fn charge(&mut self, flow: Flow, tokens: f64, now: Timestamp) {
        self.bucket.charge(flow, tokens, now);
        self.untold += tokens;
    }

    fn is_full(&self, flow: Flow, now: Timestamp) -> bool {
        self.bucket.level(flow, now) >= flow.size
    }

    /// What to tell the shared bucket now; nothing if it can wait.
    pub(super) fn tell(&mut self, flow: Flow, now: Timestamp) -> Option<f64> {
        let fresh = self.heard.is_some_and(|heard| now.since(heard) < FULL);
        if fresh && self.untold == 0.0 && self.is_full(flow, now) {
            return None;
        }
        self.told = std::mem::take(&mut self.untold);
        Some(self.told)
    }

    /// The shared bucket's level after it was told.
    pub(super) fn heard(&mut self, level: f64, now: Timestamp) {
        // What was taken meanwhile is not in it yet.
        self.bucket = Bucket::at_level(level - self.untold, now);
        self.told = 0.0;
        self.heard = Some(now);
    }

    /// The shared bucket was not reached: this node's bucket goes on alone. What it takes until the other is back is paid
    /// by its own refill, so no more than a bucket's worth is told then.
    pub(super) fn unheard(&mut self, flow: Flow) {
        self.untold = (self.untold + std::mem::take(&mut self.told)).min(flow.size);
    }
}

/// A number that is looked up now and then.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    found: u64,
    /// Added since, as far as this node knows.
    since: u64,
    at: Option<Timestamp>,
}

impl Count {
    fn now(&self) -> u64 {
        self.found.saturating_add(self.since)
    }

    fn is_due(&self, limit: u64, near: Duration, far: Duration, now: Timestamp) -> bool {
        let age = if self.now() >= limit / 2 { near } else { far };
        self.at.is_none_or(|at| now.since(at) >= age)
    }

    fn set(&mut self, found: u64, now: Timestamp) {
        *self = Self { found, since: 0, at: Some(now) };
    }
}

/// When a limit bit first, and last, without a pause between.
#[derive(Debug, Clone, Copy)]
struct Bite {
    since: Timestamp,
    last: Timestamp,
}

/// What is to be counted for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Due {
    /// The backlog, up to here.
    pub backlog: Option<u64>,
    /// Bytes of state and components.
    pub storage: bool,
    /// The quotas may have changed without anybody coming by.
    pub quotas: bool,
}

impl Due {
    pub(super) fn is_any(&self) -> bool {
        *self != Self::default()
    }
}

/// One tenant's account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) quotas: Quotas,
    /// As they were last told to the schedule.
    pub(super) terms: Terms,
    pub(super) events: Option<Meter>,
    pub(super) fuel: Option<Meter>,
    backlog: Count,
    storage: Count,
    /// What the storage was made of when it was counted.
    stored: Option<Stored>,
    quotas_at: Timestamp,
    bites: [Option<Bite>; Quota::ALL.len()],
    used: Timestamp,
}

impl Account {
    pub(super) fn new(quotas: Quotas, now: Timestamp) -> Self {
        let mut account = Self {
            quotas: Quotas::default(),
            terms: Terms::default(),
            events: None,
            fuel: None,
            backlog: Count::default(),
            storage: Count::default(),
            stored: None,
            quotas_at: now,
            bites: [None; Quota::ALL.len()],
            used: now,
        };
        account.allow(quotas, now);
        account
    }

    /// These quotas count from now on. What is owed stays owed.
    pub(super) fn allow(&mut self, quotas: Quotas, now: Timestamp) {
        self.quotas_at = now;
        if self.quotas != quotas {
            self.quotas = quotas;
            self.events = quotas.events().map(|flow| self.events.unwrap_or_else(|| Meter::full(flow, now)));
            self.fuel = quotas.fuel().map(|flow| self.fuel.unwrap_or_else(|| Meter::full(flow, now)));
        }
    }

    /// Somebody does something for this tenant.
    pub(super) fn touch(&mut self, now: Timestamp) {
        self.used = self.used.max(now);
    }

    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        let full = |meter: Option<Meter>, flow: Option<Flow>| {
            meter.zip(flow).is_none_or(|(meter, flow)| meter.is_full(flow, now))
        };
        now.since(self.used) >= IDLE
            && full(self.events, self.quotas.events())
            && full(self.fuel, self.quotas.fuel())
            && !Quota::ALL.into_iter().any(|quota| self.bites(quota, now))
    }

    /// Whether so many events may come in.
    pub(super) fn admit(&mut self, events: u32, now: Timestamp) -> Result<(), Refused> {
        let refused = match self.refusal(events, now) {
            None => {
                self.backlog.since += u64::from(events);
                return Ok(());
            }
            Some(refused) => refused,
        };
        self.bit(refused.quota, now);
        Err(refused)
    }

    fn refusal(&mut self, events: u32, now: Timestamp) -> Option<Refused> {
        let Quotas { storage_bytes, backlog_events, .. } = self.quotas;
        if let Some(limit) = storage_bytes.filter(|limit| self.storage.now() > *limit) {
            let stored = self.stored;
            return Some(Refused { quota: Quota::Storage, limit, stored, retry_after: STORAGE_AGAIN });
        }
        // A request that is larger than the whole backlog may be, is taken when there is none.
        let full = |limit: &u64| self.backlog.now() > 0 && self.backlog.now() + u64::from(events) > *limit;
        if let Some(limit) = backlog_events.filter(full) {
            return Some(Refused { quota: Quota::Backlog, limit, stored: None, retry_after: BACKLOG_AGAIN });
        }
        let (flow, meter) = self.quotas.events().zip(self.events.as_mut())?;
        let retry_after = meter.take(flow, f64::from(events), now).err()?;
        let limit = self.quotas.events_per_second.map_or(0, |rate| rate.rate);
        Some(Refused { quota: Quota::Rate, limit, stored: None, retry_after })
    }

    /// So much fuel was used.
    pub(super) fn burn(&mut self, fuel: u64, now: Timestamp) {
        if let Some((flow, meter)) = self.quotas.fuel().zip(self.fuel.as_mut()) {
            meter.charge(flow, fuel as f64, now);
        }
    }

    /// What the schedule should know. Notes what bites.
    pub(super) fn judge(&mut self, aside: usize, now: Timestamp) -> Terms {
        let (rate, fuel) = (self.hold(Quota::Rate, now), self.hold(Quota::Fuel, now));
        for (quota, hold) in [(Quota::Rate, rate), (Quota::Fuel, fuel)] {
            if hold != Hold::Within {
                self.bit(quota, now);
            }
        }
        if aside > 0 && fuel != Hold::Stopped && self.quotas.concurrency.is_some() {
            self.bit(Quota::Concurrency, now);
        }
        Terms {
            soft: rate != Hold::Within || fuel != Hold::Within,
            held: fuel == Hold::Stopped,
            turns: self.quotas.concurrency.unwrap_or(u16::MAX),
        }
    }

    fn meter(&self, quota: Quota) -> Option<(Meter, Flow)> {
        match quota {
            Quota::Rate => self.events.zip(self.quotas.events()),
            Quota::Fuel => self.fuel.zip(self.quotas.fuel()),
            Quota::Concurrency | Quota::Backlog | Quota::Storage => None,
        }
    }

    /// What a quota with a bucket does now.
    fn hold(&self, quota: Quota, now: Timestamp) -> Hold {
        match self.meter(quota).map(|(meter, flow)| meter.bucket.standing(flow, now)) {
            None | Some(Standing::Within) => Hold::Within,
            Some(Standing::Debt) => Hold::Soft,
            Some(Standing::Spent) => Hold::Stopped,
        }
    }

    fn bit(&mut self, quota: Quota, now: Timestamp) {
        let goes_on = self.bites(quota, now);
        let bite = self.bites[quota as usize].get_or_insert(Bite { since: now, last: now });
        *bite = Bite { since: if goes_on { bite.since } else { now }, last: now };
    }

    fn bites(&self, quota: Quota, now: Timestamp) -> bool {
        self.bites[quota as usize].is_some_and(|bite| now.since(bite.last) < BITES_FOR)
    }

    /// What is to be counted anew.
    pub(super) fn due(&self, now: Timestamp) -> Due {
        let backlog = self.quotas.backlog_events;
        let backlog = backlog.filter(|limit| self.backlog.is_due(*limit, BACKLOG_NEAR, BACKLOG_FAR, now));
        let storage = self.quotas.storage_bytes;
        Due {
            // One more, so that it is seen to be full.
            backlog: backlog.map(|limit| limit + 1),
            storage: storage.is_some_and(|limit| self.storage.is_due(limit, STORAGE_NEAR, STORAGE_FAR, now)),
            quotas: Quota::ALL.into_iter().any(|quota| self.bites(quota, now))
                && now.since(self.quotas_at) >= BACKLOG_NEAR,
        }
    }

    pub(super) fn counted(&mut self, backlog: Option<u64>, storage: Option<Stored>, now: Timestamp) {
        if let Some(found) = backlog {
            self.backlog.set(found, now);
        }
        if let Some(found) = storage {
            self.storage.set(found.sum(), now);
            self.stored = Some(found);
        }
    }

    /// Each quota that is set: how much of it is used, and what it does.
    pub(super) fn lines(&self, turns: (usize, usize), now: Timestamp) -> Vec<Line> {
        Quota::ALL.into_iter().filter_map(|quota| self.line(quota, turns, now)).collect()
    }

    fn line(&self, quota: Quota, (running, aside): (usize, usize), now: Timestamp) -> Option<Line> {
        let quotas = &self.quotas;
        let stopped = |stopped: bool| if stopped { Hold::Stopped } else { Hold::Within };
        let full = |limit: u64, count: &Count| (limit, count.now(), stopped(count.now() >= limit));
        // Of a bucket, what is missing: up to its size is within the quota, up to twice that in the soft lane.
        let taken = |limit: u64| {
            let used = self.meter(quota).map_or(0.0, |(meter, flow)| flow.size - meter.bucket.level(flow, now));
            (limit, used.max(0.0).ceil() as u64, self.hold(quota, now))
        };
        let (limit, used, hold) = match quota {
            Quota::Rate => taken(quotas.events_per_second?.rate),
            Quota::Fuel => taken(quotas.fuel_per_minute?),
            Quota::Concurrency => {
                (u64::from(quotas.concurrency?), running as u64, stopped(aside > 0 && !self.terms.held))
            }
            Quota::Backlog => full(quotas.backlog_events?, &self.backlog),
            Quota::Storage => full(quotas.storage_bytes?, &self.storage),
        };
        let bite = self.bites[quota as usize].filter(|_| self.bites(quota, now));
        let retry_after = match (quota, hold) {
            (Quota::Backlog, Hold::Stopped) => Some(BACKLOG_AGAIN),
            (Quota::Storage, Hold::Stopped) => Some(STORAGE_AGAIN),
            _ => {
                self.meter(quota).map(|(meter, flow)| meter.bucket.spent_for(flow, now)).filter(|wait| !wait.is_zero())
            }
        };
        let stored = self.stored.filter(|_| quota == Quota::Storage);
        Some(Line { quota, limit, used, stored, hold, since: bite.map(|bite| bite.since), retry_after })
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_domain::policy::quota::Rate;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp(millis * 1_000)
    }

    fn account(quotas: Quotas) -> Account {
        Account::new(quotas, at(0))
    }

    fn refused(account: &mut Account, events: u32, now: Timestamp) -> Option<Quota> {
        account.admit(events, now).err().map(|refused| refused.quota)
    }

    #[test]
    fn a_flood_is_late_before_it_is_refused_and_both_end_by_themselves() {
        let rate = Rate { rate: 100, burst: None };
        let mut account = account(Quotas { events_per_second: Some(rate), ..Quotas::default() });
        assert_eq!(refused(&mut account, 100, at(0)), None);
        assert!(!account.judge(0, at(0)).soft);
        assert_eq!(refused(&mut account, 100, at(0)), None);
        assert!(account.judge(0, at(0)).soft);
        let refused = account.admit(50, at(0)).expect_err("because all is used");
        assert_eq!((refused.quota, refused.limit, refused.retry_after), (Quota::Rate, 100, Duration::from_millis(500)));
        let line = account.lines((0, 0), at(10))[0];
        assert_eq!((line.used, line.hold, line.since), (199, Hold::Soft, Some(at(0))));
        assert_eq!(account.admit(50, at(500)), Ok(()));
        assert!(account.judge(0, at(600)).soft);
        assert!(!account.judge(0, at(1_500)).soft, "a second without anything pays a second's rate");
        assert_eq!(account.lines((0, 0), at(1_500))[0].since, Some(at(0)), "it is still told");
        assert_eq!(account.lines((0, 0), at(12_000))[0].since, None);
    }

    #[test]
    fn fuel_is_known_afterwards_so_it_is_late_then_waits() {
        let mut account = account(Quotas { fuel_per_minute: Some(60_000), ..Quotas::default() });
        account.burn(60_001, at(0));
        let terms = account.judge(0, at(0));
        assert!(terms.soft && !terms.held);
        account.burn(60_000, at(0));
        assert!(account.judge(0, at(0)).held);
        let line = account.lines((0, 3), at(0))[0];
        assert_eq!(
            (line.quota, line.hold, line.retry_after),
            (Quota::Fuel, Hold::Stopped, Some(Duration::from_millis(1)))
        );
        assert!(!account.judge(3, at(1)).held, "paid to the minute that may be owed");
        assert!(!account.judge(0, at(60_001)).soft);
        assert_eq!(refused(&mut account, u32::MAX, at(0)), None, "no event is refused for it");
    }

    #[test]
    fn a_full_backlog_refuses_until_it_is_counted_to_be_smaller() {
        let mut account = account(Quotas { backlog_events: Some(10), ..Quotas::default() });
        assert_eq!(account.due(at(0)), Due { backlog: Some(11), ..Due::default() });
        account.counted(Some(0), None, at(0));
        assert_eq!(account.due(at(5_000)), Due::default(), "far below the limit nobody looks");
        assert_eq!(refused(&mut account, 25, at(0)), None, "or nobody could ever hand it in");
        assert_eq!(refused(&mut account, 1, at(0)), Some(Quota::Backlog));
        assert_eq!(account.due(at(1_000)).backlog, Some(11));
        account.counted(Some(9), None, at(1_000));
        assert_eq!(refused(&mut account, 1, at(1_000)), None);
        assert_eq!(refused(&mut account, 1, at(1_000)), Some(Quota::Backlog));
        let line = account.lines((0, 0), at(1_000))[0];
        assert_eq!((line.used, line.hold, line.since), (10, Hold::Stopped, Some(at(0))));
    }

    #[test]
    fn full_storage_refuses() {
        let mut account = account(Quotas { storage_bytes: Some(1_000), ..Quotas::default() });
        assert!(account.due(at(0)).storage);
        let stored = |state, components| Some(Stored { state, components });
        account.counted(None, stored(400, 600), at(0));
        assert_eq!(refused(&mut account, 1, at(0)), None);
        account.counted(None, stored(400, 601), at(0));
        let refused = account.admit(1, at(0)).expect_err("because it is full");
        assert_eq!((refused.quota, refused.stored), (Quota::Storage, stored(400, 601)));
        assert!(refused.to_string().contains("400 of state and 601 of components"), "{refused}");
        let line = account.lines((0, 0), at(0))[0];
        assert_eq!((line.used, line.stored), (1_001, stored(400, 601)));
    }

    #[test]
    fn turns_that_are_set_aside_tell_of_the_concurrency() {
        let mut account = account(Quotas { concurrency: Some(2), ..Quotas::default() });
        assert_eq!(account.judge(0, at(0)), Terms { turns: 2, ..Terms::default() });
        assert_eq!(account.lines((2, 0), at(0))[0].hold, Hold::Within);
        account.judge(1, at(0));
        let line = account.lines((2, 1), at(0))[0];
        assert_eq!((line.limit, line.used, line.hold, line.since), (2, 2, Hold::Stopped, Some(at(0))));
    }

    #[test]
    fn other_quotas_count_at_once_and_debts_stay() {
        let rate = |rate| Quotas { events_per_second: Some(Rate { rate, burst: None }), ..Quotas::default() };
        let mut account = account(rate(10));
        assert_eq!(refused(&mut account, 20, at(0)), None);
        account.allow(rate(100), at(0));
        assert_eq!(refused(&mut account, 90, at(0)), None);
        assert_eq!(refused(&mut account, 1, at(0)), Some(Quota::Rate));
        assert!(account.due(at(1_000)).quotas, "a limit that bites is looked up, in case it was raised");
        account.allow(Quotas::default(), at(0));
        assert_eq!(refused(&mut account, 1, at(0)), None);
        assert_eq!(account.lines((0, 0), at(0)), []);
    }

    #[test]
    fn an_account_goes_when_it_is_not_used_and_nothing_is_owed() {
        let mut account = account(Quotas { fuel_per_minute: Some(60), ..Quotas::default() });
        account.burn(120, at(0));
        assert!(!account.is_idle(at(61_000)), "a minute is still owed");
        assert!(account.is_idle(at(121_000)));
        account.touch(at(100_000));
        assert!(!account.is_idle(at(121_000)));
    }

    #[test]
    fn the_shared_level_counts_and_what_was_taken_meanwhile() {
        let flow = Flow { per_second: 10.0, size: 10.0 };
        let mut meter = Meter::full(flow, at(0));
        assert_eq!(meter.tell(flow, at(0)), Some(0.0), "others may have taken from it");
        meter.heard(10.0, at(0));
        assert_eq!(meter.tell(flow, at(500)), None);
        assert_eq!(meter.take(flow, 4.0, at(500)), Ok(()));
        assert_eq!(meter.tell(flow, at(500)), Some(4.0));
        assert_eq!(meter.take(flow, 3.0, at(500)), Ok(()));
        meter.heard(-8.0, at(500));
        assert_eq!(meter.bucket.level(flow, at(500)), -11.0);
        assert_eq!(meter.tell(flow, at(500)), Some(3.0));
        // Alone for a while: what was told and never heard is told again, but no more than a bucket holds.
        meter.unheard(flow);
        assert_eq!(meter.untold, 3.0);
        meter.charge(flow, 1_000.0, at(600));
        meter.unheard(flow);
        assert_eq!(meter.untold, 10.0);
    }
}
