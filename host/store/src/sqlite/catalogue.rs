//! Tenants, keys and plugins.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::ceiling::TenantPolicy;
use bulkhead_domain::policy::proof::ReleasePolicy;
use bulkhead_domain::policy::quota::Quotas;
use bytes::Bytes;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::Error;
use crate::Result;
use crate::catalogue::Key;
use crate::catalogue::Keys;
use crate::catalogue::NewVersion;
use crate::catalogue::Plugin;
use crate::catalogue::Plugins;
use crate::catalogue::Tenant;
use crate::catalogue::TenantState;
use crate::catalogue::Tenants;
use crate::catalogue::Version;
use crate::catalogue::VersionHead;
use crate::retired;
use crate::row::Columns;
use crate::row::catalogue::head_columns;
use crate::row::catalogue::key;
use crate::row::catalogue::key_columns;
use crate::row::catalogue::plugin;
use crate::row::catalogue::plugin_columns;
use crate::row::catalogue::plugin_with;
use crate::row::catalogue::policy_text;
use crate::row::catalogue::quotas_text;
use crate::row::catalogue::tenant;
use crate::row::catalogue::tenant_columns;
use crate::row::catalogue::tenant_state_number;
use crate::row::catalogue::version;
use crate::row::catalogue::version_columns;
use crate::row::catalogue::version_head;
use crate::row::release::asks_text;
use crate::sqlite::Sqlite;
use crate::sqlite::fault;
use crate::sqlite::retired::let_go;
use crate::sqlite::retired::make_room;
use crate::sqlite::text::Args;
use crate::sqlite::text::fetch;
use crate::sqlite::writer::op::BoxFuture;
use crate::sqlite::writer::transaction::Transaction;
use crate::sqlite::writer::transaction::no_tenant;

fn first_tenant(rows: &[SqliteRow]) -> Result<Option<Tenant>> {
    rows.first().map(|row| tenant(&mut Columns::new(row))).transpose()
}

#[async_trait]
impl Tenants for Sqlite {
    async fn operator_create_tenant(&self, uid: &str, name: &str, now: Timestamp) -> Result<Tenant> {
        self.change((uid.to_owned(), name.to_owned(), now), create_tenant).await
    }

    async fn operator_tenants(&self) -> Result<Vec<Tenant>> {
        let sql = concat!("SELECT ", tenant_columns!(), " FROM tenants t ORDER BY t.name");
        self.read(sql, |_| {}).await?.iter().map(|row| tenant(&mut Columns::new(row))).collect()
    }

    async fn operator_tenant(&self, name: &str) -> Result<Option<Tenant>> {
        let sql = concat!("SELECT ", tenant_columns!(), " FROM tenants t WHERE t.name = ?1 OR t.uid = ?1");
        first_tenant(&self.read(sql, |args| _ = args.text(name)).await?)
    }

    async fn tenant(&self, tenant: TenantId) -> Result<Option<Tenant>> {
        let sql = concat!("SELECT ", tenant_columns!(), " FROM tenants t WHERE t.id = ?");
        first_tenant(&self.read(sql, |args| _ = args.int(tenant.0)).await?)
    }

    async fn set_tenant_state(&self, tenant: TenantId, state: TenantState) -> Result<()> {
        self.change((tenant, state), set_state).await
    }

    async fn turn_tenant(&self, tenant: TenantId, state: TenantState) -> Result<bool> {
        self.change((tenant, state), turn).await
    }

    async fn set_quotas(&self, tenant: TenantId, quotas: &Quotas) -> Result<()> {
        self.change((tenant, quotas_text(quotas)), set_quotas).await
    }

    async fn set_policy(&self, tenant: TenantId, policy: &TenantPolicy) -> Result<()> {
        self.change((tenant, policy_text(policy)), set_policy).await
    }

    async fn set_asks(&self, tenant: TenantId, asks: &ReleasePolicy) -> Result<()> {
        self.change((tenant, asks_text(asks)), set_asks).await
    }

