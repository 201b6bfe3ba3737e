//! Releases.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::proof::Preview;
use bulkhead_domain::policy::proof::ReleasePolicy;
use sqlx::SqliteConnection;

use crate::Error;
use crate::Result;
use crate::catalogue::Plugin;
use crate::catalogue::Version;
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
use crate::sqlite::Sqlite;
use crate::sqlite::catalogue::find_plugin;
use crate::sqlite::catalogue::no_plugin;
use crate::sqlite::fault;
use crate::sqlite::retired::let_go;
use crate::sqlite::row::Columns;
use crate::sqlite::row::catalogue::asked;
use crate::sqlite::row::catalogue::version;
use crate::sqlite::row::catalogue::version_columns;
use crate::sqlite::row::release::ASKS;
use crate::sqlite::row::release::FIND_PREVIEW;
use crate::sqlite::row::release::HISTORY;
use crate::sqlite::row::release::PREVIEWS;
use crate::sqlite::row::release::ROLLOUTS;
use crate::sqlite::row::release::action_text;
use crate::sqlite::row::release::actions;
use crate::sqlite::row::release::against_number;
use crate::sqlite::row::release::asks_text;
use crate::sqlite::row::release::counts_text;
use crate::sqlite::row::release::end_text;
use crate::sqlite::row::release::entry;
use crate::sqlite::row::release::kind_number;
use crate::sqlite::row::release::preview;
use crate::sqlite::row::release::rollout;
use crate::sqlite::row::release::rollout_columns;
use crate::sqlite::row::release::start_text;
use crate::sqlite::row::release::switch_text;
use crate::sqlite::row::release::tally_text;
use crate::sqlite::text::Args;
use crate::sqlite::text::fetch;
use crate::sqlite::writer::op::BoxFuture;
use crate::sqlite::writer::transaction::Transaction;
use crate::sqlite::writer::transaction::no_tenant;

/// A tenant's candidates under way, with their versions.
pub(super) async fn list_rollouts(conn: &mut SqliteConnection, tenant: TenantId) -> Result<Vec<(Rollout, Version)>> {
    let sql = concat!(
        "SELECT ",
        rollout_columns!(),
        ", ",
        version_columns!(),
        " FROM rollouts o JOIN plugin_versions v ON v.tenant = o.tenant AND v.plugin = o.plugin AND v.number = o.version
          WHERE o.tenant = ? ORDER BY o.plugin, o.kind"
    );
    let mut args = Args::default();
    args.int(tenant.0);
    let rows = fetch(conn, sql, args).await.map_err(fault::outward)?;
    let read = |row| {
        let mut columns = Columns::new(row);
        Ok((rollout(&mut columns)?, version(&mut columns)?))
    };
    rows.iter().map(read).collect()
}

#[async_trait]
impl Releases for Sqlite {
    async fn switch_version(&self, tenant: TenantId, plugin: &str, switch: &Switch) -> Result<Plugin> {
        self.change((tenant, plugin.to_owned(), switch.clone()), switch_version).await
    }

    async fn retire(&self, tenant: TenantId, plugin: &str, version: u32, kept: u32, act: &Act) -> Result<()> {
        self.change((tenant, plugin.to_owned(), version, kept, act.clone()), retire).await
    }

    async fn approve(&self, tenant: TenantId, plugin: &str, version: u32, act: &Act) -> Result<Version> {
        self.change((tenant, plugin.to_owned(), version, act.clone()), approve).await
    }

    async fn set_release_policy(
        &self,
        tenant: TenantId,
        plugin: &str,
        policy: &ReleasePolicy,
        act: &Act,
    ) -> Result<()> {
        self.change((tenant, plugin.to_owned(), *policy, act.clone()), set_release_policy).await
    }

    async fn add_preview(&self, tenant: TenantId, plugin: &str, preview: &Preview) -> Result<()> {
        self.change((tenant, plugin.to_owned(), preview.clone()), add_preview).await
    }

    async fn previews(&self, tenant: TenantId, plugin: PluginId) -> Result<Vec<Preview>> {
        let rows = self.read(PREVIEWS, |args| _ = args.int(tenant.0).int(plugin.0)).await?;
        rows.iter().map(|row| preview(&mut Columns::new(row))).collect()
    }

    async fn history(&self, tenant: TenantId, plugin: &str, before: Option<i64>, limit: u32) -> Result<Vec<Entry>> {
        let sql = "SELECT id FROM plugins WHERE tenant = ? AND name = ?";
        let rows = self.read(sql, |args| _ = args.int(tenant.0).text(plugin)).await?;
        let id = Columns::new(rows.first().ok_or_else(|| no_plugin(plugin))?).int()?;
        let before = before.unwrap_or(i64::MAX);
        let rows = self.read(HISTORY, |args| _ = args.int(tenant.0).int(id).int(before).int(i64::from(limit))).await?;
        rows.iter().map(|row| entry(&mut Columns::new(row))).collect()
    }

