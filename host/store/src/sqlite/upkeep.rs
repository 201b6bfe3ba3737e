//! Upkeep: what is too old goes.
//!
//! A reader finds what may go, so that the writer does nothing but delete it: a few hundred rows beside whatever else is
//! in its group. What may go when a reader saw it may go later, too: a cursor only moves on, and what is over stays over.
//!
//! Freed pages are used for what comes next; the file does not become smaller.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::EventKey;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::sqlite::Sqlite;
use crate::sqlite::deliveries::lines;
use crate::sqlite::fault;
use crate::sqlite::row::Columns;
use crate::sqlite::text::Args;
use crate::sqlite::text::Rows;
use crate::sqlite::writer::op::BoxFuture;
use crate::sqlite::writer::outbox::advance;
use crate::sqlite::writer::transaction::Transaction;
use crate::upkeep::Expiry;
use crate::upkeep::Mark;
use crate::upkeep::Retired;
use crate::upkeep::Upkeep;

/// Events, deliveries or lines of usage of a slice. An event's key lies on a page of its own, and every page that is
/// touched is written: 256 of them take some milliseconds.
const ROWS: i64 = 256;
/// Bytes of events, with their deliveries and logs, of a slice; one event always goes, however large.
const BYTES: u64 = 1 << 20;

#[async_trait]
impl Upkeep for Sqlite {
    /// Every change leaves the file as it should be.
    async fn host_tidy(&self) -> Result<()> {
        Ok(())
    }

    async fn host_retire(&self, expiry: &Expiry, mark: Mark) -> Result<(Retired, Option<Mark>)> {
        let (mut retired, now) = (Retired::default(), expiry.now);
        let next = match mark {
            Mark::Runs => {
                if let Some(before) = expiry.parked {
                    (retired.expired_runs, retired.woken) = self.expire_parked(before, now).await?;
                }
                if retired.expired_runs > 0 { mark } else { Mark::Deliveries }
            }
            Mark::Deliveries => {
                if let Some(before) = expiry.parked {
                    retired.expired_deliveries = self.expire_deliveries(before, now).await?;
                }
                if retired.expired_deliveries > 0 { mark } else { Mark::Events(0) }
            }
            Mark::Events(beyond) => match expiry.events {
                Some(before) => self.retire_events(before, beyond, &mut retired).await?,
                None => Mark::Usage,
            },
            // Keys and deliveries went with their events.
            Mark::Keys(_) | Mark::Leftovers(_) => Mark::Usage,
            Mark::Usage => {
                if let Some(before) = expiry.usage {
                    retired.usage = self.retire_usage(before).await?;
                }
                if retired.usage == 0 {
                    return Ok((retired, None));
                }
                mark
            }
        };
        Ok((retired, Some(next)))
    }

    async fn host_oldest_event(&self) -> Result<Option<Timestamp>> {
        let rows = self.read("SELECT recorded FROM events ORDER BY pos LIMIT 1", |_| {}).await?;
        rows.first().map(|row| Columns::new(row).time()).transpose()
    }
}

/// Events that go.
type Gone = Vec<(TenantId, i64, EventKey)>;

impl Sqlite {
    /// Looks at the next events, and deletes those of them that may go; says where the pass goes on.
    async fn retire_events(&self, before: Timestamp, beyond: i64, retired: &mut Retired) -> Result<Mark> {
        let sql = "SELECT e.pos, e.recorded < ?2, e.tenant, e.source, e.id,
                          length(e.data) + coalesce((SELECT sum(length(d.body)) FROM deliveries d
                                                     WHERE d.tenant = e.tenant AND d.pos = e.pos), 0)
                                         + coalesce((SELECT sum(octet_length(r.logs)) FROM runs r
                                                     WHERE r.tenant = e.tenant AND r.pos = e.pos), 0),
                          e.pos <= (SELECT p.cursor FROM progress p WHERE p.tenant = e.tenant AND p.shard = e.shard)
                          AND NOT EXISTS (SELECT 1 FROM unfinished u WHERE u.tenant = e.tenant AND u.pos = e.pos)
                          AND NOT EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_event
                                          WHERE d.tenant = e.tenant AND d.pos = e.pos AND d.state IN (0, 2))
                   FROM events e WHERE e.pos > ?1 ORDER BY e.pos LIMIT ?3";
        let rows = self.read(sql, |args| _ = args.int(beyond).int(before.0).int(ROWS)).await?;
        let (mut gone, mut bytes, mut reached, mut old) = (Gone::new(), 0, beyond, false);
        for row in &rows {
            let mut columns = Columns::new(row);
            let (position, is_old) = (columns.int()?, columns.flag()?);
            old |= is_old;
            let (tenant, source, id) = (TenantId(columns.int()?), columns.text()?, columns.text()?);
            bytes += columns.count()?;
            if bytes > BYTES && !gone.is_empty() {
                break;
            }
            reached = position;
            if is_old && columns.flag()? {
                gone.push((tenant, position, EventKey::of(&source, &id)));
            }
        }
        if !gone.is_empty() {
            // In the order of the indexes: neighbours share a page.
            gone.sort_unstable_by_key(|(tenant, _, key)| (*tenant, *key));
            let deleted = self.change(gone, delete).await?;
            [retired.events, retired.runs, retired.keys, retired.deliveries] = deleted;
        }
        // Events lie in the order of their acceptance, give or take a clock that was set; so where none of many is old,
        // none behind them is.
        Ok(if old { Mark::Events(reached) } else { Mark::Usage })
    }

    async fn expire_deliveries(&self, before: Timestamp, now: Timestamp) -> Result<u64> {
        let sql = "SELECT seq FROM deliveries INDEXED BY deliveries_open
                   WHERE state IN (0, 2) AND state = 2 AND updated < ? LIMIT ?";
        let rows = self.read(sql, |args| _ = args.int(before.0).int(ROWS)).await?;
        let seqs: Vec<i64> = rows.iter().map(|row| Columns::new(row).int()).collect::<Result<_>>()?;
        if seqs.is_empty() { Ok(0) } else { self.change((seqs, now), expire).await }
    }

    async fn retire_usage(&self, before: Timestamp) -> Result<u64> {
        let sql = "SELECT EXISTS (SELECT 1 FROM usage WHERE day < ?1)
                          OR EXISTS (SELECT 1 FROM usage_units WHERE day < ?1)";
        let rows = self.read(sql, |args| _ = args.int(before.day())).await?;
        match rows.first().map(|row| Columns::new(row).flag()).transpose()? {
            Some(true) => self.change(before.day(), delete_usage).await,
            Some(false) | None => Ok(0),
        }
    }
}

