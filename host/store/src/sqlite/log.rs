//! Appending and reading events.
//!
//! A tenant's events lie in its lanes, and positions are the store's: the whole tenant in order is its lanes merged.
//! The writer commits positions in the order in which it gives them out, so nothing ever appears below a head.

use std::collections::HashSet;

use async_trait::async_trait;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::EventKey;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::assemble;
use crate::assemble::Incoming;
use crate::assemble::fits;
use crate::assemble::sort_and_cut;
use crate::log::Appended;
use crate::log::EventQuery;
use crate::log::Log;
use crate::log::NewEvent;
use crate::log::Tail;
use crate::sqlite::Sqlite;
use crate::sqlite::fault;
use crate::sqlite::row;
use crate::sqlite::row::Columns;
use crate::sqlite::row::event_columns;
use crate::sqlite::text::Args;
use crate::sqlite::text::Rows;
use crate::sqlite::writer::op::Answer;
use crate::sqlite::writer::op::Work;

/// The lane's events that fit a query, and that come after a position in the order asked for.
macro_rules! lane_query {
    ($beyond:literal, $order:literal) => {
        concat!(
            "SELECT ",
            event_columns!(),
            " FROM events e INDEXED BY events_by_lane WHERE e.tenant = ?1 AND e.shard = ?2 AND ",
            $beyond,
            " AND (?4 IS NULL OR e.kind = ?4) AND (?5 IS NULL OR e.key = ?5) AND (?6 IS NULL OR e.subject = ?6)
              AND (?7 IS NULL OR e.recorded >= ?7) AND (?8 IS NULL OR e.recorded < ?8)
              ORDER BY e.pos ",
            $order,
            " LIMIT ?9"
        )
    };
}

#[async_trait]
impl Log for Sqlite {
    async fn host_append(&self, events: Vec<NewEvent>) -> Result<Vec<Appended>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        // Hashed here, by the caller, not by the one writer.
        let incoming = events.into_iter().map(Incoming::new).collect();
        match self.work(Work::Append(incoming)).await? {
            Answer::Appended(appended) => Ok(appended),
            Answer::Committed(_) => Err(fault::refused("the writer answered something else")),
        }
    }

    async fn events_by_id(&self, tenant: TenantId, id: &str) -> Result<Vec<Logged>> {
        let first = EventKey::id_prefix(id);
        let (mut low, mut high) = ([0; 16], [0xff; 16]);
        low[..4].copy_from_slice(&first);
        high[..4].copy_from_slice(&first);
        let sql = concat!(
            "SELECT ",
            event_columns!(),
            " FROM event_keys k CROSS JOIN events e ON e.pos = k.pos AND e.tenant = k.tenant
              WHERE k.tenant = ? AND k.key BETWEEN ? AND ? AND e.id = ? ORDER BY e.pos DESC"
        );
        let rows = self.read(sql, |args| _ = args.int(tenant.0).blob(&low).blob(&high).text(id)).await?;
        rows.iter().map(row::checked_event).collect()
    }

    async fn event_by_key(&self, tenant: TenantId, key: EventKey) -> Result<Option<Logged>> {
        let sql = concat!(
            "SELECT ",
            event_columns!(),
            " FROM event_keys k CROSS JOIN events e ON e.pos = k.pos AND e.tenant = k.tenant
              WHERE k.tenant = ? AND k.key = ?"
        );
        let rows = self.read(sql, |args| _ = args.int(tenant.0).blob(&key.0)).await?;
        rows.first().map(row::checked_event).transpose()
    }

    async fn events(&self, tenant: TenantId, query: &EventQuery) -> Result<Vec<Logged>> {
        match &query.correlation {
            Some(correlation) => self.correlated(tenant, query, correlation).await,
            None => self.merged(tenant, query).await,
        }
    }

    async fn tail(&self, tenant: TenantId, after: Position, kind: Option<&str>, limit: u32) -> Result<Tail> {
        let query = EventQuery { ascending: true, after: Some(after), limit, ..EventQuery::default() };
        Ok(assemble::tail(self.merged(tenant, &query).await?, after, kind, limit))
    }

    async fn head(&self, tenant: TenantId) -> Result<Position> {
        let heads = self.core().memory.heads(tenant, self.core().shards, Position::ZERO);
        Ok(heads.into_iter().map(|(_, head)| head).max().unwrap_or(Position::ZERO))
    }
}

