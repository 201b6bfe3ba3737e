//! Releases.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::proof::Preview;
use bulkhead_domain::policy::proof::ReleasePolicy;

use crate::Error;
use crate::Result;
use crate::catalogue::Plugin;
use crate::catalogue::Version;
use crate::postgres::Postgres;
use crate::postgres::Transaction;
use crate::postgres::no_tenant;
use crate::postgres::plugins::find_plugin;
use crate::postgres::plugins::no_plugin;
use crate::postgres::retired::let_go;
use crate::releases::Act;
use crate::releases::Action;
use crate::releases::Ending;
use crate::releases::Entry;
use crate::releases::Kind;
use crate::releases::Releases;
use crate::releases::Rollout;
use crate::releases::Switch;
use crate::releases::Tally;
use crate::releases::agreed;
use crate::releases::over;
use crate::releases::proven;
use crate::retired;
use crate::row::Columns;
use crate::row::catalogue::asked;
use crate::row::catalogue::version;
use crate::row::catalogue::version_columns;
use crate::row::release::ASKS;
use crate::row::release::FIND_PREVIEW;
use crate::row::release::HISTORY;
use crate::row::release::PREVIEWS;
use crate::row::release::ROLLOUTS;
use crate::row::release::action_text;
use crate::row::release::actions;
use crate::row::release::against_number;
use crate::row::release::asks_text;
use crate::row::release::counts_text;
use crate::row::release::end_text;
use crate::row::release::entry;
use crate::row::release::kind_number;
use crate::row::release::preview;
use crate::row::release::rollout;
use crate::row::release::rollout_columns;
use crate::row::release::start_text;
use crate::row::release::switch_text;
use crate::row::release::tally_text;

/// A tenant's candidates under way, with their versions.
pub(super) async fn list_rollouts(tx: &mut Transaction, tenant: TenantId) -> Result<Vec<(Rollout, Version)>> {
    let sql = concat!(
        "SELECT ",
        rollout_columns!(),
        ", ",
        version_columns!(),
        " FROM rollouts o JOIN plugin_versions v ON v.tenant = o.tenant AND v.plugin = o.plugin AND v.number = o.version
          WHERE o.tenant = $1 ORDER BY o.plugin, o.kind"
    );
    let rows = tx.fetch(sql, |args| _ = args.int(tenant.0)).await?;
    let read = |row| {
        let mut columns = Columns::new(row);
        Ok((rollout(&mut columns)?, version(&mut columns)?))
    };
    rows.iter().map(read).collect()
}

#[async_trait]
impl Releases for Postgres {
    async fn switch_version(&self, tenant: TenantId, name: &str, switch: &Switch) -> Result<Plugin> {
        let mut tx = self.begin(tenant).await?;
        let plugin = find_plugin(&mut tx, tenant, name).await?;
        let number = switch.to.or(plugin.previous).ok_or_else(|| conflict(name, "no version was active before"))?;
        let version = find_version(&mut tx, tenant, &plugin, number).await?;
        if version.retired {
            return Err(conflict(name, "the version is retired"));
        }
        if plugin.active == Some(number) {
            return Ok(plugin);
        }
        if switch.seen.is_some_and(|seen| seen != plugin.active) {
            return Err(conflict(name, "another version became active meanwhile; look again"));
        }
        let proof = proof(&mut tx, tenant, &plugin, &version, &switch.act.asks, switch.act.at).await?;
        consent(&mut tx, tenant, &plugin, &version, &switch.act).await?;
        let action = if switch.back { Action::RolledBack } else { Action::Activated };
        let plugin = make_active(&mut tx, tenant, plugin, (action, &version, proof), &switch.act).await?;
        tx.end().await?;
        Ok(plugin)
    }

