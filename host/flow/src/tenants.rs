//! Tenants as dispatch and delivery see them: one immutable view per tenant and version of its settings.
//!
//! A view is a cache of the store. Dispatch learns the present version with every batch that it reads, so a change takes
//! effect between batches, on every node, without anybody being told.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use bulkhead_domain::event::Event;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::ceiling::Ceiling;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::limits::LimitRequest;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::policy::recorder::RecorderRequest;
use bulkhead_domain::policy::rollout::Guard;
use bulkhead_domain::policy::rollout::Slice;
use bulkhead_domain::rule::definition::Rule;
use bulkhead_domain::rule::index::Routed;
use bulkhead_domain::rule::index::RuleSet;
use bulkhead_domain::rule::scope::Scope;
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
use bulkhead_store::releases::Kind;
use serde::Deserialize;
use serde::Serialize;

use crate::deliver::SinkDirectory;
use crate::sink::ResolvedSink;
use crate::sink::SinkSpec;
use crate::vault::Vault;

/// Views kept; those of tenants that were not heard of for a while go first.
const VIEWS_MAX: u64 = 10_000;
const VIEW_IDLE: Duration = Duration::from_secs(300);

/// A plugin at a version: the active one, a candidate, or one that runs began with.
#[derive(Debug, Clone)]
pub struct ActivePlugin {
    /// The store's number.
    pub id: PluginId,
    /// Its name.
    pub name: String,
    /// The version.
    pub version: u32,
    /// Whether runs that began with it stay on it when they are tried again.
    pub keeps_retries: bool,
    /// `sha256:…` of the component.
    pub digest: String,
    /// Whether its runs are held.
    pub paused: bool,
    /// What its sessions are made with.
    pub setup: Arc<Setup>,
    /// What of its calls is recorded.
    pub recorder: RecorderRequest,
}

/// A candidate under way.
#[derive(Debug)]
pub struct Candidate {
    /// The number of its beginning, by which it is counted and ended.
    pub number: i64,
    /// The version that is tried.
    pub plugin: Arc<ActivePlugin>,
    /// How.
    pub terms: Terms,
}

/// How a candidate is tried, as the store keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Which events it gets.
    pub slice: Slice,
    /// When it is taken back; none is never by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub guard: Option<Guard>,
}

/// Versions that runs began with; none if such a run has to move.
type Pinned = HashMap<(String, u32), Option<Arc<ActivePlugin>>>;

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
    /// Candidates that get a part of the events, by plugin.
    pub canaries: HashMap<String, Candidate>,
    /// Candidates that run beside the active version, by plugin.
    pub shadows: HashMap<String, Candidate>,
    /// Its sinks, by name.
    pub sinks: BTreeMap<String, SinkRow>,
    /// Its secrets, sealed, by name.
    pub secrets: BTreeMap<String, SecretRow>,
    /// Looked up when a run needs them.
    pinned: Mutex<Pinned>,
}

impl TenantView {
    /// What its rules say about an event of its own.
    #[must_use]
    pub fn route(&self, event: &Event) -> Routed {
        self.rules.route(event, &Scope::new(event, &self.tenant.name))
    }

    /// The version of a plugin that a new run over this event uses.
    #[must_use]
    pub fn version_for(&self, plugin: &str, event: &Event) -> Option<&ActivePlugin> {
        let active = self.plugins.get(plugin)?;
        match self.canaries.get(plugin) {
            Some(canary) if canary.terms.slice.has(active.id, event) => Some(&canary.plugin),
            _ => Some(active),
        }
    }