/// Deletes events and all that goes with them; says how many events, runs, keys and deliveries went.
fn delete<'a>(tx: &'a mut Transaction<'_>, gone: &'a Gone) -> BoxFuture<'a, Result<[u64; 4]>> {
    static EVENTS: Rows = Rows::new("DELETE FROM events WHERE pos IN (", "?", ")");
    static RUNS: Rows = Rows::new("DELETE FROM runs WHERE (tenant, pos) IN (VALUES ", "(?,?)", ")");
    static KEYS: Rows = Rows::new("DELETE FROM event_keys WHERE (tenant, key) IN (VALUES ", "(?,?)", ")");
    static DELIVERIES: Rows = Rows::new("DELETE FROM deliveries WHERE (tenant, pos) IN (VALUES ", "(?,?)", ")");
    type One = (TenantId, i64, EventKey);
    fn place((tenant, position, _): &One, args: &mut Args) {
        args.int(tenant.0).int(*position);
    }
    fn position((_, position, _): &One, args: &mut Args) {
        args.int(*position);
    }
    fn key((tenant, _, key): &One, args: &mut Args) {
        args.int(tenant.0).blob(&key.0);
    }
    type Bind = (&'static Rows, fn(&One, &mut Args));
    let binds: [Bind; 4] = [(&EVENTS, position), (&RUNS, place), (&KEYS, key), (&DELIVERIES, place)];
    Box::pin(async move {
        let mut deleted = [0; 4];
        for (count, (rows, bind)) in deleted.iter_mut().zip(binds) {
            let pieces = rows.execute(tx.conn, gone, bind).await.map_err(fault::outward)?;
            *count = pieces.iter().map(|(_, rows)| rows).sum();
        }
        Ok(deleted)
    })
}

/// Ends deliveries with the code [`EXPIRED`](crate::upkeep::EXPIRED), unless they are no longer parked; the next of their
/// lines become due.
fn expire<'a>(tx: &'a mut Transaction<'_>, (seqs, now): &'a (Vec<i64>, Timestamp)) -> BoxFuture<'a, Result<u64>> {
    static EXPIRE: Rows = Rows::new(
        "WITH parked (seq) AS (VALUES ",
        "(?)",
        ") UPDATE deliveries SET state = 3, due = NULL, updated = ?, \
         reason = 'parked for longer than such are kept, with ' || code || ': ' || reason, code = 'retention:expired' \
         WHERE state = 2 AND seq IN (SELECT seq FROM parked) RETURNING tenant, sink, key",
    );
    Box::pin(async move {
        let bind = |seq: &i64, args: &mut Args| _ = args.int(*seq);
        let rows = EXPIRE.fetch(tx.conn, &[], seqs, bind, &[now.0]).await.map_err(fault::outward)?;
        advance(tx, &lines(&rows)?).await?;
        Ok(rows.len() as u64)
    })
}

fn delete_usage<'a>(tx: &'a mut Transaction<'_>, before: &'a i64) -> BoxFuture<'a, Result<u64>> {
    Box::pin(async move {
        let sql = "DELETE FROM usage WHERE (tenant, day, plugin, rule) IN (
                       SELECT tenant, day, plugin, rule FROM usage WHERE day < ? LIMIT ?
                   )";
        let lines = tx.execute(sql, |args| _ = args.int(*before).int(ROWS)).await?;
        let sql = "DELETE FROM usage_units WHERE (tenant, day, plugin, rule, unit) IN (
                       SELECT tenant, day, plugin, rule, unit FROM usage_units WHERE day < ? LIMIT ?
                   )";
        Ok(lines + tx.execute(sql, |args| _ = args.int(*before).int(ROWS)).await?)
    })
}
