//! The outbox. `due` is set on the first of each line (tenant, sink, key) only, see `advance` in the migrations.

use std::time::Instant;

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

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
use crate::postgres::Postgres;
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

/// Settlements per transaction: it holds a lock for each tenant that has lines among them.
const SETTLED_MAX: usize = 256;
/// Parked deliveries changed per transaction, so that the tenant's batches do not wait long.
const PAGE: i64 = 2_000;

#[async_trait]
impl Deliveries for Postgres {
    async fn host_due_deliveries(
        &self,
        now: Timestamp,
        limit: u32,
        shards: &[Shard],
        without_sinks: &[(TenantId, String)],
        in_flight: &[(TenantId, String)],
    ) -> Result<(Vec<DueDelivery>, Option<Timestamp>)> {
        let numbers = || shards.iter().map(|shard| i64::from(shard.0));
        let known = self.0.floor.get(shards);
        let hints = || known.iter().flatten();
        let (mut look, mut seen) = (Look::new(now, limit, without_sinks, self.0.mark.get()), Vec::new());
        let begin = Instant::now();
        while let Some((after, at_most)) = look.step() {
            let sql = "SELECT * FROM due_queues($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
            let rows = self.call(sql, |args| {
                args.int(now.0).ints(numbers()).int(after.map_or(-1, |place| i64::from(place.shard.0)));
                args.int(after.map_or(0, |place| place.tenant.0)).text(after.map_or("", |place| &place.sink));
                args.int(i64::from(at_most))
                    .ints(hints().map(|(place, _)| i64::from(place.shard.0)))
                    .ints(hints().map(|(place, _)| place.tenant.0))
                    .texts(hints().map(|(place, _)| place.sink.as_str()))
                    .ints(hints().map(|(_, oldest)| *oldest));
            });
            let queues: Vec<Queue> = rows.await?.iter().map(queue).collect::<Result<_>>()?;
            if known.is_none() {
                // What comes next may be due sooner than all that is there.
                seen.extend(queues.iter().map(|queue| (queue.place.clone(), queue.oldest.min(now).0)));
            }
            look.found(queues);
        }
        let Looked { queues, each, next, resume } = look.end();
        if known.is_none() {
            self.0.floor.looked(shards, seen, resume.is_none().then_some(now.0), begin.elapsed());
        }
        self.0.mark.set(resume);
        if queues.is_empty() {
            return Ok((Vec::new(), next));
        }
        let sql = "SELECT * FROM due_deliveries($1, $2, $3, $4, $5, $6, $7, $8)";
        let rows = self.call(sql, |args| {
            args.int(now.0)
                .ints(queues.iter().map(|queue| i64::from(queue.place.shard.0)))
                .ints(queues.iter().map(|queue| queue.place.tenant.0))
                .texts(queues.iter().map(|queue| queue.place.sink.as_str()))
                .ints(queues.iter().map(|queue| queue.oldest.0))
                .int(i64::from(each))
                .ints(in_flight.iter().map(|(tenant, _)| tenant.0))
                .texts(in_flight.iter().map(|(_, id)| id.as_str()));
        });
        let chosen = share(rows.await?.iter().map(candidate).collect::<Result<_>>()?, limit);
        let rows = self.call("SELECT * FROM fetch_deliveries($1, $2)", |args| {
            args.ints(chosen.iter().map(|one| one.tenant.0)).texts(chosen.iter().map(|one| one.id.as_str()));
        });
        let due = rows.await?.iter().map(due_delivery).collect::<Result<_>>()?;
        Ok((due, next))
    }

