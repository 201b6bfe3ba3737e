//! Rows to facts and back, for both databases: their tables have the same columns, in types of their own.

pub(crate) mod catalogue;
pub(crate) mod delivery;
pub(crate) mod recording;
pub(crate) mod release;

use std::collections::BTreeMap;
use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::LogLine;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::EventKey;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;
use sqlx::Row as _;
use sqlx::ValueRef as _;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use crate::Error;
use crate::Result;
use crate::assemble::Incoming;
use crate::log::NewEvent;
use crate::state::Versioned;
use crate::timers::TimerView;
use crate::usage::UsageLine;
use crate::work::RunRecord;
use crate::work::RunState;
use crate::work::Unfinished;
use crate::work::Waiting;

/// What most events are; stored as NULL.
pub(crate) const USUAL_TYPE: &str = "application/json";

/// A row of either database.
#[derive(Clone, Copy)]
pub(crate) enum AnyRow<'r> {
    Sqlite(&'r SqliteRow),
    Postgres(&'r PgRow),
}

impl<'r> From<&'r SqliteRow> for AnyRow<'r> {
    fn from(row: &'r SqliteRow) -> Self {
        Self::Sqlite(row)
    }
}

impl<'r> From<&'r PgRow> for AnyRow<'r> {
    fn from(row: &'r PgRow) -> Self {
        Self::Postgres(row)
    }
}

/// What both databases give back.
trait Value<'r>:
    sqlx::Decode<'r, sqlx::Sqlite>
    + sqlx::Type<sqlx::Sqlite>
    + sqlx::Decode<'r, sqlx::Postgres>
    + sqlx::Type<sqlx::Postgres>
{
}

impl<'r, T> Value<'r> for T where
    T: sqlx::Decode<'r, sqlx::Sqlite>
        + sqlx::Type<sqlx::Sqlite>
        + sqlx::Decode<'r, sqlx::Postgres>
        + sqlx::Type<sqlx::Postgres>
{
}

/// Reads columns one after another, so that a list of columns and its reader stand in the same order.
pub(crate) struct Columns<'r> {
    row: AnyRow<'r>,
    at: usize,
}

impl<'r> Columns<'r> {
    pub(crate) fn new(row: impl Into<AnyRow<'r>>) -> Self {
        Self::beyond(row, 0)
    }

    /// Leaves out the first columns.
    pub(crate) fn beyond(row: impl Into<AnyRow<'r>>, at: usize) -> Self {
        Self { row: row.into(), at }
    }

