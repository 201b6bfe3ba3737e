//! Rules, sinks, secrets, and what the host keeps for itself.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::TenantId;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::Error;
use crate::Result;
use crate::catalogue::RuleSetRow;
use crate::catalogue::SecretRow;
use crate::catalogue::Settings;
use crate::catalogue::SinkRow;
use crate::catalogue::Snapshot;
use crate::row::Columns;
use crate::row::catalogue::no_rules;
use crate::row::catalogue::rule_set;
use crate::row::catalogue::secret;
use crate::row::catalogue::sink;
use crate::row::catalogue::tenant as read_tenant;
use crate::row::catalogue::tenant_columns;
use crate::sqlite::Sqlite;
use crate::sqlite::catalogue::list_plugins;
use crate::sqlite::fault;
use crate::sqlite::releases::list_rollouts;
use crate::sqlite::text::Args;
use crate::sqlite::text::fetch;
use crate::sqlite::writer::op::BoxFuture;
use crate::sqlite::writer::transaction::Transaction;
use crate::sqlite::writer::transaction::no_tenant;

const RULES: &str = "SELECT r.number, r.rules, r.author, r.note, r.created FROM tenants t
                     JOIN rule_sets r ON r.tenant = t.id AND r.number = t.rule_set WHERE t.id = ?";
const SINKS: &str = "SELECT name, spec, updated FROM sinks WHERE tenant = ? ORDER BY name";
const SECRETS: &str = "SELECT name, version, sealed, updated FROM secrets WHERE tenant = ? ORDER BY name";

async fn of_tenant(conn: &mut SqliteConnection, sql: &'static str, tenant: TenantId) -> Result<Vec<SqliteRow>> {
    let mut args = Args::default();
    args.int(tenant.0);
    fetch(conn, sql, args).await.map_err(fault::outward)
}

#[async_trait]
impl Settings for Sqlite {
    async fn snapshot(&self, tenant: TenantId) -> Result<Snapshot> {
        let mut conn = self.readers().get().await?;
        conn.begin().await?;
        let snapshot = read_snapshot(&mut conn, tenant).await;
        conn.end().await?;
        snapshot
    }

    async fn put_rules(
        &self,
        tenant: TenantId,
        expected: i64,
        rules: &str,
        author: &str,
        note: &str,
        now: Timestamp,
    ) -> Result<RuleSetRow> {
        let new = RuleSetRow {
            number: expected.saturating_add(1),
            rules: rules.to_owned(),
            author: author.to_owned(),
            note: note.to_owned(),
            created: now,
        };
        self.change((tenant, new), put_rules).await
    }

    async fn rules(&self, tenant: TenantId) -> Result<RuleSetRow> {
        let rows = self.read(RULES, |args| _ = args.int(tenant.0)).await?;
        if let Some(row) = rows.first() {
            return rule_set(row);
        }
        let rows = self.read("SELECT created FROM tenants WHERE id = ?", |args| _ = args.int(tenant.0)).await?;
        let row = rows.first().ok_or_else(|| no_tenant(tenant))?;
        Ok(no_rules(Columns::new(row).time()?))
    }

    async fn rule_set(&self, tenant: TenantId, number: i64) -> Result<Option<RuleSetRow>> {
        let sql = "SELECT number, rules, author, note, created FROM rule_sets WHERE tenant = ? AND number = ?";
        self.read(sql, |args| _ = args.int(tenant.0).int(number)).await?.first().map(rule_set).transpose()
    }

    async fn rule_sets(&self, tenant: TenantId, before: Option<i64>, limit: u32) -> Result<Vec<RuleSetRow>> {
        let sql = "SELECT number, rules, author, note, created FROM rule_sets WHERE tenant = ? AND number < ?
                   ORDER BY number DESC LIMIT ?";
        let before = before.unwrap_or(i64::MAX);
        let rows = self.read(sql, |args| _ = args.int(tenant.0).int(before).int(i64::from(limit))).await?;
        rows.iter().map(rule_set).collect()
    }

    async fn pause_rule(&self, tenant: TenantId, rule: &str, paused: bool) -> Result<()> {
        self.change((tenant, rule.to_owned(), paused), pause_rule).await
    }

