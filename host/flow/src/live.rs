//! Live: tells readers of a tenant's log that something was appended. They read it from the store themselves.
//!
//! A tick carries no data, so nothing can cross tenants here, and a slow reader holds nothing up. It says of which types
//! events may be, roughly: most readers want one type, and need not look for every event of the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bulkhead_domain::id::TenantId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bus::Bus;
use crate::bus::Signal;

/// A reader looks at the latest this long after an event that it does not want, so that what it must skip before the next
/// one that it wants stays bounded.
const BEHIND_MAX: Duration = Duration::from_millis(100);
/// Events of more types than these at once are told to other nodes as events of any: a signal a type would be more than
/// the looks that it saves.
const TOLD_MAX: u32 = 4;

/// Types of events, each one of 64 bits: that a type is not among them is certain, that it is among them is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u64);

impl Kinds {
    /// Any.
    pub const ALL: Self = Self(u64::MAX);

    /// These.
    pub fn of<'a>(kinds: impl Iterator<Item = &'a str>) -> Self {
        Self(kinds.fold(0, |bits, kind| bits | 1 << bit(kind)))
    }

    /// What another node told: types of one bit, or any.
    #[must_use]
    pub fn told(bit: Option<u8>) -> Self {
        match bit {
            Some(bit @ 0..64) => Self(1 << bit),
            _ => Self::ALL,
        }
    }

    /// What to tell other nodes: each bit by itself, or that it is any.
    fn to_tell(self) -> impl Iterator<Item = Option<u8>> {
        let any = self.0.count_ones() > TOLD_MAX;
        let bits = (0..64).filter(move |bit| !any && self.0 >> bit & 1 == 1).map(Some);
        any.then_some(None).into_iter().chain(bits)
    }
}

/// The same on all nodes, whatever they were built with.
fn bit(kind: &str) -> u8 {
    blake3::hash(kind.as_bytes()).as_bytes()[0] % 64
}

/// Ticks so far: of all, and of each bit of [`Kinds`].
#[derive(Debug)]
struct Count {
    all: u64,
    of: [u64; 64],
}

impl Count {
    const NONE: Self = Self { all: 0, of: [0; 64] };

    fn add(&mut self, kinds: Kinds) {
        self.all += 1;
        for (bit, count) in self.of.iter_mut().enumerate() {
            *count += kinds.0 >> bit & 1;
        }
    }
}

/// A cheap handle; all clones share the same channels.
#[derive(Debug, Clone, Default)]
pub struct Live {
    channels: Arc<Mutex<HashMap<TenantId, watch::Sender<Count>>>>,
    bus: Bus,
}

impl Live {
    /// Channels of this node, whose ticks other nodes hear of over the bus.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        Self { channels: Arc::default(), bus }
    }

    /// The ticks of a tenant, for a reader of all of its events or of those of one type.
    #[must_use]
    pub fn subscribe(&self, tenant: TenantId, kind: Option<&str>) -> Ticks {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = channels.entry(tenant).or_insert_with(|| watch::Sender::new(Count::NONE)).subscribe();
        let mut ticks = Ticks { receiver, bit: kind.map(bit), seen: 0 };
        ticks.catch_up();
        ticks
    }

    /// Events of the tenant, of these types, were appended on this node.
    pub fn tick(&self, tenant: TenantId, kinds: Kinds) {
        self.heard(tenant, kinds);
        for bit in kinds.to_tell() {
            self.bus.publish(Signal::Events { tenant, bit });
        }
    }

    /// Events of the tenant were appended, perhaps on another node. Channels that nobody listens to are forgotten, so the
    /// map is bounded by the number of open streams.
    pub fn heard(&self, tenant: TenantId, kinds: Kinds) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = channels.get(&tenant) {
            if sender.receiver_count() == 0 {
                channels.remove(&tenant);
            } else {
                sender.send_modify(|count| count.add(kinds));
            }
        }
    }

    /// Events of any tenant may have been appended.
    pub fn heard_all(&self) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|_, sender| sender.receiver_count() > 0);
        channels.values().for_each(|sender| sender.send_modify(|count| count.add(Kinds::ALL)));
    }
}

/// What one reader hears.
#[derive(Debug)]
pub struct Ticks {
    receiver: watch::Receiver<Count>,
    /// What it wants.
    bit: Option<u8>,
    /// How many ticks of that it knows of.
    seen: u64,
}

