//! Runs as people see them: the last ended attempt of each, and what it waits for.
//!
//! Pages are by position, so a page never ends between two runs of one event: the next page, which begins before a
//! position, would leave the others out.

use std::collections::HashMap;
use std::collections::HashSet;

use bulkhead_domain::id::Position;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::TenantId;
use sqlx::SqliteConnection;

use crate::Result;
use crate::assemble::cut_page;
use crate::assemble::key;
use crate::sqlite::Sqlite;
use crate::sqlite::fault;
use crate::sqlite::row;
use crate::sqlite::row::Columns;
use crate::sqlite::row::run_columns;
use crate::sqlite::row::run_state_number;
use crate::sqlite::row::unfinished_columns;
use crate::sqlite::text::Args;
use crate::sqlite::text::Rows;
use crate::sqlite::text::fetch;
use crate::work::ParkedFilter;
use crate::work::RunQuery;
use crate::work::RunRecord;
use crate::work::RunState;
use crate::work::RunView;
use crate::work::Unfinished;

/// The last attempts of runs, newest event first.
macro_rules! last_attempts {
    ($index:literal, $state:literal) => {
        concat!(
            "SELECT e.id, e.recorded, ",
            run_columns!(),
            " FROM runs r ",
            $index,
            " CROSS JOIN events e ON e.pos = r.pos AND e.tenant = r.tenant
              WHERE r.tenant = ?1 AND r.pos >= ?2 AND r.pos <= ?3 AND (?4 IS NULL OR r.rule = ?4)
              AND (?5 IS NULL OR r.plugin = ?5) AND ",
            $state,
            " AND r.number = (SELECT max(x.number) FROM runs x
                              WHERE x.tenant = r.tenant AND x.pos = r.pos AND x.rule = r.rule)
              ORDER BY r.pos DESC, r.rule DESC LIMIT ?7"
        )
    };
}

/// Where pages begin and end, as positions that belong to them.
struct Span {
    low: i64,
    high: i64,
}

impl Sqlite {
    pub(super) async fn find_runs(&self, tenant: TenantId, query: &RunQuery) -> Result<Vec<RunView>> {
        let before = query.before.map_or(i64::MAX, |before| before.0.saturating_sub(1));
        let span = match query.position {
            Some(position) => Span { low: position.0, high: position.0.min(before) },
            None => Span { low: 0, high: before },
        };
        let mut conn = self.readers().get().await?;
        let limit = query.limit as usize;
        let mut views = page(&mut conn, tenant, query, &span, limit.saturating_add(1)).await?;
        if let Some(position) = cut_page(&mut views, limit) {
            // One event has more runs than a page: they come all together, or the rest could never be reached.
            let whole = Span { low: position.0, high: position.0 };
            views = page(&mut conn, tenant, query, &whole, i32::MAX as usize).await?;
        }
        let keys: Vec<_> = views.iter().map(key).collect();
        let mut unfinished = find_unfinished(&mut conn, tenant, &keys).await?;
        for (view, key) in views.iter_mut().zip(keys) {
            view.unfinished = unfinished.remove(&key);
        }
        Ok(views)
    }

    pub(super) async fn find_attempts(&self, tenant: TenantId, run: RunId) -> Result<Vec<RunRecord>> {
        let sql = concat!(
            "SELECT ",
            run_columns!(),
            " FROM event_keys k CROSS JOIN runs r ON r.tenant = k.tenant AND r.pos = k.pos
              WHERE k.tenant = ? AND k.key = ? ORDER BY r.number"
        );
        let rows = self.read(sql, |args| _ = args.int(tenant.0).blob(&run.event.0)).await?;
        let mut attempts = Vec::new();
        for row in &rows {
            let record = row::run(&mut Columns::new(row))?;
            if RunId::of(record.event, &record.rule) == run {
                attempts.push(record);
            }
        }
        Ok(attempts)
    }

