//! The catalogue: tenants, keys, plugins and the settings of tenants. Small, read often, changed by people.
//!
//! Every change of something that dispatch reads (rules, plugins, sinks, secrets, configuration, switches) raises the
//! tenant's settings version in the same transaction; dispatch sees it at its next batch.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::ceiling::TenantPolicy;
use bulkhead_domain::policy::proof::ReleasePolicy;
use bulkhead_domain::policy::quota::Quotas;
use bytes::Bytes;

use crate::Error;
use crate::Result;
use crate::releases::Rollout;

/// Whether a tenant's events are taken in and worked off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantState {
    /// Both.
    Active,
    /// Taken in, not worked off.
    Paused,
    /// Neither; its keys are refused.
    Suspended,
}

/// A tenant.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// The store's number.
    pub id: TenantId,
    /// The id that the outside sees: `ten_…`.
    pub uid: String,
    /// Its name, unique.
    pub name: String,
    /// Its switch.
    pub state: TenantState,
    /// The version of its settings.
    pub settings: i64,
    /// When it was made.
    pub created: Timestamp,
    /// What the operator allows it; what is unset is the host's default.
    pub quotas: Quotas,
    /// What the operator allows its plugins.
    pub policy: TenantPolicy,
    /// What the operator asks of their versions, beside what each plugin asks itself.
    pub asks: ReleasePolicy,
}

/// Tenants.
#[async_trait]
pub trait Tenants: Send + Sync {
    /// Makes one. `Conflict` if the name is taken.
    async fn operator_create_tenant(&self, uid: &str, name: &str, now: Timestamp) -> Result<Tenant>;

    /// All, by name.
    async fn operator_tenants(&self) -> Result<Vec<Tenant>>;

    /// One, by name or uid.
    async fn operator_tenant(&self, name: &str) -> Result<Option<Tenant>>;

    /// One, as it is now.
    async fn tenant(&self, tenant: TenantId) -> Result<Option<Tenant>>;

    /// Turns its switch.
    async fn set_tenant_state(&self, tenant: TenantId, state: TenantState) -> Result<()>;

    /// The same on the tenant's own behalf: a suspended one stays so. Says whether the switch was turned; both in one step,
    /// so that it never comes after a suspension that it did not see.
    async fn turn_tenant(&self, tenant: TenantId, state: TenantState) -> Result<bool>;

    /// Replaces its quotas; they are in [`Tenant`] from then on.
    async fn set_quotas(&self, tenant: TenantId, quotas: &Quotas) -> Result<()>;

    /// Replaces what its plugins are allowed; it counts from its next batch on.
    async fn set_policy(&self, tenant: TenantId, policy: &TenantPolicy) -> Result<()>;

    /// Replaces what the operator asks of versions of its plugins. What runs already goes on.
    async fn set_asks(&self, tenant: TenantId, asks: &ReleasePolicy) -> Result<()>;

    /// The operator's switch over everything: true pauses all dispatch and delivery. Kept over restarts.
    async fn operator_set_paused(&self, paused: bool) -> Result<()>;

    /// Where that switch stands.
    async fn operator_paused(&self) -> Result<bool>;
}

/// An API key, without its secret.
#[derive(Debug, Clone)]
pub struct Key {
    /// The part of the key's text that is no secret.
    pub id: String,
    /// Whose; none is the operator's.
    pub tenant: Option<TenantId>,
    /// HMAC-SHA256 of the secret under the pepper.
    pub hash: Vec<u8>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// What it is for.
    pub note: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

/// API keys.
#[async_trait]
pub trait Keys: Send + Sync {
    /// Adds one.
    async fn host_add_key(&self, key: &Key) -> Result<()>;

    /// Finds one by its id, with its tenant as it is now.
    async fn host_key(&self, id: &str) -> Result<Option<(Key, Option<Tenant>)>>;

