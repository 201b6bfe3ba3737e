//! Runs as people see them: the last ended attempt of each, and what it waits for.
//!
//! Pages are by position, so a page never ends between two runs of one event: the next page, which begins before a
//! position, would leave the others out.

use std::collections::HashMap;
use std::collections::HashSet;

use bulkhead_domain::id::Position;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::assemble::cut_page;
use crate::assemble::key;
use crate::postgres::Postgres;
use crate::postgres::Transaction;
use crate::postgres::text::Args;
use crate::row;
use crate::row::Columns;
use crate::row::run_columns;
use crate::row::run_state_number;
use crate::row::unfinished_columns;
use crate::work::ParkedFilter;
use crate::work::RunQuery;
use crate::work::RunRecord;
use crate::work::RunView;
use crate::work::Unfinished;

/// Where pages begin and end, as positions that belong to them.
struct Span {
    low: i64,
    high: i64,
}

impl Postgres {
    pub(super) async fn find_runs(&self, tenant: TenantId, query: &RunQuery) -> Result<Vec<RunView>> {
        let before = query.before.map_or(i64::MAX, |before| before.0.saturating_sub(1));
        let span = match query.position {
            Some(position) => Span { low: position.0, high: position.0.min(before) },
            None => Span { low: 0, high: before },
        };
        let mut tx = self.begin(tenant).await?;
        let limit = query.limit as usize;
        let mut views = page(&mut tx, tenant, query, &span, limit.saturating_add(1)).await?;
        if let Some(position) = cut_page(&mut views, limit) {
            // One event has more runs than a page: they come all together, or the rest could never be reached.
            let whole = Span { low: position.0, high: position.0 };
            views = page(&mut tx, tenant, query, &whole, i32::MAX as usize).await?;
        }
        let keys: Vec<_> = views.iter().map(key).collect();
        let mut unfinished = find_unfinished(&mut tx, tenant, &keys).await?;
        tx.end().await?;
        for (view, key) in views.iter_mut().zip(keys) {
            view.unfinished = unfinished.remove(&key);
        }
        Ok(views)
    }

    pub(super) async fn find_attempts(&self, tenant: TenantId, run: RunId) -> Result<Vec<RunRecord>> {
        let sql = concat!(
            "SELECT ",
            run_columns!(),
            " FROM event_keys k JOIN runs r ON r.tenant = k.tenant AND r.pos = k.pos
              WHERE k.tenant = $1 AND k.key = $2 ORDER BY r.number"
        );
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0).uuid(run.event.0)).await?;
        let records = rows.iter().map(|row| row::run(&mut Columns::new(row)));
        let ours = |record: &Result<RunRecord>| {
            record.as_ref().map_or(true, |record| RunId::of(record.event, &record.rule) == run)
        };
        records.filter(ours).collect()
    }

    pub(super) async fn find_parked(
        &self,
        tenant: TenantId,
        filter: &ParkedFilter,
        before: Option<Position>,
        limit: u32,
    ) -> Result<Vec<RunView>> {
        let wanted: HashSet<RunId> = filter.runs.iter().copied().collect();
        // A list of runs is a page by itself; they are looked for among all that are parked.
        let ask = if wanted.is_empty() { i64::from(limit) + 1 } else { i64::MAX };
        let mut tx = self.begin(tenant).await?;
        let before = before.map_or(i64::MAX, |before| before.0);
        let mut views = parked_page(&mut tx, tenant, filter, &Span { low: 0, high: before - 1 }, ask).await?;
        let named = |view: &RunView| {
            let run = view.unfinished.as_ref();
            wanted.is_empty() || run.is_some_and(|run| wanted.contains(&RunId::of(run.event, &run.rule)))
        };
        views.retain(named);
        if let Some(position) = cut_page(&mut views, limit as usize) {
            let whole = Span { low: position.0, high: position.0 };
            views = parked_page(&mut tx, tenant, filter, &whole, i64::MAX).await?;
            views.retain(named);
        }
        let keys: Vec<_> = views.iter().map(key).collect();
        let mut records = find_records(&mut tx, tenant, &keys).await?;
        tx.end().await?;
        for (view, key) in views.iter_mut().zip(keys) {
            view.record = records.remove(&key);
        }
        Ok(views)
    }
}

/// Binds rule, key, plugin and code of a filter.
pub(super) fn bind_filter(filter: &ParkedFilter, args: &mut Args) {
    args.text_opt(filter.rule.as_deref())
        .text_opt(filter.key.as_deref())
        .text_opt(filter.plugin.as_deref())
        .text_opt(filter.code.as_deref());
}

/// Parked runs, newest first.
async fn parked_page(
    tx: &mut Transaction,
    tenant: TenantId,
    filter: &ParkedFilter,
    span: &Span,
    limit: i64,
) -> Result<Vec<RunView>> {
    let sql = concat!(
        "SELECT ",
        unfinished_columns!(),
        ", e.id, e.recorded FROM unfinished u JOIN events e ON e.pos = u.pos AND e.tenant = u.tenant
          WHERE u.tenant = $1 AND u.waiting = 3 AND u.pos >= $2 AND u.pos <= $3 AND ($4::TEXT IS NULL OR u.rule = $4)
          AND ($5::TEXT IS NULL OR u.key = $5) AND ($6::TEXT IS NULL OR u.plugin = $6)
          AND ($7::TEXT IS NULL OR u.code = $7) ORDER BY u.pos DESC, u.rule DESC LIMIT $8"
    );
    let rows = tx.fetch(sql, |args| {
        args.int(tenant.0).int(span.low).int(span.high);
        bind_filter(filter, args);
        args.int(limit);
    });
    rows.await?.iter().map(unbegun).collect()
}

