//! What people do with runs that wait: redrive, discard, resume; what becomes of those parked for too long; and how many
//! wait.
//!
//! A filter may fit any number of runs. They are worked off oldest first, some thousands per transaction, so that
//! nobody else's append waits long; each page of them is done as a whole, and asking again goes on with the rest.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashSet;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::assemble::dropped;
use crate::assemble::expired;
use crate::sqlite::Sqlite;
use crate::sqlite::fault;
use crate::sqlite::row;
use crate::sqlite::row::BLOCKED;
use crate::sqlite::row::Columns;
use crate::sqlite::row::HELD;
use crate::sqlite::row::PARKED;
use crate::sqlite::row::RETRY;
use crate::sqlite::row::unfinished_columns;
use crate::sqlite::runs::bind_filter;
use crate::sqlite::text::Args;
use crate::sqlite::text::Rows;
use crate::sqlite::writer::chains::promote;
use crate::sqlite::writer::events::put_progress;
use crate::sqlite::writer::history::add_runs;
use crate::sqlite::writer::op::BoxFuture;
use crate::sqlite::writer::transaction::Transaction;
use crate::work::Depth;
use crate::work::Held;
use crate::work::ParkedFilter;
use crate::work::RunRecord;
use crate::work::Unfinished;

/// Runs changed per transaction.
const PAGE: usize = 2_000;
/// The same for those that nobody waits for.
const EXPIRED_PAGE: usize = 250;

/// What is to become of the runs chosen.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Redriven,
    Discarded,
    Resumed,
    /// Dropped if they were parked before this.
    Expired(Timestamp),
}

impl Fate {
    /// Runs changed per transaction.
    const fn page(self) -> usize {
        if matches!(self, Self::Expired(_)) { EXPIRED_PAGE } else { PAGE }
    }
}

/// One page of a request.
#[derive(Debug, Clone)]
struct Page {
    tenant: TenantId,
    filter: ParkedFilter,
    /// If set, only these; they were looked up from the filter's runs.
    positions: Option<HashSet<Position>>,
    fate: Fate,
    now: Timestamp,
    /// Beyond this run.
    after: (Position, String),
}

/// What a page did.
struct Paged {
    count: u64,
    shards: BTreeSet<Shard>,
    /// Where the next page begins, if there is one.
    next: Option<(Position, String)>,
}

impl Sqlite {
    pub(super) async fn redrive_parked(
        &self,
        tenant: TenantId,
        filter: &ParkedFilter,
        now: Timestamp,
    ) -> Result<(u64, Vec<Shard>)> {
        self.dispose(tenant, filter.clone(), Fate::Redriven, now).await
    }

    pub(super) async fn discard_parked(
        &self,
        tenant: TenantId,
        filter: &ParkedFilter,
        now: Timestamp,
    ) -> Result<(u64, Vec<Shard>)> {
        self.dispose(tenant, filter.clone(), Fate::Discarded, now).await
    }

    pub(super) async fn free_held(&self, tenant: TenantId, held: &Held, now: Timestamp) -> Result<(u64, Vec<Shard>)> {
        let filter = match held.clone() {
            Held::Rule(rule) => ParkedFilter { rule: Some(rule), ..ParkedFilter::default() },
            Held::Plugin(plugin) => ParkedFilter { plugin: Some(plugin), ..ParkedFilter::default() },
        };
        self.dispose(tenant, filter, Fate::Resumed, now).await
    }

