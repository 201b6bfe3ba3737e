//! Plugins and their versions.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;
use sqlx::postgres::PgRow;

use crate::Error;
use crate::Result;
use crate::catalogue::NewVersion;
use crate::catalogue::Plugin;
use crate::catalogue::Plugins;
use crate::catalogue::Version;
use crate::catalogue::VersionHead;
use crate::postgres::Postgres;
use crate::postgres::Transaction;
use crate::postgres::retired::let_go;
use crate::postgres::retired::make_room;
use crate::postgres::text::count;
use crate::retired;
use crate::row::Columns;
use crate::row::catalogue::head_columns;
use crate::row::catalogue::plugin;
use crate::row::catalogue::plugin_columns;
use crate::row::catalogue::plugin_with;
use crate::row::catalogue::version;
use crate::row::catalogue::version_columns;
use crate::row::catalogue::version_head;

/// A tenant's plugins with their active versions, by name.
pub(super) async fn list_plugins(tx: &mut Transaction, tenant: TenantId) -> Result<Vec<(Plugin, Option<Version>)>> {
    let sql = concat!(
        "SELECT ",
        plugin_columns!(),
        ", ",
        version_columns!(),
        " FROM plugins p LEFT JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id AND v.number = p.active
          WHERE p.tenant = $1 ORDER BY p.name"
    );
    let rows = tx.fetch(sql, |args| _ = args.int(tenant.0)).await?;
    rows.iter().map(with_active).collect()
}

fn with_active(row: &PgRow) -> Result<(Plugin, Option<Version>)> {
    plugin_with(&mut Columns::new(row), version)
}

#[async_trait]
impl Plugins for Postgres {
    async fn add_version(
        &self,
        tenant: TenantId,
        plugin: &str,
        new: &NewVersion,
        now: Timestamp,
    ) -> Result<(Version, bool)> {
        let mut tx = self.begin(tenant).await?;
        // Also keeps others from adding a version with the same number.
        tx.settings_changed(tenant).await?;
        let sql = concat!(
            "SELECT ",
            version_columns!(),
            " FROM plugins p JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id
              WHERE p.tenant = $1 AND p.name = $2 AND v.digest = $3 AND v.manifest = $4 ORDER BY v.number DESC LIMIT 1"
        );
        let rows = tx.fetch(sql, |args| {
            args.int(tenant.0).text(plugin).text(&new.digest).text(&new.manifest);
        });
        if let Some(row) = rows.await?.first() {
            let mut found = version(&mut Columns::new(row))?;
            if found.signature.is_none() && new.signature.is_some() {
                let sql = "UPDATE plugin_versions v SET signature = $4 FROM plugins p
                           WHERE p.tenant = $1 AND p.name = $2 AND v.plugin = p.id AND v.number = $3";
                let number = i64::from(found.number);
                tx.execute(sql, |args| {
                    args.int(tenant.0).text(plugin).int(number).text_opt(new.signature.as_deref());
                })
                .await?;
                found.signature.clone_from(&new.signature);
                tx.end().await?;
            }
            // Else nothing changed, and what was begun is undone.
            return Ok((found, false));
        }
        let sql = "SELECT (SELECT count(*) FROM plugins WHERE tenant = $1 AND name <> $2),
                   (SELECT count(v.number) FROM plugins p
                    LEFT JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id AND NOT v.retired
                    WHERE p.tenant = $1 AND p.name = $2 GROUP BY p.id)";
        let rows = tx.fetch(sql, |args| _ = args.int(tenant.0).text(plugin)).await?;
        for row in &rows {
            let mut columns = Columns::new(row);
            new.room.check(plugin, columns.int()?, columns.int_opt()?)?;
        }
        let sql = "INSERT INTO plugins (tenant, name, paused, config, created) VALUES ($1, $2, false, '{}', $3)
                   ON CONFLICT DO NOTHING";
        tx.execute(sql, |args| _ = args.int(tenant.0).text(plugin).int(now.0)).await?;
        make_room(&mut tx, tenant, new).await?;
        let sql = "SELECT p.id FROM plugins p WHERE p.tenant = $1 AND p.name = $2";
        let rows = tx.fetch(sql, |args| _ = args.int(tenant.0).text(plugin)).await?;
        for row in &rows {
            let_go(&mut tx, tenant, PluginId(Columns::new(row).int()?), new.room.retired).await?;
        }
        tx.execute("SELECT put_blob($1, $2)", |args| _ = args.text(&new.digest).blob(&new.wasm)).await?;
        let sql = concat!(
            "INSERT INTO plugin_versions AS v
             (tenant, plugin, number, digest, manifest, inspection, grants, author, created, retired, approver, approved,
              signature, size)
             SELECT p.tenant, p.id, (SELECT coalesce(max(o.number), 0) + 1 FROM plugin_versions o WHERE o.plugin = p.id),
             $3, $4, $5, $6, $7, $8, false, CASE WHEN $9 THEN $7 END, CASE WHEN $9 THEN $8 END, $10,
             $11
             FROM plugins p WHERE p.tenant = $1 AND p.name = $2 RETURNING ",
            version_columns!()
        );
        let rows = tx.fetch(sql, |args| {
            args.int(tenant.0).text(plugin).text(&new.digest).text(&new.manifest).text(&new.inspection);
            args.text(&new.grants).text(&new.author).int(now.0).flag(new.approves);
            args.text_opt(new.signature.as_deref()).int(count(new.wasm.len() as u64));
        });
        let rows = rows.await?;
        let row = rows.first().ok_or_else(|| no_plugin(plugin))?;
        let added = version(&mut Columns::new(row))?;
        tx.end().await?;
        Ok((added, true))
    }