    fn next<T: Value<'r>>(&mut self) -> Result<T> {
        let at = self.at;
        self.at += 1;
        let value = match self.row {
            AnyRow::Sqlite(row) => row.try_get(at),
            // Its types are those of our own tables, whatever names the database has for them.
            AnyRow::Postgres(row) => row.try_get_unchecked(at),
        };
        value.map_err(|error| damaged(at, &error))
    }

    pub(crate) fn int(&mut self) -> Result<i64> {
        let at = self.at;
        let value = self.int_opt()?;
        value.ok_or_else(|| Error::Damaged(format!("column {at} is empty")))
    }

    /// Postgres has integers of several widths, and numbers that are true or false.
    pub(crate) fn int_opt(&mut self) -> Result<Option<i64>> {
        let AnyRow::Postgres(row) = self.row else { return self.next() };
        let at = self.at;
        self.at += 1;
        let value = row.try_get_raw(at).map_err(|error| damaged(at, &error))?;
        if value.is_null() {
            return Ok(None);
        }
        let bytes = value.as_bytes().map_err(|error| Error::Damaged(format!("column {at}: {error}")))?;
        match *bytes {
            [a] => Ok(Some(i64::from(a))),
            [a, b] => Ok(Some(i64::from(i16::from_be_bytes([a, b])))),
            [a, b, c, d] => Ok(Some(i64::from(i32::from_be_bytes([a, b, c, d])))),
            [a, b, c, d, e, f, g, h] => Ok(Some(i64::from_be_bytes([a, b, c, d, e, f, g, h]))),
            _ => Err(Error::Damaged(format!("column {at} is no whole number"))),
        }
    }

    pub(crate) fn count(&mut self) -> Result<u64> {
        Ok(u64::try_from(self.int()?).unwrap_or_default())
    }

    /// A number of a type narrower than the column's.
    pub(crate) fn narrow<T: TryFrom<i64>>(&mut self) -> Result<T> {
        let value = self.int()?;
        T::try_from(value).map_err(|_| Error::Damaged(format!("column {}: {value} is out of range", self.at - 1)))
    }

    pub(crate) fn flag(&mut self) -> Result<bool> {
        Ok(self.int()? != 0)
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp> {
        Ok(Timestamp(self.int()?))
    }

    pub(crate) fn time_opt(&mut self) -> Result<Option<Timestamp>> {
        Ok(self.int_opt()?.map(Timestamp))
    }

    pub(crate) fn position(&mut self) -> Result<Position> {
        Ok(Position(self.int()?))
    }

    pub(crate) fn shard(&mut self) -> Result<Shard> {
        Ok(Shard(self.narrow()?))
    }

    pub(crate) fn real(&mut self) -> Result<f64> {
        self.next()
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        self.next()
    }

    pub(crate) fn text_opt(&mut self) -> Result<Option<String>> {
        self.next()
    }

    pub(crate) fn blob(&mut self) -> Result<Vec<u8>> {
        self.next()
    }

    pub(crate) fn key(&mut self) -> Result<EventKey> {
        let bytes: &[u8] = self.next()?;
        bytes.try_into().map(EventKey).map_err(|_| Error::Damaged("an event key is not 16 bytes long".into()))
    }

    /// A JSON array that is NULL when empty.
    pub(crate) fn list<T: serde::de::DeserializeOwned>(&mut self) -> Result<Vec<T>> {
        let text: Option<&str> = self.next()?;
        match text {
            None => Ok(Vec::new()),
            Some(text) => serde_json::from_str(text).map_err(|error| Error::Damaged(format!("a JSON column: {error}"))),
        }
    }

    /// A JSON object that is NULL when empty.
    pub(crate) fn map<T: serde::de::DeserializeOwned>(&mut self) -> Result<BTreeMap<String, T>> {
        let text: Option<&str> = self.next()?;
        match text {
            None => Ok(BTreeMap::new()),
            Some(text) => serde_json::from_str(text).map_err(|error| Error::Damaged(format!("a JSON column: {error}"))),
        }
    }
}

/// Lanes at work, and when there is more to do.
pub(crate) type DueLanes = (Vec<(TenantId, Shard)>, Option<Timestamp>);

/// A row that begins with tenant and shard.
pub(crate) fn lane<'r>(row: impl Into<AnyRow<'r>>) -> Result<(TenantId, Shard)> {
    let mut columns = Columns::new(row);
    Ok((TenantId(columns.int()?), columns.shard()?))
}

/// Rows of tenant, shard, whether any run is due there, and when the first that is not will be; of these shards.
pub(crate) fn due_lanes<'r, R: Into<AnyRow<'r>>>(
    rows: impl IntoIterator<Item = R>,
    shards: &[Shard],
) -> Result<DueLanes> {
    let (mut due, mut next) = (Vec::new(), None);
    for row in rows {
        let mut columns = Columns::new(row);
        let (tenant, shard) = (TenantId(columns.int()?), columns.shard()?);
        if !shards.contains(&shard) {
            continue;
        }
        if columns.flag()? {
            due.push((tenant, shard));
        }
        next = [next, columns.time_opt()?].into_iter().flatten().min();
    }
    Ok((due, next))
}

fn damaged(at: usize, error: &sqlx::Error) -> Error {
    Error::Damaged(format!("column {at}: {error}"))
}

/// A JSON array, or none when empty.
pub(crate) fn list_text<T: serde::Serialize>(list: &[T]) -> Option<String> {
    match list {
        [] => None,
        list => Some(serde_json::to_string(list).expect("because texts and numbers are always JSON")),
    }
}

