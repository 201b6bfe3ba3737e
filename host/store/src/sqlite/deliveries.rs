//! The outbox. `due` is set on the first of each line (tenant, sink, key) only, see `writer::outbox`.

use std::collections::BTreeSet;
use std::collections::HashSet;

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use sqlx::sqlite::SqliteRow;

use crate::Result;
use crate::deliveries::Deliveries;
use crate::deliveries::DeliveryQuery;
use crate::deliveries::DeliveryView;
use crate::deliveries::DueDelivery;
use crate::deliveries::Settlement;
use crate::row::Columns;
use crate::row::delivery::DROPPED;
use crate::row::delivery::PENDING;
use crate::row::delivery::delivery_columns;
use crate::row::delivery::due_delivery;
use crate::row::delivery::settled_number;
use crate::row::delivery::state_number;
use crate::row::delivery::view;
use crate::sqlite::Sqlite;
use crate::sqlite::fault;
use crate::sqlite::text::Args;
use crate::sqlite::text::Rows;
use crate::sqlite::text::fetch;
use crate::sqlite::writer::op::BoxFuture;
use crate::sqlite::writer::outbox::Line;
use crate::sqlite::writer::outbox::advance;
use crate::sqlite::writer::transaction::Transaction;

/// Rows looked at per statement, at least and at most: some may be left out.
const LOOK_MIN: u32 = 16;
const LOOK_MAX: u32 = 256;
/// Parked deliveries changed per transaction, so that nobody else's append waits long.
const PAGE: i64 = 2_000;

#[async_trait]
impl Deliveries for Sqlite {
    async fn host_due_deliveries(
        &self,
        now: Timestamp,
        limit: u32,
        shards: &[Shard],
        without_sinks: &[(TenantId, String)],
        in_flight: &[(TenantId, String)],
    ) -> Result<(Vec<DueDelivery>, Option<Timestamp>)> {
        let without: HashSet<_> = without_sinks.iter().map(|(tenant, sink)| (*tenant, sink.as_str())).collect();
        let in_flight: HashSet<_> = in_flight.iter().map(|(tenant, id)| (*tenant, id.as_str())).collect();
        let at_home = |tenant| shards.contains(&Shard::of(tenant, "", self.core().shards, 1));
        let mut conn = self.readers().get().await?;
        // First the narrow index, until there are enough that may go; then their rows.
        let sql = "SELECT d.due, d.seq, d.tenant, d.sink FROM deliveries d INDEXED BY deliveries_due
                   CROSS JOIN tenants t ON t.id = d.tenant
                   WHERE d.due <= ? AND (d.due, d.seq) > (?, ?) AND t.state = 0 ORDER BY d.due, d.seq LIMIT ?";
        let look = limit.clamp(LOOK_MIN, LOOK_MAX);
        let (mut chosen, mut after) = (Vec::new(), (i64::MIN, 0));
        while chosen.len() < limit as usize {
            let mut args = Args::default();
            args.int(now.0).int(after.0).int(after.1).int(i64::from(look));
            let rows = fetch(&mut conn, sql, args).await.map_err(fault::outward)?;
            let mut looked = Vec::with_capacity(rows.len());
            for row in &rows {
                let mut columns = Columns::new(row);
                after = (columns.int()?, columns.int()?);
                let (tenant, sink) = (TenantId(columns.int()?), columns.text()?);
                if !without.contains(&(tenant, sink.as_str())) && at_home(tenant) {
                    looked.push(after.1);
                }
            }
            let found = read_due(&mut conn, &looked).await?;
            chosen.extend(found.into_iter().filter(|due| !in_flight.contains(&(due.tenant, due.delivery.id.as_str()))));
            if rows.len() < look as usize {
                break;
            }
        }
        chosen.truncate(limit as usize);
        let mut args = Args::default();
        args.int(now.0);
        let sql = "SELECT d.due FROM deliveries d INDEXED BY deliveries_due CROSS JOIN tenants t ON t.id = d.tenant
                   WHERE d.due > ? AND t.state = 0 ORDER BY d.due LIMIT 1";
        let rows = fetch(&mut conn, sql, args).await.map_err(fault::outward)?;
        let next = rows.first().map(|row| Columns::new(row).time()).transpose()?;
        Ok((chosen, next))
    }

    async fn host_settle(&self, settlements: Vec<Settlement>) -> Result<()> {
        if settlements.is_empty() {
            return Ok(());
        }
        self.change(settlements, settle).await
    }

