//! Tenants and keys.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::ceiling::TenantPolicy;
use bulkhead_domain::policy::proof::ReleasePolicy;
use bulkhead_domain::policy::quota::Quotas;
use sqlx::postgres::PgRow;

use crate::Error;
use crate::Result;
use crate::catalogue::Key;
use crate::catalogue::Keys;
use crate::catalogue::Tenant;
use crate::catalogue::TenantState;
use crate::catalogue::Tenants;
use crate::postgres::Postgres;
use crate::postgres::no_tenant;
use crate::row::Columns;
use crate::row::catalogue::key;
use crate::row::catalogue::key_columns;
use crate::row::catalogue::policy_text;
use crate::row::catalogue::quotas_text;
use crate::row::catalogue::tenant;
use crate::row::catalogue::tenant_columns;
use crate::row::catalogue::tenant_state_number;
use crate::row::release::asks_text;

/// Where the operator's switch over everything is kept.
const PAUSED: &str = "store:paused";

fn first_tenant(rows: &[PgRow]) -> Result<Option<Tenant>> {
    rows.first().map(|row| tenant(&mut Columns::new(row))).transpose()
}

#[async_trait]
impl Tenants for Postgres {
    async fn operator_create_tenant(&self, uid: &str, name: &str, now: Timestamp) -> Result<Tenant> {
        let sql = concat!("SELECT ", tenant_columns!(), " FROM create_tenant($1, $2, $3) t");
        let rows = self.call(sql, |args| _ = args.text(uid).text(name).int(now.0)).await?;
        first_tenant(&rows)?.ok_or_else(|| Error::Conflict {
            what: "tenant",
            name: name.to_owned(),
            detail: "it exists already".into(),
        })
    }

    async fn operator_tenants(&self) -> Result<Vec<Tenant>> {
        let sql = concat!("SELECT ", tenant_columns!(), " FROM find_tenants(NULL) t");
        self.call(sql, |_| {}).await?.iter().map(|row| tenant(&mut Columns::new(row))).collect()
    }

    async fn operator_tenant(&self, name: &str) -> Result<Option<Tenant>> {
        let sql = concat!("SELECT ", tenant_columns!(), " FROM find_tenants($1) t");
        first_tenant(&self.call(sql, |args| _ = args.text(name)).await?)
    }

    async fn tenant(&self, tenant: TenantId) -> Result<Option<Tenant>> {
        let sql = concat!("SELECT ", tenant_columns!(), " FROM tenants t WHERE t.id = $1");
        first_tenant(&self.read(tenant, sql, |args| _ = args.int(tenant.0)).await?)
    }

    async fn set_tenant_state(&self, tenant: TenantId, state: TenantState) -> Result<()> {
        let mut tx = self.begin(tenant).await?;
        tx.settings_changed(tenant).await?;
        let sql = "UPDATE tenants SET state = $2 WHERE id = $1";
        tx.execute(sql, |args| _ = args.int(tenant.0).int(tenant_state_number(state))).await?;
        tx.end().await
    }

    async fn turn_tenant(&self, tenant: TenantId, state: TenantState) -> Result<bool> {
        let (number, suspended) = (tenant_state_number(state), tenant_state_number(TenantState::Suspended));
        let mut tx = self.begin(tenant).await?;
        let sql = "UPDATE tenants SET state = $2, settings = settings + 1 WHERE id = $1 AND state <> $3";
        let turned = tx.execute(sql, |args| _ = args.int(tenant.0).int(number).int(suspended)).await?;
        tx.end().await?;
        Ok(turned > 0)
    }

    async fn set_quotas(&self, tenant: TenantId, quotas: &Quotas) -> Result<()> {
        let mut tx = self.begin(tenant).await?;
        tx.settings_changed(tenant).await?;
        let sql = "UPDATE tenants SET quotas = $2 WHERE id = $1";
        tx.execute(sql, |args| _ = args.int(tenant.0).text(&quotas_text(quotas))).await?;
        tx.end().await
    }

