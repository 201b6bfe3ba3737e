//! The composition root: starts the parts of a host in order, and ends them in the opposite one.
//!
//! ```text
//! data folder ─▶ store ─▶ secrets ─▶ sandbox ─▶ flow ─▶ API ─▶ watch
//! ```
//!
//! When [`start`] returns, the host serves. Every failure on the way names what to look at; nothing is left half started.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use bulkhead_domain::clock::Clock;
use bulkhead_domain::clock::SystemClock;
use bulkhead_flow::Flow;
use bulkhead_flow::bus::Bus;
use bulkhead_flow::bus::Transport;
use bulkhead_flow::deliver;
use bulkhead_flow::dispatch;
use bulkhead_flow::egress::Egress;
use bulkhead_flow::egress::EgressOptions;
use bulkhead_flow::keeper;
use bulkhead_flow::quota;
use bulkhead_flow::sink::Outlets;
use bulkhead_flow::sink::file::Files;
use bulkhead_flow::sink::redis::Outlet;
use bulkhead_flow::source::Supervisor;
use bulkhead_flow::vault::Kek;
use bulkhead_flow::vault::Vault;
use bulkhead_sandbox::Sandbox;
use bulkhead_store::Store;
use rand::TryRngCore as _;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::api::cursor::Cursors;
use crate::api::places::Places;
use crate::api::state::Api;
use crate::api::state::State;
use crate::api::state::Streams;
use crate::api::trials::Trials;
use crate::api::upload::Uploads;
use crate::auth::Keyring;
use crate::cli::stopped;
use crate::clock::StoreClock;
use crate::config::Config;
use crate::hearing;
use crate::hearing::Hearing;
use crate::http;
use crate::install::Installer;
use crate::install::Terms;
use crate::node;
use crate::secret_file;
use crate::store::Opened;
use crate::telemetry;
use crate::watch::Watch;

/// The node's name in an embedded store. Nobody shares it, so the name stays and a restart waits for no lease.
const ALONE: &str = "embedded";
/// How long a lease lasts without being renewed: what a takeover waits for, if there is anybody to take over.
const LEASE_ALONE: Duration = Duration::from_secs(30);
const LEASE_SHARED: Duration = Duration::from_millis(1_200);
/// The longest time between two looks for what is due.
const LOOK: Duration = Duration::from_secs(1);
/// The most entries of a stream that a Redis sink writes to.
const SINK_STREAM_ENTRIES_MAX: u64 = 1_000_000;
/// The largest file of a file sink; whoever reads it rotates it.
const SINK_FILE_BYTES_MAX: u64 = 1 << 30;

/// A running host.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    /// The operator's key, only when it was made just now: it is never shown again.
    pub operator_key: Option<String>,
    grace: Duration,
    store: Opened,
    flow: Flow,
    /// Ends streams and readiness; then the listener; then the watch of plugins.
    ending: CancellationToken,
    server: JoinHandle<()>,
    /// The watch of plugins, the sources, and looks at what other nodes change.
    beside: Vec<JoinHandle<()>>,
    /// The bus, and what ends it: the last batches wake other nodes, too.
    bus: Option<(JoinHandle<()>, CancellationToken)>,
}