    async fn retire(&self, tenant: TenantId, name: &str, number: u32, kept: u32, act: &Act) -> Result<()> {
        let mut tx = self.begin(tenant).await?;
        let plugin = find_plugin(&mut tx, tenant, name).await?;
        let retired = find_version(&mut tx, tenant, &plugin, number).await?.retired;
        if plugin.active == Some(number) {
            return Err(conflict(name, "the version is active; activate another first"));
        }
        for kind in [Kind::Canary, Kind::Shadow] {
            if find_rollout(&mut tx, tenant, plugin.id, kind).await?.is_some_and(|rollout| rollout.version == number) {
                return Err(conflict(name, "the version is a candidate under way; stop that first"));
            }
        }
        if retired {
            return Ok(());
        }
        let sql = "UPDATE plugin_versions SET retired = true WHERE tenant = $1 AND plugin = $2 AND number = $3";
        tx.execute(sql, |args| _ = args.int(tenant.0).int(plugin.id.0).int(i64::from(number))).await?;
        note(&mut tx, tenant, plugin.id, (Action::Retired, number), act, "{}").await?;
        tx.settings_changed(tenant).await?;
        let_go(&mut tx, tenant, plugin.id, kept).await?;
        tx.end().await
    }

    async fn approve(&self, tenant: TenantId, name: &str, number: u32, act: &Act) -> Result<Version> {
        let mut tx = self.begin(tenant).await?;
        let plugin = find_plugin(&mut tx, tenant, name).await?;
        if agree(&mut tx, tenant, &plugin, number, act).await? {
            tx.settings_changed(tenant).await?;
        }
        let version = find_version(&mut tx, tenant, &plugin, number).await?;
        tx.end().await?;
        Ok(version)
    }

    async fn set_release_policy(&self, tenant: TenantId, name: &str, policy: &ReleasePolicy, act: &Act) -> Result<()> {
        let mut tx = self.begin(tenant).await?;
        let plugin = find_plugin(&mut tx, tenant, name).await?;
        if plugin.policy == *policy {
            return Ok(());
        }
        if !act.consents && policy.is_weaker_than(&plugin.policy) {
            return Err(Error::Weaker { plugin: plugin.name });
        }
        let text = asks_text(policy);
        let sql = "UPDATE plugins SET policy = $3 WHERE tenant = $1 AND id = $2";
        tx.execute(sql, |args| _ = args.int(tenant.0).int(plugin.id.0).text(&text)).await?;
        let of = plugin.active.unwrap_or_default();
        note(&mut tx, tenant, plugin.id, (Action::PolicyChanged, of), act, &text).await?;
        tx.settings_changed(tenant).await?;
        tx.end().await
    }

    async fn add_preview(&self, tenant: TenantId, name: &str, preview: &Preview) -> Result<()> {
        let mut tx = self.begin(tenant).await?;
        let plugin = find_plugin(&mut tx, tenant, name).await?;
        let sql = "INSERT INTO plugin_previews (tenant, plugin, version, against, author, at, counts)
                   VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (plugin, version, against)
                   DO UPDATE SET author = excluded.author, at = excluded.at, counts = excluded.counts";
        tx.execute(sql, |args| {
            args.int(tenant.0).int(plugin.id.0).int(i64::from(preview.version)).int(against_number(preview.against));
            args.text(&preview.author).int(preview.at.0).text(&counts_text(preview));
        })
        .await?;
        tx.end().await
    }

    async fn previews(&self, tenant: TenantId, plugin: PluginId) -> Result<Vec<Preview>> {
        let rows = self.read(tenant, PREVIEWS, |args| _ = args.int(tenant.0).int(plugin.0)).await?;
        rows.iter().map(|row| preview(&mut Columns::new(row))).collect()
    }

    async fn history(&self, tenant: TenantId, name: &str, before: Option<i64>, limit: u32) -> Result<Vec<Entry>> {
        let mut tx = self.begin(tenant).await?;
        let sql = "SELECT id FROM plugins WHERE tenant = $1 AND name = $2";
        let rows = tx.fetch(sql, |args| _ = args.int(tenant.0).text(name)).await?;
        let id = Columns::new(rows.first().ok_or_else(|| no_plugin(name))?).int()?;
        let before = before.unwrap_or(i64::MAX);
        let rows = tx.fetch(HISTORY, |args| _ = args.int(tenant.0).int(id).int(before).int(i64::from(limit))).await?;
        tx.end().await?;
        rows.iter().map(|row| entry(&mut Columns::new(row))).collect()
    }