    /// Drops some of the runs that were parked before a moment, of one tenant; says how many, and where others became due.
    /// None if there are none left.
    pub(super) async fn expire_parked(
        &self,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<(u64, Vec<(TenantId, Shard)>)> {
        let sql = "SELECT tenant FROM unfinished WHERE waiting = ? AND updated < ? LIMIT 1";
        let rows = self.read(sql, |args| _ = args.int(PARKED).int(before.0)).await?;
        let Some(row) = rows.first() else { return Ok((0, Vec::new())) };
        let tenant = TenantId(Columns::new(row).int()?);
        let (filter, after) = (ParkedFilter::default(), (Position::ZERO, String::new()));
        let page = Page { tenant, filter, positions: None, fate: Fate::Expired(before), now, after };
        let paged = self.change(page, work_page).await?;
        Ok((paged.count, paged.shards.into_iter().map(|shard| (tenant, shard)).collect()))
    }

    async fn dispose(
        &self,
        tenant: TenantId,
        filter: ParkedFilter,
        fate: Fate,
        now: Timestamp,
    ) -> Result<(u64, Vec<Shard>)> {
        let positions = match filter.runs.as_slice() {
            [] => None,
            runs => {
                let keys: Vec<_> = runs.iter().map(|run| run.event).collect();
                Some(self.positions(tenant, &keys).await?)
            }
        };
        let mut page = Page { tenant, filter, positions, fate, now, after: (Position::ZERO, String::new()) };
        let (mut count, mut shards) = (0, BTreeSet::new());
        loop {
            let paged = self.change(page.clone(), work_page).await?;
            count += paged.count;
            shards.extend(paged.shards);
            match paged.next {
                Some(next) => page.after = next,
                None => return Ok((count, shards.into_iter().collect())),
            }
        }
    }

    pub(super) async fn count_backlog(&self, tenant: TenantId, limit: u64) -> Result<u64> {
        let sql = "SELECT count(*) FROM (
                       SELECT 1 FROM progress p INDEXED BY progress_backlog CROSS JOIN events e INDEXED BY events_by_lane
                       WHERE p.tenant = ?1 AND p.cursor < p.head
                       AND e.tenant = p.tenant AND e.shard = p.shard AND e.pos > p.cursor
                       UNION ALL
                       SELECT 1 FROM unfinished INDEXED BY unfinished_waiting WHERE tenant = ?1 AND waiting = ?2
                       LIMIT ?3
                   )";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.read(sql, |args| _ = args.int(tenant.0).int(HELD).int(limit)).await?;
        rows.first().map_or(Ok(0), |row| Columns::new(row).count())
    }

    pub(super) async fn count_depths(&self) -> Result<Vec<Depth>> {
        let mut depths: BTreeMap<TenantId, Depth> = BTreeMap::new();
        let mut conn = self.readers().get().await?;
        conn.begin().await?;
        let sql = "SELECT p.tenant, sum((SELECT count(*) FROM events e INDEXED BY events_by_lane
                                         WHERE e.tenant = p.tenant AND e.shard = p.shard AND e.pos > p.cursor))
                   FROM progress p INDEXED BY progress_backlog WHERE p.cursor < p.head GROUP BY p.tenant";
        for row in crate::sqlite::text::fetch(&mut conn, sql, Args::default()).await.map_err(fault::outward)? {
            let mut columns = Columns::new(&row);
            let tenant = TenantId(columns.int()?);
            depth(&mut depths, tenant).backlog = columns.count()?;
        }
        let sql = "SELECT tenant, waiting, count(*) FROM unfinished INDEXED BY unfinished_waiting
                   GROUP BY tenant, waiting";
        for row in crate::sqlite::text::fetch(&mut conn, sql, Args::default()).await.map_err(fault::outward)? {
            let mut columns = Columns::new(&row);
            let (tenant, waiting, count) = (TenantId(columns.int()?), columns.int()?, columns.count()?);
            let depth = depth(&mut depths, tenant);
            match waiting {
                HELD => depth.held = count,
                PARKED => depth.parked = count,
                _ => depth.waiting += count,
            }
        }
        conn.end().await?;
        Ok(depths.into_values().collect())
    }
}

fn depth(depths: &mut BTreeMap<TenantId, Depth>, tenant: TenantId) -> &mut Depth {
    depths.entry(tenant).or_insert(Depth { tenant, backlog: 0, waiting: 0, held: 0, parked: 0 })
}

fn work_page<'a>(tx: &'a mut Transaction<'_>, page: &'a Page) -> BoxFuture<'a, Result<Paged>> {
    Box::pin(async move {
        let (chosen, next) = choose(tx, page).await?;
        let chains: BTreeSet<_> =
            chosen.iter().filter_map(|(run, _)| Some((page.tenant, run.rule.clone(), run.key.clone()?))).collect();
        match page.fate {
            Fate::Redriven => free(tx, page, &chosen, true).await?,
            Fate::Resumed => free(tx, page, &chosen, false).await?,
            Fate::Discarded | Fate::Expired(_) => drop_runs(tx, page, &chosen).await?,
        }
        let promoted = promote(tx, &chains, page.now).await?;
        let mut shards: BTreeSet<Shard> = promoted.into_iter().map(|(_, shard)| shard).collect();
        if matches!(page.fate, Fate::Redriven | Fate::Resumed) {
            shards.extend(chosen.iter().map(|(_, shard)| *shard));
        }
        Ok(Paged { count: chosen.len() as u64, shards, next })
    })
}