    /// The keys of a tenant, or (none) of the operator, newest first.
    async fn operator_keys(&self, tenant: Option<TenantId>) -> Result<Vec<Key>>;

    /// Revokes one. `NotFound` if the tenant (or the operator) has no such key.
    async fn operator_revoke_key(&self, tenant: Option<TenantId>, id: &str, now: Timestamp) -> Result<()>;
}

/// A plugin.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// The store's number; state belongs to it.
    pub id: PluginId,
    /// Its name, unique in the tenant.
    pub name: String,
    /// The version that new runs use.
    pub active: Option<u32>,
    /// The version that was active before.
    pub previous: Option<u32>,
    /// Whether its runs are held.
    pub paused: bool,
    /// Its settings, as a JSON object.
    pub config: String,
    /// When it was made.
    pub created: Timestamp,
    /// What it asks of its versions.
    pub policy: ReleasePolicy,
    /// When its active version became so, the last time.
    pub activated: Option<Timestamp>,
}

/// An immutable version of a plugin.
#[derive(Debug, Clone)]
pub struct Version {
    /// From 1.
    pub number: u32,
    /// `sha256:…` of the component.
    pub digest: String,
    /// The manifest, as JSON, checked.
    pub manifest: String,
    /// What was found in the component, as JSON.
    pub inspection: String,
    /// What it is granted, as JSON.
    pub grants: String,
    /// Who uploaded it: a key's id, `watch`, …
    pub author: String,
    /// When.
    pub created: Timestamp,
    /// Whether it may not be activated any more.
    pub retired: bool,
    /// When it became active first.
    pub activated: Option<Timestamp>,
    /// Who agreed to what it asks for beyond the one before it, and when.
    pub approval: Option<(String, Timestamp)>,
    /// The signature that came with it and what it was found to be, as a JSON object.
    pub signature: Option<String>,
}

/// What a list shows of a version: all but its manifest and most of what was found in it.
#[derive(Debug, Clone)]
pub struct VersionHead {
    /// From 1.
    pub number: u32,
    /// `sha256:…` of the component.
    pub digest: String,
    /// Bytes of the component.
    pub size: u64,
    /// What it asks for, as JSON.
    pub grants: String,
    /// Who uploaded it.
    pub author: String,
    /// When.
    pub created: Timestamp,
    /// Whether it may not be activated any more.
    pub retired: bool,
    /// When it became active first.
    pub activated: Option<Timestamp>,
    /// Who agreed to what it asks for beyond the one before it, and when.
    pub approval: Option<(String, Timestamp)>,
    /// The signature that came with it, as a JSON object.
    pub signature: Option<String>,
}

/// How much a tenant may keep of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Plugins.
    pub plugins: u32,
    /// Versions of one plugin that are not retired.
    pub versions: u32,
    /// Versions of one plugin that are; the oldest go beyond that.
    pub retired: u32,
    /// Bytes; none is no limit.
    pub storage: Option<Storage>,
}

/// How much a tenant's plugins may keep, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// Of state and components together.
    pub limit: u64,
    /// Of state, as it was just before: to read through all of it in the transaction would hold others up.
    pub state: u64,
}

impl Storage {
    /// Whether a component fits beside what there is. One that is there already adds nothing.
    pub(crate) fn check(self, kept: Kept, added: usize) -> Result<()> {
        let Self { limit, state } = self;
        let (components, added) = (kept.bytes, added as u64);
        let sum = state.saturating_add(components).saturating_add(added);
        if kept.has || sum <= limit { Ok(()) } else { Err(Error::Crowded { limit, state, components, added }) }
    }
}

/// Components of a tenant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    /// Bytes of all of them.
    pub(crate) bytes: u64,
    /// Whether the one that is asked about is among them.
    pub(crate) has: bool,
}

impl Default for Room {
    fn default() -> Self {
        Self { plugins: 1_000, versions: 1_000, retired: 100, storage: None }
    }
}

