//! What people do with runs that wait: redrive, discard, resume; what becomes of those parked for too long; and how many
//! wait.
//!
//! A filter may fit any number of runs. They are worked off oldest first, some thousands per transaction, so that the
//! tenant's batches do not wait long; each page of them is done as a whole, and asking again goes on with the rest.

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
use crate::postgres::Postgres;
use crate::postgres::Transaction;
use crate::postgres::commit::bind_runs;
use crate::postgres::runs::bind_filter;
use crate::row;
use crate::row::BLOCKED;
use crate::row::Columns;
use crate::row::HELD;
use crate::row::PARKED;
use crate::row::RETRY;
use crate::row::unfinished_columns;
use crate::work::Depth;
use crate::work::Held;
use crate::work::ParkedFilter;
use crate::work::RunRecord;
use crate::work::Unfinished;

/// Runs changed per transaction.
const PAGE: usize = 2_000;

/// What is to become of the runs chosen.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Redriven,
    Discarded,
    Resumed,
    /// Dropped if they were parked before this.
    Expired(Timestamp),
}

/// One page of a request.
struct Page<'a> {
    tenant: TenantId,
    filter: &'a ParkedFilter,
    wanted: HashSet<RunId>,
    fate: Fate,
    now: Timestamp,
    /// Beyond this run.
    after: (Position, String),
}

impl Postgres {
    pub(super) async fn redrive_parked(
        &self,
        tenant: TenantId,
        filter: &ParkedFilter,
        now: Timestamp,
    ) -> Result<(u64, Vec<Shard>)> {
        self.dispose(tenant, filter, Fate::Redriven, now).await
    }

    pub(super) async fn discard_parked(
        &self,
        tenant: TenantId,
        filter: &ParkedFilter,
        now: Timestamp,
    ) -> Result<(u64, Vec<Shard>)> {
        self.dispose(tenant, filter, Fate::Discarded, now).await
    }

    pub(super) async fn free_held(&self, tenant: TenantId, held: &Held, now: Timestamp) -> Result<(u64, Vec<Shard>)> {
        let filter = match held.clone() {
            Held::Rule(rule) => ParkedFilter { rule: Some(rule), ..ParkedFilter::default() },
            Held::Plugin(plugin) => ParkedFilter { plugin: Some(plugin), ..ParkedFilter::default() },
        };
        self.dispose(tenant, &filter, Fate::Resumed, now).await
    }

    /// Drops some of the runs that were parked before a moment, of one tenant; says how many, and where others became due.
    /// None if there are none left.
    pub(super) async fn expire_parked(
        &self,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<(u64, Vec<(TenantId, Shard)>)> {
        let rows = self.call("SELECT parked_before($1)", |args| _ = args.int(before.0)).await?;
        let Some(tenant) = rows.first().map_or(Ok(None), |row| Columns::new(row).int_opt())? else {
            return Ok((0, Vec::new()));
        };
        let (tenant, filter) = (TenantId(tenant), ParkedFilter::default());
        let (fate, after) = (Fate::Expired(before), (Position::ZERO, String::new()));
        let page = Page { tenant, filter: &filter, wanted: HashSet::new(), fate, now, after };
        let mut tx = self.begin(tenant).await?;
        tx.have(tenant).await?;
        let (chosen, _) = choose(&mut tx, &page).await?;
        let shards = work_page(&mut tx, &page, &chosen).await?;
        tx.end().await?;
        Ok((chosen.len() as u64, shards.into_iter().map(|shard| (tenant, shard)).collect()))
    }

    async fn dispose(
        &self,
        tenant: TenantId,
        filter: &ParkedFilter,
        fate: Fate,
        now: Timestamp,
    ) -> Result<(u64, Vec<Shard>)> {
        let wanted = filter.runs.iter().copied().collect();
        let mut page = Page { tenant, filter, wanted, fate, now, after: (Position::ZERO, String::new()) };
        let (mut count, mut shards) = (0, BTreeSet::new());
        loop {
            let mut tx = self.begin(tenant).await?;
            tx.have(tenant).await?;
            let (chosen, next) = choose(&mut tx, &page).await?;
            shards.extend(work_page(&mut tx, &page, &chosen).await?);
            tx.end().await?;
            count += chosen.len() as u64;
            match next {
                Some(next) => page.after = next,
                None => return Ok((count, shards.into_iter().collect())),
            }
        }
    }

    pub(super) async fn count_backlog(&self, tenant: TenantId, limit: u64) -> Result<u64> {
        let sql = "SELECT count(*) FROM (
                       SELECT 1 FROM lanes l JOIN LATERAL (
                           SELECT coalesce((SELECT p.cursor FROM progress p WHERE p.tenant = l.tenant
                                            AND p.shard = l.shard ORDER BY p.turn DESC LIMIT 1), 0) AS cursor
                       ) reached ON true
                       JOIN events e ON e.tenant = l.tenant AND e.shard = l.shard AND e.pos > reached.cursor
                       WHERE l.tenant = $1
                       UNION ALL
                       SELECT 1 FROM unfinished WHERE tenant = $1 AND waiting = $2 AND waiting >= 2
                       LIMIT $3
                   ) counted";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0).int(HELD).int(limit)).await?;
        rows.first().map_or(Ok(0), |row| Columns::new(row).count())
    }

