//! A batch's commit as the parameters of `commit_batch`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;

use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use serde::Serialize;

use crate::Error;
use crate::Result;
use crate::assemble::Incoming;
use crate::assemble::beyond;
use crate::assemble::next_due;
use crate::log::NewEvent;
use crate::postgres::Postgres;
use crate::postgres::appends::bind_events;
use crate::postgres::no_tenant;
use crate::postgres::recordings::bind_recordings;
use crate::postgres::text::Args;
use crate::postgres::text::count;
use crate::postgres::text::plain;
use crate::row::Columns;
use crate::row::list_text;
use crate::row::pins_text;
use crate::row::run_state_number;
use crate::row::waiting_number;
use crate::work::Commit;
use crate::work::Committed;
use crate::work::RunRecord;
use crate::work::StateRead;
use crate::work::TimerChange;
use crate::work::Unfinished;
use crate::work::UnfinishedChange;
use crate::work::Waiting;

impl Postgres {
    pub(super) async fn apply(&self, commit: Commit) -> Result<Committed> {
        let emits: Vec<Incoming> = commit.emits.iter().cloned().map(Incoming::new).collect();
        let mut known = HashSet::new();
        // An event that is emitted twice is emitted once.
        let emits: Vec<&Incoming> = emits.iter().filter(|event| known.insert(event.key)).collect();
        let mut args = Args::default();
        self.bind_lane(&commit, &mut args);
        bind_state(&commit, &mut args);
        bind_unfinished(&commit, &mut args);
        bind_deliveries(&commit, &mut args);
        bind_timers(&commit, &mut args);
        bind_runs(&commit.runs, &mut args);
        bind_usage(&commit, &mut args);
        bind_events(&emits, &mut args);
        let pins: Vec<_> = put_of(&commit).map(|run| pins_text(&run.pins)).collect();
        args.ints(put_of(&commit).map(|run| run.position.0))
            .texts(put_of(&commit).map(|run| run.rule.as_str()))
            .text_opts(pins.iter().map(Option::as_deref));
        bind_recordings(&commit.recordings, &mut args);
        // The settings under which they may be passed, if at all.
        let here = emits.iter().all(|event| event.new.shard == commit.shard);
        args.int_opt((commit.emits_unmatched && here && !emits.is_empty()).then_some(commit.settings));
        let sql = "SELECT verdict, version, woken, put_pins(verdict, $1, $89, $90, $91),
            put_recordings(verdict, $1, $92, $93, $94, $95, $96, $97, $98, $99, $100, $101, $102, $103, $104),
            pass_emits(verdict, $1, $2, $6, $105)
            FROM commit_batch(
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
            $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46,
            $47, $48, $49, $50, $51, $52, $53, $54, $55, $56, $57, $58, $59, $60, $61, $62, $63, $64, $65, $66, $67, $68,
            $69, $70, $71, $72, $73, $74, $75, $76, $77, $78, $79, $80, $81, $82, $83, $84, $85, $86, $87, $88)";
        let rows = self.0.sessions.fetch(sql, args).await?;
        let row = rows.first().ok_or_else(|| Error::Damaged("a commit was not answered".into()))?;
        let mut columns = Columns::new(row);
        match columns.int()? {
            0 => {}
            1 => return Ok(Committed::Fenced),
            2 => return Ok(Committed::Conflict),
            _ => return Err(no_tenant(commit.tenant)),
        }
        let version = columns.int()?;
        let promoted: Option<Vec<i16>> =
            sqlx::Row::try_get(row, 2).map_err(|error| Error::Damaged(error.to_string()))?;
        let promoted = promoted.unwrap_or_default().into_iter().filter_map(|shard| u16::try_from(shard).ok());
        let mut woken: BTreeSet<Shard> = promoted.map(Shard).collect();
        let passed: bool = sqlx::Row::try_get(row, 5).map_err(|error| Error::Damaged(error.to_string()))?;
        if !passed {
            woken.extend(emits.iter().map(|event| event.new.shard));
        }
        Ok(Committed::Done { woken: woken.into_iter().collect(), next_due: next_due(&commit), version })
    }

