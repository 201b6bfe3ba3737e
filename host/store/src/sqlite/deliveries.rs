//! The outbox. `due` is set on the first of each line (tenant, sink, key) only, see `writer::outbox`.

use std::collections::BTreeSet;

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
use crate::look::Look;
use crate::look::Looked;
use crate::look::Queue;
use crate::look::share;
use crate::row::Columns;
use crate::row::delivery::DROPPED;
use crate::row::delivery::PENDING;
use crate::row::delivery::candidate;
use crate::row::delivery::delivery_columns;
use crate::row::delivery::due_delivery;
use crate::row::delivery::queue;
use crate::row::delivery::settled_number;
use crate::row::delivery::state_number;
use crate::row::delivery::view;
use crate::row::list_text;
use crate::sqlite::Sqlite;
use crate::sqlite::fault;
use crate::sqlite::text::Args;
use crate::sqlite::text::Rows;
use crate::sqlite::text::fetch;
use crate::sqlite::writer::op::BoxFuture;
use crate::sqlite::writer::outbox::Line;
use crate::sqlite::writer::outbox::advance;
use crate::sqlite::writer::transaction::Transaction;

/// Steps along the queues behind a place, from the first row of one to the first row of the next. A comparison of pairs
/// would walk along the queue that is left behind.
const STEP: &str = "
    WITH RECURSIVE step (tenant, sink, seq) AS (
        SELECT ?2, ?3, 0
        UNION ALL
        SELECT n.tenant, n.sink, n.seq FROM step CROSS JOIN deliveries n ON n.seq = coalesce((
            SELECT d.seq FROM deliveries d INDEXED BY deliveries_queue
            WHERE d.due IS NOT NULL AND d.tenant = step.tenant AND d.sink > step.sink
            ORDER BY d.sink, d.due, d.seq LIMIT 1
        ), (
            SELECT d.seq FROM deliveries d INDEXED BY deliveries_queue
            WHERE d.due IS NOT NULL AND d.tenant > step.tenant ORDER BY d.tenant, d.sink, d.due, d.seq LIMIT 1
        ))
        LIMIT ?4 + 1
    )
    SELECT 0, d.tenant, d.sink, EXISTS (SELECT 1 FROM tenants t WHERE t.id = d.tenant AND t.state = 0), d.due,
           iif(d.due > ?1, d.due, (
               SELECT n.due FROM deliveries n INDEXED BY deliveries_queue
               WHERE n.tenant = d.tenant AND n.sink = d.sink AND n.due > ?1 ORDER BY n.due LIMIT 1
           ))
    FROM step CROSS JOIN deliveries d ON d.seq = step.seq ORDER BY d.tenant, d.sink";

/// The first of each of these queues that are due, at most so many of each, but for those that are under way; the narrow
/// part of them.
const TAKE: &str = "
    WITH RECURSIVE under_way (name) AS MATERIALIZED (
        SELECT (value ->> 0) || ' ' || (value ->> 1) FROM json_each(?4)
    ), took (turn, seq) AS (
        SELECT 1, (
            SELECT d.seq FROM deliveries d INDEXED BY deliveries_queue
            WHERE d.tenant = q.value ->> 0 AND d.sink = q.value ->> 1 AND d.due <= ?1
            AND d.tenant || ' ' || d.id NOT IN under_way ORDER BY d.due, d.seq LIMIT 1
        ) FROM json_each(?3) q
        UNION ALL
        SELECT took.turn + 1, (
            SELECT d.seq FROM deliveries d INDEXED BY deliveries_queue
            WHERE d.tenant = l.tenant AND d.sink = l.sink AND (d.due, d.seq) > (l.due, l.seq) AND d.due <= ?1
            AND d.tenant || ' ' || d.id NOT IN under_way ORDER BY d.due, d.seq LIMIT 1
        ) FROM took CROSS JOIN deliveries l ON l.seq = took.seq WHERE took.turn < ?2
    )
    SELECT d.due, d.seq, d.tenant, d.sink, d.id FROM took CROSS JOIN deliveries d ON d.seq = took.seq";

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
        let mut conn = self.readers().get().await?;
        let mut look = Look::new(now, limit, without_sinks, self.0.mark.get());
        while let Some((after, at_most)) = look.step() {
            let mut args = Args::default();
            args.int(now.0).int(after.map_or(0, |place| place.tenant.0)).text(after.map_or("", |place| &place.sink));
            args.int(i64::from(at_most));
            let rows = fetch(&mut conn, STEP, args).await.map_err(fault::outward)?;
            let mut queues: Vec<Queue> = rows.iter().map(queue).collect::<Result<_>>()?;
            for queue in &mut queues {
                queue.active &= shards.contains(&Shard::of(queue.place.tenant, "", self.core().shards, 1));
            }
            look.found(queues);
        }
        let Looked { queues, each, next, resume } = look.end();
        self.0.mark.set(resume);
        if queues.is_empty() {
            return Ok((Vec::new(), next));
        }
        let queues: Vec<_> = queues.iter().map(|queue| (queue.place.tenant.0, &queue.place.sink)).collect();
        let in_flight: Vec<_> = in_flight.iter().map(|(tenant, id)| (tenant.0, id)).collect();
        let mut args = Args::default();
        args.int(now.0).int(i64::from(each)).text_opt(list_text(&queues).as_deref());
        args.text_opt(list_text(&in_flight).as_deref());
        let rows = fetch(&mut conn, TAKE, args).await.map_err(fault::outward)?;
        let mut chosen = share(rows.iter().map(candidate).collect::<Result<_>>()?, limit);
        chosen.sort_unstable_by_key(|one| (one.due, one.seq));
        let seqs: Vec<i64> = chosen.iter().map(|one| one.seq).collect();
        Ok((read_due(&mut conn, &seqs).await?, next))
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
