//! A host without its server.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Clock as _;
use bulkhead_domain::clock::SystemClock;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::id::Shard;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::policy::quota::Quotas;
use bulkhead_domain::rule::document::Names;
use bulkhead_domain::rule::document::parse_set;
use bulkhead_flow::Flow;
use bulkhead_flow::Options;
use bulkhead_flow::Parts;
use bulkhead_flow::deliver;
use bulkhead_flow::dispatch;
use bulkhead_flow::dispatch::recorder;
use bulkhead_flow::egress::Egress;
use bulkhead_flow::egress::EgressOptions;
use bulkhead_flow::inbox;
use bulkhead_flow::inbox::Envelope;
use bulkhead_flow::keeper;
use bulkhead_flow::sink::Outlets;
use bulkhead_flow::sink::file::Files;
use bulkhead_flow::vault::Kek;
use bulkhead_flow::vault::Vault;
use bulkhead_sandbox::Compiler;
use bulkhead_sandbox::Exports;
use bulkhead_sandbox::Sandbox;
use bulkhead_store::Store;
use bulkhead_store::catalogue::NewVersion;
use bulkhead_store::catalogue::Tenant;
use bulkhead_store::log::EventQuery;
use bulkhead_store::log::NewEvent;
use bulkhead_store::releases::Act;
use bulkhead_store::releases::Switch;
use bulkhead_store::sqlite;
use bulkhead_store::sqlite::Sqlite;
use bulkhead_store::work::ParkedFilter;
use bulkhead_store::work::RunQuery;
use bulkhead_store::work::RunState;
use bulkhead_store::work::RunView;
use serde_json::Value;