    async fn start_rollout(
        &self,
        tenant: TenantId,
        plugin: &str,
        kind: Kind,
        version: u32,
        terms: &str,
        act: &Act,
    ) -> Result<Rollout> {
        let start =
            Start { tenant, plugin: plugin.to_owned(), kind, version, terms: terms.to_owned(), act: act.clone() };
        self.change(start, start_rollout).await
    }

    async fn rollouts(&self, tenant: TenantId, plugin: PluginId) -> Result<Vec<Rollout>> {
        let rows = self.read(ROLLOUTS, |args| _ = args.int(tenant.0).int(plugin.0)).await?;
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
        self.change((tenant, plugin, kind, number, more.clone()), count_rollout).await
    }

    async fn end_rollout(&self, tenant: TenantId, plugin: &str, kind: Kind, end: &Ending) -> Result<Option<Rollout>> {
        self.change((tenant, plugin.to_owned(), kind, end.clone()), end_rollout).await
    }
}

fn conflict(name: &str, detail: &str) -> Error {
    Error::Conflict { what: "plugin", name: name.to_owned(), detail: detail.to_owned() }
}

async fn find_version(tx: &mut Transaction<'_>, tenant: TenantId, plugin: &Plugin, number: u32) -> Result<Version> {
    let sql = concat!(
        "SELECT ",
        version_columns!(),
        " FROM plugin_versions v WHERE v.tenant = ? AND v.plugin = ? AND v.number = ?"
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

async fn find_rollout(
    tx: &mut Transaction<'_>,
    tenant: TenantId,
    plugin: PluginId,
    kind: Kind,
) -> Result<Option<Rollout>> {
    let sql =
        concat!("SELECT ", rollout_columns!(), " FROM rollouts o WHERE o.tenant = ? AND o.plugin = ? AND o.kind = ?");
    let rows = tx.fetch(sql, |args| _ = args.int(tenant.0).int(plugin.0).int(kind_number(kind))).await?;
    rows.first().map(|row| rollout(&mut Columns::new(row))).transpose()
}

/// The preview that lets a version run for real at this time; none if none is asked for: by the plugin, by the operator of
/// the tenant, or by the host that somebody acts on.
async fn proof(
    tx: &mut Transaction<'_>,
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

/// Adds an entry; gives its number.
async fn note(
    tx: &mut Transaction<'_>,
    tenant: TenantId,
    plugin: PluginId,
    (action, version): (Action, u32),
    act: &Act,
    detail: &str,
) -> Result<i64> {
    let sql = "INSERT INTO plugin_history (tenant, plugin, number, action, version, author, at, detail)
               SELECT ?1, ?2, coalesce(max(number), 0) + 1, ?3, ?4, ?5, ?6, ?7 FROM plugin_history WHERE plugin = ?2
               RETURNING number";
    let rows = tx.fetch(sql, |args| {
        args.int(tenant.0).int(plugin.0).text(&action_text(action)).int(i64::from(version));
        args.text(&act.author).int(act.at.0).text(detail);
    });
    let rows = rows.await?;
    Columns::new(rows.first().ok_or_else(|| Error::Damaged("an entry was not added".into()))?).int()
}

async fn agree(tx: &mut Transaction<'_>, tenant: TenantId, plugin: &Plugin, number: u32, act: &Act) -> Result<bool> {
    let sql = "UPDATE plugin_versions SET approver = ?, approved = ?
               WHERE tenant = ? AND plugin = ? AND number = ? AND approver IS NULL";
    let agreed = tx.execute(sql, |args| {
        args.text(&act.author).int(act.at.0).int(tenant.0).int(plugin.id.0).int(i64::from(number));
    });
    let agreed = agreed.await? > 0;
    if agreed {
        note(tx, tenant, plugin.id, (Action::Approved, number), act, "{}").await?;
    }
    Ok(agreed)
}

/// Looks whether a version may run with what it asks for. Whoever may agree to that does so with it.
async fn consent(
    tx: &mut Transaction<'_>,
    tenant: TenantId,
    plugin: &Plugin,
    version: &Version,
    act: &Act,
) -> Result<()> {
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
    tx: &mut Transaction<'_>,
    tenant: TenantId,
    rollout: &Rollout,
    detail: &serde_json::Map<String, serde_json::Value>,
    act: &Act,
) -> Result<()> {
    let sql = "DELETE FROM rollouts WHERE tenant = ? AND plugin = ? AND kind = ?";
    tx.execute(sql, |args| _ = args.int(tenant.0).int(rollout.plugin.0).int(kind_number(rollout.kind))).await?;
    let detail = end_text(detail, &rollout.tally);
    note(tx, tenant, rollout.plugin, (actions(rollout.kind).1, rollout.version), act, &detail).await?;
    Ok(())
}

async fn make_active(
    tx: &mut Transaction<'_>,
    tenant: TenantId,
    plugin: Plugin,
    (action, version, proof): (Action, &Version, Option<Preview>),
    act: &Act,
) -> Result<Plugin> {
    let number = version.number;
    let sql = "UPDATE plugins SET previous = active, active = ?, activated = ? WHERE tenant = ? AND id = ?";
    tx.execute(sql, |args| _ = args.int(i64::from(number)).int(act.at.0).int(tenant.0).int(plugin.id.0)).await?;
    let sql =
        "UPDATE plugin_versions SET activated = coalesce(activated, ?) WHERE tenant = ? AND plugin = ? AND number = ?";
    tx.execute(sql, |args| _ = args.int(act.at.0).int(tenant.0).int(plugin.id.0).int(i64::from(number))).await?;
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

fn switch_version<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, name, switch): &'a (TenantId, String, Switch),
) -> BoxFuture<'a, Result<Plugin>> {
    Box::pin(async move {
        let plugin = find_plugin(tx, *tenant, name).await?;
        let number = switch.to.or(plugin.previous).ok_or_else(|| conflict(name, "no version was active before"))?;
        let version = find_version(tx, *tenant, &plugin, number).await?;
        if version.retired {
            return Err(conflict(name, "the version is retired"));
        }
        if plugin.active == Some(number) {
            return Ok(plugin);
        }
        if switch.seen.is_some_and(|seen| seen != plugin.active) {
            return Err(conflict(name, "another version became active meanwhile; look again"));
        }
        let proof = proof(tx, *tenant, &plugin, &version, &switch.act.asks, switch.act.at).await?;
        consent(tx, *tenant, &plugin, &version, &switch.act).await?;
        let action = if switch.back { Action::RolledBack } else { Action::Activated };
        make_active(tx, *tenant, plugin, (action, &version, proof), &switch.act).await
    })
}

fn retire<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, name, number, kept, act): &'a (TenantId, String, u32, u32, Act),
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let plugin = find_plugin(tx, *tenant, name).await?;
        let retired = find_version(tx, *tenant, &plugin, *number).await?.retired;
        if plugin.active == Some(*number) {
            return Err(conflict(name, "the version is active; activate another first"));
        }
        for kind in [Kind::Canary, Kind::Shadow] {
            if find_rollout(tx, *tenant, plugin.id, kind).await?.is_some_and(|rollout| rollout.version == *number) {
                return Err(conflict(name, "the version is a candidate under way; stop that first"));
            }
        }
        if retired {
            return Ok(());
        }
        let sql = "UPDATE plugin_versions SET retired = 1 WHERE tenant = ? AND plugin = ? AND number = ?";
        tx.execute(sql, |args| _ = args.int(tenant.0).int(plugin.id.0).int(i64::from(*number))).await?;
        note(tx, *tenant, plugin.id, (Action::Retired, *number), act, "{}").await?;
        let_go(tx, *tenant, plugin.id, *kept).await?;
        tx.settings_changed(*tenant).await
    })
}