    fn bind_lane(&self, commit: &Commit, args: &mut Args) {
        let is_held =
            |change: &UnfinishedChange| matches!(change, UnfinishedChange::Put(run) if run.waiting == Waiting::Held);
        let home = Shard::of(commit.tenant, "", self.0.shards, 1);
        args.int(commit.tenant.0)
            .int(i64::from(commit.shard.0))
            .int(commit.fence.0)
            .int_opt(commit.turn)
            .int(commit.cursor_from.0)
            .int(commit.cursor_to.0)
            .int(commit.now.0)
            .int(commit.settings)
            .flag(commit.unfinished.iter().any(is_held))
            .int(i64::from(home.0));
    }
}

/// The runs that are put, several times perhaps; the last of each counts.
fn put_of(commit: &Commit) -> impl Iterator<Item = &Unfinished> {
    let mut last: BTreeMap<(Position, &str), &Unfinished> = BTreeMap::new();
    for change in &commit.unfinished {
        match change {
            UnfinishedChange::Put(run) => _ = last.insert((run.position, &run.rule), run),
            UnfinishedChange::End { position, rule } => _ = last.remove(&(*position, rule.as_str())),
        }
    }
    last.into_values()
}

/// A listing that was read.
#[derive(Serialize)]
struct Listing<'a> {
    plugin: i64,
    prefix: Cow<'a, str>,
    beyond: Option<String>,
    after: Option<Cow<'a, str>>,
    limit: u32,
    keys: Vec<Cow<'a, str>>,
}

fn json<T: Serialize>(list: &[T]) -> Option<String> {
    list_text(list)
}

fn bind_state(commit: &Commit, args: &mut Args) {
    let listings: Vec<Listing<'_>> = commit
        .reads
        .iter()
        .filter_map(|read| match read {
            StateRead::Key { .. } => None,
            StateRead::Keys { plugin, prefix, after, limit, keys } => Some(Listing {
                plugin: plugin.0,
                prefix: plain(prefix),
                beyond: beyond(&plain(prefix)),
                after: after.as_deref().map(plain),
                limit: *limit,
                keys: keys.iter().map(|key| plain(key)).collect(),
            }),
        })
        .collect();
    let (reads, writes) = side_by_side(commit);
    args.text_opt(json(&listings).as_deref())
        .ints(reads.iter().map(|(plugin, ..)| plugin.0))
        .texts(reads.iter().map(|(_, key, _)| *key))
        .ints(reads.iter().map(|(.., version)| *version))
        .ints(writes.iter().map(|write| write.plugin.0))
        .texts(writes.iter().map(|write| write.key.as_str()))
        .blob_opts(writes.iter().map(|write| write.value.as_deref()))
        .int_opts(writes.iter().map(|write| write.expires.map(|expires| expires.0)));
}

/// Keys that were read (plugin, key, version) and writes; what was read and is written stands at the same place in both, so
/// that the database looks for it once.
fn side_by_side(commit: &Commit) -> (Vec<(PluginId, &str, i64)>, Vec<&StateWrite>) {
    let mut of_writes: HashMap<(PluginId, &str), Option<i64>> =
        commit.writes.iter().map(|write| ((write.plugin, write.key.as_str()), None)).collect();
    debug_assert_eq!(of_writes.len(), commit.writes.len(), "a key is written once a commit");
    let mut others = Vec::new();
    for read in &commit.reads {
        let StateRead::Key { plugin, key, version } = read else { continue };
        match of_writes.get_mut(&(*plugin, key.as_str())) {
            Some(of_write @ None) => *of_write = Some(*version),
            _ => others.push((*plugin, key.as_str(), *version)),
        }
    }
    let version = |write: &StateWrite| of_writes.get(&(write.plugin, write.key.as_str())).copied().flatten();
    let (mut writes, unread): (Vec<_>, Vec<_>) = commit.writes.iter().partition(|write| version(write).is_some());
    let of_writes = writes.iter().filter_map(|write| Some((write.plugin, write.key.as_str(), version(write)?)));
    let reads = of_writes.chain(others).collect();
    writes.extend(unread);
    (reads, writes)
}