    async fn start_rollout(
        &self,
        tenant: TenantId,
        name: &str,
        kind: Kind,
        version: u32,
        terms: &str,
        act: &Act,
    ) -> Result<Rollout> {
        let mut tx = self.begin(tenant).await?;
        let plugin = find_plugin(&mut tx, tenant, name).await?;
        let candidate = find_version(&mut tx, tenant, &plugin, version).await?;
        if candidate.retired {
            return Err(conflict(name, "the version is retired"));
        }
        match plugin.active {
            None => return Err(conflict(name, "no version is active; there is nothing to compare with")),
            Some(active) if active == version => return Err(conflict(name, "the version is the active one")),
            Some(_) => {}
        }
        if find_rollout(&mut tx, tenant, plugin.id, kind).await?.is_some() {
            return Err(conflict(name, "a candidate of this kind is under way; stop it first"));
        }
        let proof = match kind {
            Kind::Canary => proof(&mut tx, tenant, &plugin, &candidate, &act.asks, act.at).await?,
            // Nothing comes of it.
            Kind::Shadow => None,
        };
        // It runs with its grants, whatever becomes of what it does.
        consent(&mut tx, tenant, &plugin, &candidate, act).await?;
        let detail = start_text(terms, proof.as_ref());
        let number = note(&mut tx, tenant, plugin.id, (actions(kind).0, version), act, &detail).await?;
        let sql = "INSERT INTO rollouts (tenant, plugin, kind, number, version, author, started, terms, tally)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let tally = Tally::default();
        tx.execute(sql, |args| {
            args.int(tenant.0).int(plugin.id.0).int(kind_number(kind)).int(number).int(i64::from(version));
            args.text(&act.author).int(act.at.0).text(terms).text(&tally_text(&tally));
        })
        .await?;
        tx.settings_changed(tenant).await?;
        tx.end().await?;
        let (author, started, terms) = (act.author.clone(), act.at, terms.to_owned());
        Ok(Rollout { plugin: plugin.id, kind, number, version, author, started, terms, tally })
    }

    async fn rollouts(&self, tenant: TenantId, plugin: PluginId) -> Result<Vec<Rollout>> {
        let rows = self.read(tenant, ROLLOUTS, |args| _ = args.int(tenant.0).int(plugin.0)).await?;
        rows.iter().map(|row| rollout(&mut Columns::new(row))).collect()
    }

    async fn count_rollout(
        &self,
        tenant: TenantId,
        plugin: PluginId,
        kind: Kind,
        number: i64,
        more: &Tally,
    ) -> Result<Option<Rollout>> {
        let mut tx = self.begin(tenant).await?;
        let found = find_rollout(&mut tx, tenant, plugin, kind).await?.filter(|rollout| rollout.number == number);
        let Some(mut rollout) = found else { return Ok(None) };
        rollout.tally.add(more);
        let sql = "UPDATE rollouts SET tally = $4 WHERE tenant = $1 AND plugin = $2 AND kind = $3";
        tx.execute(sql, |args| {
            args.int(tenant.0).int(plugin.0).int(kind_number(kind)).text(&tally_text(&rollout.tally));
        })
        .await?;
        tx.end().await?;
        Ok(Some(rollout))
    }