    async fn set_policy(&self, tenant: TenantId, policy: &TenantPolicy) -> Result<()> {
        let mut tx = self.begin(tenant).await?;
        tx.settings_changed(tenant).await?;
        let sql = "UPDATE tenants SET policy = $2 WHERE id = $1";
        tx.execute(sql, |args| _ = args.int(tenant.0).text(&policy_text(policy))).await?;
        tx.end().await
    }

    async fn set_asks(&self, tenant: TenantId, asks: &ReleasePolicy) -> Result<()> {
        let mut tx = self.begin(tenant).await?;
        tx.settings_changed(tenant).await?;
        let sql = "UPDATE tenants SET asks = $2 WHERE id = $1";
        tx.execute(sql, |args| _ = args.int(tenant.0).text(&asks_text(asks))).await?;
        tx.end().await
    }

    async fn operator_set_paused(&self, paused: bool) -> Result<()> {
        let sql = if paused { "SELECT set_value($1, '\\x01')" } else { "SELECT clear_value($1)" };
        self.call(sql, |args| _ = args.text(PAUSED)).await?;
        Ok(())
    }

    async fn operator_paused(&self) -> Result<bool> {
        let rows = self.call("SELECT find_value($1) IS NOT NULL", |args| _ = args.text(PAUSED)).await?;
        rows.first().map_or(Ok(false), |row| Columns::new(row).flag())
    }
}

#[async_trait]
impl Keys for Postgres {
    async fn host_add_key(&self, key: &Key) -> Result<()> {
        if let Some(tenant) = key.tenant
            && self
                .call("SELECT * FROM known_tenants($1)", |args| _ = args.ints([tenant.0].into_iter()))
                .await?
                .is_empty()
        {
            return Err(no_tenant(tenant));
        }
        let scopes = serde_json::to_string(&key.scopes).expect("because texts are always JSON");
        let rows = self.call("SELECT add_key($1, $2, $3, $4, $5, $6, $7)", |args| {
            args.text(&key.id).int_opt(key.tenant.map(|tenant| tenant.0)).blob(&key.hash).text(&scopes);
            args.text(&key.note).int(key.created.0).int_opt(key.revoked.map(|revoked| revoked.0));
        });
        match rows.await?.first().map_or(Ok(0), |row| Columns::new(row).int())? {
            0 => Err(Error::Conflict { what: "key", name: key.id.clone(), detail: "it exists already".into() }),
            _ => Ok(()),
        }
    }

    async fn host_key(&self, id: &str) -> Result<Option<(Key, Option<Tenant>)>> {
        let sql = concat!(
            "SELECT ",
            key_columns!(),
            ", ",
            tenant_columns!(),
            " FROM find_keys($1, NULL, false) k LEFT JOIN LATERAL tenant_of(k.tenant) t ON true"
        );
        let rows = self.call(sql, |args| _ = args.text(id)).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let mut columns = Columns::new(row);
        let key = key(&mut columns)?;
        let tenant = key.tenant.map(|_| tenant(&mut columns)).transpose()?;
        Ok(Some((key, tenant)))
    }

    async fn operator_keys(&self, tenant: Option<TenantId>) -> Result<Vec<Key>> {
        let sql = concat!("SELECT ", key_columns!(), " FROM find_keys(NULL, $1, $2) k");
        let rows =
            self.call(sql, |args| _ = args.int_opt(tenant.map(|tenant| tenant.0)).flag(tenant.is_none())).await?;
        rows.iter().map(|row| key(&mut Columns::new(row))).collect()
    }

    async fn operator_revoke_key(&self, tenant: Option<TenantId>, id: &str, now: Timestamp) -> Result<()> {
        let sql = "SELECT revoke_key($1, $2, $3)";
        let rows = self.call(sql, |args| _ = args.int_opt(tenant.map(|tenant| tenant.0)).text(id).int(now.0)).await?;
        match rows.first().map_or(Ok(0), |row| Columns::new(row).int())? {
            0 => Err(Error::NotFound { what: "key", name: id.to_owned() }),
            _ => Ok(()),
        }
    }
}