    async fn host_settle(&self, settlements: Vec<Settlement>) -> Result<()> {
        for some in settlements.chunks(SETTLED_MAX) {
            let sql = "SELECT settle($1, $2, $3, $4, $5, $6, $7, $8)";
            let settled = self.call(sql, |args| {
                args.ints(some.iter().map(|one| one.tenant.0))
                    .texts(some.iter().map(|one| one.id.as_str()))
                    .ints(some.iter().map(|one| settled_number(one.settled).0))
                    .int_opts(some.iter().map(|one| settled_number(one.settled).1))
                    .ints(some.iter().map(|one| i64::from(one.attempts)))
                    .texts(some.iter().map(|one| one.code.as_str()))
                    .texts(some.iter().map(|one| one.reason.as_str()))
                    .ints(some.iter().map(|one| one.at.0));
            });
            settled.await?;
        }
        Ok(())
    }

    async fn deliveries(&self, tenant: TenantId, query: &DeliveryQuery) -> Result<Vec<DeliveryView>> {
        let sql = concat!(
            "SELECT ",
            delivery_columns!(),
            ", coalesce(e.id, ''), d.state, coalesce(d.due, d.created), d.code, d.reason, d.updated
              FROM deliveries d LEFT JOIN events e ON e.pos = d.pos AND e.tenant = d.tenant
              WHERE d.tenant = $1 AND ($2::BIGINT IS NULL OR d.pos = $2) AND ($3::TEXT IS NULL OR d.sink = $3)
              AND ($4::BIGINT IS NULL OR d.state = $4) AND (d.created, d.id) < ($5, $6)
              ORDER BY d.created DESC, d.id DESC LIMIT $7"
        );
        let rows = self.read(tenant, sql, |args| {
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
        let rows = self.call("SELECT * FROM delivery_depths()", |_| {}).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::new(row);
                Ok((TenantId(columns.int()?), columns.text()?, columns.count()?, columns.count()?))
            })
            .collect()
    }
}

/// What is to become of parked deliveries.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Redelivered,
    Dropped,
}

impl Postgres {
    async fn dispose_parked(
        &self,
        tenant: TenantId,
        sink: Option<&str>,
        id: Option<&str>,
        now: Timestamp,
        fate: Fate,
    ) -> Result<u64> {
        let sql = "WITH chosen AS (
                       SELECT d.seq, d.id FROM deliveries d WHERE d.tenant = $1 AND d.seq > $2 AND d.state = 2
                       AND ($3::TEXT IS NULL OR d.sink = $3) AND ($4::TEXT IS NULL OR d.id = $4) ORDER BY d.seq LIMIT $5
                   )
                   UPDATE deliveries SET state = $6, attempts = CASE WHEN $7 THEN 0 ELSE attempts END, updated = $8,
                          due = CASE WHEN $7 AND key IS NULL THEN $8 END
                   FROM chosen WHERE deliveries.tenant = $1 AND deliveries.id = chosen.id
                   RETURNING chosen.seq, deliveries.sink, deliveries.key";
        let (state, anew) = match fate {
            Fate::Redelivered => (PENDING, true),
            Fate::Dropped => (DROPPED, false),
        };
        let (mut count, mut after) = (0, 0);
        loop {
            let mut tx = self.begin(tenant).await?;
            tx.have(tenant).await?;
            let rows = tx.fetch(sql, |args| {
                args.int(tenant.0).int(after).text_opt(sink).text_opt(id).int(PAGE).int(state).flag(anew).int(now.0);
            });
            let rows = rows.await?;
            let mut lines = Vec::new();
            for row in &rows {
                let mut columns = Columns::new(row);
                after = after.max(columns.int()?);
                let (sink, key) = (columns.text()?, columns.text_opt()?);
                lines.extend(key.map(|key| (sink, key)));
            }
            let advanced = tx.execute("SELECT advance($1, $2, $3)", |args| {
                args.ints(lines.iter().map(|_| tenant.0))
                    .texts(lines.iter().map(|(sink, _)| sink.as_str()))
                    .texts(lines.iter().map(|(_, key)| key.as_str()));
            });
            advanced.await?;
            tx.end().await?;
            count += rows.len() as u64;
            if (rows.len() as i64) < PAGE {
                return Ok(count);
            }
        }
    }
}
