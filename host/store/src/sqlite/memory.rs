//! What the host knows of the store without asking it.
//!
//! Only one process has the store open and only its writer changes it, so what the writer notes here after a commit is
//! as good as a row: where each lane stands, which tenants there are and at which version their settings are. After an
//! error with an unknown outcome all of it is read from the database again.
//!
//! The tail: events are read soon after they were written, so the newest stay here until their lane's cursor has passed
//! them or newer ones need the space. A lane's part is always a whole end of the lane: everything beyond `from`.
//!
//! The hints: most lanes have no unfinished run and most tenants no blocked key. A [`Hint`] is true when there may be
//! one; a reader that looked and found none lowers it, unless the writer raised it meanwhile.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

/// A tenant's part of a shard.
pub(super) type LaneId = (TenantId, Shard);

/// Where a lane stands: the row in `progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) head: Position,
    pub(super) cursor: Position,
    pub(super) number: i64,
}

impl Progress {
    pub(super) const NONE: Self = Self { head: Position::ZERO, cursor: Position::ZERO, number: 0 };
}

/// Whether there may be something.
#[derive(Debug, Clone, Copy, Default)]
struct Hint {
    maybe: bool,
    raised: u64,
}

/// What a reader saw a hint as.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) maybe: bool,
    raised: u64,
}

impl Hint {
    fn raise(&mut self) {
        self.maybe = true;
        self.raised += 1;
    }

    const fn see(self) -> Seen {
        Seen { maybe: self.maybe, raised: self.raised }
    }

    fn lower(&mut self, seen: Seen) {
        if self.raised == seen.raised {
            self.maybe = false;
        }
    }
}

#[derive(Debug)]
struct Lane {
    progress: Progress,
    unfinished: Hint,
    /// All events of the lane beyond this are in `events`.
    from: Position,
    events: VecDeque<Arc<Logged>>,
}

/// Everything, as read from the database.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) settings: HashMap<TenantId, i64>,
    pub(super) lanes: HashMap<LaneId, Progress>,
    pub(super) fences: HashMap<Shard, Fence>,
    /// Lanes with unfinished runs.
    pub(super) unfinished: Vec<LaneId>,
    /// Tenants with unfinished runs that have a key.
    pub(super) chained: Vec<TenantId>,
}

#[derive(Debug, Default)]
struct Inner {
    settings: HashMap<TenantId, i64>,
    lanes: HashMap<LaneId, Lane>,
    fences: HashMap<Shard, Fence>,
    chained: HashMap<TenantId, Hint>,
    /// The lanes of all events in the tail, oldest event first; also of some that their cursor has passed.
    order: VecDeque<(LaneId, Position)>,
    /// Events in the tail, and their bytes.
    held: usize,
    bytes: usize,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Memory {
    bytes_max: usize,
    inner: Mutex<Inner>,
}

/// What a committed group changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) lanes: Vec<(LaneId, Progress)>,
    /// New events in order.
    pub(super) events: Vec<(TenantId, Arc<Logged>)>,
    pub(super) settings: Vec<(TenantId, i64)>,
    /// All fences of owned shards, if leases changed.
    pub(super) fences: Option<HashMap<Shard, Fence>>,
    /// Lanes that got unfinished runs.
    pub(super) unfinished: Vec<LaneId>,
    /// Tenants that got unfinished runs with a key.
    pub(super) chained: Vec<TenantId>,
}

/// What a batch needs to know first.
#[derive(Debug)]
pub(super) struct View {
    pub(super) progress: Progress,
    pub(super) settings: i64,
    pub(super) unfinished: Seen,
    pub(super) chained: Seen,
    /// The events beyond the cursor, if the tail has them; one more than asked for, to tell whether there are more.
    pub(super) events: Option<Vec<Arc<Logged>>>,
}

impl Memory {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything and believes `loaded`.
    pub(super) fn load(&self, loaded: Loaded) {
        let mut inner = self.lock();
        *inner = Inner { settings: loaded.settings, fences: loaded.fences, ..Inner::default() };
        for (id, progress) in loaded.lanes {
            inner.lanes.insert(id, Lane::new(progress));
        }
        for id in loaded.unfinished {
            inner.lane(id).unfinished.raise();
        }
        for tenant in loaded.chained {
            inner.chained.entry(tenant).or_default().raise();
        }
    }

    /// Notes what was just committed.
    pub(super) fn apply(&self, changes: Changes) {
        let mut inner = self.lock();
        inner.settings.extend(changes.settings);
        if let Some(fences) = changes.fences {
            inner.fences = fences;
        }
        for id in changes.unfinished {
            inner.lane(id).unfinished.raise();
        }
        for tenant in changes.chained {
            inner.chained.entry(tenant).or_default().raise();
        }
        for (tenant, event) in changes.events {
            inner.bytes += bytes_of(&event);
            inner.held += 1;
            let id = (tenant, event.shard);
            inner.order.push_back((id, event.position));
            inner.lane(id).events.push_back(event);
        }
        for (id, progress) in changes.lanes {
            inner.lane(id).progress = progress;
            inner.forget(id, progress.cursor);
        }
        inner.shrink(self.bytes_max);
    }

