//! The limiter on a real store and a real Redis, with a clock that stands still.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::id::Shard;
use bulkhead_domain::policy::quota::Rate;
use bulkhead_services::Proxy;
use bulkhead_services::shared::redis;
use bulkhead_store::log::NewEvent;
use bulkhead_store::sqlite;
use bulkhead_store::sqlite::Sqlite;

use super::*;
use crate::bus::Bus;

#[derive(Default)]
struct Still(AtomicI64);

impl Still {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(i64::try_from(time.as_micros()).expect("because it is short"), Ordering::Relaxed);
    }
}

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

struct World {
    clock: Arc<Still>,
    store: Store,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("because there is room");
        let sqlite = Sqlite::open(sqlite::Options::new(folder.path().join("store.db"))).await;
        let store: Store = Arc::new(sqlite.expect("because nobody else has it open"));
        Self { clock: Arc::default(), store, _folder: folder }
    }

    /// A node's limiter.
    fn node(&self, defaults: Quotas, shared: Option<Shared>) -> Limiter {
        let dispatch = dispatch::Handle::new(self.store.host_shards(), Arc::default(), Bus::local());
        let clock: Arc<dyn Clock> = Arc::<Still>::clone(&self.clock);
        Limiter::new(defaults, Arc::clone(&self.store), clock, dispatch, shared)
    }

    async fn tenant(&self, name: &str, quotas: Quotas) -> Tenant {
        let made = self.store.operator_create_tenant(&format!("ten_{name}"), name, Timestamp(0)).await;
        let tenant = made.expect("because the name is free");
        self.store.set_quotas(tenant.id, &quotas).await.expect("because the tenant is there");
        Tenant { quotas, ..tenant }
    }

    async fn append(&self, tenant: &Tenant, ids: std::ops::Range<u32>) {
        let event = |id: u32| NewEvent {
            tenant: tenant.id,
            shard: Shard(0),
            recorded: Timestamp(0),
            lineage: Lineage { hops: 0, budget: 10 },
            event: Event {
                id: id.to_string(),
                source: "/test".to_owned(),
                kind: "a".to_owned(),
                subject: None,
                time: Timestamp(0),
                key: None,
                correlation: id.to_string(),
                causation: None,
                content_type: "application/json".to_owned(),
                data: "{}".into(),
                attributes: Vec::new(),
            },
        };
        self.store.host_append(ids.map(event).collect()).await.expect("because the store takes events");
    }
}

fn rate(rate: u64) -> Quotas {
    Quotas { events_per_second: Some(Rate { rate, burst: None }), ..Quotas::default() }
}

/// How many of so many events, one by one, are let in.
fn admitted(limiter: &Limiter, tenant: &Tenant, offered: u32) -> u32 {
    (0..offered).map(|_| u32::from(limiter.admit(tenant, 1).is_ok())).sum()
}

#[tokio::test]
async fn a_tenant_keeps_to_its_own_quota_and_else_to_the_default() {
    let world = World::new().await;
    let limiter = world.node(rate(10), None);
    let (usual, favoured) = (world.tenant("usual", Quotas::default()).await, world.tenant("favoured", rate(100)).await);
    assert_eq!((admitted(&limiter, &usual, 1_000), admitted(&limiter, &favoured, 1_000)), (20, 200));
    world.clock.pass(Duration::from_secs(1));
    assert_eq!((admitted(&limiter, &usual, 1_000), admitted(&limiter, &favoured, 1_000)), (10, 100));
    let unlimited = world.node(Quotas::default(), None);
    assert_eq!(admitted(&unlimited, &usual, 1_000), 1_000);
    assert_eq!(unlimited.lines(&usual), []);
}

#[tokio::test]
async fn the_schedule_is_told_and_told_again_when_it_is_over() {
    let world = World::new().await;
    let limiter = world.node(Quotas::default(), None);
    let quotas = Quotas { fuel_per_minute: Some(600), concurrency: Some(2), ..rate(10) };
    let tenant = world.tenant("a", quotas).await;
    let terms = |limiter: &Limiter| limiter.inner.lock().get(&tenant.id).map(|account| account.terms);
    limiter.know(&tenant);
    assert_eq!(terms(&limiter), Some(Terms { turns: 2, ..Terms::default() }));
    assert_eq!(admitted(&limiter, &tenant, 15), 15);
    assert_eq!(terms(&limiter), Some(Terms { soft: true, held: false, turns: 2 }));
    limiter.burned(&tenant, 1_210);
    assert_eq!(terms(&limiter), Some(Terms { soft: true, held: true, turns: 2 }));
    world.clock.pass(Duration::from_secs(1));
    limiter.judge();
    assert_eq!(terms(&limiter), Some(Terms { soft: true, held: false, turns: 2 }));
    world.clock.pass(Duration::from_secs(60));
    limiter.judge();
    assert_eq!(terms(&limiter), Some(Terms { turns: 2, ..Terms::default() }));
    world.clock.pass(Duration::from_secs(120));
    limiter.judge();
    assert_eq!(terms(&limiter), None, "nobody came by, and nothing is owed");
}

