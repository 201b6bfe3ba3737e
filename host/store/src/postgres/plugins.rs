//! Plugins and their versions.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;

use crate::Error;
use crate::Result;
use crate::catalogue::NewVersion;
use crate::catalogue::Plugin;
use crate::catalogue::Plugins;
use crate::catalogue::Version;
use crate::postgres::Postgres;
use crate::postgres::Transaction;
use crate::row::Columns;
use crate::row::catalogue::plugin;
use crate::row::catalogue::plugin_columns;
use crate::row::catalogue::version;
use crate::row::catalogue::version_columns;

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
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new(row);
            let plugin = plugin(&mut columns)?;
            let active = plugin.active.map(|_| version(&mut columns)).transpose()?;
            Ok((plugin, active))
        })
        .collect()
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
            // Nothing changed; what was begun is undone.
            return Ok((version(&mut Columns::new(row))?, false));
        }
        let sql = "INSERT INTO plugins (tenant, name, paused, config, created) VALUES ($1, $2, false, '{}', $3)
                   ON CONFLICT DO NOTHING";
        tx.execute(sql, |args| _ = args.int(tenant.0).text(plugin).int(now.0)).await?;
        tx.execute("SELECT put_blob($1, $2)", |args| _ = args.text(&new.digest).blob(&new.wasm)).await?;
        let sql = concat!(
            "INSERT INTO plugin_versions AS v
             (tenant, plugin, number, digest, manifest, inspection, grants, author, created, retired)
             SELECT p.tenant, p.id, (SELECT coalesce(max(o.number), 0) + 1 FROM plugin_versions o WHERE o.plugin = p.id),
             $3, $4, $5, $6, $7, $8, false FROM plugins p WHERE p.tenant = $1 AND p.name = $2 RETURNING ",
            version_columns!()
        );
        let rows = tx.fetch(sql, |args| {
            args.int(tenant.0).text(plugin).text(&new.digest).text(&new.manifest).text(&new.inspection);
            args.text(&new.grants).text(&new.author).int(now.0);
        });
        let rows = rows.await?;
        let row = rows.first().ok_or_else(|| no_plugin(plugin))?;
        let added = version(&mut Columns::new(row))?;
        tx.end().await?;
        Ok((added, true))
    }

    async fn plugins(&self, tenant: TenantId) -> Result<Vec<(Plugin, Option<Version>)>> {
        let mut tx = self.begin(tenant).await?;
        let plugins = list_plugins(&mut tx, tenant).await?;
        tx.end().await?;
        Ok(plugins)
    }

    async fn plugin(&self, tenant: TenantId, name: &str) -> Result<Option<(Plugin, Vec<Version>)>> {
        let sql = concat!(
            "SELECT ",
            plugin_columns!(),
            ", ",
            version_columns!(),
            " FROM plugins p JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id
              WHERE p.tenant = $1 AND p.name = $2 ORDER BY v.number DESC"
        );
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0).text(name)).await?;
        let mut found: Option<(Plugin, Vec<Version>)> = None;
        for row in &rows {
            let mut columns = Columns::new(row);
            let (plugin, version) = (plugin(&mut columns)?, version(&mut columns)?);
            found.get_or_insert_with(|| (plugin, Vec::new())).1.push(version);
        }
        Ok(found)
    }

    async fn activate(&self, tenant: TenantId, name: &str, version: u32) -> Result<Plugin> {
        self.switch_version(tenant, name, Some(version)).await
    }

    async fn roll_back(&self, tenant: TenantId, name: &str) -> Result<Plugin> {
        self.switch_version(tenant, name, None).await
    }

    async fn retire(&self, tenant: TenantId, name: &str, number: u32) -> Result<()> {
        let mut tx = self.begin(tenant).await?;
        let plugin = find_plugin(&mut tx, tenant, name).await?;
        is_retired(&mut tx, tenant, &plugin, number).await?;
        if plugin.active == Some(number) {
            let detail = "the version is active; activate another first".to_owned();
            return Err(Error::Conflict { what: "plugin", name: name.to_owned(), detail });
        }
        let sql = "UPDATE plugin_versions SET retired = true WHERE tenant = $1 AND plugin = $2 AND number = $3";
        tx.execute(sql, |args| _ = args.int(tenant.0).int(plugin.id.0).int(i64::from(number))).await?;
        tx.settings_changed(tenant).await?;
        tx.end().await
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

    async fn component(&self, tenant: TenantId, digest: &str) -> Result<Option<Bytes>> {
        let sql = "SELECT c FROM component($1, $2) c WHERE c IS NOT NULL";
        let rows = self.call(sql, |args| _ = args.int(tenant.0).text(digest)).await?;
        rows.first().map(|row| Ok(Bytes::from(Columns::new(row).blob()?))).transpose()
    }
}

impl Postgres {
    /// Activates a version, or (none) the one before.
    async fn switch_version(&self, tenant: TenantId, name: &str, number: Option<u32>) -> Result<Plugin> {
        let mut tx = self.begin(tenant).await?;
        let plugin = find_plugin(&mut tx, tenant, name).await?;
        let conflict =
            |detail: &str| Error::Conflict { what: "plugin", name: name.to_owned(), detail: detail.to_owned() };
        let number = number.or(plugin.previous).ok_or_else(|| conflict("no version was active before"))?;
        if is_retired(&mut tx, tenant, &plugin, number).await? {
            return Err(conflict("the version is retired"));
        }
        if plugin.active == Some(number) {
            return Ok(plugin);
        }
        let sql = "UPDATE plugins SET previous = active, active = $3 WHERE tenant = $1 AND id = $2";
        tx.execute(sql, |args| _ = args.int(tenant.0).int(plugin.id.0).int(i64::from(number))).await?;
        tx.settings_changed(tenant).await?;
        tx.end().await?;
        Ok(Plugin { previous: plugin.active, active: Some(number), ..plugin })
    }
}

fn no_plugin(name: &str) -> Error {
    Error::NotFound { what: "plugin", name: name.to_owned() }
}

/// The plugin, which nobody else changes until the transaction ends.
async fn find_plugin(tx: &mut Transaction, tenant: TenantId, name: &str) -> Result<Plugin> {
    let sql =
        concat!("SELECT ", plugin_columns!(), " FROM plugins p WHERE p.tenant = $1 AND p.name = $2 FOR UPDATE OF p");
    let rows = tx.fetch(sql, |args| _ = args.int(tenant.0).text(name)).await?;
    rows.first().map_or_else(|| Err(no_plugin(name)), |row| plugin(&mut Columns::new(row)))
}

/// Whether a version is retired. `NotFound` if there is no such version.
async fn is_retired(tx: &mut Transaction, tenant: TenantId, plugin: &Plugin, number: u32) -> Result<bool> {
    let sql = "SELECT retired FROM plugin_versions WHERE tenant = $1 AND plugin = $2 AND number = $3";
    let rows = tx.fetch(sql, |args| _ = args.int(tenant.0).int(plugin.id.0).int(i64::from(number))).await?;
    let Some(row) = rows.first() else {
        return Err(Error::NotFound { what: "version", name: format!("{}@{number}", plugin.name) });
    };
    Columns::new(row).flag()
}