/// The runs of a page, in log order, and where the next one begins.
async fn choose(
    tx: &mut Transaction<'_>,
    page: &Page,
) -> Result<(Vec<(Unfinished, Shard)>, Option<(Position, String)>)> {
    let sql = concat!(
        "SELECT ",
        unfinished_columns!(),
        ", u.shard FROM unfinished u INDEXED BY unfinished_waiting
          WHERE u.tenant = ?1 AND u.waiting = ?2 AND u.pos >= ?3 AND (u.pos, u.rule) > (?3, ?4)
          AND (?5 IS NULL OR u.rule = ?5) AND (?6 IS NULL OR u.key = ?6) AND (?7 IS NULL OR u.plugin = ?7)
          AND (?8 IS NULL OR u.code = ?8) AND u.updated < ?9 ORDER BY u.pos, u.rule LIMIT ?10"
    );
    let waiting = if matches!(page.fate, Fate::Resumed) { HELD } else { PARKED };
    let before = if let Fate::Expired(before) = page.fate { before } else { Timestamp(i64::MAX) };
    let limit = i64::try_from(page.fate.page()).unwrap_or(i64::MAX);
    let rows = tx
        .fetch(sql, |args| {
            args.int(page.tenant.0).int(waiting).int(page.after.0.0).text(&page.after.1);
            bind_filter(&page.filter, args);
            args.int(before.0).int(limit);
        })
        .await?;
    let wanted: HashSet<RunId> = page.filter.runs.iter().copied().collect();
    let (mut chosen, mut last) = (Vec::new(), None);
    for row in &rows {
        let mut columns = Columns::new(row);
        let run = row::unfinished(&mut columns)?;
        last = Some((run.position, run.rule.clone()));
        let named = page.positions.as_ref().is_none_or(|positions| {
            positions.contains(&run.position) && wanted.contains(&RunId::of(run.event, &run.rule))
        });
        if named {
            chosen.push((run, columns.shard()?));
        }
    }
    Ok((chosen, last.filter(|_| rows.len() == page.fate.page())))
}

/// Lets runs go on: those without a key at once, the others as if blocked, so that their chain decides.
async fn free(tx: &mut Transaction<'_>, page: &Page, chosen: &[(Unfinished, Shard)], anew: bool) -> Result<()> {
    static FREE: Rows = Rows::new(
        "WITH freed (pos, rule, waiting, due, attempts) AS (VALUES ",
        "(?,?,?,?,?)",
        ") UPDATE unfinished SET waiting = freed.waiting, due = freed.due, attempts = freed.attempts, updated = ?
           FROM freed WHERE unfinished.tenant = ? AND unfinished.pos = freed.pos AND unfinished.rule = freed.rule",
    );
    let now = page.now.0;
    let bind = |(run, _): &(Unfinished, Shard), args: &mut Args| {
        let (waiting, due) = if run.key.is_some() { (BLOCKED, None) } else { (RETRY, Some(now)) };
        let attempts = if anew { 0 } else { run.attempts };
        args.int(run.position.0).text(&run.rule).int(waiting).int_opt(due).int(i64::from(attempts));
    };
    FREE.fetch(tx.conn, &[], chosen, bind, &[now, page.tenant.0]).await.map_err(fault::outward)?;
    tx.changes.unfinished.extend(chosen.iter().map(|(_, shard)| (page.tenant, *shard)));
    Ok(())
}

async fn drop_runs(tx: &mut Transaction<'_>, page: &Page, chosen: &[(Unfinished, Shard)]) -> Result<()> {
    static DROP: Rows = Rows::new(
        "WITH dropped (pos, rule) AS (VALUES ",
        "(?,?)",
        ") DELETE FROM unfinished WHERE (tenant, pos, rule) IN (SELECT ?, pos, rule FROM dropped)",
    );
    let bind = |(run, _): &(Unfinished, Shard), args: &mut Args| _ = args.int(run.position.0).text(&run.rule);
    DROP.fetch(tx.conn, &[], chosen, bind, &[page.tenant.0]).await.map_err(fault::outward)?;
    let record = if matches!(page.fate, Fate::Expired(_)) { expired } else { dropped };
    let records: Vec<RunRecord> = chosen.iter().map(|(run, _)| record(run, page.now)).collect();
    let records: Vec<_> = records.iter().map(|record| (page.tenant, tx.number(), record)).collect();
    add_runs(tx, &records).await?;
    // The numbers must be known to be used, also after a restart.
    for ((_, shard), (tenant, number, _)) in chosen.iter().zip(&records) {
        tx.lane((*tenant, *shard)).number = *number;
    }
    put_progress(tx).await
}
