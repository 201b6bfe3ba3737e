//! Lets retired versions go. Whoever calls has the tenant's row already: the lock on a component, which other tenants may
//! have, too, comes after it.

use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::catalogue::Kept;
use crate::catalogue::NewVersion;
use crate::postgres::Transaction;
use crate::retired;
use crate::retired::Free;
use crate::retired::enough;
use crate::retired::free_row;
use crate::retired::kept_row;
use crate::row::Columns;

/// The oldest of a plugin's retired versions go beyond what is kept of them.
pub(super) async fn let_go(tx: &mut Transaction, tenant: TenantId, plugin: PluginId, kept: u32) -> Result<()> {
    let rows = tx.fetch(retired::COUNT, |args| _ = args.int(tenant.0).int(plugin.0)).await?;
    let count = rows.first().map_or(Ok(0), |row| Columns::new(row).int())?;
    let beyond = (count - i64::from(kept)).min(retired::BEYOND_MAX);
    if beyond > 0 {
        for version in free(tx, tenant, plugin, beyond).await? {
            remove(tx, tenant, &version).await?;
        }
    }
    Ok(())
}

/// Retired versions go until a new one's component fits.
pub(super) async fn make_room(tx: &mut Transaction, tenant: TenantId, new: &NewVersion) -> Result<()> {
    let Some(storage) = new.room.storage else { return Ok(()) };
    let kept = kept(tx, tenant, &new.digest).await?;
    if storage.check(kept, new.wasm.len()).is_ok() {
        return Ok(());
    }
    let free = free(tx, tenant, retired::ALL, retired::ROOM_MAX).await?;
    for version in enough(storage, kept, new.wasm.len(), free)? {
        remove(tx, tenant, &version).await?;
    }
    Ok(())
}

async fn kept(tx: &mut Transaction, tenant: TenantId, digest: &str) -> Result<Kept> {
    let rows = tx.fetch(retired::KEPT, |args| _ = args.int(tenant.0).text(digest)).await?;
    rows.first().map_or(Ok(Kept { bytes: 0, has: false }), |row| kept_row(&mut Columns::new(row)))
}

async fn free(tx: &mut Transaction, tenant: TenantId, plugin: PluginId, limit: i64) -> Result<Vec<Free>> {
    let rows = tx.fetch(retired::FREE, |args| _ = args.int(tenant.0).int(plugin.0).int(limit)).await?;
    rows.iter().map(|row| free_row(&mut Columns::new(row))).collect()
}

async fn remove(tx: &mut Transaction, tenant: TenantId, version: &Free) -> Result<()> {
    for sql in [retired::DROP_PREVIEWS, retired::DROP_VERSION] {
        tx.execute(sql, |args| _ = args.int(tenant.0).int(version.plugin.0).int(version.number)).await?;
    }
    tx.execute("SELECT drop_blob($1)", |args| _ = args.text(&version.digest)).await?;
    let (plugin, number) = (version.plugin.0, version.number);
    tracing::info!(tenant = tenant.0, plugin, version = number, "a retired version was let go");
    Ok(())
}
