//! Look: which queues a look for due deliveries comes by, and what it takes from each. Both databases do it this way.
//!
//! A queue is what one tenant has for one sink. The databases step from queue to queue and never along one, so what waits
//! behind a sink that takes nothing costs everybody else one step, however much it is. A look ends when it has found as
//! many queues as it may take deliveries; the next one then begins behind it, so that all have their turn.
//!
//! Nothing here asks a database: they bring what they found.

use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Mutex;
use std::sync::PoisonError;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

/// Queues that a database steps along at a time, at least and at most: some may be left out.
const STEPS_MIN: u32 = 16;
const STEPS_MAX: u32 = 256;

/// Where a queue stands among all: they are ordered by this.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The tenant's home; a store of one node does without.
    pub(crate) shard: Shard,
    pub(crate) tenant: TenantId,
    pub(crate) sink: String,
}

/// A queue as a step finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) place: Place,
    /// Whether its tenant is at work.
    pub(crate) active: bool,
    /// When the first in it is due.
    pub(crate) oldest: Timestamp,
    /// When the first that is not due yet will be.
    pub(crate) next: Option<Timestamp>,
}

/// A delivery that may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) due: Timestamp,
    pub(crate) seq: i64,
    pub(crate) tenant: TenantId,
    pub(crate) sink: String,
    pub(crate) id: String,
}

/// Where the next look begins; none: at the first queue.
#[derive(Debug, Default)]
pub(crate) struct Mark(Mutex<Option<Place>>);

impl Mark {
    pub(crate) fn get(&self) -> Option<Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, place: Option<Place>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}

/// A look under way: as long as there is a [`Look::step`], the database makes it and tells what it [`Look::found`].
#[derive(Debug)]
pub(crate) struct Look<'a> {
    now: Timestamp,
    limit: u32,
    without: HashSet<(TenantId, &'a str)>,
    /// Where it began; none: at the first queue.
    begun: Option<Place>,
    /// The last queue that it came by.
    after: Option<Place>,
    /// It has come to the end and goes on from the first queue.
    around: bool,
    over: bool,
    /// It ended before it had come round.
    early: bool,
    queues: Vec<Queue>,
    next: Option<Timestamp>,
}

/// What a look came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Queues with deliveries that may be taken.
    pub(crate) queues: Vec<Queue>,
    /// At most so many from each: more than an even share, because some have few.
    pub(crate) each: u32,
    /// When the next one after that is due.
    pub(crate) next: Option<Timestamp>,
    /// Where the next look begins.
    pub(crate) resume: Option<Place>,
}

impl<'a> Look<'a> {
    /// A look for at most `limit` deliveries, but for those to the sinks named, that begins behind a queue.
    pub(crate) fn new(now: Timestamp, limit: u32, without: &'a [(TenantId, String)], begun: Option<Place>) -> Self {
        let without = without.iter().map(|(tenant, sink)| (*tenant, sink.as_str())).collect();
        let (after, over) = (begun.clone(), limit == 0);
        Self { now, limit, without, begun, after, around: false, over, early: false, queues: Vec::new(), next: None }
    }

    /// Behind which queue to go on, and how many to come by; none when it is over.
    pub(crate) fn step(&self) -> Option<(Option<&Place>, u32)> {
        (!self.over).then(|| (self.after.as_ref(), self.steps()))
    }

    fn steps(&self) -> u32 {
        self.limit.clamp(STEPS_MIN, STEPS_MAX)
    }

    /// The queues that the step came by, in order.
    pub(crate) fn found(&mut self, queues: Vec<Queue>) {
        let last = queues.len() < self.steps() as usize;
        for queue in queues {
            if self.around && self.begun.as_ref() < Some(&queue.place) {
                self.over = true;
                return;
            }
            self.after = Some(queue.place.clone());
            if !queue.active || self.without.contains(&(queue.place.tenant, queue.place.sink.as_str())) {
                continue;
            }
            self.next = [self.next, queue.next].into_iter().flatten().min();
            if queue.oldest <= self.now {
                self.queues.push(queue);
            }
            if self.queues.len() >= self.limit as usize {
                (self.over, self.early) = (true, true);
                return;
            }
        }
        if last {
            self.over = self.around || self.begun.is_none();
            (self.around, self.after) = (true, None);
        }
    }

    pub(crate) fn end(self) -> Looked {
        let queues = u32::try_from(self.queues.len()).unwrap_or(u32::MAX).max(1);
        let each = self.limit.saturating_mul(2).div_ceil(queues).min(self.limit);
        Looked { queues: self.queues, each, next: self.next, resume: self.after.filter(|_| self.early) }
    }
}

