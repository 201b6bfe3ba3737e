//! Tenants as dispatch and delivery see them: one immutable view per tenant and version of its settings.
//!
//! A view is a cache of the store. Dispatch learns the present version with every batch that it reads, so a change takes
//! effect between batches, on every node, without anybody being told.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::limits::LimitRequest;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::rule::definition::Rule;
use bulkhead_domain::rule::index::RuleSet;
use bulkhead_sandbox::SecretString;
use bulkhead_sandbox::Setup;
use bulkhead_store::Store;
use bulkhead_store::catalogue::Plugin;
use bulkhead_store::catalogue::SecretRow;
use bulkhead_store::catalogue::SinkRow;
use bulkhead_store::catalogue::Snapshot;
use bulkhead_store::catalogue::Tenant;
use bulkhead_store::catalogue::TenantState;
use bulkhead_store::catalogue::Version;

use crate::deliver::SinkDirectory;
use crate::sink::ResolvedSink;
use crate::sink::SinkSpec;
use crate::vault::Vault;

/// Views kept; those of tenants that were not heard of for a while go first.
const VIEWS_MAX: u64 = 10_000;
const VIEW_IDLE: Duration = Duration::from_secs(300);

/// A plugin at its active version.
#[derive(Debug, Clone)]
pub struct ActivePlugin {
    /// The store's number.
    pub id: PluginId,
    /// Its name.
    pub name: String,
    /// The active version.
    pub version: u32,
    /// `sha256:…` of the component.
    pub digest: String,
    /// Whether its runs are held.
    pub paused: bool,
    /// What its sessions are made with.
    pub setup: Arc<Setup>,
}

/// One tenant at one version of its settings.
pub struct TenantView {
    /// The tenant.
    pub tenant: Tenant,
    /// Its rules, indexed.
    pub rules: RuleSet,
    /// Rules whose runs are held.
    pub paused_rules: HashSet<String>,
    /// Its plugins that have an active version, by name.
    pub plugins: HashMap<String, ActivePlugin>,
    /// Its sinks, by name.
    pub sinks: BTreeMap<String, SinkRow>,
    /// Its secrets, sealed, by name.
    pub secrets: BTreeMap<String, SecretRow>,
}

impl TenantView {
    /// What holds the runs of a rule: none if nothing does, `Some(None)` the rule's own switch, `Some(plugin)` that
    /// plugin's switch.
    #[must_use]
    pub fn holder(&self, rule: &Rule) -> Option<Option<String>> {
        if self.paused_rules.contains(rule.name()) {
            return Some(None);
        }
        let paused = |plugin: &&str| self.plugins.get(*plugin).is_some_and(|plugin| plugin.paused);
        rule.plugins().find(paused).map(|plugin| Some(plugin.to_owned()))
    }
}

/// The cache of views.
pub struct Directory {
    store: Store,
    vault: Arc<Vault>,
    ceiling: Limits,
    views: moka::future::Cache<TenantId, Arc<TenantView>>,
}

impl Directory {
    /// Nothing is loaded before it is asked for. `ceiling` bounds what any plugin may use.
    #[must_use]
    pub fn new(store: Store, vault: Arc<Vault>, ceiling: Limits) -> Self {
        let views = moka::future::Cache::builder().max_capacity(VIEWS_MAX).time_to_idle(VIEW_IDLE).build();
        Self { store, vault, ceiling, views }
    }

    /// The view of a tenant at least as new as `settings`.
    pub async fn view_at(&self, tenant: TenantId, settings: i64) -> bulkhead_store::Result<Arc<TenantView>> {
        if let Some(view) = self.views.get(&tenant).await
            && view.tenant.settings >= settings
        {
            return Ok(view);
        }
        self.load(tenant).await
    }

    /// The view of a tenant as it is now.
    pub async fn view(&self, tenant: TenantId) -> bulkhead_store::Result<Arc<TenantView>> {
        let Some(row) = self.store.tenant(tenant).await? else {
            return Err(bulkhead_store::Error::NotFound { what: "tenant", name: String::new() });
        };
        self.view_at(tenant, row.settings).await
    }

    /// A view of the tenant as it is now, with another version of one plugin than the active one; with none, as if it had
    /// none. None if there is no such version. Kept by nobody.
    pub async fn view_with(
        &self,
        tenant: TenantId,
        name: &str,
        version: Option<u32>,
    ) -> bulkhead_store::Result<Option<TenantView>> {
        let mut snapshot = self.store.snapshot(tenant).await?;
        let found = match version {
            None => None,
            Some(number) => {
                let plugin = self.store.plugin(tenant, name).await?;
                let versions = plugin.map(|(_, versions)| versions).unwrap_or_default();
                let Some(version) = versions.into_iter().find(|version| version.number == number) else {
                    return Ok(None);
                };
                Some(version)
            }
        };
        for (plugin, active) in &mut snapshot.plugins {
            if plugin.name == name {
                active.clone_from(&found);
            }
        }
        Ok(Some(self.build(snapshot)))
    }

