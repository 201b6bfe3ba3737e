//! Rules, sinks, secrets, and what the host keeps for itself.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::TenantId;
use sqlx::postgres::PgRow;

use crate::Error;
use crate::Result;
use crate::catalogue::RuleSetRow;
use crate::catalogue::SecretRow;
use crate::catalogue::Settings;
use crate::catalogue::SinkRow;
use crate::catalogue::Snapshot;
use crate::postgres::Postgres;
use crate::postgres::Transaction;
use crate::postgres::no_tenant;
use crate::postgres::plugins::list_plugins;
use crate::postgres::releases::list_rollouts;
use crate::row::Columns;
use crate::row::catalogue::no_rules;
use crate::row::catalogue::rule_set;
use crate::row::catalogue::secret;
use crate::row::catalogue::sink;
use crate::row::catalogue::tenant as read_tenant;
use crate::row::catalogue::tenant_columns;

const RULES: &str = "SELECT r.number, r.rules, r.author, r.note, r.created FROM tenants t
                     JOIN rule_sets r ON r.tenant = t.id AND r.number = t.rule_set WHERE t.id = $1";
const SINKS: &str = "SELECT name, spec, updated FROM sinks WHERE tenant = $1 ORDER BY name";
const SECRETS: &str = "SELECT name, version, sealed, updated FROM secrets WHERE tenant = $1 ORDER BY name";

#[async_trait]
impl Settings for Postgres {
    async fn snapshot(&self, tenant: TenantId) -> Result<Snapshot> {
        let mut tx = self.begin(tenant).await?;
        // The tenant's row stays as it is until all is read: who changes settings changes that row too.
        let sql = concat!("SELECT ", tenant_columns!(), " FROM tenants t WHERE t.id = $1 FOR SHARE");
        let rows = of_tenant(&mut tx, sql, tenant).await?;
        let found = rows.first().map(|row| read_tenant(&mut Columns::new(row))).transpose()?;
        let found = found.ok_or_else(|| no_tenant(tenant))?;
        let rule_set = match of_tenant(&mut tx, RULES, tenant).await?.first() {
            Some(row) => rule_set(row)?,
            None => no_rules(found.created),
        };
        let sql = "SELECT rule FROM paused_rules WHERE tenant = $1 ORDER BY rule";
        let paused = of_tenant(&mut tx, sql, tenant).await?;
        let paused_rules = paused.iter().map(|row| Columns::new(row).text()).collect::<Result<_>>()?;
        let plugins = list_plugins(&mut tx, tenant).await?;
        let rollouts = list_rollouts(&mut tx, tenant).await?;
        let sinks = of_tenant(&mut tx, SINKS, tenant).await?.iter().map(sink).collect::<Result<_>>()?;
        let secrets = of_tenant(&mut tx, SECRETS, tenant).await?.iter().map(secret).collect::<Result<_>>()?;
        tx.end().await?;
        Ok(Snapshot { tenant: found, rule_set, paused_rules, plugins, rollouts, sinks, secrets })
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
        let mut tx = self.begin(tenant).await?;
        let sql = "UPDATE tenants SET rule_set = rule_set + 1, settings = settings + 1 WHERE id = $1 AND rule_set = $2";
        if tx.execute(sql, |args| _ = args.int(tenant.0).int(expected)).await? == 0 {
            let rows = of_tenant(&mut tx, "SELECT rule_set FROM tenants WHERE id = $1", tenant).await?;
            let current = rows.first().map(|row| Columns::new(row).int()).transpose()?;
            let current = current.ok_or_else(|| no_tenant(tenant))?;
            let detail = format!("the current one is {current}");
            return Err(Error::Conflict { what: "rule set", name: expected.to_string(), detail });
        }
        let number = expected.saturating_add(1);
        let sql =
            "INSERT INTO rule_sets (tenant, number, rules, author, note, created) VALUES ($1, $2, $3, $4, $5, $6)";
        tx.execute(sql, |args| _ = args.int(tenant.0).int(number).text(rules).text(author).text(note).int(now.0))
            .await?;
        tx.end().await?;
        let (rules, author, note) = (rules.to_owned(), author.to_owned(), note.to_owned());
        Ok(RuleSetRow { number, rules, author, note, created: now })
    }

    async fn rules(&self, tenant: TenantId) -> Result<RuleSetRow> {
        let mut tx = self.begin(tenant).await?;
        let rows = of_tenant(&mut tx, RULES, tenant).await?;
        let created = of_tenant(&mut tx, "SELECT created FROM tenants WHERE id = $1", tenant).await?;
        tx.end().await?;
        match (rows.first(), created.first()) {
            (Some(row), _) => rule_set(row),
            (None, Some(row)) => Ok(no_rules(Columns::new(row).time()?)),
            (None, None) => Err(no_tenant(tenant)),
        }
    }

    async fn rule_set(&self, tenant: TenantId, number: i64) -> Result<Option<RuleSetRow>> {
        let sql = "SELECT number, rules, author, note, created FROM rule_sets WHERE tenant = $1 AND number = $2";
        self.read(tenant, sql, |args| _ = args.int(tenant.0).int(number)).await?.first().map(rule_set).transpose()
    }