/// The columns that [`event`] reads.
macro_rules! event_columns {
    () => {
        "e.pos, e.shard, e.recorded, e.time, e.hops, e.budget, e.id, e.source, e.kind, e.subject, e.key, \
         e.correlation, e.causation, e.content_type, e.attributes, e.hash, e.data"
    };
}
pub(crate) use event_columns;

/// An event, and the hash that was stored with it.
pub(crate) fn event(columns: &mut Columns<'_>) -> Result<(Logged, Vec<u8>)> {
    let (position, shard, recorded) = (columns.position()?, columns.shard()?, columns.time()?);
    let time = columns.time_opt()?.unwrap_or(recorded);
    let lineage = Lineage { hops: columns.narrow()?, budget: columns.narrow()? };
    let id = columns.text()?;
    let (source, kind, subject, key) = (columns.text()?, columns.text()?, columns.text_opt()?, columns.text_opt()?);
    let correlation = columns.text_opt()?.unwrap_or_else(|| id.clone());
    let causation = columns.text_opt()?;
    let content_type = columns.text_opt()?.unwrap_or_else(|| USUAL_TYPE.to_owned());
    let attributes = columns.list()?;
    let hash = columns.blob()?;
    let data = Bytes::from(columns.blob()?);
    let event = Event { id, source, kind, subject, time, key, correlation, causation, content_type, data, attributes };
    Ok((Logged { position, shard, recorded, lineage, event }, hash))
}

/// Events of many rows, as they are stored.
pub(crate) fn events<'r, R>(rows: &'r [R]) -> Result<Vec<Logged>>
where
    &'r R: Into<AnyRow<'r>>,
{
    rows.iter().map(|row| Ok(event(&mut Columns::new(row))?.0)).collect()
}

/// A single event, checked against its hash.
pub(crate) fn checked_event<'r>(row: impl Into<AnyRow<'r>>) -> Result<Logged> {
    let (logged, hash) = event(&mut Columns::new(row))?;
    if logged.event.integrity().as_slice() != hash {
        return Err(Error::Damaged(format!(
            "event {} does not have the hash that it was stored with",
            logged.event.id
        )));
    }
    Ok(logged)
}

/// The columns that [`unfinished`] reads.
macro_rules! unfinished_columns {
    () => {
        "u.pos, u.event, u.rule, u.key, u.waiting, u.due, u.attempts, u.code, u.reason, u.plugin, u.hops, u.budget, \
         u.rule_set, u.since, u.updated, u.pins"
    };
}
pub(crate) use unfinished_columns;

pub(crate) const RETRY: i64 = 0;
pub(crate) const BLOCKED: i64 = 1;
pub(crate) const HELD: i64 = 2;
pub(crate) const PARKED: i64 = 3;

/// What a run waits for, as numbers, and when it is due.
pub(crate) const fn waiting_number(waiting: Waiting) -> (i64, Option<i64>) {
    match waiting {
        Waiting::Retry(due) => (RETRY, Some(due.0)),
        Waiting::Blocked => (BLOCKED, None),
        Waiting::Held => (HELD, None),
        Waiting::Parked => (PARKED, None),
    }
}

/// A timer's tenant, id, shard and event, as the event that it becomes now.
pub(crate) fn fired<'r>(row: impl Into<AnyRow<'r>>, now: Timestamp) -> Result<Incoming> {
    let mut columns = Columns::new(row);
    let (tenant, id, shard) = (TenantId(columns.int()?), columns.text()?, columns.shard()?);
    let lineage = Lineage { hops: columns.narrow()?, budget: columns.narrow()? };
    let event = Event {
        id,
        source: columns.text()?,
        kind: columns.text()?,
        subject: columns.text_opt()?,
        time: columns.time()?,
        key: columns.text_opt()?,
        correlation: columns.text()?,
        causation: columns.text_opt()?,
        content_type: columns.text()?,
        attributes: columns.list()?,
        data: Bytes::from(columns.blob()?),
    };
    Ok(Incoming::new(NewEvent { tenant, shard, recorded: now, lineage, event }))
}

/// A timer's id, name, time and kind of event.
pub(crate) fn timer_view<'r>(row: impl Into<AnyRow<'r>>) -> Result<TimerView> {
    let mut columns = Columns::new(row);
    let (id, name) = (columns.text()?, columns.text_opt()?);
    Ok(TimerView { id, name, due: columns.time()?, kind: columns.text()? })
}