    /// Forgets a view; the next caller loads it anew.
    pub async fn invalidate(&self, tenant: TenantId) {
        self.views.invalidate(&tenant).await;
    }

    /// A secret of the tenant, opened.
    pub fn secret(&self, view: &TenantView, name: &str) -> Option<SecretString> {
        let row = view.secrets.get(name)?;
        match self.vault.open(&view.tenant.uid, &row.name, row.version, &row.sealed) {
            Ok(secret) => Some(secret),
            Err(error) => {
                tracing::error!(tenant = %view.tenant.name, secret = name, %error, "cannot open a secret");
                None
            }
        }
    }

    async fn load(&self, tenant: TenantId) -> bulkhead_store::Result<Arc<TenantView>> {
        let snapshot = self.store.snapshot(tenant).await?;
        let view = Arc::new(self.build(snapshot));
        self.views.insert(tenant, Arc::clone(&view)).await;
        Ok(view)
    }

    fn build(&self, snapshot: Snapshot) -> TenantView {
        let rules = stored_rules(&snapshot);
        let mut view = TenantView {
            tenant: snapshot.tenant,
            rules: RuleSet::compile(snapshot.rule_set.number, rules),
            paused_rules: snapshot.paused_rules.into_iter().collect(),
            plugins: HashMap::new(),
            sinks: snapshot.sinks.into_iter().map(|sink| (sink.name.clone(), sink)).collect(),
            secrets: snapshot.secrets.into_iter().map(|secret| (secret.name.clone(), secret)).collect(),
        };
        for (plugin, version) in snapshot.plugins {
            if let Some(version) = version {
                let active = self.active(&view, plugin, version);
                view.plugins.insert(active.name.clone(), active);
            }
        }
        view
    }

    fn active(&self, view: &TenantView, plugin: Plugin, version: Version) -> ActivePlugin {
        let manifest: serde_json::Value = read(&version.manifest, "a manifest");
        let grants: Grants = read(&version.grants, "grants");
        let request: LimitRequest = serde_json::from_value(manifest["limits"].clone()).unwrap_or_default();
        let settings: BTreeMap<String, serde_json::Value> = read(&plugin.config, "a configuration");
        let declared = manifest["config"].as_object().into_iter().flatten();
        let mut config: BTreeMap<String, String> = declared
            .filter(|(_, setting)| !setting["default"].is_null())
            .map(|(name, setting)| (name.clone(), setting["default"].to_string()))
            .collect();
        config.extend(settings.into_iter().map(|(name, value)| (name, value.to_string())));
        let secrets = grants.secrets.iter().filter_map(|name| Some((name.clone(), self.secret(view, name)?))).collect();
        let setup = Setup {
            plugin: plugin.id,
            plugin_name: plugin.name.clone(),
            version: version.number.to_string(),
            limits: self.ceiling.clone().within(&request),
            policy: request.instance,
            grants,
            config,
            secrets,
            sinks: view.sinks.keys().cloned().collect::<BTreeSet<_>>(),
        };
        ActivePlugin {
            id: plugin.id,
            name: plugin.name,
            version: version.number,
            digest: version.digest,
            paused: plugin.paused,
            setup: Arc::new(setup),
        }
    }
}

#[async_trait]
impl SinkDirectory for Directory {
    async fn sink(&self, tenant: TenantId, name: &str) -> bulkhead_store::Result<Option<ResolvedSink>> {
        let view = match self.view(tenant).await {
            Ok(view) => view,
            Err(bulkhead_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(row) = view.sinks.get(name) else { return Ok(None) };
        let stored: serde_json::Value = read(&row.spec, "a sink");
        let spec = match SinkSpec::parse(&stored) {
            Ok(spec) => spec,
            Err(error) => {
                tracing::error!(tenant = %view.tenant.name, sink = name, %error, "a stored sink does not read back");
                return Ok(None);
            }
        };
        let opened = |name: &str| Some((name.to_owned(), self.secret(&view, name)?));
        let secrets = spec.secrets().into_iter().filter_map(opened).collect();
        Ok(Some(ResolvedSink {
            spec: Arc::new(spec),
            secrets,
            tenant_uid: view.tenant.uid.clone(),
            tenant_name: view.tenant.name.clone(),
            held: view.tenant.state != TenantState::Active,
        }))
    }
}

/// A rule that does not read back is left out and reported; its unfinished runs park as having no rule.
fn stored_rules(snapshot: &Snapshot) -> Vec<Rule> {
    let documents: Vec<serde_json::Value> = read(&snapshot.rule_set.rules, "a rule set");
    let rule = |document: &serde_json::Value| match Rule::from_stored(document) {
        Ok(rule) => Some(rule),
        Err(error) => {
            tracing::error!(tenant = %snapshot.tenant.name, %error, "a stored rule does not read back");
            None
        }
    };
    documents.iter().filter_map(rule).collect()
}

/// What the host itself wrote reads back; if it does not, the error is reported and the default is the least.
fn read<T: serde::de::DeserializeOwned + Default>(text: &str, what: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| {
        tracing::error!(%error, what, "stored JSON does not read back");
        T::default()
    })
}