    async fn operator_set_paused(&self, paused: bool) -> Result<()> {
        self.change(paused, set_paused).await
    }

    async fn operator_paused(&self) -> Result<bool> {
        let sql = "SELECT 1 FROM host_values WHERE name = 'store:paused'";
        Ok(!self.read(sql, |_| {}).await?.is_empty())
    }
}

fn create_tenant<'a>(
    tx: &'a mut Transaction<'_>,
    (uid, name, now): &'a (String, String, Timestamp),
) -> BoxFuture<'a, Result<Tenant>> {
    Box::pin(async move {
        let sql = concat!(
            "INSERT INTO tenants AS t (uid, name, state, settings, rule_set, created) VALUES (?, ?, 0, 1, 0, ?)
             ON CONFLICT DO NOTHING RETURNING ",
            "id, uid, name, state, settings, created, quotas, policy, asks"
        );
        let rows = tx.fetch(sql, |args| _ = args.text(uid).text(name).int(now.0)).await?;
        let made = first_tenant(&rows)?.ok_or_else(|| Error::Conflict {
            what: "tenant",
            name: name.clone(),
            detail: "it exists already".into(),
        })?;
        tx.changes.settings.push((made.id, made.settings));
        Ok(made)
    })
}

fn set_state<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, state): &'a (TenantId, TenantState),
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let number = tenant_state_number(*state);
        tx.execute("UPDATE tenants SET state = ? WHERE id = ?", |args| _ = args.int(number).int(tenant.0)).await?;
        tx.settings_changed(*tenant).await
    })
}

fn turn<'a>(tx: &'a mut Transaction<'_>, (tenant, state): &'a (TenantId, TenantState)) -> BoxFuture<'a, Result<bool>> {
    Box::pin(async move {
        let (number, suspended) = (tenant_state_number(*state), tenant_state_number(TenantState::Suspended));
        let sql = "UPDATE tenants SET state = ? WHERE id = ? AND state <> ?";
        let turned = tx.execute(sql, |args| _ = args.int(number).int(tenant.0).int(suspended)).await?;
        if turned > 0 {
            tx.settings_changed(*tenant).await?;
        }
        Ok(turned > 0)
    })
}

fn set_quotas<'a>(tx: &'a mut Transaction<'_>, (tenant, text): &'a (TenantId, String)) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        tx.execute("UPDATE tenants SET quotas = ? WHERE id = ?", |args| _ = args.text(text).int(tenant.0)).await?;
        tx.settings_changed(*tenant).await
    })
}

fn set_policy<'a>(tx: &'a mut Transaction<'_>, (tenant, text): &'a (TenantId, String)) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        tx.execute("UPDATE tenants SET policy = ? WHERE id = ?", |args| _ = args.text(text).int(tenant.0)).await?;
        tx.settings_changed(*tenant).await
    })
}

fn set_asks<'a>(tx: &'a mut Transaction<'_>, (tenant, text): &'a (TenantId, String)) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        tx.execute("UPDATE tenants SET asks = ? WHERE id = ?", |args| _ = args.text(text).int(tenant.0)).await?;
        tx.settings_changed(*tenant).await
    })
}

fn set_paused<'a>(tx: &'a mut Transaction<'_>, paused: &'a bool) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let sql = if *paused {
            "INSERT INTO host_values (name, value) VALUES ('store:paused', x'01') ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM host_values WHERE name = 'store:paused'"
        };
        tx.execute(sql, |_| {}).await?;
        Ok(())
    })
}

#[async_trait]
impl Keys for Sqlite {
    async fn host_add_key(&self, key: &Key) -> Result<()> {
        self.change(key.clone(), add_key).await
    }

    async fn host_key(&self, id: &str) -> Result<Option<(Key, Option<Tenant>)>> {
        let sql = concat!(
            "SELECT ",
            key_columns!(),
            ", ",
            tenant_columns!(),
            " FROM api_keys k LEFT JOIN tenants t ON t.id = k.tenant WHERE k.id = ?"
        );
        let rows = self.read(sql, |args| _ = args.text(id)).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let mut columns = Columns::new(row);
        let key = key(&mut columns)?;
        let tenant = key.tenant.map(|_| tenant(&mut columns)).transpose()?;
        Ok(Some((key, tenant)))
    }

