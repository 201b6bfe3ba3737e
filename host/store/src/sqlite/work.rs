//! What there is to do, and the commit that ends a batch. People's side of runs is in `runs` and `unfinished`.
//!
//! A batch is put together from memory (where the lane stands, its newest events, whether it can have unfinished runs
//! at all) and from the database for the rest. The cursor is read first: whatever changes after that can only make the
//! commit fail, never make it right where it is not.

use std::collections::BTreeSet;
use std::collections::HashSet;

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use sqlx::SqliteConnection;

use crate::Result;
use crate::assemble::Incoming;
use crate::assemble::cut;
use crate::assemble::cut_due;
use crate::assemble::join;
use crate::sqlite::Sqlite;
use crate::sqlite::fault;
use crate::sqlite::memory::LaneId;
use crate::sqlite::row;
use crate::sqlite::row::BLOCKED;
use crate::sqlite::row::Columns;
use crate::sqlite::row::event_columns;
use crate::sqlite::row::unfinished_columns;
use crate::sqlite::text::Args;
use crate::sqlite::text::Rows;
use crate::sqlite::text::fetch;
use crate::sqlite::writer::op::Answer;
use crate::sqlite::writer::transaction::no_tenant;
use crate::work::Batch;
use crate::work::BatchLimits;
use crate::work::Commit;
use crate::work::Committed;
use crate::work::Depth;
use crate::work::Due;
use crate::work::Held;
use crate::work::ParkedFilter;
use crate::work::RunQuery;
use crate::work::RunRecord;
use crate::work::RunView;
use crate::work::Work;

/// Lanes with unfinished runs, of tenants that are active: whether any is due, and when the first that is not due yet will
/// be. Steps from lane to lane, each as one number, however many runs are due in one.
const DUE_LANES: &str = "
    WITH RECURSIVE step (lane) AS (
        SELECT -1
        UNION ALL
        SELECT coalesce((
            SELECT u.tenant << 16 | u.shard FROM unfinished u INDEXED BY unfinished_due
            WHERE u.due IS NOT NULL AND u.tenant = (step.lane >> 16) AND u.shard > (step.lane & 65535)
            ORDER BY u.shard LIMIT 1
        ), (
            SELECT u.tenant << 16 | u.shard FROM unfinished u INDEXED BY unfinished_due
            WHERE u.due IS NOT NULL AND u.tenant > (step.lane >> 16) ORDER BY u.tenant, u.shard LIMIT 1
        )) FROM step WHERE step.lane IS NOT NULL
    ), lane (tenant, shard) AS (SELECT lane >> 16, lane & 65535 FROM step WHERE lane >= 0)
    SELECT l.tenant, l.shard,
           EXISTS (SELECT 1 FROM unfinished u INDEXED BY unfinished_due
                   WHERE u.tenant = l.tenant AND u.shard = l.shard AND u.due <= ?1),
           (SELECT u.due FROM unfinished u INDEXED BY unfinished_due
            WHERE u.tenant = l.tenant AND u.shard = l.shard AND u.due > ?1 ORDER BY u.due LIMIT 1)
    FROM lane l CROSS JOIN tenants t ON t.id = l.tenant WHERE t.state = 0";

#[async_trait]
impl Work for Sqlite {
    async fn host_backlog(&self, now: Timestamp, shards: &[Shard]) -> Result<Vec<(TenantId, Shard)>> {
        let sql = "SELECT p.tenant, p.shard FROM progress p INDEXED BY progress_backlog CROSS JOIN tenants t ON t.id = p.tenant
                   WHERE p.cursor < p.head AND t.state = 0";
        let rows = self.read(sql, |_| {}).await?;
        let mut lanes: BTreeSet<_> = rows.iter().map(row::lane).collect::<Result<_>>()?;
        lanes.retain(|(_, shard)| shards.contains(shard));
        lanes.extend(self.host_due(now, shards).await?.0);
        Ok(lanes.into_iter().collect())
    }

    async fn host_due(&self, now: Timestamp, shards: &[Shard]) -> Result<(Vec<(TenantId, Shard)>, Option<Timestamp>)> {
        row::due_lanes(&self.read(DUE_LANES, |args| _ = args.int(now.0)).await?, shards)
    }