    async fn rule_sets(&self, tenant: TenantId, before: Option<i64>, limit: u32) -> Result<Vec<RuleSetRow>> {
        let sql = "SELECT number, rules, author, note, created FROM rule_sets WHERE tenant = $1 AND number < $2
                   ORDER BY number DESC LIMIT $3";
        let before = before.unwrap_or(i64::MAX);
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0).int(before).int(i64::from(limit))).await?;
        rows.iter().map(rule_set).collect()
    }

    async fn pause_rule(&self, tenant: TenantId, rule: &str, paused: bool) -> Result<()> {
        let mut tx = self.begin(tenant).await?;
        tx.settings_changed(tenant).await?;
        let sql = if paused {
            "INSERT INTO paused_rules (tenant, rule) VALUES ($1, $2) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM paused_rules WHERE tenant = $1 AND rule = $2"
        };
        tx.execute(sql, |args| _ = args.int(tenant.0).text(rule)).await?;
        tx.end().await
    }

    async fn put_sink(&self, tenant: TenantId, name: &str, spec: &str, now: Timestamp) -> Result<()> {
        let mut tx = self.begin(tenant).await?;
        tx.settings_changed(tenant).await?;
        let sql = "INSERT INTO sinks (tenant, name, spec, updated) VALUES ($1, $2, $3, $4)
                   ON CONFLICT (tenant, name) DO UPDATE SET spec = excluded.spec, updated = excluded.updated";
        tx.execute(sql, |args| _ = args.int(tenant.0).text(name).text(spec).int(now.0)).await?;
        tx.end().await
    }

    async fn sinks(&self, tenant: TenantId) -> Result<Vec<SinkRow>> {
        self.read(tenant, SINKS, |args| _ = args.int(tenant.0)).await?.iter().map(sink).collect()
    }

    async fn delete_sink(&self, tenant: TenantId, name: &str, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin(tenant).await?;
        // No batch adds a delivery to it meanwhile that would not be parked.
        tx.have(tenant).await?;
        let sql = "DELETE FROM sinks WHERE tenant = $1 AND name = $2";
        if tx.execute(sql, |args| _ = args.int(tenant.0).text(name)).await? == 0 {
            return Ok(false);
        }
        let sql = "UPDATE deliveries
                   SET state = 2, due = NULL, code = 'sink:deleted', reason = 'its sink was deleted', updated = $3
                   WHERE tenant = $1 AND sink = $2 AND state = 0";
        tx.execute(sql, |args| _ = args.int(tenant.0).text(name).int(now.0)).await?;
        tx.settings_changed(tenant).await?;
        tx.end().await?;
        Ok(true)
    }

    async fn put_secret(
        &self,
        tenant: TenantId,
        name: &str,
        version: u32,
        sealed: &[u8],
        now: Timestamp,
    ) -> Result<()> {
        let mut tx = self.begin(tenant).await?;
        // Whoever comes at the same time waits here, and then sees what this one wrote.
        tx.settings_changed(tenant).await?;
        let sql = "SELECT version FROM secrets WHERE tenant = $1 AND name = $2";
        let rows = tx.fetch(sql, |args| _ = args.int(tenant.0).text(name)).await?;
        let present = rows.first().map(|row| Columns::new(row).int()).transpose()?.unwrap_or_default();
        if i64::from(version) != present + 1 {
            let detail = format!("its version is {present}");
            return Err(Error::Conflict { what: "secret", name: name.to_owned(), detail });
        }
        let sql = "INSERT INTO secrets (tenant, name, version, sealed, updated) VALUES ($1, $2, $3, $4, $5)
                   ON CONFLICT (tenant, name)
                   DO UPDATE SET version = excluded.version, sealed = excluded.sealed, updated = excluded.updated";
        tx.execute(sql, |args| {
            args.int(tenant.0).text(name).int(i64::from(version)).blob(sealed).int(now.0);
        })
        .await?;
        tx.end().await
    }

    async fn secrets(&self, tenant: TenantId) -> Result<Vec<SecretRow>> {
        self.read(tenant, SECRETS, |args| _ = args.int(tenant.0)).await?.iter().map(secret).collect()
    }

    async fn delete_secret(&self, tenant: TenantId, name: &str) -> Result<bool> {
        let mut tx = self.begin(tenant).await?;
        let sql = "DELETE FROM secrets WHERE tenant = $1 AND name = $2";
        let gone = tx.execute(sql, |args| _ = args.int(tenant.0).text(name)).await? > 0;
        if gone {
            tx.settings_changed(tenant).await?;
        }
        tx.end().await?;
        Ok(gone)
    }

    async fn host_value(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT v FROM find_value($1) v WHERE v IS NOT NULL";
        let rows = self.call(sql, |args| _ = args.text(&host_name(name))).await?;
        rows.first().map(|row| Columns::new(row).blob()).transpose()
    }

    async fn host_value_or(&self, name: &str, value: &[u8]) -> Result<Vec<u8>> {
        self.call("SELECT set_value($1, $2)", |args| _ = args.text(&host_name(name)).blob(value)).await?;
        Ok(self.host_value(name).await?.unwrap_or_else(|| value.to_vec()))
    }
}

/// Apart from the names that the store itself uses.
fn host_name(name: &str) -> String {
    format!("host:{name}")
}

async fn of_tenant(tx: &mut Transaction, sql: &'static str, tenant: TenantId) -> Result<Vec<PgRow>> {
    tx.fetch(sql, |args| _ = args.int(tenant.0)).await
}