/// Starts a host. When this returns, it serves.
pub async fn start(config: Config) -> anyhow::Result<App> {
    let metrics = telemetry::start(&config.log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    make_private(&config.data_dir)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}; `--listen 127.0.0.1:0` takes any free port", config.listen))?;
    let address = listener.local_addr().context("the listener has no address")?;
    let mut node = node::name(config.node.as_deref());
    let opened = Opened::open(&config, &node).await?;
    let (store, shared) = (opened.ports(), opened.is_shared());
    if !shared {
        ALONE.clone_into(&mut node);
    }
    let shared_clock = if shared { Some(Arc::new(StoreClock::new(Arc::clone(&store)).await?)) } else { None };
    let clock: Arc<dyn Clock> = match &shared_clock {
        Some(clock) => Arc::<StoreClock>::clone(clock),
        None => Arc::new(SystemClock),
    };
    let secrets = Secrets::read(&config, &store).await?;
    let sandbox = open_sandbox(&config, secrets.artefacts).await?;
    let vault = Arc::new(Vault::new(kek(&config.keys_dir, &store).await?));
    let outlets = outlets(&config, address)?;
    let transport = transport(&config, &secrets, shared)?;
    let shared_quotas = shared_quotas(&config, &secrets, shared)?;
    let bus = transport.as_ref().map_or_else(Bus::local, Transport::bus);
    let parts = bulkhead_flow::Parts {
        store: Arc::clone(&store),
        clock: Arc::clone(&clock),
        sandbox: sandbox.clone(),
        vault: Arc::clone(&vault),
        outlets: outlets.clone(),
        effect_secret: secrets.effects,
        bus: bus.clone(),
        shared: shared_quotas,
    };
    let paused = store.operator_paused().await?;
    let flow = Flow::start(flow_options(&config, &node, shared), parts).await?;
    let keyring = Keyring::new(Arc::clone(&store), &secrets.pepper, config.operator_key.as_ref(), bus.clone());
    let operator_key = first_operator_key(&config, &store, &keyring, &*clock).await?;
    let directory = Arc::clone(&flow.directory);
    let installer = Installer::new(
        Arc::clone(&store),
        sandbox.clone(),
        Arc::clone(&directory),
        flow.dispatch.clone(),
        Arc::clone(&clock),
        Terms {
            trust: config.signatures.clone(),
            asks: config.asks,
            room: config.limits.api.room,
            quotas: config.limits.tenant,
        },
    );
    let ending = CancellationToken::new();
    let sources = Supervisor::new(
        config.sources.clone(),
        node.clone(),
        Arc::clone(&store),
        flow.inbox.clone(),
        Arc::clone(&flow.fences),
    );
    let api = Api::new(State {
        store: Arc::clone(&store),
        clock,
        keyring,
        cursors: Cursors::new(&secrets.cursors),
        inbox: flow.inbox.clone(),
        limiter: flow.limiter.clone(),
        dispatch: flow.dispatch.clone(),
        deliver: flow.deliver.clone(),
        live: flow.live.clone(),
        directory,
        vault,
        outlets,
        sandbox,
        installer: installer.clone(),
        previewer: flow.previewer.clone(),
        limits: config.limits.api.clone(),
        metrics,
        places: Places::new(config.limits.api.requests, "requests"),
        uploads: uploads(&config)?,
        trials: Trials::default(),
        streams: Streams::default(),
        ending: ending.clone(),
        paused: AtomicBool::new(false),
        switch: Default::default(),
        bus,
        shared,
        node: node.clone(),
        sources: sources.clone(),
    });
    api.apply_paused(paused);
    if paused {
        tracing::warn!("everything is paused by the operator's switch; events are taken in and wait");
    }
    let mut beside = Vec::new();
    if let Some(clock) = shared_clock {
        beside.push(watched("clock", clock.run(ending.clone()), &flow.broken));
        beside.push(watched("switch", hearing::watch_switch(api.clone(), ending.clone()), &flow.broken));
    }
    let bus = transport.map(|transport| {
        let stop = CancellationToken::new();
        let hearing = Arc::new(Hearing::new(api.clone()));
        (watched("bus", transport.run(hearing, stop.clone()), &flow.broken), stop)
    });
    beside.push(watched("sources", sources.run(ending.clone()), &flow.broken));
    let server = tokio::spawn(http::serve(listener, api::router(api), ending.clone(), config.drain_grace));
    if let Some(folder) = config.plugins_dir.clone() {
        let watch = Watch::new(folder, store, installer, SystemClock);
        let stop = ending.clone();
        beside.push(tokio::spawn(async move {
            if let Err(error) = watch.run(stop).await {
                tracing::error!(error = format!("{error:#}"), "plugins are not watched any more");
            }
        }));
    }
    tracing::info!(%address, node, version = env!("CARGO_PKG_VERSION"), "serving");
    Ok(App { address, operator_key, grace: config.drain_grace, store: opened, flow, ending, server, beside, bus })
}

impl App {
    /// Serves until the process is asked to end (SIGTERM, Ctrl-C), then drains. An error is a fault of the host: it should
    /// be started anew, and goes on where it was.
    pub async fn wait(self) -> anyhow::Result<()> {
        let broken = tokio::select! {
            () = stopped() => false,
            () = self.flow.broken.cancelled() => true,
        };
        self.stop().await;
        if broken {
            bail!("a part of the host ended by a fault; its log says more. Start it again: it goes on where it was");
        }
        Ok(())
    }