    async fn plugins(&self, tenant: TenantId) -> Result<Vec<(Plugin, Option<VersionHead>)>> {
        let sql = concat!(
            "SELECT ",
            plugin_columns!(),
            ", ",
            head_columns!(),
            " FROM plugins p
              LEFT JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id AND v.number = p.active
              WHERE p.tenant = $1 ORDER BY p.name"
        );
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0)).await?;
        rows.iter().map(|row| plugin_with(&mut Columns::new(row), version_head)).collect()
    }

    async fn plugin(&self, tenant: TenantId, name: &str) -> Result<Option<(Plugin, Option<Version>)>> {
        let sql = concat!(
            "SELECT ",
            plugin_columns!(),
            ", ",
            version_columns!(),
            " FROM plugins p
              LEFT JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id AND v.number = p.active
              WHERE p.tenant = $1 AND p.name = $2"
        );
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0).text(name)).await?;
        rows.first().map(with_active).transpose()
    }

    async fn versions(
        &self,
        tenant: TenantId,
        name: &str,
        before: Option<u32>,
        limit: u32,
    ) -> Result<Vec<VersionHead>> {
        let sql = concat!(
            "SELECT ",
            head_columns!(),
            " FROM plugins p JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id
              WHERE p.tenant = $1 AND p.name = $2 AND v.number < $3 ORDER BY v.number DESC LIMIT $4"
        );
        let before = before.map_or(i64::from(u32::MAX), i64::from);
        let rows =
            self.read(tenant, sql, |args| _ = args.int(tenant.0).text(name).int(before).int(i64::from(limit))).await?;
        rows.iter().map(|row| version_head(&mut Columns::new(row))).collect()
    }

    async fn version(&self, tenant: TenantId, name: &str, number: u32) -> Result<Option<(Plugin, Version)>> {
        let sql = concat!(
            "SELECT ",
            plugin_columns!(),
            ", ",
            version_columns!(),
            " FROM plugins p JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id
              WHERE p.tenant = $1 AND p.name = $2 AND v.number = $3"
        );
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0).text(name).int(i64::from(number))).await?;
        let read = |row| {
            let mut columns = Columns::new(row);
            Ok((plugin(&mut columns)?, version(&mut columns)?))
        };
        rows.first().map(read).transpose()
    }

    async fn pause_plugin(&self, tenant: TenantId, name: &str, paused: bool) -> Result<()> {
        let sql = "UPDATE plugins SET paused = $3 WHERE tenant = $1 AND name = $2";
        let mut tx = self.begin(tenant).await?;
        if tx.execute(sql, |args| _ = args.int(tenant.0).text(name).flag(paused)).await? == 0 {
            return Err(no_plugin(name));
        }
        tx.settings_changed(tenant).await?;
        tx.end().await
    }

    async fn set_config(&self, tenant: TenantId, name: &str, config: &str) -> Result<()> {
        let sql = "UPDATE plugins SET config = $3 WHERE tenant = $1 AND name = $2";
        let mut tx = self.begin(tenant).await?;
        if tx.execute(sql, |args| _ = args.int(tenant.0).text(name).text(config)).await? == 0 {
            return Err(no_plugin(name));
        }
        tx.settings_changed(tenant).await?;
        tx.end().await
    }

    async fn component_bytes(&self, tenant: TenantId) -> Result<u64> {
        let rows = self.read(tenant, retired::LIVE, |args| _ = args.int(tenant.0)).await?;
        rows.first().map_or(Ok(0), |row| Columns::new(row).count())
    }

    async fn component(&self, tenant: TenantId, digest: &str) -> Result<Option<Bytes>> {
        let sql = "SELECT c FROM component($1, $2) c WHERE c IS NOT NULL";
        let rows = self.call(sql, |args| _ = args.int(tenant.0).text(digest)).await?;
        rows.first().map(|row| Ok(Bytes::from(Columns::new(row).blob()?))).transpose()
    }
}

pub(super) fn no_plugin(name: &str) -> Error {
    Error::NotFound { what: "plugin", name: name.to_owned() }
}

/// The plugin, which nobody else changes until the transaction ends. Others may add versions to it.
pub(super) async fn find_plugin(tx: &mut Transaction, tenant: TenantId, name: &str) -> Result<Plugin> {
    let sql = concat!(
        "SELECT ",
        plugin_columns!(),
        " FROM plugins p WHERE p.tenant = $1 AND p.name = $2 FOR NO KEY UPDATE OF p"
    );
    let rows = tx.fetch(sql, |args| _ = args.int(tenant.0).text(name)).await?;
    rows.first().map_or_else(|| Err(no_plugin(name)), |row| plugin(&mut Columns::new(row)))
}
