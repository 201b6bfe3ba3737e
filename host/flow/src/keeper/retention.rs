//! Retention: what is over and too old goes, a slice at a time, and most of the time nothing.
//!
//! One node does it: whichever holds the first shard. It takes one slice after another, and rests four times as long as
//! each took, so that it has no more than a fifth of the store's writer, and less the busier that is. Where that is not
//! enough to keep up with what comes in, passes become longer and longer; the longer one is, the shorter are its rests.

use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Shard;
use bulkhead_store::upkeep::Expiry;
use bulkhead_store::upkeep::Mark;
use bulkhead_store::upkeep::Retired;

use crate::keeper::Keeper;

/// How long what is over is kept; none is for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Events, with their runs, their keys by which duplicates are known, and their deliveries.
    pub events: Option<Duration>,
    /// Runs and deliveries that wait for a person.
    pub parked: Option<Duration>,
    /// Lines of usage.
    pub usage: Option<Duration>,
}

/// The shortest and the longest time between two passes.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Passes in the shortest time that anything is kept.
const PASSES: u32 = 24;
/// How much longer than a slice took is rested, and for how long at least and at most.
const REST: u32 = 4;
const RESTS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(5));
/// So many times the time between two passes is an ordinary length of one: what comes in meanwhile is little beside what
/// is kept. A pass that is longer rests less, in proportion.
const PASS_USUAL: u32 = 10;
/// Recordings that go at a time.
const RECORDINGS: u32 = 100;
/// Whose holder it is that does it.
const FIRST: Shard = Shard(0);

impl Retention {
    /// How often to look.
    fn every(&self) -> Duration {
        let shortest = [self.events, self.parked, self.usage].into_iter().flatten().min();
        (shortest.unwrap_or(Duration::MAX) / PASSES).clamp(EVERY.0, EVERY.1)
    }

    /// How long to rest after a slice, in a pass that is so long already (or follows one that was).
    fn rest(&self, slice: Duration, pass: Duration) -> Duration {
        let usual = self.every() * PASS_USUAL;
        let share = usual.as_secs_f64() / pass.max(usual).as_secs_f64();
        (slice * REST).mul_f64(share).clamp(RESTS.0, RESTS.1)
    }

    /// What is too old now.
    fn expiry(&self, now: Timestamp) -> Expiry {
        let before = |kept: Option<Duration>| {
            kept.map(|kept| Timestamp(now.0.saturating_sub(i64::try_from(kept.as_micros()).unwrap_or(i64::MAX))))
        };
        Expiry { events: before(self.events), parked: before(self.parked), usage: before(self.usage), now }
    }
}

impl Keeper {
    /// Makes one pass after another.
    pub(super) async fn retention_loop(&self) {
        let every = self.options.retention.every();
        let mut last = Duration::ZERO;
        loop {
            tokio::time::sleep(every).await;
            let mut age = Duration::ZERO;
            if self.has_first() {
                let began = Instant::now();
                if let Err(error) = self.pass(last).await {
                    tracing::warn!(%error, "cannot take what is too old away");
                }
                last = began.elapsed();
                match self.store.host_oldest_event().await {
                    Ok(oldest) => age = oldest.map_or(age, |oldest| self.clock.now().since(oldest)),
                    Err(error) => tracing::warn!(%error, "cannot look for the oldest event"),
                }
            }
            // Of the node that does it; the others say 0, whatever they said before.
            metrics::gauge!("bulkhead_oldest_event_seconds").set(age.as_secs_f64());
        }
    }

    fn has_first(&self) -> bool {
        self.fences.load().contains_key(&FIRST)
    }

