//! The part of a group that appends: keys first, which tell the duplicates, then the events that are new.

use std::collections::HashMap;
use std::collections::HashSet;

use bulkhead_domain::id::EventKey;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::assemble::Incoming;
use crate::log::Appended;
use crate::sqlite::fault;
use crate::sqlite::memory::LaneId;
use crate::sqlite::memory::Progress;
use crate::sqlite::row::Columns;
use crate::sqlite::row::USUAL_TYPE;
use crate::sqlite::row::list_text;
use crate::sqlite::text::Args;
use crate::sqlite::text::Rows;
use crate::sqlite::writer::transaction::Transaction;

static ADD_KEYS: Rows =
    Rows::new("INSERT INTO event_keys (tenant, key, pos) VALUES ", "(?,?,?)", " ON CONFLICT DO NOTHING");

static FIND_KEYS: Rows = Rows::new(
    "WITH want (tenant, key) AS (VALUES ",
    "(?,?)",
    ") SELECT k.tenant, k.key, k.pos FROM want CROSS JOIN event_keys k \
     WHERE k.tenant = want.tenant AND k.key = want.key",
);

static ADD_EVENTS: Rows = Rows::new(
    "INSERT INTO events (pos, tenant, shard, recorded, time, hops, budget, id, source, kind, subject, key, \
     correlation, causation, content_type, attributes, hash, data) VALUES ",
    "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    "",
);

static PUT_PROGRESS: Rows = Rows::new(
    "INSERT INTO progress (tenant, shard, head, cursor, number) VALUES ",
    "(?,?,?,?,?)",
    " ON CONFLICT DO UPDATE SET head = excluded.head, cursor = excluded.cursor, number = excluded.number",
);

struct Candidate<'a> {
    incoming: &'a Incoming,
    position: Position,
    /// Where it was already.
    there: Option<Position>,
}

/// One event of one request: the candidate that stands for it, and whether it is that candidate itself or one like it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    candidate: usize,
    itself: bool,
}

/// Events that a group wants to append.
#[derive(Default)]
pub(super) struct Events<'a> {
    candidates: Vec<Candidate<'a>>,
    by_key: HashMap<(TenantId, EventKey), usize>,
    candidate_lanes: HashSet<LaneId>,
}

impl<'a> Events<'a> {
    /// Takes an event in, unless the group has it already. Its position is used up even if it turns out a duplicate.
    pub(super) fn add(&mut self, incoming: &'a Incoming, tx: &mut Transaction<'_>) -> Place {
        let next = self.candidates.len();
        let candidate = *self.by_key.entry((incoming.new.tenant, incoming.key)).or_insert(next);
        if candidate == next {
            self.candidates.push(Candidate { incoming, position: Position(tx.number()), there: None });
            self.candidate_lanes.insert((incoming.new.tenant, incoming.new.shard));
        }
        Place { candidate, itself: candidate == next }
    }

    /// Whether a candidate may come to stand in a lane.
    pub(super) fn may_add_to(&self, lane: LaneId) -> bool {
        self.candidate_lanes.contains(&lane)
    }

    /// The position that was given to an event's candidate, whatever becomes of it.
    pub(super) fn position(&self, place: Place) -> Position {
        self.candidates[place.candidate].position
    }

    /// Writes them; moves the heads of their lanes.
    pub(super) async fn flush(&mut self, tx: &mut Transaction<'_>) -> Result<()> {
        self.claim_keys(tx).await?;
        let new: Vec<&Candidate<'_>> = self.candidates.iter().filter(|candidate| candidate.there.is_none()).collect();
        ADD_EVENTS.execute(tx.conn, &new, |candidate, args| bind(candidate, args)).await.map_err(fault::outward)?;
        for candidate in new {
            let new = &candidate.incoming.new;
            tx.lane((new.tenant, new.shard)).head = candidate.position;
        }
        Ok(())
    }

    async fn claim_keys(&mut self, tx: &mut Transaction<'_>) -> Result<()> {
        // In the order of the index: neighbours share a page.
        let mut keys: Vec<(TenantId, EventKey, Position)> = self
            .candidates
            .iter()
            .map(|candidate| (candidate.incoming.new.tenant, candidate.incoming.key, candidate.position))
            .collect();
        keys.sort_unstable();
        let bind = |(tenant, key, position): &(TenantId, EventKey, Position), args: &mut Args| {
            args.int(tenant.0).blob(&key.0).int(position.0);
        };
        let pieces = ADD_KEYS.execute(tx.conn, &keys, bind).await.map_err(fault::outward)?;
        for (piece, added) in pieces {
            if added == piece.len() as u64 {
                continue;
            }
            let want = |(tenant, key, _): &(TenantId, EventKey, Position), args: &mut Args| {
                args.int(tenant.0).blob(&key.0);
            };
            for row in FIND_KEYS.fetch(tx.conn, &[], piece, want, &[]).await.map_err(fault::outward)? {
                let mut columns = Columns::new(&row);
                let (tenant, key) = (TenantId(columns.int()?), columns.key()?);
                let position = columns.position()?;
                let candidate = &mut self.candidates[self.by_key[&(tenant, key)]];
                candidate.there = (candidate.position != position).then_some(position);
            }
        }
        Ok(())
    }

    /// What became of an event, once they are flushed.
    pub(super) fn appended(&self, place: Place) -> Appended {
        let candidate = &self.candidates[place.candidate];
        match candidate.there {
            Some(position) => Appended::Duplicate(position),
            None if place.itself => Appended::Accepted(candidate.position),
            None => Appended::Duplicate(candidate.position),
        }
    }
}

fn bind(candidate: &Candidate<'_>, args: &mut Args) {
    let (new, event) = (&candidate.incoming.new, &candidate.incoming.new.event);
    let unusual = |value: i64, usual: i64| (value != usual).then_some(value);
    args.int(candidate.position.0)
        .int(new.tenant.0)
        .int(i64::from(new.shard.0))
        .int(new.recorded.0)
        .int_opt(unusual(event.time.0, new.recorded.0))
        .int(i64::from(new.lineage.hops))
        .int(i64::from(new.lineage.budget))
        .text(&event.id)
        .text(&event.source)
        .text(&event.kind)
        .text_opt(event.subject.as_deref())
        .text_opt(event.key.as_deref())
        .text_opt((event.correlation != event.id).then_some(&event.correlation))
        .text_opt(event.causation.as_deref())
        .text_opt((event.content_type != USUAL_TYPE).then_some(&event.content_type))
        .text_opt(list_text(&event.attributes).as_deref())
        .blob(&candidate.incoming.hash)
        .blob(&event.data);
}

/// Writes where the transaction's lanes stand.
pub(in crate::sqlite) async fn put_progress(tx: &mut Transaction<'_>) -> Result<()> {
    let new = |(id, progress): &(LaneId, Progress)| tx.written.get(id) != Some(progress);
    let mut lanes: Vec<_> = tx.lanes.iter().map(|(id, progress)| (*id, *progress)).filter(new).collect();
    lanes.sort_unstable_by_key(|(id, _)| *id);
    PUT_PROGRESS
        .execute(tx.conn, &lanes, |((tenant, shard), progress), args| {
            args.int(tenant.0).int(i64::from(shard.0)).int(progress.head.0).int(progress.cursor.0).int(progress.number);
        })
        .await
        .map_err(fault::outward)?;
    tx.written.extend(lanes);
    Ok(())
}