/// Changes as the last one of each run leaves it, and the chains of which a run may have to be made due.
fn bind_unfinished(commit: &Commit, args: &mut Args) {
    let mut runs: BTreeMap<(Position, &str), Option<&Unfinished>> = BTreeMap::new();
    let mut touched: BTreeSet<(&str, &str)> = BTreeSet::new();
    for change in &commit.unfinished {
        let before = match change {
            UnfinishedChange::Put(run) => {
                if let (Waiting::Blocked, Some(key)) = (run.waiting, &run.key) {
                    touched.insert((&run.rule, key));
                }
                runs.insert((run.position, &run.rule), Some(run))
            }
            UnfinishedChange::End { position, rule } => runs.insert((*position, rule), None),
        };
        if let Some(Some(before)) = before
            && let Some(key) = &before.key
        {
            touched.insert((&before.rule, key));
        }
    }
    let ended: Vec<_> = runs.iter().filter(|(_, run)| run.is_none()).map(|(run, _)| *run).collect();
    let put: Vec<&Unfinished> = runs.values().flatten().copied().collect();
    args.ints(ended.iter().map(|(position, _)| position.0)).texts(ended.iter().map(|(_, rule)| *rule));
    args.ints(put.iter().map(|run| run.position.0))
        .texts(put.iter().map(|run| run.rule.as_str()))
        .text_opts(put.iter().map(|run| run.key.as_deref()))
        .uuids(put.iter().map(|run| run.event.0))
        .ints(put.iter().map(|run| waiting_number(run.waiting).0))
        .int_opts(put.iter().map(|run| waiting_number(run.waiting).1))
        .ints(put.iter().map(|run| i64::from(run.attempts)))
        .texts(put.iter().map(|run| run.code.as_str()))
        .texts(put.iter().map(|run| run.reason.as_str()))
        .text_opts(put.iter().map(|run| run.plugin.as_deref()))
        .ints(put.iter().map(|run| i64::from(run.lineage.hops)))
        .ints(put.iter().map(|run| i64::from(run.lineage.budget)))
        .ints(put.iter().map(|run| run.rule_set))
        .ints(put.iter().map(|run| run.since.0))
        .ints(put.iter().map(|run| run.updated.0));
    args.texts(touched.iter().map(|(rule, _)| *rule)).texts(touched.iter().map(|(_, key)| *key));
}

fn bind_deliveries(commit: &Commit, args: &mut Args) {
    let new = &commit.deliveries;
    let attributes: Vec<_> = new.iter().map(|new| list_text(&new.delivery.attributes)).collect();
    args.texts(new.iter().map(|new| new.delivery.id.as_str()))
        .texts(new.iter().map(|new| new.delivery.sink.as_str()))
        .text_opts(new.iter().map(|new| new.key.as_deref()))
        .ints(new.iter().map(|new| new.position.0))
        .texts(new.iter().map(|new| new.rule.as_str()))
        .ints(new.iter().map(|new| new.created.0))
        .texts(new.iter().map(|new| new.delivery.content_type.as_str()))
        .text_opts(attributes.iter().map(Option::as_deref))
        .blobs(new.iter().map(|new| &*new.delivery.body));
}

/// A timer that is set.
#[derive(Serialize)]
struct Timer<'a> {
    id: Cow<'a, str>,
    plugin: i64,
    name: Option<Cow<'a, str>>,
    due: i64,
    shard: u16,
    hops: i64,
    budget: i64,
    source: Cow<'a, str>,
    kind: Cow<'a, str>,
    subject: Option<Cow<'a, str>>,
    time: i64,
    key: Option<Cow<'a, str>>,
    correlation: Cow<'a, str>,
    causation: Option<Cow<'a, str>>,
    content_type: Cow<'a, str>,
    attributes: Option<String>,
    data: String,
}