    /// Takes everything away that is too old at this moment; the pass before it took `last`.
    async fn pass(&self, last: Duration) -> bulkhead_store::Result<()> {
        let expiry = self.options.retention.expiry(self.clock.now());
        let (began, mut all, mut mark) = (Instant::now(), Retired::default(), Some(Mark::default()));
        let mut failed = None;
        // Another node may have taken the shard over meanwhile.
        while let Some(at) = mark.filter(|_| self.has_first()) {
            let slice = Instant::now();
            match self.store.host_retire(&expiry, at).await {
                Ok((mut retired, next)) => {
                    self.wake(std::mem::take(&mut retired.woken));
                    count(&retired);
                    all.add(retired);
                    mark = next;
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
            tokio::time::sleep(self.options.retention.rest(slice.elapsed(), last.max(began.elapsed()))).await;
        }
        report(&all, began.elapsed());
        match (failed, expiry.events) {
            (Some(error), _) => Err(error),
            (None, Some(before)) => self.expire_recordings(before).await,
            (None, None) => Ok(()),
        }
    }

    /// Recordings of plugins' calls are kept for no longer than events.
    async fn expire_recordings(&self, before: Timestamp) -> bulkhead_store::Result<()> {
        loop {
            let slice = Instant::now();
            let gone = self.store.host_expire_recordings(before, RECORDINGS).await?;
            if gone > 0 {
                metrics::counter!("bulkhead_retired_total", "what" => "recording").increment(gone);
            }
            if gone < u64::from(RECORDINGS) {
                return Ok(());
            }
            tokio::time::sleep((slice.elapsed() * REST).clamp(RESTS.0, RESTS.1)).await;
        }
    }
}

fn count(retired: &Retired) {
    let gone = [
        ("event", retired.events),
        ("run", retired.runs),
        ("key", retired.keys),
        ("delivery", retired.deliveries),
        ("usage", retired.usage),
        ("segment", retired.segments),
    ];
    for (what, many) in gone.into_iter().filter(|(_, many)| *many > 0) {
        metrics::counter!("bulkhead_retired_total", "what" => what).increment(many);
    }
    for (what, many) in [("run", retired.expired_runs), ("delivery", retired.expired_deliveries)] {
        if many > 0 {
            metrics::counter!("bulkhead_expired_total", "what" => what).increment(many);
        }
    }
}

/// Says what a pass did, if it did anything. What was parked is work that nobody did: that is worth more than a note.
fn report(all: &Retired, took: Duration) {
    if all.expired_runs > 0 || all.expired_deliveries > 0 {
        let (runs, deliveries) = (all.expired_runs, all.expired_deliveries);
        tracing::warn!(runs, deliveries, "what was parked for too long has been dropped");
    }
    let Retired { events, runs, keys, deliveries, usage, segments, .. } = *all;
    if events + runs + keys + deliveries + usage + segments > 0 {
        tracing::info!(events, runs, keys, deliveries, usage, segments, ?took, "what was too old is gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn the_shortest_time_says_how_often_to_look() {
        let every = |events, parked| Retention { events, parked, usage: None }.every();
        assert_eq!(every(None, None), EVERY.1);
        assert_eq!(every(Some(DAY * 30), Some(DAY * 20)), EVERY.1);
        assert_eq!(every(Some(DAY), Some(Duration::from_secs(240))), Duration::from_secs(10));
        assert_eq!(every(Some(Duration::from_secs(2)), None), EVERY.0);
    }

    #[test]
    fn the_longer_a_pass_is_the_less_it_rests() {
        let retention = Retention { events: Some(DAY * 30), parked: None, usage: None };
        let hour = Duration::from_secs(3_600);
        let rest = |pass| retention.rest(Duration::from_millis(100), pass).as_millis();
        assert_eq!([rest(Duration::ZERO), rest(hour / 2), rest(EVERY.1 * 10)], [400, 400, 400]);
        assert_eq!([rest(EVERY.1 * 20), rest(EVERY.1 * 40), rest(hour * 10_000)], [200, 100, 5]);
    }

    #[test]
    fn what_is_kept_for_ever_has_no_end() {
        let retention = Retention { events: Some(DAY), parked: None, usage: Some(Duration::MAX) };
        let expiry = retention.expiry(Timestamp(100_000_000_000));
        assert_eq!(expiry.events, Some(Timestamp(100_000_000_000 - 86_400_000_000)));
        assert_eq!((expiry.parked, expiry.now), (None, Timestamp(100_000_000_000)));
        assert!(expiry.usage.is_some_and(|before| before.0 < 0));
    }
}