impl Ticks {
    /// The reader is about to look: what was told so far needs no further look.
    pub fn catch_up(&mut self) {
        let count = self.receiver.borrow_and_update();
        self.seen = self.bit.map_or(count.all, |bit| count.of[usize::from(bit)]);
    }

    /// Until there is a reason to look: something that the reader may want was appended, or anything else, some time ago.
    pub async fn next(&mut self) {
        let mut due = None;
        loop {
            let wait = tokio::time::sleep_until(due.unwrap_or_else(Instant::now));
            tokio::select! {
                changed = self.receiver.changed() => {
                    if changed.is_err() {
                        // Nobody appends any more.
                        std::future::pending::<()>().await;
                    }
                    let count = self.receiver.borrow_and_update();
                    if self.bit.map_or(count.all, |bit| count.of[usize::from(bit)]) != self.seen {
                        return;
                    }
                    due.get_or_insert_with(|| Instant::now() + BEHIND_MAX);
                }
                () = wait, if due.is_some() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &str = "orders.created";

    /// Whether there is a reason to look now.
    async fn is_due(ticks: &mut Ticks) -> bool {
        tokio::select! {
            biased;
            () = ticks.next() => true,
            () = std::future::ready(()) => false,
        }
    }

    /// A type that has another bit.
    fn other() -> String {
        let mut names = (0..).map(|number| format!("other.{number}"));
        names.find(|name| bit(name) != bit(WANTED)).expect("because there are 63 others")
    }

    #[tokio::test]
    async fn a_tick_reaches_its_tenant_alone_and_unheard_channels_go() {
        let live = Live::default();
        let (mut a, mut b) = (live.subscribe(TenantId(1), None), live.subscribe(TenantId(2), None));
        live.tick(TenantId(1), Kinds::ALL);
        assert!(is_due(&mut a).await);
        assert!(!is_due(&mut b).await);
        drop((a, b));
        live.tick(TenantId(1), Kinds::ALL);
        live.tick(TenantId(2), Kinds::ALL);
        assert!(live.channels.lock().expect("because nobody panicked").is_empty());
    }

    #[tokio::test]
    async fn a_reader_of_one_type_looks_for_that_at_once_and_for_others_a_little_later() {
        let live = Live::default();
        let (mut one, mut all) = (live.subscribe(TenantId(1), Some(WANTED)), live.subscribe(TenantId(1), None));
        let other = other();
        live.tick(TenantId(1), Kinds::of([other.as_str()].into_iter()));
        assert!(is_due(&mut all).await);
        let began = Instant::now();
        one.next().await;
        assert!(began.elapsed() >= BEHIND_MAX, "{:?}", began.elapsed());
        one.catch_up();
        assert!(!is_due(&mut one).await, "it has looked since");
        live.tick(TenantId(1), Kinds::of([other.as_str(), WANTED].into_iter()));
        assert!(is_due(&mut one).await);
        one.catch_up();
        live.heard(TenantId(1), Kinds::ALL);
        assert!(is_due(&mut one).await, "it may be of any type");
    }

    #[test]
    fn other_nodes_are_told_of_few_types_one_by_one_and_of_many_as_any() {
        let told = |kinds: Kinds| kinds.to_tell().collect::<Vec<_>>();
        let both = Kinds(1 << 63 | 1);
        assert_eq!(told(both), [Some(0), Some(63)]);
        assert_eq!(told(both).into_iter().fold(0, |bits, bit| bits | Kinds::told(bit).0), both.0);
        assert_eq!(told(Kinds(0b1_1111)), [None]);
        assert_eq!(told(Kinds::ALL), [None]);
        assert_eq!(Kinds::told(None), Kinds::ALL);
        assert_eq!(Kinds::told(Some(64)), Kinds::ALL, "from a node that has more");
        assert_eq!(told(Kinds::of(std::iter::empty())), []);
    }

    /// Nodes of different releases meet while they are upgraded.
    #[test]
    fn a_type_has_the_same_bit_on_every_node() {
        assert_eq!([bit(WANTED), bit("")], [20, 47]);
    }

    /// A tick between the look before and the wait is not lost.
    #[tokio::test]
    async fn a_tick_while_a_reader_looks_is_heard_afterwards() {
        let live = Live::default();
        let mut ticks = live.subscribe(TenantId(1), Some(WANTED));
        ticks.catch_up();
        live.tick(TenantId(1), Kinds::of([WANTED].into_iter()));
        assert!(is_due(&mut ticks).await);
    }
}