    pub(super) async fn count_depths(&self) -> Result<Vec<Depth>> {
        let mut depths: BTreeMap<TenantId, Depth> = BTreeMap::new();
        for row in &self.call("SELECT * FROM depths()", |_| {}).await? {
            let mut columns = Columns::new(row);
            let (tenant, waiting, count) = (TenantId(columns.int()?), columns.int_opt()?, columns.count()?);
            let none = Depth { tenant, backlog: 0, waiting: 0, held: 0, parked: 0 };
            let depth = depths.entry(tenant).or_insert(none);
            match waiting {
                None => depth.backlog = count,
                Some(HELD) => depth.held = count,
                Some(PARKED) => depth.parked = count,
                Some(_) => depth.waiting += count,
            }
        }
        Ok(depths.into_values().collect())
    }
}

/// The runs of a page, in log order, and where the next one begins.
async fn choose(
    tx: &mut Transaction,
    page: &Page<'_>,
) -> Result<(Vec<(Unfinished, Shard)>, Option<(Position, String)>)> {
    let sql = concat!(
        "SELECT ",
        unfinished_columns!(),
        ", u.shard FROM unfinished u
          WHERE u.tenant = $1 AND u.waiting = $2 AND u.waiting >= 2 AND u.pos >= $3 AND (u.pos, u.rule) > ($3, $4)
          AND ($5::TEXT IS NULL OR u.rule = $5) AND ($6::TEXT IS NULL OR u.key = $6)
          AND ($7::TEXT IS NULL OR u.plugin = $7) AND ($8::TEXT IS NULL OR u.code = $8) AND u.updated < $9
          ORDER BY u.pos, u.rule LIMIT $10"
    );
    let waiting = if matches!(page.fate, Fate::Resumed) { HELD } else { PARKED };
    let before = if let Fate::Expired(before) = page.fate { before } else { Timestamp(i64::MAX) };
    let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
    let rows = tx.fetch(sql, |args| {
        args.int(page.tenant.0).int(waiting).int(page.after.0.0).text(&page.after.1);
        bind_filter(page.filter, args);
        args.int(before.0).int(limit);
    });
    let rows = rows.await?;
    let (mut chosen, mut last) = (Vec::new(), None);
    for row in &rows {
        let mut columns = Columns::new(row);
        let run = row::unfinished(&mut columns)?;
        last = Some((run.position, run.rule.clone()));
        if page.wanted.is_empty() || page.wanted.contains(&RunId::of(run.event, &run.rule)) {
            chosen.push((run, columns.shard()?));
        }
    }
    Ok((chosen, last.filter(|_| rows.len() == PAGE)))
}