pub struct Host {
    pub flow: Flow,
    pub store: Store,
    sqlite: Sqlite,
    pub sandbox: Sandbox,
    recorder: recorder::Options,
    folder: tempfile::TempDir,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl Host {
    pub async fn start() -> Self {
        Self::recording(recorder::Options::default()).await
    }

    /// Starts one that records so much.
    pub async fn recording(recorder: recorder::Options) -> Self {
        let folder = tempfile::tempdir().expect("because there is room");
        let options = bulkhead_sandbox::Options::new(folder.path().join("artefacts"), [1; 32]);
        let options = bulkhead_sandbox::Options { compiler: Compiler::InProcess, ..options };
        let sandbox = Sandbox::open(options).expect("because the pool fits");
        Self::on(folder, sandbox, recorder).await
    }

    async fn on(folder: tempfile::TempDir, sandbox: Sandbox, recorder: recorder::Options) -> Self {
        let sqlite = Sqlite::open(sqlite::Options::new(folder.path().join("store.db")));
        let sqlite = sqlite.await.expect("because nobody else has it open");
        let store: Store = Arc::new(sqlite.clone());
        let files = Files::open(&folder.path().join("files"), 1 << 30).expect("because the folder is ours");
        let egress = Egress::new(EgressOptions::default());
        let parts = Parts {
            store: Arc::clone(&store),
            clock: Arc::new(SystemClock),
            sandbox: sandbox.clone(),
            vault: Arc::new(Vault::new(Kek::new([2; 32]))),
            outlets: Outlets { egress, files: Some(Arc::new(files)), redis: None, log: false },
            effect_secret: [3; 32],
            bus: Default::default(),
            shared: None,
        };
        let options = Options {
            inbox: inbox::Limits::default(),
            descendants: 1_000,
            ceiling: Limits::default(),
            grants: bulkhead_domain::policy::ceiling::Ceiling::default(),
            quotas: Default::default(),
            dispatch: dispatch::Options { recorder, ..dispatch::Options::default() },
            deliver: deliver::Options::default(),
            keeper: keeper::Options {
                node: "test".to_owned(),
                lease: Duration::from_secs(30),
                look: Duration::from_millis(200),
                shared: false,
                retention: keeper::Retention::default(),
            },
        };
        let flow = Flow::start(options, parts).await.expect("because the store works");
        Self { flow, store, sqlite, sandbox, recorder, folder }
    }

    pub async fn stop(self) {
        drop(self.end().await);
    }

    /// Ends the flow at once, whatever it was at, and starts another on what the store has.
    pub async fn restart(self) -> Self {
        let recorder = self.recorder;
        let (folder, sandbox) = self.end().await;
        Self::on(folder, sandbox, recorder).await
    }

    async fn end(self) -> (tempfile::TempDir, Sandbox) {
        assert!(!self.flow.broken.is_cancelled(), "every service is at work");
        self.flow.stop(Duration::ZERO).await;
        self.sqlite.close().await;
        (self.folder, self.sandbox)
    }

    pub async fn tenant(&self, name: &str) -> Tenant {
        let tenant = self.store.operator_create_tenant(&format!("ten_{name}"), name, SystemClock.now()).await;
        tenant.expect("because the name is free")
    }

    /// Sets a tenant's quotas; nobody is told.
    pub async fn allow(&self, tenant: &Tenant, quotas: Quotas) -> Tenant {
        self.store.set_quotas(tenant.id, &quotas).await.expect("because the tenant is there");
        self.store.tenant(tenant.id).await.expect("because the store works").expect("because the tenant is there")
    }

    /// Installs an example plugin and activates it, with everything granted that it asks for.
    pub async fn plugin(&self, tenant: &Tenant, name: &str, config: &Value) {
        let grants = serde_json::json!({"emit": ["**"], "deliver": ["*"]});
        self.install(tenant, name, &serde_json::json!({}), &grants).await;
        self.store.set_config(tenant.id, name, &config.to_string()).await.expect("because it is there");
        self.changed(tenant).await;
    }

    /// Installs an example plugin and activates it, with this manifest and these grants. Says what it exports.
    pub async fn install(&self, tenant: &Tenant, name: &str, manifest: &Value, grants: &Value) -> Exports {
        let (version, exports) = self.add(tenant, name, name, manifest, grants).await;
        let switch = Switch::to(version, Act::by("test", SystemClock.now()).consenting(true));
        self.store.switch_version(tenant.id, name, &switch).await.expect("because it is there");
        self.changed(tenant).await;
        exports
    }

    /// Adds an example plugin's component as a version of a plugin, with this manifest and these grants. Says its number
    /// and what it exports.
    pub async fn add(
        &self,
        tenant: &Tenant,
        name: &str,
        component: &str,
        manifest: &Value,
        grants: &Value,
    ) -> (u32, Exports) {
        let folder = std::env::var_os("BULKHEAD_PLUGINS")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins"), PathBuf::from);
        let path = folder.join(format!("{component}.wasm"));
        let wasm = std::fs::read(&path)
            .unwrap_or_else(|error| panic!("{} is not there ({error}); `cargo xtask test` builds it", path.display()));
        let inspection = self.sandbox.inspect(&wasm).expect("because it is a plugin");
        let version = NewVersion {
            room: bulkhead_store::catalogue::Room::default(),
            digest: inspection.digest,
            wasm: wasm.into(),
            manifest: manifest.to_string(),
            inspection: "{}".to_owned(),
            grants: grants.to_string(),
            author: "test".to_owned(),
            approves: false,
            signature: None,
        };
        let (version, _) =
            self.store.add_version(tenant.id, name, &version, SystemClock.now()).await.expect("because it is new");
        (version.number, inspection.exports)
    }

    pub async fn sink(&self, tenant: &Tenant, name: &str, spec: &Value) {
        let put = self.store.put_sink(tenant.id, name, &spec.to_string(), SystemClock.now()).await;
        put.expect("because the store works");
        self.changed(tenant).await;
    }

    pub async fn rules(&self, tenant: &Tenant, text: &str) {
        let snapshot = self.store.snapshot(tenant.id).await.expect("because the tenant is there");
        let plugins: BTreeSet<_> = snapshot.plugins.iter().map(|(plugin, _)| plugin.name.clone()).collect();
        let sinks: BTreeSet<_> = snapshot.sinks.iter().map(|sink| sink.name.clone()).collect();
        let rules = parse_set(text, &Names { plugins: &plugins, sinks: &sinks })
            .unwrap_or_else(|problems| panic!("the rules are wrong: {problems:?}"));
        let documents: Vec<_> = rules.value.iter().map(|rule| rule.document().clone()).collect();
        let documents = Value::from(documents).to_string();
        let number = snapshot.rule_set.number;
        let put = self.store.put_rules(tenant.id, number, &documents, "test", "", SystemClock.now()).await;
        put.expect("because nobody else changes them");
        self.changed(tenant).await;
    }

    pub async fn changed(&self, tenant: &Tenant) {
        self.flow.directory.invalidate(tenant.id).await;
        self.flow.dispatch.wake_tenant(tenant.id);
        self.flow.deliver.wake();
    }

    pub async fn publish(&self, tenant: &Tenant, kind: &str, id: &str, key: Option<&str>, data: &Value) {
        let mut event = serde_json::json!({
            "specversion": "1.0", "id": id, "source": "/test", "type": kind, "data": data,
        });
        if let Some(key) = key {
            event["partitionkey"] = key.into();
        }
        let envelope = Envelope::from_json(&event.to_string().into());
        let receipt = self.flow.inbox.accept(tenant, vec![envelope]).await.expect("because the store works");
        assert_eq!((receipt.accepted, &receipt.rejected), (1, &Vec::new()));
    }

    /// Appends so many events, in as many shards as there are: a tenant that is spread.
    pub async fn scatter(&self, tenant: &Tenant, kind: &str, many: u16) {
        let shards = self.store.host_shards();
        let event = |number: u16| {
            let (id, now) = (format!("s{number}"), SystemClock.now());
            let data = serde_json::json!({"key": id, "seq": 1}).to_string();
            let event = Event {
                source: "/test".to_owned(),
                kind: kind.to_owned(),
                subject: None,
                time: now,
                key: Some(id.clone()),
                correlation: id.clone(),
                causation: None,
                content_type: "application/json".to_owned(),
                data: data.into(),
                attributes: Vec::new(),
                id,
            };
            let lineage = Lineage { hops: 0, budget: 1_000 };
            NewEvent { tenant: tenant.id, shard: Shard(number % shards), recorded: now, lineage, event }
        };
        self.store.host_append((0..many).map(event).collect()).await.expect("because the store works");
        let all: Vec<Shard> = (0..shards).map(Shard).collect();
        self.flow.dispatch.wake(tenant.id, &all);
    }

    pub async fn redrive(&self, tenant: &Tenant) {
        let (_, shards) = self
            .store
            .redrive(tenant.id, &ParkedFilter::default(), SystemClock.now())
            .await
            .expect("because the store works");
        self.flow.dispatch.wake(tenant.id, &shards);
    }

    pub async fn runs(&self, tenant: &Tenant, state: Option<RunState>) -> Vec<RunView> {
        let query = RunQuery { state, limit: 1_000, ..RunQuery::default() };
        self.store.runs(tenant.id, &query).await.expect("because the store works")
    }

    /// Waits until so many runs are done.
    pub async fn settled(&self, tenant: &Tenant, runs: usize) {
        let done = async || self.runs(tenant, Some(RunState::Done)).await.len() == runs;
        self.until(&format!("{runs} runs are done"), done).await;
    }

    pub async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !condition().await {
            assert!(began.elapsed() < PATIENCE, "it never came that {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn state(&self, tenant: &Tenant, plugin: &str) -> BTreeMap<String, String> {
        let Some((plugin, _)) = self.store.plugin(tenant.id, plugin).await.expect("because the store works") else {
            return BTreeMap::new();
        };
        let keys = self.store.state_keys(tenant.id, plugin.id, "", None, 1_000).await;
        let mut found = BTreeMap::new();
        for key in keys.expect("because the store works") {
            let value = self.store.state(tenant.id, plugin.id, &key).await;
            let value = value.expect("because the store works").expect("because it was listed");
            found.insert(key, String::from_utf8_lossy(&value.value).into_owned());
        }
        found
    }

    /// How many events there are, by type.
    pub async fn kinds(&self, tenant: &Tenant) -> BTreeMap<String, u64> {
        let query = EventQuery { limit: 1_000, ..EventQuery::default() };
        let mut kinds = BTreeMap::new();
        for logged in self.store.events(tenant.id, &query).await.expect("because the store works") {
            *kinds.entry(logged.event.kind.clone()).or_default() += 1;
        }
        kinds
    }

    /// What a file sink has written.
    pub fn file(&self, tenant: &Tenant, path: &str) -> String {
        let path = self.folder.path().join("files").join(&tenant.uid).join(path);
        std::fs::read_to_string(path).unwrap_or_default()
    }
}