/// Chooses at most `limit`: tenants take turns, and so do the sinks of a tenant; who is due for longest goes first.
pub(crate) fn share(mut candidates: Vec<Candidate>, limit: u32) -> Vec<Candidate> {
    candidates.sort_unstable_by_key(|one| (one.due, one.seq));
    let mut chosen = by_turns(candidates, |one| (one.tenant, one.sink.clone()));
    chosen = by_turns(chosen, |one| one.tenant);
    chosen.truncate(limit as usize);
    chosen
}

/// The first of each owner, then the second of each, and so on; as they were otherwise.
fn by_turns<K: Eq + Hash>(candidates: Vec<Candidate>, owner: impl Fn(&Candidate) -> K) -> Vec<Candidate> {
    let mut turns: HashMap<K, usize> = HashMap::new();
    let mut ranked = Vec::with_capacity(candidates.len());
    for one in candidates {
        let turn = turns.entry(owner(&one)).or_default();
        *turn += 1;
        ranked.push((*turn, one));
    }
    ranked.sort_by_key(|(turn, _)| *turn);
    ranked.into_iter().map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(100);

    fn place(tenant: i64) -> Place {
        Place { shard: Shard(0), tenant: TenantId(tenant), sink: "s".to_owned() }
    }

    fn queue(tenant: i64, oldest: i64) -> Queue {
        Queue { place: place(tenant), active: true, oldest: Timestamp(oldest), next: None }
    }

    /// What a look finds among queues, as a database would give them.
    fn look(all: &[Queue], limit: u32, without: &[(TenantId, String)], begun: Option<Place>) -> Looked {
        let mut look = Look::new(NOW, limit, without, begun);
        while let Some((after, at_most)) = look.step() {
            let beyond = |queue: &&Queue| after.is_none_or(|after| queue.place > *after);
            let found = all.iter().filter(beyond).take(at_most as usize).cloned().collect();
            look.found(found);
        }
        look.end()
    }

    fn tenants(looked: &Looked) -> Vec<i64> {
        looked.queues.iter().map(|queue| queue.place.tenant.0).collect()
    }

    #[test]
    fn every_queue_is_found_that_may_give() {
        let mut all: Vec<_> = (0..600).map(|tenant| queue(tenant, 0)).collect();
        all[1].active = false;
        (all[2].oldest, all[2].next) = (Timestamp(103), Some(Timestamp(103)));
        (all[1].next, all[3].next, all[5].next) = (Some(Timestamp(101)), Some(Timestamp(107)), Some(Timestamp(102)));
        let looked = look(&all, 1_000, &[(TenantId(5), "s".to_owned())], None);
        assert_eq!(looked.queues.len(), 597);
        assert!(tenants(&looked).iter().all(|tenant| ![1, 2, 5].contains(tenant)));
        assert_eq!((looked.next, looked.resume), (Some(Timestamp(103)), None), "of those that count");
        assert_eq!(look(&all, 0, &[], None).queues, []);
        assert_eq!(look(&[], 10, &[], Some(place(7))).queues, []);
    }

    #[test]
    fn looks_that_end_early_go_round() {
        let all: Vec<_> = (0..50).map(|tenant| queue(tenant, 0)).collect();
        let (mut begun, mut seen) = (None, Vec::new());
        for _ in 0..5 {
            let looked = look(&all, 20, &[], begun);
            assert_eq!(looked.queues.len(), 20);
            seen.extend(tenants(&looked));
            begun = looked.resume;
        }
        let expected: Vec<i64> = (0..100).map(|number| number % 50).collect();
        assert_eq!(seen, expected);
        let looked = look(&all, 100, &[], Some(place(30)));
        assert_eq!((tenants(&looked).len(), tenants(&looked)[0], looked.resume), (50, 31, None), "each once");
    }

    #[test]
    fn one_queue_may_give_everything_and_many_give_a_share() {
        let each =
            |queues: i64, limit| look(&(0..queues).map(|at| queue(at, 0)).collect::<Vec<_>>(), limit, &[], None).each;
        assert_eq!((each(0, 128), each(1, 128), each(2, 128), each(3, 128), each(128, 128)), (128, 128, 128, 86, 2));
    }

    #[test]
    fn tenants_take_turns_and_so_do_their_sinks() {
        let one = |due: i64, tenant: i64, sink: &str| Candidate {
            due: Timestamp(due),
            seq: due,
            tenant: TenantId(tenant),
            sink: sink.to_owned(),
            id: format!("{tenant}{sink}{due}"),
        };
        let all = vec![one(1, 1, "a"), one(2, 1, "a"), one(3, 1, "b"), one(4, 1, "a"), one(8, 2, "a"), one(9, 2, "a")];
        let ids = |limit| share(all.clone(), limit).into_iter().map(|one| one.id).collect::<Vec<_>>();
        assert_eq!(ids(4), ["1a1", "2a8", "1b3", "2a9"]);
        assert_eq!(ids(10), ["1a1", "2a8", "1b3", "2a9", "1a2", "1a4"]);
    }
}