    async fn operator_keys(&self, tenant: Option<TenantId>) -> Result<Vec<Key>> {
        let sql = "SELECT id, tenant, hash, scopes, note, created, revoked FROM api_keys WHERE tenant IS ?
                   ORDER BY created DESC, id DESC";
        let rows = self.read(sql, |args| _ = args.int_opt(tenant.map(|tenant| tenant.0))).await?;
        rows.iter().map(|row| key(&mut Columns::new(row))).collect()
    }

    async fn operator_revoke_key(&self, tenant: Option<TenantId>, id: &str, now: Timestamp) -> Result<()> {
        self.change((tenant, id.to_owned(), now), revoke_key).await
    }
}

fn add_key<'a>(tx: &'a mut Transaction<'_>, key: &'a Key) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        if let Some(tenant) = key.tenant
            && tx.fetch("SELECT 1 FROM tenants WHERE id = ?", |args| _ = args.int(tenant.0)).await?.is_empty()
        {
            return Err(no_tenant(tenant));
        }
        let scopes = serde_json::to_string(&key.scopes).expect("because texts are always JSON");
        let sql = "INSERT INTO api_keys (id, tenant, hash, scopes, note, created, revoked) VALUES (?, ?, ?, ?, ?, ?, ?)
                   ON CONFLICT DO NOTHING";
        let added = tx.execute(sql, |args| {
            args.text(&key.id).int_opt(key.tenant.map(|tenant| tenant.0)).blob(&key.hash).text(&scopes);
            args.text(&key.note).int(key.created.0).int_opt(key.revoked.map(|revoked| revoked.0));
        });
        match added.await? {
            0 => Err(Error::Conflict { what: "key", name: key.id.clone(), detail: "it exists already".into() }),
            _ => Ok(()),
        }
    })
}

fn revoke_key<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, id, now): &'a (Option<TenantId>, String, Timestamp),
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        // Who revokes again does not change when it was revoked first.
        let sql = "UPDATE api_keys SET revoked = coalesce(revoked, ?) WHERE id = ? AND tenant IS ?";
        let tenant = tenant.map(|tenant| tenant.0);
        match tx.execute(sql, |args| _ = args.int(now.0).text(id).int_opt(tenant)).await? {
            0 => Err(Error::NotFound { what: "key", name: id.clone() }),
            _ => Ok(()),
        }
    })
}

