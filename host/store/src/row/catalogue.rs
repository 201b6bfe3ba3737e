//! Rows of the catalogue.

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::ceiling::TenantPolicy;
use bulkhead_domain::policy::proof::ReleasePolicy;
use bulkhead_domain::policy::quota::Quotas;

use crate::Error;
use crate::Result;
use crate::catalogue::Key;
use crate::catalogue::Plugin;
use crate::catalogue::RuleSetRow;
use crate::catalogue::SecretRow;
use crate::catalogue::SinkRow;
use crate::catalogue::Tenant;
use crate::catalogue::TenantState;
use crate::catalogue::Version;
use crate::catalogue::VersionHead;
use crate::row::AnyRow;
use crate::row::Columns;

macro_rules! tenant_columns {
    () => {
        "t.id, t.uid, t.name, t.state, t.settings, t.created, t.quotas, t.policy, t.asks"
    };
}
pub(crate) use tenant_columns;

pub(crate) fn tenant(columns: &mut Columns<'_>) -> Result<Tenant> {
    let (id, uid, name) = (TenantId(columns.int()?), columns.text()?, columns.text()?);
    let state = match columns.int()? {
        0 => TenantState::Active,
        1 => TenantState::Paused,
        2 => TenantState::Suspended,
        other => return Err(Error::Damaged(format!("a tenant is in state {other}"))),
    };
    let (settings, created, quotas) = (columns.int()?, columns.time()?, columns.text()?);
    let quotas = serde_json::from_str(&quotas)
        .map_err(|error| Error::Damaged(format!("a tenant's quotas do not read: {error}")))?;
    let policy = serde_json::from_str(&columns.text()?)
        .map_err(|error| Error::Damaged(format!("what a tenant's plugins may do does not read: {error}")))?;
    let asks = asked(&columns.text()?)?;
    Ok(Tenant { id, uid, name, state, settings, created, quotas, policy, asks })
}

/// What somebody asks of versions.
pub(crate) fn asked(text: &str) -> Result<ReleasePolicy> {
    serde_json::from_str(text)
        .map_err(|error| Error::Damaged(format!("what is asked of versions does not read: {error}")))
}

/// What a tenant's plugins may do, as it is stored.
pub(crate) fn policy_text(policy: &TenantPolicy) -> String {
    serde_json::to_string(policy).expect("because texts are always JSON")
}

/// Quotas as they are stored.
pub(crate) fn quotas_text(quotas: &Quotas) -> String {
    serde_json::to_string(quotas).expect("because numbers are always JSON")
}

/// A switch as a number.
pub(crate) const fn tenant_state_number(state: TenantState) -> i64 {
    match state {
        TenantState::Active => 0,
        TenantState::Paused => 1,
        TenantState::Suspended => 2,
    }
}

macro_rules! key_columns {
    () => {
        "k.id, k.tenant, k.hash, k.scopes, k.note, k.created, k.revoked"
    };
}
pub(crate) use key_columns;

pub(crate) fn key(columns: &mut Columns<'_>) -> Result<Key> {
    Ok(Key {
        id: columns.text()?,
        tenant: columns.int_opt()?.map(TenantId),
        hash: columns.blob()?,
        scopes: columns.list()?,
        note: columns.text()?,
        created: columns.time()?,
        revoked: columns.time_opt()?,
    })
}

macro_rules! plugin_columns {
    () => {
        "p.id, p.name, p.active, p.previous, p.paused, p.config, p.created, p.policy, p.activated"
    };
}
pub(crate) use plugin_columns;

macro_rules! version_columns {
    () => {
        "v.number, v.digest, v.manifest, v.inspection, v.grants, v.author, v.created, v.retired, v.activated, v.approver, \
         v.approved, v.signature"
    };
}
pub(crate) use version_columns;

macro_rules! head_columns {
    () => {
        "v.number, v.digest, v.size, v.grants, v.author, v.created, v.retired, v.activated, v.approver, v.approved, \
         v.signature"
    };
}
pub(crate) use head_columns;

pub(crate) fn plugin(columns: &mut Columns<'_>) -> Result<Plugin> {
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    Ok(Plugin {
        id: PluginId(columns.int()?),
        name: columns.text()?,
        active: number(columns.int_opt()?),
        previous: number(columns.int_opt()?),
        paused: columns.flag()?,
        config: columns.text()?,
        created: columns.time()?,
        policy: asked(&columns.text()?)?,
        activated: columns.time_opt()?,
    })
}

/// A plugin, and what is to be known of its active version behind it.
pub(crate) fn plugin_with<V>(
    columns: &mut Columns<'_>,
    active: fn(&mut Columns<'_>) -> Result<V>,
) -> Result<(Plugin, Option<V>)> {
    let plugin = plugin(columns)?;
    let active = plugin.active.map(|_| active(columns)).transpose()?;
    Ok((plugin, active))
}

pub(crate) fn version(columns: &mut Columns<'_>) -> Result<Version> {
    Ok(Version {
        number: columns.narrow()?,
        digest: columns.text()?,
        manifest: columns.text()?,
        inspection: columns.text()?,
        grants: columns.text()?,
        author: columns.text()?,
        created: columns.time()?,
        retired: columns.flag()?,
        activated: columns.time_opt()?,
        approval: columns.text_opt()?.zip(columns.time_opt()?),
        signature: columns.text_opt()?,
    })
}

pub(crate) fn version_head(columns: &mut Columns<'_>) -> Result<VersionHead> {
    Ok(VersionHead {
        number: columns.narrow()?,
        digest: columns.text()?,
        size: columns.count()?,
        grants: columns.text()?,
        author: columns.text()?,
        created: columns.time()?,
        retired: columns.flag()?,
        activated: columns.time_opt()?,
        approval: columns.text_opt()?.zip(columns.time_opt()?),
        signature: columns.text_opt()?,
    })
}

pub(crate) fn rule_set<'r>(row: impl Into<AnyRow<'r>>) -> Result<RuleSetRow> {
    let mut columns = Columns::new(row);
    let (number, rules, author) = (columns.int()?, columns.text()?, columns.text()?);
    Ok(RuleSetRow { number, rules, author, note: columns.text()?, created: columns.time()? })
}

pub(crate) fn sink<'r>(row: impl Into<AnyRow<'r>>) -> Result<SinkRow> {
    let mut columns = Columns::new(row);
    Ok(SinkRow { name: columns.text()?, spec: columns.text()?, updated: columns.time()? })
}

pub(crate) fn secret<'r>(row: impl Into<AnyRow<'r>>) -> Result<SecretRow> {
    let mut columns = Columns::new(row);
    let (name, version) = (columns.text()?, columns.narrow()?);
    Ok(SecretRow { name, version, sealed: columns.blob()?, updated: columns.time()? })
}

/// The set that every tenant begins with.
pub(crate) fn no_rules(created: Timestamp) -> RuleSetRow {
    RuleSetRow { number: 0, rules: "[]".into(), author: String::new(), note: String::new(), created }
}