    async fn end_rollout(&self, tenant: TenantId, name: &str, kind: Kind, end: &Ending) -> Result<Option<Rollout>> {
        let mut tx = self.begin(tenant).await?;
        let plugin = find_plugin(&mut tx, tenant, name).await?;
        let found = find_rollout(&mut tx, tenant, plugin.id, kind).await?;
        let found = found.filter(|rollout| end.number.is_none_or(|number| number == rollout.number));
        let Some(rollout) = found else { return Ok(None) };
        let promoted = if end.promote {
            let version = find_version(&mut tx, tenant, &plugin, rollout.version).await?;
            // What was new enough to begin with does not age while the canary goes on.
            let proof = proof(&mut tx, tenant, &plugin, &version, &end.act.asks, rollout.started).await?;
            consent(&mut tx, tenant, &plugin, &version, &end.act).await?;
            Some((version, proof))
        } else {
            None
        };
        remove_rollout(&mut tx, tenant, &rollout, &end.detail, &end.act).await?;
        match promoted {
            Some((version, proof)) => {
                make_active(&mut tx, tenant, plugin, (Action::Activated, &version, proof), &end.act).await?;
            }
            None => tx.settings_changed(tenant).await?,
        }
        tx.end().await?;
        Ok(Some(rollout))
    }
}

fn conflict(name: &str, detail: &str) -> Error {
    Error::Conflict { what: "plugin", name: name.to_owned(), detail: detail.to_owned() }
}

async fn find_version(tx: &mut Transaction, tenant: TenantId, plugin: &Plugin, number: u32) -> Result<Version> {
    let sql = concat!(
        "SELECT ",
        version_columns!(),
        " FROM plugin_versions v WHERE v.tenant = $1 AND v.plugin = $2 AND v.number = $3"
    );
    let rows = tx.fetch(sql, |args| _ = args.int(tenant.0).int(plugin.id.0).int(i64::from(number))).await?;
    match rows.first() {
        Some(row) => version(&mut Columns::new(row)),
        None => {
            let rows = tx.fetch(retired::NEWEST, |args| _ = args.int(tenant.0).int(plugin.id.0)).await?;
            let newest = rows.first().map_or(Ok(None), |row| Columns::new(row).int_opt())?.unwrap_or_default();
            Err(retired::missing(plugin, number, newest))
        }
    }
}

/// The candidate, which nobody else counts or ends until the transaction does.
async fn find_rollout(tx: &mut Transaction, tenant: TenantId, plugin: PluginId, kind: Kind) -> Result<Option<Rollout>> {
    let sql = concat!(
        "SELECT ",
        rollout_columns!(),
        " FROM rollouts o WHERE o.tenant = $1 AND o.plugin = $2 AND o.kind = $3 FOR UPDATE"
    );
    let rows = tx.fetch(sql, |args| _ = args.int(tenant.0).int(plugin.0).int(kind_number(kind))).await?;
    rows.first().map(|row| rollout(&mut Columns::new(row))).transpose()
}

/// The preview that lets a version run for real at this time; none if none is asked for: by the plugin, by the operator of
/// the tenant, or by the host that somebody acts on.
async fn proof(
    tx: &mut Transaction,
    tenant: TenantId,
    plugin: &Plugin,
    version: &Version,
    host: &ReleasePolicy,
    now: Timestamp,
) -> Result<Option<Preview>> {
    let rows = tx.fetch(ASKS, |args| _ = args.int(tenant.0)).await?;
    let row = rows.first().ok_or_else(|| no_tenant(tenant))?;
    let of_tenant = asked(&Columns::new(row).text()?)?;
    let asked = plugin.policy.and(of_tenant).and(*host);
    if asked.require_preview.is_none() {
        return Ok(None);
    }
    let rows = tx.fetch(FIND_PREVIEW, |args| {
        args.int(tenant.0).int(plugin.id.0).int(i64::from(version.number)).int(against_number(plugin.active));
    });
    let found = rows.await?.first().map(|row| preview(&mut Columns::new(row))).transpose()?;
    proven(plugin, &asked, version, found.as_ref(), now)?;
    Ok(found)
}

/// Adds an entry; gives its number. Whoever calls has the plugin's row, so numbers are not given out twice.
async fn note(
    tx: &mut Transaction,
    tenant: TenantId,
    plugin: PluginId,
    (action, version): (Action, u32),
    act: &Act,
    detail: &str,
) -> Result<i64> {
    let sql = "INSERT INTO plugin_history (tenant, plugin, number, action, version, author, at, detail)
               SELECT $1, $2, coalesce(max(h.number), 0) + 1, $3, $4, $5, $6, $7
               FROM plugin_history h WHERE h.tenant = $1 AND h.plugin = $2 RETURNING number";
    let rows = tx.fetch(sql, |args| {
        args.int(tenant.0).int(plugin.0).text(&action_text(action)).int(i64::from(version));
        args.text(&act.author).int(act.at.0).text(detail);
    });
    let rows = rows.await?;
    Columns::new(rows.first().ok_or_else(|| Error::Damaged("an entry was not added".into()))?).int()
}