    async fn read_batch(&self, tenant: TenantId, shard: Shard, now: Timestamp, limits: BatchLimits) -> Result<Batch> {
        let id = (tenant, shard);
        let memory = &self.core().memory;
        let view = memory.view(id, limits.events as usize).ok_or_else(|| no_tenant(tenant))?;
        let cursor = view.progress.cursor;
        let (events, more) = match view.events {
            Some(events) => cut(events.iter().map(|event| (**event).clone()), limits),
            None => {
                let mut conn = self.readers().get().await?;
                read_events(&mut conn, id, cursor, limits).await?
            }
        };
        let mut due = Vec::new();
        if view.unfinished.maybe && limits.due > 0 {
            due = self.read_due(id, now, limits).await?;
            if due.is_empty() && !self.has_unfinished(id).await? {
                memory.none_unfinished(id, view.unfinished);
            }
        }
        let mut blocked = HashSet::new();
        if view.chained.maybe {
            blocked = self.read_blocked(tenant, &events, &due).await?;
            if blocked.is_empty() && !self.has_chain(tenant).await? {
                memory.none_chained(tenant, view.chained);
            }
        }
        let turn = view.progress.number;
        Ok(Batch { cursor, events, due, blocked, turn, settings: view.settings, more })
    }

    async fn commit(&self, mut commit: Commit) -> Result<Committed> {
        let emits = std::mem::take(&mut commit.emits).into_iter().map(Incoming::new).collect();
        match self.work(crate::sqlite::Work::Commit(Box::new(commit), emits)).await? {
            Answer::Committed(committed) => Ok(committed),
            Answer::Appended(_) => Err(fault::refused("the writer answered something else")),
        }
    }

    async fn runs(&self, tenant: TenantId, query: &RunQuery) -> Result<Vec<RunView>> {
        self.find_runs(tenant, query).await
    }

    async fn attempts(&self, tenant: TenantId, run: RunId) -> Result<Vec<RunRecord>> {
        self.find_attempts(tenant, run).await
    }

    async fn parked(
        &self,
        tenant: TenantId,
        filter: &ParkedFilter,
        before: Option<Position>,
        limit: u32,
    ) -> Result<Vec<RunView>> {
        self.find_parked(tenant, filter, before, limit).await
    }

    async fn redrive(&self, tenant: TenantId, filter: &ParkedFilter, now: Timestamp) -> Result<(u64, Vec<Shard>)> {
        self.redrive_parked(tenant, filter, now).await
    }

    async fn discard(&self, tenant: TenantId, filter: &ParkedFilter, now: Timestamp) -> Result<(u64, Vec<Shard>)> {
        self.discard_parked(tenant, filter, now).await
    }

    async fn resume_held(&self, tenant: TenantId, held: &Held, now: Timestamp) -> Result<(u64, Vec<Shard>)> {
        self.free_held(tenant, held, now).await
    }

    async fn backlog(&self, tenant: TenantId, limit: u64) -> Result<u64> {
        self.count_backlog(tenant, limit).await
    }

    async fn host_depths(&self) -> Result<Vec<Depth>> {
        self.count_depths().await
    }
}

impl Sqlite {
    /// Runs that are due, each followed by what is blocked right behind it.
    async fn read_due(&self, id: LaneId, now: Timestamp, limits: BatchLimits) -> Result<Vec<Due>> {
        let (tenant, shard) = id;
        let sql = concat!(
            "SELECT ",
            unfinished_columns!(),
            ", ",
            event_columns!(),
            " FROM unfinished u INDEXED BY unfinished_due
              CROSS JOIN events e ON e.pos = u.pos AND e.tenant = u.tenant WHERE u.tenant = ? AND u.shard = ? AND u.due <= ? ORDER BY u.due, u.pos LIMIT ?"
        );
        let mut args = Args::default();
        args.int(tenant.0).int(i64::from(shard.0)).int(now.0).int(i64::from(limits.due));
        let mut conn = self.readers().get().await?;
        let mut heads = Vec::new();
        for row in &fetch(&mut conn, sql, args).await.map_err(fault::outward)? {
            let mut columns = Columns::new(row);
            heads.push(Due { run: row::unfinished(&mut columns)?, event: row::event(&mut columns)?.0 });
        }
        let room = (limits.due as usize).saturating_sub(heads.len());
        let keyed: Vec<(usize, &Due)> = heads.iter().enumerate().filter(|(_, due)| due.run.key.is_some()).collect();
        let behind = read_behind(&mut conn, id, &keyed, room).await?;
        Ok(cut_due(join(heads, behind), limits.bytes))
    }

