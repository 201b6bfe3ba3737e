//! A group: the work of many requests, planned in order and written together.
//!
//! Planning decides everything that may be refused, from what is committed and from what the group planned before, and
//! writes nothing. So a refusal never spoils the group, and two requests that touch the same thing see each other
//! in order. Writing then takes one statement per kind of row and piece, whatever the number of requests.

use std::collections::HashSet;

use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use crate::Error;
use crate::Result;
use crate::assemble::Incoming;
use crate::assemble::next_due;
use crate::log::Appended;
use crate::sqlite::memory::LaneId;
use crate::sqlite::writer::chains::Chains;
use crate::sqlite::writer::events::Events;
use crate::sqlite::writer::events::Place;
use crate::sqlite::writer::events::put_progress;
use crate::sqlite::writer::history::History;
use crate::sqlite::writer::op::Answer;
use crate::sqlite::writer::op::Work;
use crate::sqlite::writer::outbox::Outbox;
use crate::sqlite::writer::transaction::Transaction;
use crate::sqlite::writer::transaction::no_tenant;
use crate::sqlite::writer::versions::Name;
use crate::sqlite::writer::versions::States;
use crate::sqlite::writer::versions::Versions;
use crate::work::Commit;
use crate::work::Committed;
use crate::work::UnfinishedChange;
use crate::work::Waiting;

/// What was decided about one request.
enum Plan<'a> {
    Refuse(Error),
    Append(Vec<Place>),
    Answer(Committed),
    Commit { commit: &'a Commit, emits: Vec<Place>, shards: HashSet<Shard>, version: i64 },
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Group<'a> {
    plans: Vec<Plan<'a>>,
    events: Events<'a>,
    states: States<'a>,
    chains: Chains<'a>,
    outbox: Outbox<'a>,
    history: History<'a>,
    /// Appended from outside: the event's place, tenant and day, for the statement of usage.
    taken_in: Vec<(Place, TenantId, i64)>,
    /// Lanes where a run became due because another made room.
    promoted: Vec<LaneId>,
}

/// What became of a written group.
pub(super) struct Written {
    /// One for each request.
    pub(super) answers: Vec<Result<Answer>>,
    /// For each request, where each of its events is now, if it is new; nothing for a refused request.
    pub(super) new: Vec<Vec<Option<Position>>>,
    /// Versions of state that it wrote.
    pub(super) versions: Vec<(Name, i64)>,
}

impl<'a> Group<'a> {
    /// Decides about all requests, in order.
    pub(super) async fn plan(
        works: impl Iterator<Item = &'a Work> + Clone,
        versions: &mut Versions,
        tx: &mut Transaction<'_>,
    ) -> Result<Self> {
        let mut group = Self::default();
        let commits = works.clone().filter_map(|work| match work {
            Work::Commit(commit, _) => Some(&**commit),
            Work::Append(_) => None,
        });
        group.states.before = versions.look_up(tx, commits).await?;
        for work in works {
            let plan = match work {
                Work::Append(events) => group.plan_append(events, tx),
                Work::Commit(commit, emits) => group.plan_commit(commit, emits, tx).await?,
            };
            group.plans.push(plan);
        }
        Ok(group)
    }