    /// Drains and ends: what is under way gets the grace period, what is not done by then is done after the next start.
    pub async fn stop(self) {
        tracing::info!("ending: what is under way gets up to {:?}", self.grace);
        self.ending.cancel();
        // Requests wait for the store, and events that they hand in are worked off as long as the flow runs.
        let _ = self.server.await;
        for service in self.beside {
            let _ = service.await;
        }
        self.flow.stop(self.grace).await;
        if let Some((carrying, stop)) = self.bus {
            stop.cancel();
            let _ = carrying.await;
        }
        self.store.close().await;
        tracing::info!("ended");
    }
}

/// Spawns what runs beside the flow. If it ends by a fault, the host does, too: nobody would notice that it is gone.
fn watched(
    name: &'static str,
    service: impl Future<Output = ()> + Send + 'static,
    broken: &CancellationToken,
) -> JoinHandle<()> {
    let broken = broken.clone();
    tokio::spawn(async move {
        if let Err(error) = tokio::spawn(service).await {
            tracing::error!(service = name, %error, "a service ended by a fault of the host");
            broken.cancel();
        }
    })
}

/// What the host keeps to itself.
struct Secrets {
    /// Keys are hashed under it. In the folder of keys, not in the database.
    pepper: [u8; 32],
    /// Authenticates compiled plugins on this node's disk.
    artefacts: [u8; 32],
    /// Effect ids follow from it: it belongs to the store.
    effects: [u8; 32],
    /// Cursors are sealed under it: it belongs to the store, so that they count on every node.
    cursors: [u8; 32],
}

impl Secrets {
    async fn read(config: &Config, store: &Store) -> anyhow::Result<Self> {
        let folder = &config.keys_dir;
        make_private(folder)?;
        let pepper = secret_file::load_or_create(&folder.join("pepper"))?;
        let artefacts = secret_file::load_or_create(&config.data_dir.join("artefact-key"))?;
        // A store with another's keys has keys of tenants that nobody can use and secrets that nobody can open.
        let mark = blake3::derive_key("bulkhead 2026 data folder mark", &pepper);
        if store.host_value_or("data_folder", &mark).await? != mark {
            bail!(
                "the file `pepper` in {} does not belong to this store: tenants' keys and secrets would not work; give \
                 the folder that the store was made with (--data-dir, or keys_dir), copied from another node or a backup",
                folder.display()
            );
        }
        let effects = of_store(store, "effect_secret").await?;
        let cursors = of_store(store, "cursor_secret").await?;
        Ok(Self { pepper, artefacts, effects, cursors })
    }
}

/// Tenants' secrets are sealed under it. A node with another one would open none, and seal what nobody else opens.
async fn kek(folder: &Path, store: &Store) -> anyhow::Result<Kek> {
    let file = folder.join("kek");
    let marked = store.host_value("kek").await?;
    let wrong = |what| {
        anyhow::anyhow!(
            "the file `kek` in {} {what}: tenants' secrets would not open; copy it from another node or a backup; if it \
             is lost, docs/operations.md says what to do (What is where)",
            folder.display()
        )
    };
    // Nothing is made that somebody could take for the right one.
    if marked.is_some() && !file.exists() {
        return Err(wrong("is missing"));
    }
    let kek = Kek::load_or_create(&file)?;
    let mark = kek.fingerprint();
    if store.host_value_or("kek", &mark).await? != mark {
        return Err(wrong("does not belong to this store"));
    }
    Ok(kek)
}

async fn of_store(store: &Store, name: &str) -> anyhow::Result<[u8; 32]> {
    let mut new = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut new).context("the kernel has no random numbers")?;
    let kept = store.host_value_or(name, &new).await?;
    <[u8; 32]>::try_from(kept).map_err(|_| anyhow::anyhow!("the store's value `{name}` is damaged"))
}