#[tokio::test]
async fn the_backlog_is_what_the_store_has() {
    let world = World::new().await;
    let limiter = world.node(Quotas::default(), None);
    let tenant = world.tenant("a", Quotas { backlog_events: Some(100), ..Quotas::default() }).await;
    world.append(&tenant, 0..90).await;
    limiter.know(&tenant);
    limiter.count().await.expect("because the store answers");
    assert_eq!(admitted(&limiter, &tenant, 50), 10);
    let line = limiter.report(&tenant).await.expect("because the store answers")[0];
    assert_eq!((line.quota, line.limit, line.used, line.since), (Quota::Backlog, 100, 90, Some(Timestamp(0))));
    // The operator raises it on another node; this one finds out by itself.
    world.clock.pass(Duration::from_secs(1));
    let raised = Quotas { backlog_events: Some(1_000), ..Quotas::default() };
    world.store.set_quotas(tenant.id, &raised).await.expect("because the tenant is there");
    limiter.count().await.expect("because the store answers");
    assert_eq!(limiter.inner.lock()[&tenant.id].quotas, raised);
}

/// A limiter that shares its buckets by a Redis, among those of a store.
fn sharing(world: &World, url: &str, store: &str) -> Limiter {
    world.node(Quotas::default(), Some(Shared::new(url, store).expect("because the address reads")))
}

fn somebody() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_keep_to_one_rate_together() {
    let redis = redis().expect("because Redis is installed");
    let (world, store) = (World::new().await, somebody());
    let tenant = world.tenant("a", rate(100)).await;
    let nodes = [(); 3].map(|()| sharing(&world, redis.url(), &store));
    let stranger = sharing(&world, redis.url(), &somebody());
    for node in nodes.iter().chain([&stranger]) {
        node.know(&tenant);
    }
    assert_eq!(admitted(&nodes[0], &tenant, 1_000), 200);
    for node in nodes.iter().chain([&stranger]) {
        node.share().await.expect("because Redis answers");
    }
    // Redis' clock goes on, and a bucket with it: so many come in the time that this takes, but not another burst.
    let others = admitted(&nodes[1], &tenant, 1_000) + admitted(&nodes[2], &tenant, 1_000);
    assert!(others < 150, "{others} events");
    assert!(nodes[1].lines(&tenant)[0].hold != Hold::Within, "it is late on every node");
    assert_eq!(admitted(&stranger, &tenant, 1_000), 200, "another store's tenant has its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_together_give_the_rate_in_the_long_run() {
    let redis = redis().expect("because Redis is installed");
    let (world, store) = (World::new().await, somebody());
    let tenant = world.tenant("a", rate(1_000)).await;
    let nodes = [(); 3].map(|()| sharing(&world, redis.url(), &store));
    let began = std::time::Instant::now();
    let (mut last, mut given) = (began, 0);
    // The nodes' clock has to go as Redis' own does here.
    while began.elapsed() < Duration::from_secs(2) {
        world.clock.pass(last.elapsed());
        last = std::time::Instant::now();
        for node in &nodes {
            given += admitted(node, &tenant, 100);
            node.share().await.expect("because Redis answers");
        }
    }
    // The burst and as much on credit, then the rate; a round or two of what nodes had not heard of each other.
    let fair = 2_000.0 + began.elapsed().as_secs_f64() * 1_000.0;
    assert!((f64::from(given) - fair).abs() < 600.0, "{given} events where {fair} are fair");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_each_node_gives_the_whole_rate_and_does_not_owe_all_of_it_afterwards() {
    let redis = redis().expect("because Redis is installed");
    let port = redis.url().rsplit_once(':').and_then(|(_, port)| port.trim_end_matches('/').parse().ok());
    let proxy = Proxy::start(port.expect("because the address has a port")).expect("because there is a free port");
    let (world, store) = (World::new().await, somebody());
    let tenant = world.tenant("a", rate(100)).await;
    let node = sharing(&world, &format!("redis://127.0.0.1:{}", proxy.port()), &store);
    node.know(&tenant);
    node.share().await.expect("because Redis answers");
    proxy.cut();
    for _ in 0..5 {
        let _ = admitted(&node, &tenant, 1_000);
        assert!(node.share().await.is_err(), "the wire is cut");
        world.clock.pass(Duration::from_secs(1));
        assert_eq!(admitted(&node, &tenant, 1_000), 100, "its rate, each second");
    }
    proxy.heal();
    node.share().await.expect("because Redis is back");
    // It gave 700. The bucket hears of 200 in the call that the wire kept, and of a bucket's worth with what came since.
    let line = node.lines(&tenant)[0];
    assert!(line.used <= 400, "{line:?}");
}