    fn plan_append(&mut self, events: &'a [Incoming], tx: &mut Transaction<'_>) -> Plan<'a> {
        let mut known = None;
        for event in events {
            let tenant = event.new.tenant;
            if known != Some(tenant) && tx.memory.settings(tenant).is_none() {
                return Plan::Refuse(no_tenant(tenant));
            }
            known = Some(tenant);
        }
        let places = events.iter().map(|event| {
            let place = self.events.add(event, tx);
            self.taken_in.push((place, event.new.tenant, event.new.recorded.day()));
            place
        });
        Plan::Append(places.collect())
    }

    async fn plan_commit(
        &mut self,
        commit: &'a Commit,
        emits: &'a [Incoming],
        tx: &mut Transaction<'_>,
    ) -> Result<Plan<'a>> {
        let Some(settings) = tx.memory.settings(commit.tenant) else {
            return Ok(Plan::Refuse(no_tenant(commit.tenant)));
        };
        let lane = tx.peek((commit.tenant, commit.shard));
        let fenced = tx.memory.fence(commit.shard) != Some(commit.fence)
            || lane.cursor != commit.cursor_from
            || commit.cursor_to < commit.cursor_from;
        if fenced {
            return Ok(Plan::Answer(Committed::Fenced));
        }
        if commit.turn.is_some_and(|turn| turn != lane.number) {
            return Ok(Plan::Answer(Committed::Conflict));
        }
        let is_held =
            |change: &UnfinishedChange| matches!(change, UnfinishedChange::Put(run) if run.waiting == Waiting::Held);
        if settings > commit.settings && commit.unfinished.iter().any(is_held) {
            return Ok(Plan::Answer(Committed::Conflict));
        }
        if !self.states.holds(tx, commit).await? {
            return Ok(Plan::Answer(Committed::Conflict));
        }
        let version = tx.number();
        self.states.add(commit, version);
        self.chains.add(commit);
        self.outbox.add(commit, tx);
        self.history.add(commit, tx);
        let id = (commit.tenant, commit.shard);
        let passes = commit.emits_unmatched
            && settings <= commit.settings
            && lane.head <= commit.cursor_to
            && !self.events.may_add_to(id)
            && emits.iter().all(|event| event.new.shard == commit.shard);
        let shards = if passes { HashSet::new() } else { emits.iter().map(|event| event.new.shard).collect() };
        let emits: Vec<Place> = emits.iter().map(|event| self.events.add(event, tx)).collect();
        let last = emits.iter().map(|place| self.events.position(*place)).max().filter(|_| passes);
        let number = tx.number();
        let lane = tx.lane(id);
        lane.cursor = last.unwrap_or(commit.cursor_to);
        lane.number = number;
        Ok(Plan::Commit { commit, emits, shards, version })
    }

    /// Writes what was decided.
    pub(super) async fn write(mut self, tx: &mut Transaction<'_>) -> Result<Written> {
        self.events.flush(tx).await?;
        for (place, tenant, day) in &self.taken_in {
            if accepted(self.events.appended(*place)).is_some() {
                self.history.accepted(*tenant, *day);
            }
        }
        self.states.flush(tx).await?;
        self.promoted = self.chains.flush(tx).await?;
        self.outbox.flush(tx).await?;
        self.history.flush(tx).await?;
        put_progress(tx).await?;
        Ok(self.finish())
    }

    fn finish(mut self) -> Written {
        let plans = std::mem::take(&mut self.plans);
        let mut new = Vec::new();
        let mut answers = Vec::with_capacity(plans.len());
        for plan in plans {
            let places: &[Place] = match &plan {
                Plan::Append(places) | Plan::Commit { emits: places, .. } => places,
                Plan::Refuse(_) | Plan::Answer(_) => &[],
            };
            let became: Vec<_> = places.iter().map(|place| self.events.appended(*place)).collect();
            new.push(became.iter().map(|appended| accepted(*appended)).collect());
            answers.push(match plan {
                Plan::Refuse(error) => Err(error),
                Plan::Answer(committed) => Ok(Answer::Committed(committed)),
                Plan::Append(_) => Ok(Answer::Appended(became)),
                Plan::Commit { commit, shards, version, .. } => {
                    Ok(Answer::Committed(self.done(commit, shards, version)))
                }
            });
        }
        Written { answers, new, versions: self.states.left() }
    }

    fn done(&self, commit: &Commit, mut shards: HashSet<Shard>, version: i64) -> Committed {
        let promoted = self.promoted.iter().filter(|(tenant, _)| *tenant == commit.tenant).map(|(_, shard)| *shard);
        shards.extend(promoted);
        let mut woken: Vec<Shard> = shards.into_iter().collect();
        woken.sort_unstable();
        Committed::Done { woken, next_due: next_due(commit), version }
    }
}

const fn accepted(appended: Appended) -> Option<Position> {
    match appended {
        Appended::Accepted(position) => Some(position),
        Appended::Duplicate(_) => None,
    }
}