/// Carries signals between the nodes of this store; none without Redis or without other nodes.
fn transport(config: &Config, secrets: &Secrets, shared: bool) -> anyhow::Result<Option<Transport>> {
    let Some(url) = config.redis.as_ref().filter(|_| shared) else { return Ok(None) };
    Ok(Some(Transport::new(url.expose_secret(), &name_of_store(secrets))?))
}

/// Where the nodes of this store share what tenants have used; none without Redis or without other nodes.
fn shared_quotas(config: &Config, secrets: &Secrets, shared: bool) -> anyhow::Result<Option<quota::Shared>> {
    let Some(url) = config.redis.as_ref().filter(|_| shared) else { return Ok(None) };
    Ok(Some(quota::Shared::new(url.expose_secret(), &name_of_store(secrets))?))
}

/// A name that all nodes of this store know, and nobody else.
fn name_of_store(secrets: &Secrets) -> String {
    let name = blake3::derive_key("bulkhead 2026 bus name", &secrets.effects);
    name[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn open_sandbox(config: &Config, key: [u8; 32]) -> anyhow::Result<Sandbox> {
    let mut options = bulkhead_sandbox::Options::new(config.data_dir.join("artefacts"), key);
    options.cache_bytes = config.sandbox.cache_bytes;
    options.disk_bytes = config.sandbox.disk_bytes;
    options.compilers = config.sandbox.compilers;
    options.compiler = config.compiler.clone();
    options.pool.instances = config.sandbox.instances;
    options.pool.memories = config.sandbox.memories;
    options.pool.memory_max = config.limits.plugin.memory;
    let opened = tokio::task::spawn_blocking(move || Sandbox::open(options)).await?;
    opened.context("the sandbox cannot start")
}

fn uploads(config: &Config) -> anyhow::Result<Uploads> {
    let folder = config.data_dir.join("uploads");
    Uploads::open(&folder, config.limits.api.uploads)
        .with_context(|| format!("the folder {} of uploads cannot be opened", folder.display()))
}

fn outlets(config: &Config, address: SocketAddr) -> anyhow::Result<Outlets> {
    let folder = config.data_dir.join("files");
    let files = Files::open(&folder, SINK_FILE_BYTES_MAX)
        .with_context(|| format!("the folder {} of file sinks cannot be made", folder.display()))?;
    let egress = Egress::new(EgressOptions {
        allow: config.egress_allow.clone(),
        own_hosts: vec![address.to_string()],
        ..EgressOptions::default()
    });
    let redis =
        config.redis.as_ref().map(|url| Outlet::new(url.expose_secret(), SINK_STREAM_ENTRIES_MAX)).transpose()?;
    Ok(Outlets { egress, files: Some(Arc::new(files)), redis: redis.map(Arc::new), log: false })
}

fn flow_options(config: &Config, node: &str, shared: bool) -> bulkhead_flow::Options {
    bulkhead_flow::Options {
        inbox: config.limits.event.clone(),
        descendants: config.causation.descendants,
        ceiling: config.limits.plugin.clone(),
        grants: config.ceiling.clone(),
        quotas: config.limits.tenant,
        dispatch: dispatch::Options {
            recorder: config.recorder,
            hops_max: config.causation.hops,
            outbound: config.egress_plugins.clone(),
            ..dispatch::Options::default()
        },
        // Attempts end within the drain's time, so that they are settled and not made again.
        deliver: deliver::Options { grace: config.drain_grace * 3 / 4, ..deliver::Options::default() },
        keeper: keeper::Options {
            node: node.to_owned(),
            lease: if shared { LEASE_SHARED } else { LEASE_ALONE },
            look: LOOK,
            shared,
            retention: config.retention,
        },
    }
}

/// On the very first start, and if none is set from outside, there is a key for the operator.
async fn first_operator_key(
    config: &Config,
    store: &Store,
    keyring: &Keyring,
    clock: &dyn Clock,
) -> anyhow::Result<Option<String>> {
    if config.operator_key.is_some() || !store.operator_keys(None).await?.is_empty() {
        return Ok(None);
    }
    let (_, text) =
        keyring.create(None, vec!["*".to_owned()], "made at the first start".to_owned(), clock.now()).await?;
    Ok(Some(text.expose_secret().to_owned()))
}

fn make_private(folder: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("the data folder {} cannot be made", folder.display()))
}
