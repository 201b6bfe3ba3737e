//! Recordings of calls. They are added by the writer, see `writer::history`; here they are read and let go.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;

use crate::Result;
use crate::recordings::Head;
use crate::recordings::NewRecording;
use crate::recordings::Recorded;
use crate::recordings::Recordings;
use crate::row::Columns;
use crate::row::recording::head;
use crate::row::recording::recording_columns;
use crate::sqlite::Sqlite;
use crate::sqlite::fault;
use crate::sqlite::text::Args;
use crate::sqlite::text::Rows;
use crate::sqlite::writer::op::BoxFuture;
use crate::sqlite::writer::transaction::Transaction;

#[async_trait]
impl Recordings for Sqlite {
    async fn recordings_of(&self, tenant: TenantId, run: RunId) -> Result<Vec<Head>> {
        let sql = concat!(
            "SELECT ",
            recording_columns!(),
            " FROM recordings INDEXED BY recordings_by_run WHERE tenant = ? AND event = ? ORDER BY number DESC"
        );
        let rows = self.read(sql, |args| _ = args.int(tenant.0).blob(&run.event.0)).await?;
        let heads = rows.iter().map(head);
        heads.filter(|head| head.as_ref().map_or(true, |head| head.run() == run)).collect()
    }

    async fn recordings(&self, tenant: TenantId, plugin: &str, before: Option<i64>, limit: u32) -> Result<Vec<Head>> {
        let sql = concat!(
            "SELECT ",
            recording_columns!(),
            " FROM recordings INDEXED BY recordings_by_plugin WHERE tenant = ? AND plugin = ? AND number < ?
              ORDER BY number DESC LIMIT ?"
        );
        let rows = self.read(sql, |args| {
            args.int(tenant.0).text(plugin).int(before.unwrap_or(i64::MAX)).int(i64::from(limit));
        });
        rows.await?.iter().map(head).collect()
    }

    async fn recording(&self, tenant: TenantId, number: i64) -> Result<Option<Bytes>> {
        let sql = "SELECT body FROM recordings WHERE number = ? AND tenant = ?";
        let rows = self.read(sql, |args| _ = args.int(number).int(tenant.0)).await?;
        rows.first().map(|row| Columns::new(row).blob().map(Bytes::from)).transpose()
    }

    async fn host_expire_recordings(&self, before: Timestamp, limit: u32) -> Result<u64> {
        self.change((before, limit), expire).await
    }
}

fn expire<'a>(tx: &'a mut Transaction<'_>, (before, limit): &'a (Timestamp, u32)) -> BoxFuture<'a, Result<u64>> {
    Box::pin(async move {
        let sql = "DELETE FROM recordings WHERE number IN (
                       SELECT number FROM recordings WHERE recorded < ? ORDER BY recorded LIMIT ?
                   )";
        tx.execute(sql, |args| _ = args.int(before.0).int(i64::from(*limit))).await
    })
}

static ADD: Rows = Rows::new(
    "INSERT INTO recordings (number, tenant, pos, rule, event, attempt, step, item, plugin, plugin_version, code, \
     recorded, size, body) VALUES ",
    "(?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    "",
);

/// The recordings of a group of commits.
#[derive(Default)]
pub(super) struct Additions<'a> {
    new: Vec<(TenantId, i64, &'a NewRecording)>,
    /// How many, and how many bytes, each tenant keeps that gets new ones.
    bounds: BTreeMap<TenantId, (u32, u64)>,
}

impl<'a> Additions<'a> {
    pub(super) fn add(&mut self, tenant: TenantId, recorded: &'a Recorded, tx: &mut Transaction<'_>) {
        for new in &recorded.new {
            self.new.push((tenant, tx.number(), new));
            self.bounds.insert(tenant, (recorded.count_max, recorded.bytes_max));
        }
    }

    /// Writes them, and lets the oldest go beyond what each tenant keeps.
    pub(super) async fn flush(&self, tx: &mut Transaction<'_>) -> Result<()> {
        ADD.execute(tx.conn, &self.new, bind).await.map_err(fault::outward)?;
        for (tenant, (count, bytes)) in &self.bounds {
            let sql = "DELETE FROM recordings WHERE number IN (
                           SELECT number FROM (
                               SELECT number, count(*) OVER newest AS many, sum(size) OVER newest AS bytes
                               FROM recordings INDEXED BY recordings_by_tenant WHERE tenant = ?1
                               WINDOW newest AS (PARTITION BY code = '' ORDER BY number DESC)
                           ) WHERE many > ?2 OR bytes > ?3
                       )";
            tx.execute(sql, |args| _ = args.int(tenant.0).int(i64::from(*count)).count(*bytes)).await?;
        }
        Ok(())
    }
}

fn bind((tenant, number, new): &(TenantId, i64, &NewRecording), args: &mut Args) {
    let of = &new.of;
    args.int(*number)
        .int(tenant.0)
        .int(of.position.0)
        .text(&of.rule)
        .blob(&of.event.0)
        .int(i64::from(of.attempt))
        .int(i64::from(of.step))
        .int(i64::from(of.item))
        .text(&of.plugin)
        .int(i64::from(of.version))
        .text(&of.code)
        .int(of.recorded.0)
        .count(new.body.len() as u64)
        .blob(&new.body);
}
