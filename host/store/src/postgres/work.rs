//! What there is to do, and the commit that ends a batch. People's side of runs is in `runs` and `unfinished`.

use std::collections::HashSet;

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use sqlx::postgres::PgRow;

use crate::Error;
use crate::Result;
use crate::assemble::cut;
use crate::assemble::cut_due;
use crate::assemble::join;
use crate::postgres::Postgres;
use crate::postgres::no_tenant;
use crate::row;
use crate::row::BLOCKED;
use crate::row::Columns;
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

/// Where the columns of an event and of an unfinished run begin in what `read_batch` gives.
const EVENT: usize = 4;
const RUN: usize = EVENT + 17;

#[async_trait]
impl Work for Postgres {
    async fn host_backlog(&self, now: Timestamp, shards: &[Shard]) -> Result<Vec<(TenantId, Shard)>> {
        let rows = self.call("SELECT * FROM backlog($1, $2)", |args| {
            args.int(now.0).ints(shards.iter().map(|shard| i64::from(shard.0)));
        });
        rows.await?.iter().map(row::lane).collect()
    }

    async fn host_due(&self, now: Timestamp, shards: &[Shard]) -> Result<(Vec<(TenantId, Shard)>, Option<Timestamp>)> {
        let rows = self.call("SELECT * FROM due_lanes($1, $2)", |args| {
            args.int(now.0).ints(shards.iter().map(|shard| i64::from(shard.0)));
        });
        row::due_lanes(&rows.await?, shards)
    }

    async fn read_batch(&self, tenant: TenantId, shard: Shard, now: Timestamp, limits: BatchLimits) -> Result<Batch> {
        let sql = "SELECT b.*, CASE WHEN b.what IN (2, 3) THEN pins_of($1, b.u_pos, b.u_rule) END
                   FROM read_batch($1, $2, $3, $4, $5, $6) b";
        let bytes = i64::try_from(limits.bytes).unwrap_or(i64::MAX);
        let rows = self.call(sql, |args| {
            args.int(tenant.0).int(i64::from(shard.0)).int(now.0).int(i64::from(limits.events)).int(bytes);
            args.int(i64::from(limits.due));
        });
        let rows = rows.await?;
        let first = rows.first().ok_or_else(|| no_tenant(tenant))?;
        let settings = Columns::beyond(first, 1).int()?;
        let cursor = Position(Columns::beyond(first, EVENT).int()?);
        let turn = Columns::beyond(first, RUN).int()?;
        let (mut events, mut heads, mut behind) = (Vec::new(), Vec::new(), Vec::new());
        let (mut blocked, mut ended) = (HashSet::new(), HashSet::new());
        for row in &rows[1..] {
            match Columns::new(row).int()? {
                1 => events.push(row::event(&mut Columns::beyond(row, EVENT))?.0),
                2 => heads.push(due(row)?),
                3 => {
                    let mut columns = Columns::beyond(row, 1);
                    // Heads are counted from 1.
                    let at = columns.narrow::<usize>()?.saturating_sub(1);
                    let (waiting, lane) = (columns.int()?, columns.shard()?);
                    // Behind a run that waits for something else, nothing may start; what lies in another shard is its
                    // node's.
                    if waiting != BLOCKED || lane != shard || ended.contains(&at) {
                        ended.insert(at);
                    } else {
                        behind.push((at, due(row)?));
                    }
                }
                4 => {
                    let mut columns = Columns::beyond(row, RUN + 2);
                    blocked.insert((columns.text()?, columns.text()?));
                }
                other => return Err(Error::Damaged(format!("a batch has rows of kind {other}"))),
            }
        }
        let (events, more) = cut(events.into_iter(), limits);
        behind.truncate((limits.due as usize).saturating_sub(heads.len()));
        let due = cut_due(join(heads, behind), limits.bytes);
        Ok(Batch { cursor, events, due, blocked, turn, settings, more })
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        self.apply(commit).await
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

fn due(row: &PgRow) -> Result<Due> {
    let event = row::event(&mut Columns::beyond(row, EVENT))?.0;
    Ok(Due { run: row::unfinished(&mut Columns::beyond(row, RUN))?, event })
}