    /// A version that a run began with, if such runs stay on it. None if they move; `Err` if they have to, because it is
    /// not there to stay on any more. Known only of versions that [`Directory::pin`] has looked up.
    pub fn version_begun(&self, plugin: &str, version: u32) -> Result<Option<Arc<ActivePlugin>>, Gone> {
        let under_way = self.canaries.get(plugin).map(|canary| &*canary.plugin);
        let known = [self.plugins.get(plugin), under_way].into_iter().flatten().find(|known| known.version == version);
        let begun = match known {
            Some(known) => Arc::new(known.clone()),
            None => {
                let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
                pinned.get(&(plugin.to_owned(), version)).cloned().flatten().ok_or(Gone)?
            }
        };
        Ok(begun.keeps_retries.then_some(begun))
    }

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

/// A version that runs began with was retired, or was a candidate that was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The cache of views.
pub struct Directory {
    store: Store,
    vault: Arc<Vault>,
    ceiling: Limits,
    grants: Ceiling,
    views: moka::future::Cache<TenantId, Arc<TenantView>>,
}

impl Directory {
    /// Nothing is loaded before it is asked for. `ceiling` bounds what any plugin may use.
    #[must_use]
    pub fn new(store: Store, vault: Arc<Vault>, ceiling: Limits) -> Self {
        let views = moka::future::Cache::builder().max_capacity(VIEWS_MAX).time_to_idle(VIEW_IDLE).build();
        Self { store, vault, ceiling, grants: Ceiling::default(), views }
    }

    /// The same with a ceiling on what plugins may be granted, over all tenants.
    #[must_use]
    pub fn with_grants(mut self, grants: Ceiling) -> Self {
        self.grants = grants;
        self
    }

    /// What is left of what a version asks for.
    #[must_use]
    pub fn granted(&self, tenant: &Tenant, wanted: &Grants) -> Grants {
        self.grants.cut(&tenant.policy.grants.cut(wanted))
    }

    /// The host's own ceiling.
    #[must_use]
    pub const fn grants(&self) -> &Ceiling {
        &self.grants
    }

    /// Looks up versions that runs began with, for [`TenantView::version_begun`].
    pub async fn pin(
        &self,
        view: &TenantView,
        wanted: impl IntoIterator<Item = (&str, u32)> + Send,
    ) -> bulkhead_store::Result<()> {
        let wanted: Vec<(String, u32)> = {
            let pinned = view.pinned.lock().unwrap_or_else(PoisonError::into_inner);
            let names = wanted.into_iter().map(|(name, version)| (name.to_owned(), version));
            names.filter(|name| !pinned.contains_key(name)).collect()
        };
        for (name, number) in wanted {
            let found = self.store.version(view.tenant.id, &name, number).await?;
            // What never was active was a candidate, and that nobody uses it any more has a reason.
            let left = found.filter(|(_, version)| !version.retired && version.activated.is_some());
            let left = left.map(|(plugin, version)| Arc::new(self.active(view, plugin, version)));
            view.pinned.lock().unwrap_or_else(PoisonError::into_inner).insert((name, number), left);
        }
        Ok(())
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
                let Some((_, version)) = self.store.version(tenant, name, number).await? else { return Ok(None) };
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
            canaries: HashMap::new(),
            shadows: HashMap::new(),
            pinned: Mutex::default(),
            sinks: snapshot.sinks.into_iter().map(|sink| (sink.name.clone(), sink)).collect(),
            secrets: snapshot.secrets.into_iter().map(|secret| (secret.name.clone(), secret)).collect(),
        };
        for (rollout, version) in snapshot.rollouts {
            let plugin = snapshot.plugins.iter().find(|(plugin, _)| plugin.id == rollout.plugin);
            let terms = serde_json::from_str(&rollout.terms);
            let (Some((plugin, _)), Ok(terms)) = (plugin, terms) else {
                tracing::error!(plugin = rollout.plugin.0, number = rollout.number, "a candidate does not read back");
                continue;
            };
            let candidate = Arc::new(self.active(&view, plugin.clone(), version));
            let name = plugin.name.clone();
            let candidate = Candidate { number: rollout.number, plugin: candidate, terms };
            match rollout.kind {
                Kind::Canary => view.canaries.insert(name, candidate),
                Kind::Shadow => view.shadows.insert(name, candidate),
            };
        }
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
        let wanted: Grants = read(&version.grants, "grants");
        let grants = self.granted(&view.tenant, &wanted);
        let request: LimitRequest = serde_json::from_value(manifest["limits"].clone()).unwrap_or_default();
        let recorder: RecorderRequest = serde_json::from_value(manifest["recorder"].clone()).unwrap_or_default();
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
            keeps_retries: manifest["versions"]["retry"] == "stay",
            digest: version.digest,
            paused: plugin.paused,
            setup: Arc::new(setup),
            recorder,
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