fn approve<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, name, number, act): &'a (TenantId, String, u32, Act),
) -> BoxFuture<'a, Result<Version>> {
    Box::pin(async move {
        let plugin = find_plugin(tx, *tenant, name).await?;
        if agree(tx, *tenant, &plugin, *number, act).await? {
            tx.settings_changed(*tenant).await?;
        }
        find_version(tx, *tenant, &plugin, *number).await
    })
}

fn set_release_policy<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, name, policy, act): &'a (TenantId, String, ReleasePolicy, Act),
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let plugin = find_plugin(tx, *tenant, name).await?;
        if plugin.policy == *policy {
            return Ok(());
        }
        if !act.consents && policy.is_weaker_than(&plugin.policy) {
            return Err(Error::Weaker { plugin: plugin.name });
        }
        let text = asks_text(policy);
        let sql = "UPDATE plugins SET policy = ? WHERE tenant = ? AND id = ?";
        tx.execute(sql, |args| _ = args.text(&text).int(tenant.0).int(plugin.id.0)).await?;
        let of = plugin.active.unwrap_or_default();
        note(tx, *tenant, plugin.id, (Action::PolicyChanged, of), act, &text).await?;
        tx.settings_changed(*tenant).await
    })
}

fn add_preview<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, name, preview): &'a (TenantId, String, Preview),
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let plugin = find_plugin(tx, *tenant, name).await?;
        let sql = "INSERT INTO plugin_previews (tenant, plugin, version, against, author, at, counts)
                   VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (plugin, version, against)
                   DO UPDATE SET author = excluded.author, at = excluded.at, counts = excluded.counts";
        tx.execute(sql, |args| {
            args.int(tenant.0).int(plugin.id.0).int(i64::from(preview.version)).int(against_number(preview.against));
            args.text(&preview.author).int(preview.at.0).text(&counts_text(preview));
        })
        .await?;
        Ok(())
    })
}