    async fn read_blocked(
        &self,
        tenant: TenantId,
        events: &[Logged],
        due: &[Due],
    ) -> Result<HashSet<(String, String)>> {
        static FIND: Rows = Rows::new(
            "WITH want (key) AS (VALUES ",
            "(?)",
            ") SELECT DISTINCT u.rule, u.key FROM want CROSS JOIN unfinished u INDEXED BY unfinished_heads
               WHERE u.tenant = ? AND u.key = want.key AND u.waiting <> 1",
        );
        let keys: HashSet<&str> = events
            .iter()
            .filter_map(|event| event.event.ordering_key())
            .chain(due.iter().filter_map(|due| due.run.key.as_deref()))
            .collect();
        let keys: Vec<&str> = keys.into_iter().collect();
        let mut conn = self.readers().get().await?;
        let rows = FIND.fetch(&mut conn, &[], &keys, |key, args| _ = args.text(key), &[tenant.0]).await;
        let rows = rows.map_err(fault::outward)?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::new(row);
                Ok((columns.text()?, columns.text()?))
            })
            .collect()
    }

    async fn has_unfinished(&self, (tenant, shard): LaneId) -> Result<bool> {
        let sql = "SELECT 1 FROM unfinished WHERE tenant = ? AND shard = ? LIMIT 1";
        Ok(!self.read(sql, |args| _ = args.int(tenant.0).int(i64::from(shard.0))).await?.is_empty())
    }

    async fn has_chain(&self, tenant: TenantId) -> Result<bool> {
        let sql = "SELECT 1 FROM unfinished INDEXED BY unfinished_chain WHERE tenant = ? AND key IS NOT NULL LIMIT 1";
        Ok(!self.read(sql, |args| _ = args.int(tenant.0)).await?.is_empty())
    }
}

/// New events from the database.
async fn read_events(
    conn: &mut SqliteConnection,
    (tenant, shard): LaneId,
    after: Position,
    limits: BatchLimits,
) -> Result<(Vec<Logged>, bool)> {
    let sql = concat!(
        "SELECT ",
        event_columns!(),
        " FROM events e INDEXED BY events_by_lane WHERE e.tenant = ? AND e.shard = ? AND e.pos > ?
          ORDER BY e.pos LIMIT ?"
    );
    let mut args = Args::default();
    args.int(tenant.0).int(i64::from(shard.0)).int(after.0).int(i64::from(limits.events) + 1);
    let rows = fetch(conn, sql, args).await.map_err(fault::outward)?;
    Ok(cut(row::events(&rows)?.into_iter(), limits))
}

/// What is blocked right behind each of the heads, with the head's place among all heads.
async fn read_behind(
    conn: &mut SqliteConnection,
    (tenant, shard): LaneId,
    heads: &[(usize, &Due)],
    room: usize,
) -> Result<Vec<(usize, Due)>> {
    static FIND: Rows = Rows::new(
        concat!(
            "SELECT head.at, u.waiting, u.shard, ",
            unfinished_columns!(),
            ", ",
            event_columns!(),
            " FROM (SELECT column1 AS at, column2 AS rule, column3 AS key, column4 AS pos FROM (VALUES "
        ),
        "(?,?,?,?)",
        ")) head CROSS JOIN unfinished u INDEXED BY unfinished_chain
           CROSS JOIN events e ON e.pos = u.pos AND e.tenant = u.tenant
           WHERE u.tenant = ? AND u.rule = head.rule AND u.key = head.key AND u.pos > head.pos
           ORDER BY head.at, u.pos LIMIT ?",
    );
    let mut behind = Vec::new();
    let mut ended = HashSet::new();
    for piece in heads.chunks(crate::sqlite::text::ROWS_MAX) {
        let room = room.saturating_sub(behind.len());
        if room == 0 {
            break;
        }
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let bind = |(at, due): &(usize, &Due), args: &mut Args| {
            args.int(i64::try_from(*at).unwrap_or(i64::MAX)).text(&due.run.rule);
            args.text_opt(due.run.key.as_deref()).int(due.run.position.0);
        };
        for row in &FIND.fetch(conn, &[], piece, bind, &[tenant.0, limit]).await.map_err(fault::outward)? {
            let mut columns = Columns::new(row);
            let (at, waiting, lane) = (columns.narrow::<usize>()?, columns.int()?, columns.shard()?);
            // Behind a run that waits for something else, nothing may start; what lies in another shard is its node's.
            if waiting != BLOCKED || lane != shard || ended.contains(&at) {
                ended.insert(at);
                continue;
            }
            behind.push((at, Due { run: row::unfinished(&mut columns)?, event: row::event(&mut columns)?.0 }));
        }
    }
    behind.truncate(room);
    Ok(behind)
}
