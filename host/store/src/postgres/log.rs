//! Appending and reading events.
//!
//! A tenant's positions become visible in order, so its log up to any position that is seen is whole.

use async_trait::async_trait;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::EventKey;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::assemble::Incoming;
use crate::assemble::fits;
use crate::assemble::sort_and_cut;
use crate::log::Appended;
use crate::log::EventQuery;
use crate::log::Log;
use crate::log::NewEvent;
use crate::log::Tail;
use crate::postgres::Postgres;
use crate::row;
use crate::row::Columns;
use crate::row::event_columns;

/// The tenant's events that fit a query, in an order.
macro_rules! query {
    ($correlation:literal, $order:literal) => {
        concat!(
            "SELECT ",
            event_columns!(),
            " FROM events e WHERE e.tenant = $1 AND e.pos > $2 AND e.pos < $3",
            $correlation,
            " AND ($4::TEXT IS NULL OR e.kind = $4) AND ($5::TEXT IS NULL OR e.key = $5)
              AND ($6::TEXT IS NULL OR e.subject = $6) AND ($7::BIGINT IS NULL OR e.recorded >= $7)
              AND ($8::BIGINT IS NULL OR e.recorded < $8) ORDER BY e.pos ",
            $order,
            " LIMIT $9"
        )
    };
}

#[async_trait]
impl Log for Postgres {
    async fn host_append(&self, events: Vec<NewEvent>) -> Result<Vec<Appended>> {
        self.0.appends.append(events.into_iter().map(Incoming::new).collect()).await
    }

    async fn events_by_id(&self, tenant: TenantId, id: &str) -> Result<Vec<Logged>> {
        let first = EventKey::id_prefix(id);
        let (mut low, mut high) = ([0; 16], [0xff; 16]);
        low[..4].copy_from_slice(&first);
        high[..4].copy_from_slice(&first);
        let sql = concat!(
            "SELECT ",
            event_columns!(),
            " FROM event_keys k JOIN events e ON e.pos = k.pos AND e.tenant = k.tenant
              WHERE k.tenant = $1 AND k.key BETWEEN $2 AND $3 AND e.id = $4 ORDER BY e.pos DESC"
        );
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0).uuid(low).uuid(high).text(id)).await?;
        rows.iter().map(row::checked_event).collect()
    }

    async fn event_by_key(&self, tenant: TenantId, key: EventKey) -> Result<Option<Logged>> {
        let sql = concat!(
            "SELECT ",
            event_columns!(),
            " FROM event_keys k JOIN events e ON e.pos = k.pos AND e.tenant = k.tenant
              WHERE k.tenant = $1 AND k.key = $2"
        );
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0).uuid(key.0)).await?;
        rows.first().map(row::checked_event).transpose()
    }

    async fn events(&self, tenant: TenantId, query: &EventQuery) -> Result<Vec<Logged>> {
        let after = if query.ascending { query.after.unwrap_or(Position::ZERO) } else { Position::ZERO };
        let before = if query.ascending { i64::MAX } else { query.after.map_or(i64::MAX, |after| after.0) };
        let mut found = Vec::new();
        if let Some(correlation) = &query.correlation {
            // A first event's own correlation is not stored: it is found by its id.
            found = self.events_by_id(tenant, correlation).await?;
            found.retain(|event| event.event.correlation == *correlation);
            found.retain(|event| event.position > after && event.position.0 < before && fits(event, query));
        }
        let sql = match (query.correlation.is_some(), query.ascending) {
            (false, true) => query!(" AND $10::TEXT IS NULL", "ASC"),
            (false, false) => query!(" AND $10::TEXT IS NULL", "DESC"),
            (true, true) => query!(" AND e.correlation = $10", "ASC"),
            (true, false) => query!(" AND e.correlation = $10", "DESC"),
        };
        let rows = self.read(tenant, sql, |args| {
            args.int(tenant.0)
                .int(after.0)
                .int(before)
                .text_opt(query.kind.as_deref())
                .text_opt(query.key.as_deref())
                .text_opt(query.subject.as_deref())
                .int_opt(query.since.map(|since| since.0))
                .int_opt(query.until.map(|until| until.0))
                .int(i64::from(query.limit))
                .text_opt(query.correlation.as_deref());
        });
        found.extend(row::events(&rows.await?)?);
        sort_and_cut(&mut found, query);
        Ok(found)
    }

    async fn tail(&self, tenant: TenantId, after: Position, kind: Option<&str>, limit: u32) -> Result<Tail> {
        self.0.tails.look(tenant, after, kind, limit).await
    }

    async fn head(&self, tenant: TenantId) -> Result<Position> {
        let sql = "SELECT e.pos FROM events e WHERE e.tenant = $1 ORDER BY e.pos DESC LIMIT 1";
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0)).await?;
        rows.first().map_or(Ok(Position::ZERO), |row| Columns::new(row).position())
    }
}
