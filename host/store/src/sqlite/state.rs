//! Plugins' keys and values. They are written by commits alone, see `writer::versions`.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use sqlx::SqliteConnection;

use crate::Result;
use crate::assemble::beyond;
use crate::row::versioned;
use crate::sqlite::Sqlite;
use crate::sqlite::fault;
use crate::sqlite::row::Columns;
use crate::sqlite::text::Args;
use crate::sqlite::text::fetch;
use crate::sqlite::writer::op::BoxFuture;
use crate::sqlite::writer::transaction::Transaction;
use crate::state::State;
use crate::state::Versioned;

#[async_trait]
impl State for Sqlite {
    async fn state(&self, tenant: TenantId, plugin: PluginId, key: &str) -> Result<Option<Versioned>> {
        let sql = "SELECT value, version, expires FROM state WHERE tenant = ? AND plugin = ? AND key = ?";
        let rows = self.read(sql, |args| _ = args.int(tenant.0).int(plugin.0).text(key)).await?;
        rows.first().map(versioned).transpose()
    }

    async fn state_keys(
        &self,
        tenant: TenantId,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>> {
        let mut conn = self.readers().get().await?;
        list_keys(&mut conn, tenant, plugin, prefix, after, limit).await
    }

    async fn state_bytes(&self, tenant: TenantId) -> Result<u64> {
        let sql = "SELECT coalesce(sum(octet_length(key) + length(value)), 0) FROM state WHERE tenant = ?";
        let rows = self.read(sql, |args| _ = args.int(tenant.0)).await?;
        rows.first().map_or(Ok(0), |row| Columns::new(row).count())
    }

    async fn host_expire_state(&self, now: Timestamp, limit: u32) -> Result<u64> {
        self.change((now, limit), expire).await
    }
}

fn expire<'a>(tx: &'a mut Transaction<'_>, (now, limit): &'a (Timestamp, u32)) -> BoxFuture<'a, Result<u64>> {
    Box::pin(async move {
        let sql = "DELETE FROM state WHERE (tenant, plugin, key) IN (
                       SELECT tenant, plugin, key FROM state WHERE expires <= ? ORDER BY expires LIMIT ?
                   )";
        let gone = tx.execute(sql, |args| _ = args.int(now.0).int(i64::from(*limit))).await?;
        tx.versions_changed |= gone > 0;
        Ok(gone)
    })
}

/// Keys with a prefix, in byte order, beyond `after`.
pub(super) async fn list_keys(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    plugin: PluginId,
    prefix: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<String>> {
    let mut args = Args::default();
    let sql = match beyond(prefix) {
        Some(end) => {
            args.int(tenant.0).int(plugin.0).text(prefix).text(after.unwrap_or_default()).text(&end);
            "SELECT key FROM state WHERE tenant = ? AND plugin = ? AND key >= max(?, ?) AND key < ?
             ORDER BY key LIMIT ?"
        }
        None => {
            args.int(tenant.0).int(plugin.0).text(prefix).text(after.unwrap_or_default());
            "SELECT key FROM state WHERE tenant = ? AND plugin = ? AND key >= max(?, ?) ORDER BY key LIMIT ?"
        }
    };
    // The key `after` itself may come first; one more makes up for it.
    args.int(i64::from(limit) + 1);
    let rows = fetch(conn, sql, args).await.map_err(fault::outward)?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in &rows {
        let key = Columns::new(row).text()?;
        if after.is_none_or(|after| key.as_str() > after) && keys.len() < limit as usize {
            keys.push(key);
        }
    }
    Ok(keys)
}
