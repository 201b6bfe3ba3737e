//! What backends do alike before rows are written and once they are read: batches and pages are put together here.

use std::cmp::Reverse;
use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::EventKey;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use crate::log::EventQuery;
use crate::log::NewEvent;
use crate::log::TAIL_BYTES;
use crate::log::Tail;
use crate::upkeep::EXPIRED;
use crate::work::BatchLimits;
use crate::work::Commit;
use crate::work::Due;
use crate::work::RunRecord;
use crate::work::RunState;
use crate::work::RunView;
use crate::work::Unfinished;
use crate::work::UnfinishedChange;
use crate::work::Waiting;

/// An event with what can be computed before it waits for its turn.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) new: NewEvent,
    pub(crate) key: EventKey,
    pub(crate) hash: [u8; 32],
}

impl Incoming {
    pub(crate) fn new(new: NewEvent) -> Self {
        let (key, hash) = (new.event.event_key(), new.event.integrity());
        Self { new, key, hash }
    }
}

/// Where these events are to be worked off, each lane once.
pub(crate) fn lanes(events: &[Incoming]) -> Vec<(TenantId, Shard)> {
    let mut lanes: Vec<_> = events.iter().map(|event| (event.new.tenant, event.new.shard)).collect();
    lanes.sort_unstable();
    lanes.dedup();
    lanes
}

/// As many as the limits allow, but at least one; and whether there are more.
pub(crate) fn cut(events: impl Iterator<Item = Logged>, limits: BatchLimits) -> (Vec<Logged>, bool) {
    let (mut taken, mut bytes) = (Vec::new(), 0_usize);
    for event in events {
        bytes = bytes.saturating_add(event.event.data.len());
        let fits = taken.is_empty() || bytes <= limits.bytes;
        if !fits || taken.len() >= limits.events as usize {
            return (taken, true);
        }
        taken.push(event);
    }
    (taken, false)
}

/// The same for due runs, whose events are bounded like new ones.
pub(crate) fn cut_due(due: Vec<Due>, bytes_max: usize) -> Vec<Due> {
    let mut bytes = 0_usize;
    let fits = |due: &Due| {
        let first = bytes == 0;
        bytes = bytes.saturating_add(due.event.event.data.len().max(1));
        first || bytes <= bytes_max
    };
    due.into_iter().take_while(fits).collect()
}

/// The next events of a log, of which `found` has as many as may be looked at.
pub(crate) fn tail(found: Vec<Logged>, after: Position, kind: Option<&str>, limit: u32) -> Tail {
    let full = found.len() >= limit as usize;
    let (mut events, cut) = cut(found.into_iter(), BatchLimits { events: limit, bytes: TAIL_BYTES, due: 0 });
    let reached = events.last().map_or(after, |event| event.position);
    events.retain(|event| kind.is_none_or(|kind| event.event.kind == kind));
    Tail { events, reached, more: full || cut }
}

/// Each head, then what is behind it.
pub(crate) fn join(heads: Vec<Due>, behind: Vec<(usize, Due)>) -> Vec<Due> {
    let mut joined = Vec::with_capacity(heads.len() + behind.len());
    let mut behind = behind.into_iter().peekable();
    for (at, head) in heads.into_iter().enumerate() {
        joined.push(head);
        while let Some((_, due)) = behind.next_if(|(of, _)| *of == at) {
            joined.push(due);
        }
    }
    joined
}

/// Cuts a list of at most `limit + 1` views back to whole events. Gives the event that alone has more than `limit`.
pub(crate) fn cut_page(views: &mut Vec<RunView>, limit: usize) -> Option<Position> {
    let beyond = key(views.get(limit)?).0;
    views.truncate(limit);
    while views.last().is_some_and(|view| key(view).0 == beyond) {
        views.pop();
    }
    (views.is_empty() && limit > 0).then_some(beyond)
}

/// Names a run among those of a tenant.
pub(crate) fn key(view: &RunView) -> (Position, String) {
    let of_record = view.record.as_ref().map(|record| (record.position, record.rule.clone()));
    let of_waiting = || view.unfinished.as_ref().map(|run| (run.position, run.rule.clone()));
    of_record.or_else(of_waiting).unwrap_or((Position::ZERO, String::new()))
}

/// When the next run that the commit put is due.
pub(crate) fn next_due(commit: &Commit) -> Option<Timestamp> {
    let due = commit.unfinished.iter().filter_map(|change| match change {
        UnfinishedChange::Put(run) => match run.waiting {
            Waiting::Retry(due) => Some(due),
            Waiting::Blocked | Waiting::Held | Waiting::Parked => None,
        },
        UnfinishedChange::End { .. } => None,
    });
    due.min()
}

/// The record of a run that a person let go.
pub(crate) fn dropped(run: &Unfinished, now: Timestamp) -> RunRecord {
    RunRecord {
        position: run.position,
        event: run.event,
        rule: run.rule.clone(),
        rule_set: run.rule_set,
        plugin: None,
        state: RunState::Dropped,
        attempt: run.attempts,
        code: run.code.clone(),
        reason: run.reason.clone(),
        fuel: 0,
        duration: Duration::ZERO,
        ended: now,
        effects: 0,
        logs: Vec::new(),
    }
}

/// The record of a run that was parked for longer than such are kept.
pub(crate) fn expired(run: &Unfinished, now: Timestamp) -> RunRecord {
    let reason = format!("parked for longer than such are kept, with {}: {}", run.code, run.reason);
    RunRecord { code: EXPIRED.to_owned(), reason, ..dropped(run, now) }
}

/// Whether an event is what a query asks for, but for its order.
pub(crate) fn fits(logged: &Logged, query: &EventQuery) -> bool {
    let event = &logged.event;
    query.kind.as_ref().is_none_or(|kind| event.kind == *kind)
        && query.key.as_ref().is_none_or(|key| event.key.as_ref() == Some(key))
        && query.subject.as_ref().is_none_or(|subject| event.subject.as_ref() == Some(subject))
        && query.since.is_none_or(|since| logged.recorded >= since)
        && query.until.is_none_or(|until| logged.recorded < until)
}

/// The order and the limit of a query.
pub(crate) fn sort_and_cut(found: &mut Vec<Logged>, query: &EventQuery) {
    if query.ascending {
        found.sort_unstable_by_key(|event| event.position);
    } else {
        found.sort_unstable_by_key(|event| Reverse(event.position));
    }
    found.dedup_by_key(|event| event.position);
    found.truncate(query.limit as usize);
}

/// The least text that is greater than every text with the prefix; none if there is no such text.
pub(crate) fn beyond(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // The next character, over the gap that is no characters.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_right_after_it() {
        assert_eq!(beyond("a").as_deref(), Some("b"));
        assert_eq!(beyond("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(beyond("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(beyond("\u{10ffff}"), None);
        assert_eq!(beyond(""), None);
        assert!("é\u{10ffff}" < beyond("é").as_deref().expect("because é has a next"));
    }
}