/// A candidate to be.
struct Start {
    tenant: TenantId,
    plugin: String,
    kind: Kind,
    version: u32,
    terms: String,
    act: Act,
}

fn start_rollout<'a>(tx: &'a mut Transaction<'_>, start: &'a Start) -> BoxFuture<'a, Result<Rollout>> {
    Box::pin(async move {
        let Start { tenant, plugin: name, kind, version, terms, act } = start;
        let plugin = find_plugin(tx, *tenant, name).await?;
        let candidate = find_version(tx, *tenant, &plugin, *version).await?;
        if candidate.retired {
            return Err(conflict(name, "the version is retired"));
        }
        match plugin.active {
            None => return Err(conflict(name, "no version is active; there is nothing to compare with")),
            Some(active) if active == *version => return Err(conflict(name, "the version is the active one")),
            Some(_) => {}
        }
        if find_rollout(tx, *tenant, plugin.id, *kind).await?.is_some() {
            return Err(conflict(name, "a candidate of this kind is under way; stop it first"));
        }
        let proof = match kind {
            Kind::Canary => proof(tx, *tenant, &plugin, &candidate, &act.asks, act.at).await?,
            // Nothing comes of it.
            Kind::Shadow => None,
        };
        // It runs with its grants, whatever becomes of what it does.
        consent(tx, *tenant, &plugin, &candidate, act).await?;
        let detail = start_text(terms, proof.as_ref());
        let number = note(tx, *tenant, plugin.id, (actions(*kind).0, *version), act, &detail).await?;
        let Act { author, at, .. } = act.clone();
        let sql = "INSERT INTO rollouts (tenant, plugin, kind, number, version, author, started, terms, tally)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let tally = Tally::default();
        tx.execute(sql, |args| {
            args.int(tenant.0).int(plugin.id.0).int(kind_number(*kind)).int(number).int(i64::from(*version));
            args.text(&author).int(at.0).text(terms).text(&tally_text(&tally));
        })
        .await?;
        tx.settings_changed(*tenant).await?;
        let (plugin, kind, version, terms) = (plugin.id, *kind, *version, terms.clone());
        Ok(Rollout { plugin, kind, number, version, author, started: at, terms, tally })
    })
}

type Count = (TenantId, PluginId, Kind, i64, Tally);

fn count_rollout<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, plugin, kind, number, more): &'a Count,
) -> BoxFuture<'a, Result<Option<Rollout>>> {
    Box::pin(async move {
        let found = find_rollout(tx, *tenant, *plugin, *kind).await?.filter(|rollout| rollout.number == *number);
        let Some(mut rollout) = found else { return Ok(None) };
        rollout.tally.add(more);
        let sql = "UPDATE rollouts SET tally = ? WHERE tenant = ? AND plugin = ? AND kind = ?";
        let text = tally_text(&rollout.tally);
        tx.execute(sql, |args| _ = args.text(&text).int(tenant.0).int(plugin.0).int(kind_number(*kind))).await?;
        Ok(Some(rollout))
    })
}

fn end_rollout<'a>(
    tx: &'a mut Transaction<'_>,
    (tenant, name, kind, end): &'a (TenantId, String, Kind, Ending),
) -> BoxFuture<'a, Result<Option<Rollout>>> {
    Box::pin(async move {
        let plugin = find_plugin(tx, *tenant, name).await?;
        let found = find_rollout(tx, *tenant, plugin.id, *kind).await?;
        let found = found.filter(|rollout| end.number.is_none_or(|number| number == rollout.number));
        let Some(rollout) = found else { return Ok(None) };
        let promoted = if end.promote {
            let version = find_version(tx, *tenant, &plugin, rollout.version).await?;
            // What was new enough to begin with does not age while the canary goes on.
            let proof = proof(tx, *tenant, &plugin, &version, &end.act.asks, rollout.started).await?;
            consent(tx, *tenant, &plugin, &version, &end.act).await?;
            Some((version, proof))
        } else {
            None
        };
        remove_rollout(tx, *tenant, &rollout, &end.detail, &end.act).await?;
        match promoted {
            Some((version, proof)) => {
                make_active(tx, *tenant, plugin, (Action::Activated, &version, proof), &end.act).await?;
            }
            None => tx.settings_changed(*tenant).await?,
        }
        Ok(Some(rollout))
    })
}