impl Room {
    /// Whether there is room for a version of this plugin. `plugins` is how many there are, this one left out; `versions`
    /// how many of it are not retired, if it is there.
    pub(crate) fn check(self, name: &str, plugins: i64, versions: Option<i64>) -> Result<()> {
        let detail = match versions {
            Some(versions) if versions >= i64::from(self.versions) => format!(
                "it has {versions} versions that are not retired, as many as it may have; retire old ones \
                 (`bulkhead plugin retire {name} VERSION`), or let the operator raise limits.api.plugin_versions"
            ),
            None if plugins >= i64::from(self.plugins) => format!(
                "the tenant has {plugins} plugins, as many as it may have; upload it as a version of one that is not used \
                 any more, or let the operator raise limits.api.plugins"
            ),
            _ => return Ok(()),
        };
        Err(Error::Conflict { what: "plugin", name: name.to_owned(), detail })
    }
}

/// A version to be.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// How much there may be; `Conflict` if that is there already, and `Crowded` if its component does not fit.
    pub room: Room,
    /// `sha256:…` of the component.
    pub digest: String,
    /// The component.
    pub wasm: Bytes,
    /// The manifest, as JSON.
    pub manifest: String,
    /// What was found in the component, as JSON.
    pub inspection: String,
    /// What it is granted, as JSON.
    pub grants: String,
    /// Who uploads it.
    pub author: String,
    /// Whether whoever uploads it also agrees to what it asks for.
    pub approves: bool,
    /// The signature that came with it, as a JSON object.
    pub signature: Option<String>,
}

/// Plugins.
#[async_trait]
pub trait Plugins: Send + Sync {
    /// Adds a version, and the plugin if it is new. The same digest with the same manifest gives the version that is
    /// there, and false; a signature that it did not have is added to it.
    ///
    /// Retired versions go beyond what is kept of the plugin's, and if there is no room for the component, of any plugin of
    /// the tenant, oldest first, until there is: see [`crate::releases`].
    async fn add_version(
        &self,
        tenant: TenantId,
        plugin: &str,
        version: &NewVersion,
        now: Timestamp,
    ) -> Result<(Version, bool)>;

    /// All plugins with the heads of their active versions, by name.
    async fn plugins(&self, tenant: TenantId) -> Result<Vec<(Plugin, Option<VersionHead>)>>;

    /// One plugin with its active version.
    async fn plugin(&self, tenant: TenantId, name: &str) -> Result<Option<(Plugin, Option<Version>)>>;

    /// Up to `limit` versions of a plugin, newest first, beginning below the number `before`. None of an unknown plugin.
    async fn versions(&self, tenant: TenantId, name: &str, before: Option<u32>, limit: u32)
    -> Result<Vec<VersionHead>>;

    /// One version of a plugin.
    async fn version(&self, tenant: TenantId, name: &str, version: u32) -> Result<Option<(Plugin, Version)>>;

    /// Turns its switch. `NotFound` for an unknown plugin.
    async fn pause_plugin(&self, tenant: TenantId, name: &str, paused: bool) -> Result<()>;

    /// Replaces its settings (a JSON object). `NotFound` for an unknown plugin.
    async fn set_config(&self, tenant: TenantId, name: &str, config: &str) -> Result<()>;

    /// Bytes of the components of the tenant's versions that are not retired, each counted once. Retired ones make room by
    /// themselves when it is needed.
    async fn component_bytes(&self, tenant: TenantId) -> Result<u64>;

    /// The bytes of a component that the tenant has.
    async fn component(&self, tenant: TenantId, digest: &str) -> Result<Option<Bytes>>;
}

/// A numbered, immutable set of a tenant's rules.
#[derive(Debug, Clone)]
pub struct RuleSetRow {
    /// From 1; 0 is the empty set that a tenant begins with.
    pub number: i64,
    /// The rules, as a JSON array of rule documents.
    pub rules: String,
    /// Who.
    pub author: String,
    /// Why.
    pub note: String,
    /// When.
    pub created: Timestamp,
}