    async fn deliveries(&self, tenant: TenantId, query: &DeliveryQuery) -> Result<Vec<DeliveryView>> {
        macro_rules! query {
            ($index:literal, $position:literal) => {
                concat!(
                    "SELECT ",
                    delivery_columns!(),
                    ", coalesce(e.id, ''), d.state, coalesce(d.due, d.created), d.code, d.reason, d.updated
                      FROM deliveries d INDEXED BY ",
                    $index,
                    " LEFT JOIN events e ON e.pos = d.pos AND e.tenant = d.tenant WHERE d.tenant = ?1 AND ",
                    $position,
                    " AND (?3 IS NULL OR d.sink = ?3) AND (?4 IS NULL OR d.state = ?4)
                      AND (d.created, d.id) < (?5, ?6) ORDER BY d.created DESC, d.id DESC LIMIT ?7"
                )
            };
        }
        let sql = match query.position {
            Some(_) => query!("deliveries_event", "d.pos = ?2"),
            None => query!("deliveries_made", "?2 IS NULL"),
        };
        let rows = self.read(sql, |args| {
            args.int(tenant.0).int_opt(query.position.map(|position| position.0));
            args.text_opt(query.sink.as_deref()).int_opt(query.state.map(state_number));
            match &query.before {
                Some((created, id)) => args.int(created.0).text(id),
                None => args.int(i64::MAX).text(""),
            };
            args.int(i64::from(query.limit));
        });
        rows.await?.iter().map(view).collect()
    }

    async fn redeliver(&self, tenant: TenantId, sink: Option<&str>, id: Option<&str>, now: Timestamp) -> Result<u64> {
        self.dispose_parked(tenant, sink, id, now, Fate::Redelivered).await
    }

    async fn drop_deliveries(
        &self,
        tenant: TenantId,
        sink: Option<&str>,
        id: Option<&str>,
        now: Timestamp,
    ) -> Result<u64> {
        self.dispose_parked(tenant, sink, id, now, Fate::Dropped).await
    }

    async fn host_delivery_depths(&self) -> Result<Vec<(TenantId, String, u64, u64)>> {
        let sql = "SELECT tenant, sink, sum(state = 0), sum(state = 2) FROM deliveries INDEXED BY deliveries_open
                   WHERE state IN (0, 2) GROUP BY tenant, sink";
        let rows = self.read(sql, |_| {}).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::new(row);
                Ok((TenantId(columns.int()?), columns.text()?, columns.count()?, columns.count()?))
            })
            .collect()
    }
}

/// Deliveries by their places, in order.
async fn read_due(conn: &mut sqlx::SqliteConnection, seqs: &[i64]) -> Result<Vec<DueDelivery>> {
    static FIND: Rows = Rows::new(
        concat!("SELECT d.tenant, ", delivery_columns!(), " FROM deliveries d WHERE d.due IS NOT NULL AND d.seq IN ("),
        "?",
        ") ORDER BY d.due, d.seq",
    );
    let rows = FIND.fetch(conn, &[], seqs, |seq, args| _ = args.int(*seq), &[]).await.map_err(fault::outward)?;
    rows.iter().map(due_delivery).collect()
}

/// What one call settles.
type Settlements = Vec<Settlement>;

fn settle<'a>(tx: &'a mut Transaction<'_>, settlements: &'a Settlements) -> BoxFuture<'a, Result<()>> {
    // A person may have parked or dropped it while it was on its way: only its arrival is news then.
    static SETTLE: Rows = Rows::new(
        "WITH settled (tenant, id, state, due, attempts, code, reason, at) AS (VALUES ",
        "(?,?,?,?,?,?,?,?)",
        ") UPDATE deliveries SET state = settled.state, due = settled.due, attempts = settled.attempts, \
         code = settled.code, reason = settled.reason, updated = settled.at FROM settled \
         WHERE deliveries.tenant = settled.tenant AND deliveries.id = settled.id \
         AND (deliveries.state = 0 OR deliveries.state <> 1 AND settled.state = 1) \
         RETURNING deliveries.tenant, deliveries.sink, deliveries.key",
    );
    Box::pin(async move {
        let rows = SETTLE.fetch(tx.conn, &[], settlements, bind_settlement, &[]).await.map_err(fault::outward)?;
        let lines = lines(&rows)?;
        advance(tx, &lines).await
    })
}