/// Does with the runs chosen what is to be done; gives the shards in which something became due.
async fn work_page(tx: &mut Transaction, page: &Page<'_>, chosen: &[(Unfinished, Shard)]) -> Result<BTreeSet<Shard>> {
    match page.fate {
        Fate::Redriven => free(tx, page, chosen, true).await?,
        Fate::Resumed => free(tx, page, chosen, false).await?,
        Fate::Discarded | Fate::Expired(_) => drop_runs(tx, page, chosen).await?,
    }
    let chains: BTreeSet<(&str, &str)> =
        chosen.iter().filter_map(|(run, _)| Some((run.rule.as_str(), run.key.as_deref()?))).collect();
    let promoted = tx.fetch("SELECT * FROM promote($1, $2, $3, $4)", |args| {
        args.int(page.tenant.0).texts(chains.iter().map(|(rule, _)| *rule)).texts(chains.iter().map(|(_, key)| *key));
        args.int(page.now.0);
    });
    let promoted = promoted.await?;
    let mut shards: BTreeSet<Shard> = promoted.iter().map(|row| Columns::new(row).shard()).collect::<Result<_>>()?;
    if matches!(page.fate, Fate::Redriven | Fate::Resumed) {
        shards.extend(chosen.iter().map(|(_, shard)| *shard));
    }
    Ok(shards)
}

/// Lets runs go on: those without a key at once, the others as if blocked, so that their chain decides.
async fn free(tx: &mut Transaction, page: &Page<'_>, chosen: &[(Unfinished, Shard)], anew: bool) -> Result<()> {
    let sql = "UPDATE unfinished SET waiting = f.waiting, due = f.due, attempts = f.attempts, updated = $2
               FROM unnest($3::BIGINT[], $4::TEXT[], $5::BIGINT[], $6::BIGINT[], $7::BIGINT[])
                    AS f (pos, rule, waiting, due, attempts)
               WHERE unfinished.tenant = $1 AND unfinished.pos = f.pos AND unfinished.rule = f.rule";
    let now = page.now.0;
    let runs = || chosen.iter().map(|(run, _)| run);
    let freed = tx.execute(sql, |args| {
        args.int(page.tenant.0)
            .int(now)
            .ints(runs().map(|run| run.position.0))
            .texts(runs().map(|run| run.rule.as_str()))
            .ints(runs().map(|run| if run.key.is_some() { BLOCKED } else { RETRY }))
            .int_opts(runs().map(|run| run.key.is_none().then_some(now)))
            .ints(runs().map(|run| if anew { 0 } else { i64::from(run.attempts) }));
    });
    freed.await?;
    Ok(())
}

async fn drop_runs(tx: &mut Transaction, page: &Page<'_>, chosen: &[(Unfinished, Shard)]) -> Result<()> {
    let sql = "DELETE FROM unfinished u USING unnest($2::BIGINT[], $3::TEXT[]) AS x (pos, rule)
               WHERE u.tenant = $1 AND u.pos = x.pos AND u.rule = x.rule";
    let gone = tx.execute(sql, |args| {
        args.int(page.tenant.0)
            .ints(chosen.iter().map(|(run, _)| run.position.0))
            .texts(chosen.iter().map(|(run, _)| run.rule.as_str()));
    });
    gone.await?;
    let record = if matches!(page.fate, Fate::Expired(_)) { expired } else { dropped };
    let records: Vec<RunRecord> = chosen.iter().map(|(run, _)| record(run, page.now)).collect();
    let sql =
        "INSERT INTO runs (tenant, number, pos, rule, attempt, rule_set, event, plugin, plugin_version, state, code,
                                 reason, fuel, micros, ended, effects, logs)
               SELECT $1, nextval('numbers'), a.*
               FROM unnest($2::BIGINT[], $3::TEXT[], $4::BIGINT[], $5::BIGINT[], $6::UUID[], $7::TEXT[], $8::BIGINT[],
                           $9::BIGINT[], $10::TEXT[], $11::TEXT[], $12::BIGINT[], $13::BIGINT[], $14::BIGINT[],
                           $15::BIGINT[], $16::TEXT[]) AS a";
    tx.execute(sql, |args| {
        args.int(page.tenant.0);
        bind_runs(&records, args);
    })
    .await?;
    Ok(())
}