    pub(super) async fn find_parked(
        &self,
        tenant: TenantId,
        filter: &ParkedFilter,
        before: Option<Position>,
        limit: u32,
    ) -> Result<Vec<RunView>> {
        let wanted: HashSet<RunId> = filter.runs.iter().copied().collect();
        let sql = concat!(
            "SELECT ",
            unfinished_columns!(),
            ", e.id, e.recorded FROM unfinished u INDEXED BY unfinished_waiting
              CROSS JOIN events e ON e.pos = u.pos AND e.tenant = u.tenant WHERE u.tenant = ?1 AND u.waiting = 3 AND u.pos < ?2 AND (?3 IS NULL OR u.rule = ?3)
              AND (?4 IS NULL OR u.key = ?4) AND (?5 IS NULL OR u.plugin = ?5) AND (?6 IS NULL OR u.code = ?6)
              ORDER BY u.pos DESC, u.rule DESC LIMIT ?7"
        );
        let mut conn = self.readers().get().await?;
        // A list of runs is a page by itself; their positions are looked for among all that are parked.
        let ask = if wanted.is_empty() { i64::from(limit) + 1 } else { -1 };
        let mut args = Args::default();
        args.int(tenant.0).int(before.map_or(i64::MAX, |before| before.0));
        bind_filter(filter, &mut args);
        args.int(ask);
        let mut views = Vec::new();
        for row in &fetch(&mut conn, sql, args).await.map_err(fault::outward)? {
            let mut columns = Columns::new(row);
            let run = row::unfinished(&mut columns)?;
            if wanted.is_empty() || wanted.contains(&RunId::of(run.event, &run.rule)) {
                views.push(RunView {
                    event_id: columns.text()?,
                    recorded: columns.time()?,
                    record: None,
                    unfinished: Some(run),
                });
            }
        }
        if let Some(position) = cut_page(&mut views, limit as usize) {
            let next = Some(Position(position.0 + 1));
            drop(conn);
            let all = Box::pin(self.find_parked(tenant, filter, next, u32::MAX)).await?;
            views = all.into_iter().take_while(|view| key(view).0 == position).collect();
            conn = self.readers().get().await?;
        }
        let keys: Vec<_> = views.iter().map(key).collect();
        let mut records = find_records(&mut conn, tenant, &keys).await?;
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

async fn page(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    query: &RunQuery,
    span: &Span,
    limit: usize,
) -> Result<Vec<RunView>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut args = Args::default();
    args.int(tenant.0).int(span.low).int(span.high);
    args.text_opt(query.rule.as_deref()).text_opt(query.plugin.as_deref());
    args.int_opt(query.state.map(run_state_number)).int(limit);
    let sql = match query.state {
        Some(RunState::Done) | None => last_attempts!("", "(?6 IS NULL OR r.state = ?6)"),
        Some(_) => last_attempts!("INDEXED BY runs_not_done", "r.state <> 0 AND r.state = ?6"),
    };
    let mut views = Vec::new();
    for row in &fetch(conn, sql, args).await.map_err(fault::outward)? {
        let mut columns = Columns::new(row);
        let (event_id, recorded) = (columns.text()?, columns.time()?);
        views.push(RunView { event_id, recorded, record: Some(row::run(&mut columns)?), unfinished: None });
    }
    if query.state.is_none() {
        let sql = concat!(
            "SELECT ",
            unfinished_columns!(),
            ", e.id, e.recorded FROM unfinished u
              CROSS JOIN events e ON e.pos = u.pos AND e.tenant = u.tenant WHERE u.tenant = ?1 AND u.pos >= ?2 AND u.pos <= ?3 AND (?4 IS NULL OR u.rule = ?4)
              AND (?5 IS NULL OR u.plugin = ?5)
              AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.tenant = u.tenant AND r.pos = u.pos AND r.rule = u.rule)
              ORDER BY u.pos DESC, u.rule DESC LIMIT ?6"
        );
        let mut args = Args::default();
        args.int(tenant.0).int(span.low).int(span.high);
        args.text_opt(query.rule.as_deref()).text_opt(query.plugin.as_deref()).int(limit);
        for row in &fetch(conn, sql, args).await.map_err(fault::outward)? {
            let mut columns = Columns::new(row);
            let run = row::unfinished(&mut columns)?;
            views.push(RunView {
                event_id: columns.text()?,
                recorded: columns.time()?,
                record: None,
                unfinished: Some(run),
            });
        }
        views.sort_by_cached_key(|view| std::cmp::Reverse(key(view)));
        views.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    Ok(views)
}

async fn find_unfinished(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    keys: &[(Position, String)],
) -> Result<HashMap<(Position, String), Unfinished>> {
    static FIND: Rows = Rows::new(
        "WITH want (pos, rule) AS (VALUES ",
        "(?,?)",
        concat!(
            ") SELECT ",
            unfinished_columns!(),
            " FROM want CROSS JOIN unfinished u WHERE u.tenant = ? AND u.pos = want.pos AND u.rule = want.rule"
        ),
    );
    let bind = |(position, rule): &(Position, String), args: &mut Args| _ = args.int(position.0).text(rule);
    let rows = FIND.fetch(conn, &[], keys, bind, &[tenant.0]).await.map_err(fault::outward)?;
    rows.iter()
        .map(|row| {
            let run = row::unfinished(&mut Columns::new(row))?;
            Ok(((run.position, run.rule.clone()), run))
        })
        .collect()
}

async fn find_records(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    keys: &[(Position, String)],
) -> Result<HashMap<(Position, String), RunRecord>> {
    static FIND: Rows = Rows::new(
        "WITH want (pos, rule) AS (VALUES ",
        "(?,?)",
        concat!(
            ") SELECT ",
            run_columns!(),
            " FROM want CROSS JOIN runs r WHERE r.tenant = ? AND r.pos = want.pos AND r.rule = want.rule
               AND r.number = (SELECT max(x.number) FROM runs x
                               WHERE x.tenant = r.tenant AND x.pos = r.pos AND x.rule = r.rule)"
        ),
    );
    let bind = |(position, rule): &(Position, String), args: &mut Args| _ = args.int(position.0).text(rule);
    let rows = FIND.fetch(conn, &[], keys, bind, &[tenant.0]).await.map_err(fault::outward)?;
    rows.iter()
        .map(|row| {
            let record = row::run(&mut Columns::new(row))?;
            Ok(((record.position, record.rule.clone()), record))
        })
        .collect()
}