    pub(super) fn settings(&self, tenant: TenantId) -> Option<i64> {
        self.lock().settings.get(&tenant).copied()
    }

    pub(super) fn fence(&self, shard: Shard) -> Option<Fence> {
        self.lock().fences.get(&shard).copied()
    }

    pub(super) fn progress(&self, id: LaneId) -> Progress {
        self.lock().lanes.get(&id).map_or(Progress::NONE, |lane| lane.progress)
    }

    /// The tenant's lanes that hold events beyond `after`, and where their heads are.
    pub(super) fn heads(&self, tenant: TenantId, shards: u16, after: Position) -> Vec<(Shard, Position)> {
        let inner = self.lock();
        let lanes = (0..shards).map(Shard);
        let heads = lanes.filter_map(|shard| Some((shard, inner.lanes.get(&(tenant, shard))?.progress.head)));
        heads.filter(|(_, head)| *head > after).collect()
    }

    /// What a batch of at most `events` new events needs to know; none for a tenant that does not exist.
    pub(super) fn view(&self, id: LaneId, events: usize) -> Option<View> {
        let inner = self.lock();
        let settings = *inner.settings.get(&id.0)?;
        let chained = inner.chained.get(&id.0).copied().unwrap_or_default().see();
        let view = match inner.lanes.get(&id) {
            None => View {
                progress: Progress::NONE,
                settings,
                chained,
                unfinished: Hint::default().see(),
                events: Some(Vec::new()),
            },
            Some(lane) => View {
                progress: lane.progress,
                settings,
                chained,
                unfinished: lane.unfinished.see(),
                events: lane.beyond(lane.progress.cursor, events.saturating_add(1)),
            },
        };
        Some(view)
    }

    /// A look found no unfinished run in the lane.
    pub(super) fn none_unfinished(&self, id: LaneId, seen: Seen) {
        if let Some(lane) = self.lock().lanes.get_mut(&id) {
            lane.unfinished.lower(seen);
        }
    }

    /// A look found no unfinished run with a key in the tenant.
    pub(super) fn none_chained(&self, tenant: TenantId, seen: Seen) {
        if let Some(hint) = self.lock().chained.get_mut(&tenant) {
            hint.lower(seen);
        }
    }
}

impl Inner {
    fn lane(&mut self, id: LaneId) -> &mut Lane {
        self.lanes.entry(id).or_insert_with(|| Lane::new(Progress::NONE))
    }

    /// Drops a lane's events up to a position.
    fn forget(&mut self, id: LaneId, up_to: Position) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        while let Some(event) = lane.events.pop_front_if(|event| event.position <= up_to) {
            lane.from = event.position;
            self.bytes -= bytes_of(&event);
            self.held -= 1;
        }
    }

    fn holds(&self, id: LaneId, position: Position) -> bool {
        self.lanes.get(&id).is_some_and(|lane| position > lane.from)
    }

    /// Gives the oldest events up until the rest fits.
    fn shrink(&mut self, bytes_max: usize) {
        while let Some((id, position)) = self.order.front().copied() {
            if self.holds(id, position) {
                if self.bytes <= bytes_max {
                    break;
                }
                self.forget(id, position);
            }
            self.order.pop_front();
        }
        // One old event that nobody works off must not keep the places of all that came and went after it.
        if self.order.len() > 2 * self.held + 1_024 {
            let order = std::mem::take(&mut self.order);
            self.order = order.into_iter().filter(|(id, position)| self.holds(*id, *position)).collect();
        }
    }
}

impl Lane {
    /// A lane whose events up to its head, if any, are in the database only.
    const fn new(progress: Progress) -> Self {
        Self { progress, unfinished: Hint { maybe: false, raised: 0 }, from: progress.head, events: VecDeque::new() }
    }

    /// The first `limit` events beyond a position, unless some of them are in the database only.
    fn beyond(&self, after: Position, limit: usize) -> Option<Vec<Arc<Logged>>> {
        if after < self.from {
            return None;
        }
        let begin = self.events.partition_point(|event| event.position <= after);
        Some(self.events.range(begin..).take(limit).cloned().collect())
    }
}

/// What an event takes here, roughly: its texts and payload, and a fixed part for allocations and links.
fn bytes_of(logged: &Logged) -> usize {
    let event = &logged.event;
    let texts = event.id.len() + event.source.len() + event.kind.len() + event.correlation.len();
    let attributes: usize = event.attributes.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
    event.data.len() + texts + attributes + 512
}