/// A row of an unfinished run with its event's id and time.
fn unbegun(row: &sqlx::postgres::PgRow) -> Result<RunView> {
    let mut columns = Columns::new(row);
    let run = row::unfinished(&mut columns)?;
    Ok(RunView { event_id: columns.text()?, recorded: columns.time()?, record: None, unfinished: Some(run) })
}

async fn page(
    tx: &mut Transaction,
    tenant: TenantId,
    query: &RunQuery,
    span: &Span,
    limit: usize,
) -> Result<Vec<RunView>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = concat!(
        "SELECT e.id, e.recorded, ",
        run_columns!(),
        " FROM runs r JOIN events e ON e.pos = r.pos AND e.tenant = r.tenant
          WHERE r.tenant = $1 AND r.pos >= $2 AND r.pos <= $3 AND ($4::TEXT IS NULL OR r.rule = $4)
          AND ($5::TEXT IS NULL OR r.plugin = $5) AND ($6::BIGINT IS NULL OR r.state = $6)
          AND NOT EXISTS (SELECT 1 FROM runs x
                          WHERE x.tenant = r.tenant AND x.pos = r.pos AND x.rule = r.rule AND x.number > r.number)
          ORDER BY r.pos DESC, r.rule DESC LIMIT $7"
    );
    let rows = tx.fetch(sql, |args| {
        args.int(tenant.0).int(span.low).int(span.high);
        args.text_opt(query.rule.as_deref()).text_opt(query.plugin.as_deref());
        args.int_opt(query.state.map(run_state_number)).int(limit);
    });
    let mut views = Vec::new();
    for row in &rows.await? {
        let mut columns = Columns::new(row);
        let (event_id, recorded) = (columns.text()?, columns.time()?);
        views.push(RunView { event_id, recorded, record: Some(row::run(&mut columns)?), unfinished: None });
    }
    if query.state.is_none() {
        let sql = concat!(
            "SELECT ",
            unfinished_columns!(),
            ", e.id, e.recorded FROM unfinished u JOIN events e ON e.pos = u.pos AND e.tenant = u.tenant
              WHERE u.tenant = $1 AND u.pos >= $2 AND u.pos <= $3 AND ($4::TEXT IS NULL OR u.rule = $4)
              AND ($5::TEXT IS NULL OR u.plugin = $5)
              AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.tenant = u.tenant AND r.pos = u.pos AND r.rule = u.rule)
              ORDER BY u.pos DESC, u.rule DESC LIMIT $6"
        );
        let rows = tx.fetch(sql, |args| {
            args.int(tenant.0).int(span.low).int(span.high);
            args.text_opt(query.rule.as_deref()).text_opt(query.plugin.as_deref()).int(limit);
        });
        for row in &rows.await? {
            views.push(unbegun(row)?);
        }
        views.sort_by_cached_key(|view| std::cmp::Reverse(key(view)));
        views.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    Ok(views)
}

fn bind_keys(tenant: TenantId, keys: &[(Position, String)], args: &mut Args) {
    args.int(tenant.0)
        .ints(keys.iter().map(|(position, _)| position.0))
        .texts(keys.iter().map(|(_, rule)| rule.as_str()));
}

async fn find_unfinished(
    tx: &mut Transaction,
    tenant: TenantId,
    keys: &[(Position, String)],
) -> Result<HashMap<(Position, String), Unfinished>> {
    let sql = concat!(
        "SELECT ",
        unfinished_columns!(),
        " FROM unnest($2::BIGINT[], $3::TEXT[]) AS want (pos, rule)
          JOIN unfinished u ON u.tenant = $1 AND u.pos = want.pos AND u.rule = want.rule"
    );
    let rows = tx.fetch(sql, |args| bind_keys(tenant, keys, args)).await?;
    rows.iter()
        .map(|row| {
            let run = row::unfinished(&mut Columns::new(row))?;
            Ok(((run.position, run.rule.clone()), run))
        })
        .collect()
}

async fn find_records(
    tx: &mut Transaction,
    tenant: TenantId,
    keys: &[(Position, String)],
) -> Result<HashMap<(Position, String), RunRecord>> {
    let sql = concat!(
        "SELECT ",
        run_columns!(),
        " FROM unnest($2::BIGINT[], $3::TEXT[]) AS want (pos, rule) CROSS JOIN LATERAL (
              SELECT * FROM runs x WHERE x.tenant = $1 AND x.pos = want.pos AND x.rule = want.rule
              ORDER BY x.number DESC LIMIT 1
          ) r"
    );
    let rows = tx.fetch(sql, |args| bind_keys(tenant, keys, args)).await?;
    rows.iter()
        .map(|row| {
            let record = row::run(&mut Columns::new(row))?;
            Ok(((record.position, record.rule.clone()), record))
        })
        .collect()
}