impl Sqlite {
    /// A query over all lanes of a tenant.
    async fn merged(&self, tenant: TenantId, query: &EventQuery) -> Result<Vec<Logged>> {
        let after = if query.ascending { query.after.unwrap_or(Position::ZERO) } else { Position::ZERO };
        let lanes = self.core().memory.heads(tenant, self.core().shards, after);
        // What is committed after this moment is left out, in all lanes alike.
        let head = lanes.iter().map(|(_, head)| *head).max().unwrap_or(Position::ZERO);
        let mut found = Vec::new();
        let mut conn = self.readers().get().await?;
        for (shard, _) in lanes {
            let mut args = Args::default();
            args.int(tenant.0).int(i64::from(shard.0));
            let sql = if query.ascending {
                args.int(after.0);
                lane_query!("e.pos > ?3", "ASC")
            } else {
                args.int(query.after.map_or(i64::MAX, |after| after.0));
                lane_query!("e.pos < ?3", "DESC")
            };
            args.text_opt(query.kind.as_deref())
                .text_opt(query.key.as_deref())
                .text_opt(query.subject.as_deref())
                .int_opt(query.since.map(|since| since.0))
                .int_opt(query.until.map(|until| until.0))
                .int(i64::from(query.limit));
            let rows = crate::sqlite::text::fetch(&mut conn, sql, args).await.map_err(fault::outward)?;
            found.extend(row::events(&rows)?.into_iter().filter(|event| event.position <= head));
        }
        sort_and_cut(&mut found, query);
        Ok(found)
    }

    /// A query for what follows from one first event. A first event's own correlation is not stored: it is found by
    /// its id.
    async fn correlated(&self, tenant: TenantId, query: &EventQuery, correlation: &str) -> Result<Vec<Logged>> {
        let mut found = self.events_by_id(tenant, correlation).await?;
        found.retain(|event| event.event.correlation == correlation);
        let after = if query.ascending { query.after.unwrap_or(Position::ZERO) } else { Position::ZERO };
        let before = if query.ascending { i64::MAX } else { query.after.map_or(i64::MAX, |after| after.0) };
        found.retain(|event| event.position > after && event.position.0 < before && fits(event, query));
        macro_rules! correlated_query {
            ($order:literal) => {
                concat!(
                    "SELECT ",
                    event_columns!(),
                    " FROM events e WHERE e.tenant = ?1 AND e.correlation = ?2 AND e.pos > ?3 AND e.pos < ?10
                      AND (?4 IS NULL OR e.kind = ?4) AND (?5 IS NULL OR e.key = ?5)
                      AND (?6 IS NULL OR e.subject = ?6) AND (?7 IS NULL OR e.recorded >= ?7)
                      AND (?8 IS NULL OR e.recorded < ?8) ORDER BY e.pos ",
                    $order,
                    " LIMIT ?9"
                )
            };
        }
        let sql = if query.ascending { correlated_query!("ASC") } else { correlated_query!("DESC") };
        let rows = self.read(sql, |args| {
            args.int(tenant.0)
                .text(correlation)
                .int(after.0)
                .text_opt(query.kind.as_deref())
                .text_opt(query.key.as_deref())
                .text_opt(query.subject.as_deref())
                .int_opt(query.since.map(|since| since.0))
                .int_opt(query.until.map(|until| until.0))
                .int(i64::from(query.limit))
                .int(before);
        });
        found.extend(row::events(&rows.await?)?);
        sort_and_cut(&mut found, query);
        Ok(found)
    }

    /// Where events with these keys are.
    pub(super) async fn positions(&self, tenant: TenantId, keys: &[EventKey]) -> Result<HashSet<Position>> {
        static FIND: Rows = Rows::new(
            "WITH want (key) AS (VALUES ",
            "(?)",
            ") SELECT k.pos FROM want CROSS JOIN event_keys k WHERE k.tenant = ? AND k.key = want.key",
        );
        let mut conn = self.readers().get().await?;
        let rows = FIND.fetch(&mut conn, &[], keys, |key, args| _ = args.blob(&key.0), &[tenant.0]).await;
        rows.map_err(fault::outward)?.iter().map(|row| Columns::new(row).position()).collect()
    }
}