/// A tenant's plugins with their active versions, by name.
pub(super) async fn list_plugins(
    conn: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<Vec<(Plugin, Option<Version>)>> {
    let sql = concat!(
        "SELECT ",
        plugin_columns!(),
        ", ",
        version_columns!(),
        " FROM plugins p LEFT JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id AND v.number = p.active
          WHERE p.tenant = ? ORDER BY p.name"
    );
    let mut args = Args::default();
    args.int(tenant.0);
    let rows = fetch(conn, sql, args).await.map_err(fault::outward)?;
    rows.iter().map(with_active).collect()
}

fn with_active(row: &SqliteRow) -> Result<(Plugin, Option<Version>)> {
    plugin_with(&mut Columns::new(row), version)
}

#[async_trait]
impl Plugins for Sqlite {
    async fn add_version(
        &self,
        tenant: TenantId,
        plugin: &str,
        version: &NewVersion,
        now: Timestamp,
    ) -> Result<(Version, bool)> {
        self.change((tenant, plugin.to_owned(), version.clone(), now), add_version).await
    }

    async fn plugins(&self, tenant: TenantId) -> Result<Vec<(Plugin, Option<VersionHead>)>> {
        let sql = concat!(
            "SELECT ",
            plugin_columns!(),
            ", ",
            head_columns!(),
            " FROM plugins p
              LEFT JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id AND v.number = p.active
              WHERE p.tenant = ? ORDER BY p.name"
        );
        let rows = self.read(sql, |args| _ = args.int(tenant.0)).await?;
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
              WHERE p.tenant = ? AND p.name = ?"
        );
        let rows = self.read(sql, |args| _ = args.int(tenant.0).text(name)).await?;
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
              WHERE p.tenant = ? AND p.name = ? AND v.number < ? ORDER BY v.number DESC LIMIT ?"
        );
        let before = before.map_or(i64::from(u32::MAX), i64::from);
        let rows = self.read(sql, |args| _ = args.int(tenant.0).text(name).int(before).int(i64::from(limit))).await?;
        rows.iter().map(|row| version_head(&mut Columns::new(row))).collect()
    }

    async fn version(&self, tenant: TenantId, name: &str, number: u32) -> Result<Option<(Plugin, Version)>> {
        let sql = concat!(
            "SELECT ",
            plugin_columns!(),
            ", ",
            version_columns!(),
            " FROM plugins p JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id
              WHERE p.tenant = ? AND p.name = ? AND v.number = ?"
        );
        let rows = self.read(sql, |args| _ = args.int(tenant.0).text(name).int(i64::from(number))).await?;
        let read = |row| {
            let mut columns = Columns::new(row);
            Ok((plugin(&mut columns)?, version(&mut columns)?))
        };
        rows.first().map(read).transpose()
    }

    async fn pause_plugin(&self, tenant: TenantId, name: &str, paused: bool) -> Result<()> {
        self.change((tenant, name.to_owned(), paused), pause_plugin).await
    }

    async fn set_config(&self, tenant: TenantId, name: &str, config: &str) -> Result<()> {
        self.change((tenant, name.to_owned(), config.to_owned()), set_config).await
    }

    async fn component_bytes(&self, tenant: TenantId) -> Result<u64> {
        let rows = self.read(retired::LIVE, |args| _ = args.int(tenant.0)).await?;
        rows.first().map_or(Ok(0), |row| Columns::new(row).count())
    }

    async fn component(&self, tenant: TenantId, digest: &str) -> Result<Option<Bytes>> {
        let sql = "SELECT b.bytes FROM plugin_versions v JOIN blobs b ON b.digest = v.digest
                   WHERE v.tenant = ? AND v.digest = ? LIMIT 1";
        let rows = self.read(sql, |args| _ = args.int(tenant.0).text(digest)).await?;
        rows.first().map(|row| Ok(Bytes::from(Columns::new(row).blob()?))).transpose()
    }
}

type Added = (TenantId, String, NewVersion, Timestamp);