/// Timers taken back or replaced, by name or id, and those that are set and not taken back again.
fn bind_timers(commit: &Commit, args: &mut Args) {
    let mut gone: BTreeSet<(PluginId, &str)> = BTreeSet::new();
    let mut set: Vec<Timer<'_>> = Vec::new();
    for change in &commit.timers {
        let (of, timer) = match change {
            TimerChange::Cancel { plugin, timer } => (*plugin, Some(timer.as_str())),
            TimerChange::Set { plugin, name, .. } => (*plugin, name.as_deref()),
        };
        if let Some(timer) = timer {
            gone.insert((of, timer));
            let timer = plain(timer);
            set.retain(|set| set.plugin != of.0 || (set.name.as_ref() != Some(&timer) && set.id != timer));
        }
        if let TimerChange::Set { plugin, name, due, event } = change {
            set.retain(|set| set.id != plain(&event.event.id));
            set.push(timer_row(*plugin, name.as_deref(), due.0, event));
        }
    }
    args.ints(gone.iter().map(|(plugin, _)| plugin.0)).texts(gone.iter().map(|(_, timer)| *timer));
    args.text_opt(json(&set).as_deref());
}

fn timer_row<'a>(plugin: PluginId, name: Option<&'a str>, due: i64, new: &'a NewEvent) -> Timer<'a> {
    use base64::Engine as _;
    let event = &new.event;
    Timer {
        id: plain(&event.id),
        plugin: plugin.0,
        name: name.map(plain),
        due,
        shard: new.shard.0,
        hops: i64::from(new.lineage.hops),
        budget: i64::from(new.lineage.budget),
        source: plain(&event.source),
        kind: plain(&event.kind),
        subject: event.subject.as_deref().map(plain),
        time: event.time.0,
        key: event.key.as_deref().map(plain),
        correlation: plain(&event.correlation),
        causation: event.causation.as_deref().map(plain),
        content_type: plain(&event.content_type),
        attributes: list_text(&event.attributes),
        data: base64::engine::general_purpose::STANDARD.encode(&event.data),
    }
}

/// Binds ended attempts, as `commit_batch` and `add_runs` take them.
pub(super) fn bind_runs(runs: &[RunRecord], args: &mut Args) {
    let logs: Vec<_> = runs.iter().map(|run| list_text(&run.logs)).collect();
    let plugin = || runs.iter().map(|run| run.plugin.as_ref());
    args.ints(runs.iter().map(|run| run.position.0))
        .texts(runs.iter().map(|run| run.rule.as_str()))
        .ints(runs.iter().map(|run| i64::from(run.attempt)))
        .ints(runs.iter().map(|run| run.rule_set))
        .uuids(runs.iter().map(|run| run.event.0))
        .text_opts(plugin().map(|plugin| plugin.map(|(name, _)| name.as_str())))
        .int_opts(plugin().map(|plugin| plugin.map(|(_, version)| i64::from(*version))))
        .ints(runs.iter().map(|run| run_state_number(run.state)))
        .texts(runs.iter().map(|run| run.code.as_str()))
        .texts(runs.iter().map(|run| run.reason.as_str()))
        .ints(runs.iter().map(|run| count(run.fuel)))
        .ints(runs.iter().map(|run| count(u64::try_from(run.duration.as_micros()).unwrap_or(u64::MAX))))
        .ints(runs.iter().map(|run| run.ended.0))
        .ints(runs.iter().map(|run| i64::from(run.effects)))
        .text_opts(logs.iter().map(Option::as_deref));
}

fn bind_usage(commit: &Commit, args: &mut Args) {
    let usage = &commit.usage;
    let counts = usage.iter().flat_map(|used| {
        [used.attempts, used.done, used.failed, used.fuel, used.micros, used.emitted, used.deliveries].map(count)
    });
    args.texts(usage.iter().map(|used| used.plugin.as_str()))
        .texts(usage.iter().map(|used| used.rule.as_str()))
        .ints(counts);
    // A sum that is no number could not be stored, and would take the whole commit down with it.
    let units: Vec<(&str, &str, &str, f64)> = usage
        .iter()
        .flat_map(|used| {
            let finite = used.units.iter().filter(|(_, amount)| amount.is_finite());
            finite.map(|(unit, amount)| (used.plugin.as_str(), used.rule.as_str(), unit.as_str(), *amount))
        })
        .collect();
    args.texts(units.iter().map(|(plugin, ..)| *plugin))
        .texts(units.iter().map(|(_, rule, ..)| *rule))
        .texts(units.iter().map(|(_, _, unit, _)| *unit))
        .reals(units.iter().map(|(.., amount)| *amount));
}
