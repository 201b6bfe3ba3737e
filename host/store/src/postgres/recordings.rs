//! Recordings of calls. They are added by commits; here they are read and let go.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;

use crate::Result;
use crate::postgres::Postgres;
use crate::postgres::text::Args;
use crate::postgres::text::count;
use crate::recordings::Head;
use crate::recordings::Recorded;
use crate::recordings::Recordings;
use crate::row::Columns;
use crate::row::recording::head;
use crate::row::recording::recording_columns;

#[async_trait]
impl Recordings for Postgres {
    async fn recordings_of(&self, tenant: TenantId, run: RunId) -> Result<Vec<Head>> {
        let sql = concat!(
            "SELECT ",
            recording_columns!(),
            " FROM recordings WHERE tenant = $1 AND event = $2 ORDER BY number DESC"
        );
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0).uuid(run.event.0)).await?;
        let heads = rows.iter().map(head);
        heads.filter(|head| head.as_ref().map_or(true, |head| head.run() == run)).collect()
    }

    async fn recordings(&self, tenant: TenantId, plugin: &str, before: Option<i64>, limit: u32) -> Result<Vec<Head>> {
        let sql = concat!(
            "SELECT ",
            recording_columns!(),
            " FROM recordings WHERE tenant = $1 AND plugin = $2 AND number < $3 ORDER BY number DESC LIMIT $4"
        );
        let rows = self.read(tenant, sql, |args| {
            args.int(tenant.0).text(plugin).int(before.unwrap_or(i64::MAX)).int(i64::from(limit));
        });
        rows.await?.iter().map(head).collect()
    }

    async fn recording(&self, tenant: TenantId, number: i64) -> Result<Option<Bytes>> {
        let sql = "SELECT body FROM recordings WHERE tenant = $1 AND number = $2";
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0).int(number)).await?;
        rows.first().map(|row| Columns::new(row).blob().map(Bytes::from)).transpose()
    }

    async fn host_expire_recordings(&self, before: Timestamp, limit: u32) -> Result<u64> {
        let sql = "SELECT expire_recordings($1, $2)";
        let rows = self.call(sql, |args| _ = args.int(before.0).int(i64::from(limit))).await?;
        rows.first().map_or(Ok(0), |row| Columns::new(row).count())
    }
}

/// Binds a commit's recordings, as `put_recordings` takes them.
pub(super) fn bind_recordings(recorded: &Recorded, args: &mut Args) {
    let of = || recorded.new.iter().map(|new| &new.of);
    args.ints(of().map(|of| of.position.0))
        .texts(of().map(|of| of.rule.as_str()))
        .uuids(of().map(|of| of.event.0))
        .ints(of().map(|of| i64::from(of.attempt)))
        .ints(of().map(|of| i64::from(of.step)))
        .ints(of().map(|of| i64::from(of.item)))
        .texts(of().map(|of| of.plugin.as_str()))
        .ints(of().map(|of| i64::from(of.version)))
        .texts(of().map(|of| of.code.as_str()))
        .ints(of().map(|of| of.recorded.0))
        .blobs(recorded.new.iter().map(|new| &*new.body))
        .int(i64::from(recorded.count_max))
        .int(count(recorded.bytes_max));
}
