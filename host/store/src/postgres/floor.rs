//! Floor: where a look for due deliveries may begin.
//!
//! Somebody's long transaction keeps the deliveries that have arrived from being removed, and a look that begins with the
//! oldest walks over all of them, more with every minute. So where looks have become slow, most begin just before the
//! oldest delivery that the last look from the very beginning found; what comes to lie below that is found by the next
//! such look. These take a small part of the time, however slow they are.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::Shard;

/// A look that takes less is no burden, and every look is one from the beginning.
const SLOW: Duration = Duration::from_millis(100);
/// Looks from the beginning take at most one part in so many of the time.
const PART: u32 = 20;
/// Microseconds. Commits under way, and nodes whose clocks are behind, add deliveries that are this much older.
const MARGIN: i64 = 30_000_000;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Floor(Mutex<Option<Look>>);

/// The last look from the beginning.
#[derive(Debug)]
struct Look {
    shards: Vec<Shard>,
    oldest: i64,
    ended: Instant,
    took: Duration,
}

impl Floor {
    /// From when on to look; none: from the beginning, and then [`Floor::looked`] is to be told.
    pub(super) fn get(&self, shards: &[Shard]) -> Option<i64> {
        let look = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // With other shards come other deliveries.
        let look = look.as_ref().filter(|look| look.took > SLOW && look.shards == shards)?;
        (look.ended.elapsed() < look.took * PART).then(|| look.oldest.saturating_sub(MARGIN))
    }

    /// A look from the beginning found nothing that is due earlier than `oldest`.
    pub(super) fn looked(&self, shards: &[Shard], oldest: i64, took: Duration) {
        let look = Look { shards: shards.to_vec(), oldest, ended: Instant::now(), took };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(look);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARDS: [Shard; 2] = [Shard(1), Shard(2)];

    #[test]
    fn quick_looks_begin_at_the_beginning() {
        let floor = Floor::default();
        assert_eq!(floor.get(&SHARDS), None);
        floor.looked(&SHARDS, 50_000_000, SLOW);
        assert_eq!(floor.get(&SHARDS), None);
    }

    #[test]
    fn slow_looks_begin_before_the_oldest_for_a_while() {
        let floor = Floor::default();
        floor.looked(&SHARDS, 50_000_000, Duration::from_secs(60));
        assert_eq!(floor.get(&SHARDS), Some(20_000_000));
        assert_eq!(floor.get(&SHARDS[..1]), None, "other shards have deliveries of their own");
        let Some(ended) = Instant::now().checked_sub(Duration::from_secs(3)) else { return };
        *floor.0.lock().expect("because nobody panicked with it") =
            Some(Look { shards: SHARDS.to_vec(), oldest: 0, ended, took: Duration::from_millis(140) });
        assert_eq!(floor.get(&SHARDS), None, "then one is from the beginning again");
    }
}