fn bind_settlement(settlement: &Settlement, args: &mut Args) {
    let (state, due) = settled_number(settlement.settled);
    args.int(settlement.tenant.0)
        .text(&settlement.id)
        .int(state)
        .int_opt(due)
        .int(i64::from(settlement.attempts))
        .text(&settlement.code)
        .text(&settlement.reason)
        .int(settlement.at.0);
}

/// What is to become of parked deliveries.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Redelivered,
    Dropped,
}

/// A page of parked deliveries: of a sink, or one by id, or all.
#[derive(Debug, Clone)]
struct Page {
    tenant: TenantId,
    sink: Option<String>,
    id: Option<String>,
    now: Timestamp,
    fate: Fate,
    after: i64,
}

impl Sqlite {
    async fn dispose_parked(
        &self,
        tenant: TenantId,
        sink: Option<&str>,
        id: Option<&str>,
        now: Timestamp,
        fate: Fate,
    ) -> Result<u64> {
        let (sink, id) = (sink.map(str::to_owned), id.map(str::to_owned));
        let mut page = Page { tenant, sink, id, now, fate, after: 0 };
        let mut count = 0;
        loop {
            let (changed, next) = self.change(page.clone(), work_page).await?;
            count += changed;
            match next {
                Some(next) => page.after = next,
                None => return Ok(count),
            }
        }
    }
}

/// Changes a page; says how many it changed, and where the next one begins, if there is one.
fn work_page<'a>(tx: &'a mut Transaction<'_>, page: &'a Page) -> BoxFuture<'a, Result<(u64, Option<i64>)>> {
    static CHANGE: Rows = Rows::new(
        "UPDATE deliveries SET state = ?, attempts = iif(?, 0, attempts), updated = ?, due = iif(? AND key IS NULL, ?, \
         NULL) WHERE seq IN (",
        "?",
        ") RETURNING tenant, sink, key",
    );
    Box::pin(async move {
        let mut args = Args::default();
        args.int(page.tenant.0).int(page.after);
        let sql = match (&page.id, &page.sink) {
            (Some(id), _) => {
                args.text(id).text_opt(page.sink.as_deref());
                "SELECT seq FROM deliveries
                 WHERE tenant = ?1 AND seq > ?2 AND id = ?3 AND state = 2 AND (?4 IS NULL OR sink = ?4) LIMIT ?5"
            }
            (None, Some(sink)) => {
                args.text(sink).int_opt(None);
                "SELECT seq FROM deliveries INDEXED BY deliveries_open
                 WHERE tenant = ?1 AND seq > ?2 AND sink = ?3 AND state = 2 AND state IN (0, 2) ORDER BY seq LIMIT ?5"
            }
            (None, None) => {
                args.int_opt(None).int_opt(None);
                "SELECT seq FROM deliveries INDEXED BY deliveries_open
                 WHERE tenant = ?1 AND seq > ?2 AND state = 2 AND state IN (0, 2) ORDER BY seq LIMIT ?5"
            }
        };
        args.int(PAGE);
        let rows = fetch(tx.conn, sql, args).await.map_err(fault::outward)?;
        let seqs: Vec<i64> = rows.iter().map(|row| Columns::new(row).int()).collect::<Result<_>>()?;
        let (state, anew) = match page.fate {
            Fate::Redelivered => (PENDING, 1),
            Fate::Dropped => (DROPPED, 0),
        };
        let before = [state, anew, page.now.0, anew, page.now.0];
        let bind = |seq: &i64, args: &mut Args| _ = args.int(*seq);
        let rows = CHANGE.fetch(tx.conn, &before, &seqs, bind, &[]).await.map_err(fault::outward)?;
        let lines = lines(&rows)?;
        advance(tx, &lines).await?;
        let next = seqs.last().copied().filter(|_| seqs.len() as i64 == PAGE);
        Ok((seqs.len() as u64, next))
    })
}

/// The lines of rows with tenant, sink and key; none for those without a key.
pub(super) fn lines(rows: &[SqliteRow]) -> Result<BTreeSet<Line>> {
    let mut lines = BTreeSet::new();
    for row in rows {
        let mut columns = Columns::new(row);
        let (tenant, sink) = (TenantId(columns.int()?), columns.text()?);
        if let Some(key) = columns.text_opt()? {
            lines.insert((tenant, sink, key));
        }
    }
    Ok(lines)
}