    async fn put_sink(&self, tenant: TenantId, name: &str, spec: &str, now: Timestamp) -> Result<()> {
        let row = SinkRow { name: name.to_owned(), spec: spec.to_owned(), updated: now };
        self.change((tenant, row), put_sink).await
    }

    async fn sinks(&self, tenant: TenantId) -> Result<Vec<SinkRow>> {
        self.read(SINKS, |args| _ = args.int(tenant.0)).await?.iter().map(sink).collect()
    }

    async fn delete_sink(&self, tenant: TenantId, name: &str, now: Timestamp) -> Result<bool> {
        self.change((tenant, name.to_owned(), now), delete_sink).await
    }

    async fn put_secret(
        &self,
        tenant: TenantId,
        name: &str,
        version: u32,
        sealed: &[u8],
        now: Timestamp,
    ) -> Result<()> {
        let row = SecretRow { name: name.to_owned(), version, sealed: sealed.to_vec(), updated: now };
        self.change((tenant, row), put_secret).await
    }

    async fn secrets(&self, tenant: TenantId) -> Result<Vec<SecretRow>> {
        self.read(SECRETS, |args| _ = args.int(tenant.0)).await?.iter().map(secret).collect()
    }

    async fn delete_secret(&self, tenant: TenantId, name: &str) -> Result<bool> {
        self.change((tenant, name.to_owned()), delete_secret).await
    }

    async fn host_value(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let name = host_name(name);
        let rows = self.read("SELECT value FROM host_values WHERE name = ?", |args| _ = args.text(&name)).await?;
        rows.first().map(|row| Columns::new(row).blob()).transpose()
    }

    async fn host_value_or(&self, name: &str, value: &[u8]) -> Result<Vec<u8>> {
        self.change((host_name(name), value.to_vec()), value_or).await
    }
}

/// Apart from the names that the store itself uses.
fn host_name(name: &str) -> String {
    format!("host:{name}")
}

async fn read_snapshot(conn: &mut SqliteConnection, tenant: TenantId) -> Result<Snapshot> {
    let sql = concat!("SELECT ", tenant_columns!(), " FROM tenants t WHERE t.id = ?");
    let rows = of_tenant(conn, sql, tenant).await?;
    let found = rows.first().map(|row| read_tenant(&mut Columns::new(row))).transpose()?;
    let found = found.ok_or_else(|| no_tenant(tenant))?;
    let rule_set = match of_tenant(conn, RULES, tenant).await?.first() {
        Some(row) => rule_set(row)?,
        None => no_rules(found.created),
    };
    let sql = "SELECT rule FROM paused_rules WHERE tenant = ? ORDER BY rule";
    let paused = of_tenant(conn, sql, tenant).await?;
    let paused_rules = paused.iter().map(|row| Columns::new(row).text()).collect::<Result<_>>()?;
    let plugins = list_plugins(conn, tenant).await?;
    let rollouts = list_rollouts(conn, tenant).await?;
    let sinks = of_tenant(conn, SINKS, tenant).await?.iter().map(sink).collect::<Result<_>>()?;
    let secrets = of_tenant(conn, SECRETS, tenant).await?.iter().map(secret).collect::<Result<_>>()?;
    Ok(Snapshot { tenant: found, rule_set, paused_rules, plugins, rollouts, sinks, secrets })
}

fn put_rules<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, new): &'a (TenantId, RuleSetRow),
) -> BoxFuture<'a, Result<RuleSetRow>> {
    Box::pin(async move {
        let sql = "UPDATE tenants SET rule_set = ?1 + 1 WHERE id = ?2 AND rule_set = ?1";
        let expected = new.number - 1;
        if tx.execute(sql, |args| _ = args.int(expected).int(tenant.0)).await? == 0 {
            let rows = tx.fetch("SELECT rule_set FROM tenants WHERE id = ?", |args| _ = args.int(tenant.0)).await?;
            let current = rows.first().map(|row| Columns::new(row).int()).transpose()?;
            let current = current.ok_or_else(|| no_tenant(*tenant))?;
            let detail = format!("the current one is {current}");
            return Err(Error::Conflict { what: "rule set", name: expected.to_string(), detail });
        }
        let sql = "INSERT INTO rule_sets (tenant, number, rules, author, note, created) VALUES (?, ?, ?, ?, ?, ?)";
        tx.execute(sql, |args| {
            args.int(tenant.0).int(new.number).text(&new.rules).text(&new.author).text(&new.note).int(new.created.0);
        })
        .await?;
        tx.settings_changed(*tenant).await?;
        Ok(new.clone())
    })
}

