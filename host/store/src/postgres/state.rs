//! Plugins' keys and values. They are written by commits alone, see `commit`.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::assemble::beyond;
use crate::postgres::Postgres;
use crate::postgres::text::plain;
use crate::row::Columns;
use crate::row::versioned;
use crate::state::State;
use crate::state::Versioned;

#[async_trait]
impl State for Postgres {
    async fn state(&self, tenant: TenantId, plugin: PluginId, key: &str) -> Result<Option<Versioned>> {
        let sql = "SELECT * FROM read_state($1, $2, $3)";
        let rows = self.call(sql, |args| _ = args.int(tenant.0).int(plugin.0).text(key)).await?;
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
        let sql = "SELECT * FROM list_keys($1, $2, $3, $4, $5, $6)";
        let rows = self.read(tenant, sql, |args| {
            args.int(tenant.0).int(plugin.0).text(prefix).text_opt(beyond(&plain(prefix)).as_deref()).text_opt(after);
            args.int(i64::from(limit));
        });
        rows.await?.iter().map(|row| Columns::new(row).text()).collect()
    }

    async fn state_bytes(&self, tenant: TenantId) -> Result<u64> {
        self.count("SELECT state_bytes($1)", |args| _ = args.int(tenant.0)).await
    }

    async fn host_expire_state(&self, now: Timestamp, limit: u32) -> Result<u64> {
        self.count("SELECT expire_state($1, $2)", |args| _ = args.int(now.0).int(i64::from(limit))).await
    }
}