/// A value of state, its version, and when it expires.
pub(crate) fn versioned<'r>(row: impl Into<AnyRow<'r>>) -> Result<Versioned> {
    let mut columns = Columns::new(row);
    let value = Bytes::from(columns.blob()?);
    Ok(Versioned { value, version: columns.int()?, expires: columns.time_opt()? })
}

pub(crate) fn unfinished(columns: &mut Columns<'_>) -> Result<Unfinished> {
    let (position, event, rule, key) = (columns.position()?, columns.key()?, columns.text()?, columns.text_opt()?);
    let waiting = match (columns.int()?, columns.time_opt()?) {
        (RETRY, Some(due)) => Waiting::Retry(due),
        (BLOCKED, _) => Waiting::Blocked,
        (HELD, _) => Waiting::Held,
        (PARKED, _) => Waiting::Parked,
        (other, _) => return Err(Error::Damaged(format!("a run waits for {other}"))),
    };
    Ok(Unfinished {
        position,
        event,
        rule,
        key,
        waiting,
        attempts: columns.narrow()?,
        code: columns.text()?,
        reason: columns.text()?,
        plugin: columns.text_opt()?,
        lineage: Lineage { hops: columns.narrow()?, budget: columns.narrow()? },
        rule_set: columns.int()?,
        since: columns.time()?,
        updated: columns.time()?,
        pins: columns.map()?,
    })
}

/// The versions that a run began with, as they are stored; none if it has not begun.
pub(crate) fn pins_text(pins: &BTreeMap<String, u32>) -> Option<String> {
    (!pins.is_empty()).then(|| serde_json::to_string(pins).expect("because names and numbers are always JSON"))
}

/// The columns that [`run`] reads.
macro_rules! run_columns {
    () => {
        "r.pos, r.event, r.rule, r.rule_set, r.plugin, r.plugin_version, r.state, r.attempt, r.code, r.reason, \
         r.fuel, r.micros, r.ended, r.effects, r.logs"
    };
}
pub(crate) use run_columns;

pub(crate) const fn run_state_number(state: RunState) -> i64 {
    match state {
        RunState::Done => 0,
        RunState::Retrying => 1,
        RunState::Parked => 2,
        RunState::Dropped => 3,
    }
}

pub(crate) fn run(columns: &mut Columns<'_>) -> Result<RunRecord> {
    let (position, event, rule) = (columns.position()?, columns.key()?, columns.text()?);
    let rule_set = columns.int()?;
    let plugin = match (columns.text_opt()?, columns.int_opt()?) {
        (Some(name), Some(version)) => Some((name, u32::try_from(version).unwrap_or_default())),
        _ => None,
    };
    let state = match columns.int()? {
        0 => RunState::Done,
        1 => RunState::Retrying,
        2 => RunState::Parked,
        3 => RunState::Dropped,
        other => return Err(Error::Damaged(format!("a run is in state {other}"))),
    };
    Ok(RunRecord {
        position,
        event,
        rule,
        rule_set,
        plugin,
        state,
        attempt: columns.narrow()?,
        code: columns.text()?,
        reason: columns.text()?,
        fuel: columns.count()?,
        duration: Duration::from_micros(columns.count()?),
        ended: columns.time()?,
        effects: columns.narrow()?,
        logs: columns.list::<LogLine>()?,
    })
}

/// A row of the day, plugin, rule, and the counts of a line.
pub(crate) fn usage_line<'r>(row: impl Into<AnyRow<'r>>) -> Result<UsageLine> {
    let mut columns = Columns::new(row);
    Ok(UsageLine {
        day: columns.int()?,
        plugin: columns.text()?,
        rule: columns.text()?,
        events: columns.count()?,
        attempts: columns.count()?,
        done: columns.count()?,
        failed: columns.count()?,
        fuel: columns.count()?,
        micros: columns.count()?,
        emitted: columns.count()?,
        deliveries: columns.count()?,
        units: BTreeMap::new(),
    })
}