fn pause_rule<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, rule, paused): &'a (TenantId, String, bool),
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        tx.settings_changed(*tenant).await?;
        let sql = if *paused {
            "INSERT INTO paused_rules (tenant, rule) VALUES (?, ?) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM paused_rules WHERE tenant = ? AND rule = ?"
        };
        tx.execute(sql, |args| _ = args.int(tenant.0).text(rule)).await?;
        Ok(())
    })
}

fn put_sink<'a>(tx: &'a mut Transaction<'_>, (tenant, sink): &'a (TenantId, SinkRow)) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        tx.settings_changed(*tenant).await?;
        let sql = "INSERT INTO sinks (tenant, name, spec, updated) VALUES (?, ?, ?, ?)
                   ON CONFLICT DO UPDATE SET spec = excluded.spec, updated = excluded.updated";
        tx.execute(sql, |args| _ = args.int(tenant.0).text(&sink.name).text(&sink.spec).int(sink.updated.0)).await?;
        Ok(())
    })
}

fn delete_sink<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, name, now): &'a (TenantId, String, Timestamp),
) -> BoxFuture<'a, Result<bool>> {
    Box::pin(async move {
        let sql = "DELETE FROM sinks WHERE tenant = ? AND name = ?";
        if tx.execute(sql, |args| _ = args.int(tenant.0).text(name)).await? == 0 {
            return Ok(false);
        }
        let sql = "UPDATE deliveries INDEXED BY deliveries_open
                   SET state = 2, due = NULL, code = 'sink:deleted', reason = 'its sink was deleted', updated = ?
                   WHERE tenant = ? AND sink = ? AND state = 0 AND state IN (0, 2)";
        tx.execute(sql, |args| _ = args.int(now.0).int(tenant.0).text(name)).await?;
        tx.settings_changed(*tenant).await?;
        Ok(true)
    })
}

fn put_secret<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, secret): &'a (TenantId, SecretRow),
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let sql = "SELECT version FROM secrets WHERE tenant = ? AND name = ?";
        let rows = tx.fetch(sql, |args| _ = args.int(tenant.0).text(&secret.name)).await?;
        let present = rows.first().map(|row| Columns::new(row).int()).transpose()?.unwrap_or_default();
        if i64::from(secret.version) != present + 1 {
            let detail = format!("its version is {present}");
            return Err(Error::Conflict { what: "secret", name: secret.name.clone(), detail });
        }
        tx.settings_changed(*tenant).await?;
        let sql = "INSERT INTO secrets (tenant, name, version, sealed, updated) VALUES (?, ?, ?, ?, ?)
                   ON CONFLICT DO UPDATE
                   SET version = excluded.version, sealed = excluded.sealed, updated = excluded.updated";
        tx.execute(sql, |args| {
            args.int(tenant.0).text(&secret.name).int(i64::from(secret.version)).blob(&secret.sealed);
            args.int(secret.updated.0);
        })
        .await?;
        Ok(())
    })
}

fn delete_secret<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, name): &'a (TenantId, String),
) -> BoxFuture<'a, Result<bool>> {
    Box::pin(async move {
        let sql = "DELETE FROM secrets WHERE tenant = ? AND name = ?";
        let gone = tx.execute(sql, |args| _ = args.int(tenant.0).text(name)).await? > 0;
        if gone {
            tx.settings_changed(*tenant).await?;
        }
        Ok(gone)
    })
}

fn value_or<'a>(tx: &'a mut Transaction<'_>, (name, value): &'a (String, Vec<u8>)) -> BoxFuture<'a, Result<Vec<u8>>> {
    Box::pin(async move {
        let sql = "INSERT INTO host_values (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING";
        tx.execute(sql, |args| _ = args.text(name).blob(value)).await?;
        let rows = tx.fetch("SELECT value FROM host_values WHERE name = ?", |args| _ = args.text(name)).await?;
        rows.first().map_or_else(|| Ok(value.clone()), |row| Columns::new(row).blob())
    })
}