async fn agree(tx: &mut Transaction, tenant: TenantId, plugin: &Plugin, number: u32, act: &Act) -> Result<bool> {
    let sql = "UPDATE plugin_versions SET approver = $4, approved = $5
               WHERE tenant = $1 AND plugin = $2 AND number = $3 AND approver IS NULL";
    let agreed = tx.execute(sql, |args| {
        args.int(tenant.0).int(plugin.id.0).int(i64::from(number)).text(&act.author).int(act.at.0);
    });
    let agreed = agreed.await? > 0;
    if agreed {
        note(tx, tenant, plugin.id, (Action::Approved, number), act, "{}").await?;
    }
    Ok(agreed)
}

/// Looks whether a version may run with what it asks for. Whoever may agree to that does so with it.
async fn consent(tx: &mut Transaction, tenant: TenantId, plugin: &Plugin, version: &Version, act: &Act) -> Result<()> {
    let active = match plugin.active {
        Some(number) => Some(find_version(tx, tenant, plugin, number).await?),
        None => None,
    };
    match agreed(plugin, active.as_ref(), version) {
        Err(Error::Unagreed { .. }) if act.consents => {
            agree(tx, tenant, plugin, version.number, act).await?;
            Ok(())
        }
        judged => judged,
    }
}

/// Ends a candidate's time, and says why and what it came to.
async fn remove_rollout(
    tx: &mut Transaction,
    tenant: TenantId,
    rollout: &Rollout,
    detail: &serde_json::Map<String, serde_json::Value>,
    act: &Act,
) -> Result<()> {
    let sql = "DELETE FROM rollouts WHERE tenant = $1 AND plugin = $2 AND kind = $3";
    tx.execute(sql, |args| _ = args.int(tenant.0).int(rollout.plugin.0).int(kind_number(rollout.kind))).await?;
    let detail = end_text(detail, &rollout.tally);
    note(tx, tenant, rollout.plugin, (actions(rollout.kind).1, rollout.version), act, &detail).await?;
    Ok(())
}

async fn make_active(
    tx: &mut Transaction,
    tenant: TenantId,
    plugin: Plugin,
    (action, version, proof): (Action, &Version, Option<Preview>),
    act: &Act,
) -> Result<Plugin> {
    let number = version.number;
    let sql = "UPDATE plugins SET previous = active, active = $3, activated = $4 WHERE tenant = $1 AND id = $2";
    tx.execute(sql, |args| _ = args.int(tenant.0).int(plugin.id.0).int(i64::from(number)).int(act.at.0)).await?;
    let sql = "UPDATE plugin_versions SET activated = coalesce(activated, $4)
               WHERE tenant = $1 AND plugin = $2 AND number = $3";
    tx.execute(sql, |args| _ = args.int(tenant.0).int(plugin.id.0).int(i64::from(number)).int(act.at.0)).await?;
    note(tx, tenant, plugin.id, (action, number), act, &switch_text(plugin.active, proof.as_ref())).await?;
    for kind in [Kind::Canary, Kind::Shadow] {
        let Some(rollout) = find_rollout(tx, tenant, plugin.id, kind).await? else { continue };
        let candidate = find_version(tx, tenant, &plugin, rollout.version).await?;
        if let Some(detail) = over(&plugin, version, &candidate)? {
            remove_rollout(tx, tenant, &rollout, &detail, act).await?;
        }
    }
    tx.settings_changed(tenant).await?;
    Ok(Plugin { previous: plugin.active, active: Some(number), activated: Some(act.at), ..plugin })
}