/// A destination.
#[derive(Debug, Clone)]
pub struct SinkRow {
    /// Its name, unique in the tenant.
    pub name: String,
    /// What it is, as JSON; secrets in it are names.
    pub spec: String,
    /// When it last changed.
    pub updated: Timestamp,
}

/// A secret, sealed by the host before it gets here.
#[derive(Debug, Clone)]
pub struct SecretRow {
    /// Its name.
    pub name: String,
    /// From 1, one more for each change.
    pub version: u32,
    /// Nonce and ciphertext; tenant, name and version are bound to it.
    pub sealed: Vec<u8>,
    /// When it last changed.
    pub updated: Timestamp,
}

/// Everything that dispatch needs to know of a tenant, at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The tenant, with the version of these settings.
    pub tenant: Tenant,
    /// Its rules.
    pub rule_set: RuleSetRow,
    /// Rules that are paused.
    pub paused_rules: Vec<String>,
    /// Its plugins with their active versions.
    pub plugins: Vec<(Plugin, Option<Version>)>,
    /// Candidates under way.
    pub rollouts: Vec<(Rollout, Version)>,
    /// Its sinks.
    pub sinks: Vec<SinkRow>,
    /// Its secrets.
    pub secrets: Vec<SecretRow>,
}

/// Rules, sinks, secrets.
#[async_trait]
pub trait Settings: Send + Sync {
    /// Everything at one moment. `NotFound` for an unknown tenant.
    async fn snapshot(&self, tenant: TenantId) -> Result<Snapshot>;

    /// Makes a new rule set the current one, if the current one is still `expected`; `Conflict` else.
    async fn put_rules(
        &self,
        tenant: TenantId,
        expected: i64,
        rules: &str,
        author: &str,
        note: &str,
        now: Timestamp,
    ) -> Result<RuleSetRow>;

    /// The current rule set.
    async fn rules(&self, tenant: TenantId) -> Result<RuleSetRow>;

    /// One rule set.
    async fn rule_set(&self, tenant: TenantId, number: i64) -> Result<Option<RuleSetRow>>;

    /// Rule sets, newest first, before a number.
    async fn rule_sets(&self, tenant: TenantId, before: Option<i64>, limit: u32) -> Result<Vec<RuleSetRow>>;

    /// Turns a rule's switch. It is no part of the rule set, so that undoing an edit does not undo a pause.
    async fn pause_rule(&self, tenant: TenantId, rule: &str, paused: bool) -> Result<()>;

    /// Adds or replaces a sink.
    async fn put_sink(&self, tenant: TenantId, name: &str, spec: &str, now: Timestamp) -> Result<()>;

    /// All sinks, by name.
    async fn sinks(&self, tenant: TenantId) -> Result<Vec<SinkRow>>;

    /// Removes a sink; false if there was none. Its pending deliveries are parked.
    async fn delete_sink(&self, tenant: TenantId, name: &str, now: Timestamp) -> Result<bool>;

    /// Adds or replaces a secret: `version` must be one more than the present one (1 for a new one); `Conflict` else.
    async fn put_secret(&self, tenant: TenantId, name: &str, version: u32, sealed: &[u8], now: Timestamp)
    -> Result<()>;

    /// All secrets, sealed, by name.
    async fn secrets(&self, tenant: TenantId) -> Result<Vec<SecretRow>>;

    /// Removes a secret; false if there was none.
    async fn delete_secret(&self, tenant: TenantId, name: &str) -> Result<bool>;

    /// A value that the host itself keeps (its effect secret, the first-start marker …).
    async fn host_value(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Sets such a value if it is not there yet; gives the one that is there afterwards.
    async fn host_value_or(&self, name: &str, value: &[u8]) -> Result<Vec<u8>>;
}