fn add_version<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, name, new, now): &'a Added,
) -> BoxFuture<'a, Result<(Version, bool)>> {
    Box::pin(async move {
        let sql = concat!(
            "SELECT ",
            version_columns!(),
            " FROM plugins p JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id
              WHERE p.tenant = ? AND p.name = ? AND v.digest = ? AND v.manifest = ? ORDER BY v.number DESC LIMIT 1"
        );
        let bind = |args: &mut Args| _ = args.int(tenant.0).text(name).text(&new.digest).text(&new.manifest);
        if let Some(row) = tx.fetch(sql, bind).await?.first() {
            let mut found = version(&mut Columns::new(row))?;
            if found.signature.is_none() && new.signature.is_some() {
                let sql = "UPDATE plugin_versions SET signature = ?3 FROM plugins p
                           WHERE p.tenant = ?1 AND p.name = ?2 AND plugin_versions.plugin = p.id
                           AND plugin_versions.number = ?4";
                tx.execute(sql, |args| {
                    args.int(tenant.0).text(name).text_opt(new.signature.as_deref()).int(i64::from(found.number));
                })
                .await?;
                found.signature.clone_from(&new.signature);
            }
            return Ok((found, false));
        }
        if tx.fetch("SELECT 1 FROM tenants WHERE id = ?", |args| _ = args.int(tenant.0)).await?.is_empty() {
            return Err(no_tenant(*tenant));
        }
        let sql = "SELECT (SELECT count(*) FROM plugins WHERE tenant = ?1 AND name <> ?2),
                   (SELECT count(v.number) FROM plugins p
                    LEFT JOIN plugin_versions v ON v.tenant = p.tenant AND v.plugin = p.id AND NOT v.retired
                    WHERE p.tenant = ?1 AND p.name = ?2 GROUP BY p.id)";
        for row in &tx.fetch(sql, |args| _ = args.int(tenant.0).text(name)).await? {
            let mut columns = Columns::new(row);
            new.room.check(name, columns.int()?, columns.int_opt()?)?;
        }
        let sql = "INSERT INTO plugins (tenant, name, paused, config, created) VALUES (?, ?, 0, '{}', ?)
                   ON CONFLICT DO NOTHING";
        tx.execute(sql, |args| _ = args.int(tenant.0).text(name).int(now.0)).await?;
        let plugin = find_plugin(tx, *tenant, name).await?;
        make_room(tx, *tenant, new).await?;
        let_go(tx, *tenant, plugin.id, new.room.retired).await?;
        let sql = "INSERT INTO blobs (digest, bytes) VALUES (?, ?) ON CONFLICT DO NOTHING";
        tx.execute(sql, |args| _ = args.text(&new.digest).blob(&new.wasm)).await?;
        let sql = "INSERT INTO plugin_versions
                   (tenant, plugin, number, digest, manifest, inspection, grants, author, created, retired, approver,
                    approved, signature, size)
                   SELECT tenant, id, (SELECT coalesce(max(number), 0) + 1 FROM plugin_versions WHERE plugin = plugins.id),
                   ?3, ?4, ?5, ?6, ?7, ?8, 0, iif(?9, ?7, NULL), iif(?9, ?8, NULL), ?10, ?11
                   FROM plugins WHERE tenant = ?1 AND name = ?2
                   RETURNING number, digest, manifest, inspection, grants, author, created, retired, activated, approver,
                             approved, signature";
        let rows = tx.fetch(sql, |args| {
            args.int(tenant.0).text(name).text(&new.digest).text(&new.manifest).text(&new.inspection);
            args.text(&new.grants).text(&new.author).int(now.0).int(i64::from(new.approves));
            args.text_opt(new.signature.as_deref()).count(new.wasm.len() as u64);
        });
        let rows = rows.await?;
        let row = rows.first().ok_or_else(|| no_plugin(name))?;
        let added = version(&mut Columns::new(row))?;
        tx.settings_changed(*tenant).await?;
        Ok((added, true))
    })
}

pub(super) fn no_plugin(name: &str) -> Error {
    Error::NotFound { what: "plugin", name: name.to_owned() }
}

pub(super) async fn find_plugin(tx: &mut Transaction<'_>, tenant: TenantId, name: &str) -> Result<Plugin> {
    let sql = concat!("SELECT ", plugin_columns!(), " FROM plugins p WHERE p.tenant = ? AND p.name = ?");
    let rows = tx.fetch(sql, |args| _ = args.int(tenant.0).text(name)).await?;
    rows.first().map_or_else(|| Err(no_plugin(name)), |row| plugin(&mut Columns::new(row)))
}

fn pause_plugin<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, name, paused): &'a (TenantId, String, bool),
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let sql = "UPDATE plugins SET paused = ? WHERE tenant = ? AND name = ?";
        match tx.execute(sql, |args| _ = args.int(i64::from(*paused)).int(tenant.0).text(name)).await? {
            0 => Err(no_plugin(name)),
            _ => tx.settings_changed(*tenant).await,
        }
    })
}

fn set_config<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, name, config): &'a (TenantId, String, String),
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let sql = "UPDATE plugins SET config = ? WHERE tenant = ? AND name = ?";
        match tx.execute(sql, |args| _ = args.text(config).int(tenant.0).text(name)).await? {
            0 => Err(no_plugin(name)),
            _ => tx.settings_changed(*tenant).await,
        }
    })
}
