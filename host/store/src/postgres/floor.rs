//! Floor: what looks for due deliveries need not walk over again.
//!
//! Somebody's long transaction keeps the deliveries that have arrived from being removed, and a look that begins with the
//! oldest of each queue walks over all of them, more with every minute. So where looks have become slow, most begin just
//! before the oldest delivery that the last look from the very beginning found in each queue; what comes to lie below that
//! is found by the next such look. These take a small part of the time, however slow they are.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::Shard;

use crate::look::Place;

/// A look that takes less is no burden, and every look is one from the beginning.
const SLOW: Duration = Duration::from_millis(20);
/// Looks from the beginning take at most one part in so many of the time.
const PART: u32 = 10;
/// Microseconds. Commits under way, and nodes whose clocks are behind, add deliveries that are this much older.
const MARGIN: i64 = 10_000_000;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Floor(Mutex<Option<Walk>>);

/// The last look from the beginning.
#[derive(Debug)]
struct Walk {
    shards: Vec<Shard>,
    ended: Instant,
    took: Duration,
    /// Queues that are known, and the oldest in each.
    oldest: BTreeMap<Place, i64>,
}

impl Floor {
    /// Known queues, in order, and from when on to look at each; none: from the beginning, and then [`Floor::looked`] is
    /// to be told.
    pub(super) fn get(&self, shards: &[Shard]) -> Option<Vec<(Place, i64)>> {
        let walk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // With other shards come other deliveries.
        let walk = walk.as_ref().filter(|walk| walk.took > SLOW && walk.shards == shards)?;
        let from = |(place, oldest): (&Place, &i64)| (place.clone(), oldest.saturating_sub(MARGIN));
        (walk.ended.elapsed() < walk.took * PART).then(|| walk.oldest.iter().map(from).collect())
    }

    /// A look from the beginning came by these queues, with the oldest of each. If it came by all, then those that it did
    /// not find have nothing that was due `by` then.
    pub(super) fn looked(&self, shards: &[Shard], seen: Vec<(Place, i64)>, by: Option<i64>, took: Duration) {
        let mut walk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // While looks are quick, what one does not find hides little.
        let mut oldest = walk.take().filter(|_| took > SLOW).map_or_else(BTreeMap::new, |before| before.oldest);
        if let Some(by) = by {
            oldest.values_mut().for_each(|oldest| *oldest = by);
        }
        oldest.extend(seen);
        *walk = Some(Walk { shards: shards.to_vec(), ended: Instant::now(), took, oldest });
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_domain::id::TenantId;

    use super::*;

    const SHARDS: [Shard; 2] = [Shard(1), Shard(2)];
    const LONG: Duration = Duration::from_secs(60);

    fn place(tenant: i64) -> Place {
        Place { shard: Shard(1), tenant: TenantId(tenant), sink: "s".to_owned() }
    }

    #[test]
    fn quick_looks_begin_at_the_beginning() {
        let floor = Floor::default();
        assert_eq!(floor.get(&SHARDS), None);
        floor.looked(&SHARDS, vec![(place(1), 50_000_000)], None, SLOW);
        assert_eq!(floor.get(&SHARDS), None);
    }

    #[test]
    fn slow_looks_begin_before_the_oldest_for_a_while() {
        let floor = Floor::default();
        floor.looked(&SHARDS, vec![(place(1), 50_000_000)], None, LONG);
        assert_eq!(floor.get(&SHARDS), Some(vec![(place(1), 40_000_000)]));
        assert_eq!(floor.get(&SHARDS[..1]), None, "other shards have deliveries of their own");
        let Some(ended) = Instant::now().checked_sub(Duration::from_secs(3)) else { return };
        *floor.0.lock().expect("because nobody panicked with it") =
            Some(Walk { shards: SHARDS.to_vec(), ended, took: Duration::from_millis(140), oldest: BTreeMap::new() });
        assert_eq!(floor.get(&SHARDS), None, "then one is from the beginning again");
    }

    #[test]
    fn what_a_slow_look_does_not_find_has_gone() {
        let floor = Floor::default();
        floor.looked(&SHARDS, vec![(place(1), 50_000_000), (place(2), 60_000_000)], None, SLOW);
        floor.looked(&SHARDS, vec![(place(2), 70_000_000)], None, LONG);
        let known = |first, second| Some(vec![(place(1), first), (place(2), second)]);
        assert_eq!(floor.get(&SHARDS), known(40_000_000, 60_000_000), "it may not have come by the first");
        floor.looked(&SHARDS, vec![(place(2), 80_000_000)], Some(90_000_000), LONG);
        assert_eq!(floor.get(&SHARDS), known(80_000_000, 70_000_000));
        floor.looked(&SHARDS, Vec::new(), Some(90_000_000), SLOW);
        floor.looked(&SHARDS, vec![(place(2), 90_000_000)], None, LONG);
        assert_eq!(floor.get(&SHARDS), Some(vec![(place(2), 80_000_000)]), "a quick one forgets");
    }
}
