//! The bus between nodes, over a real Redis: what is said once is heard once, and after a gap everybody looks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use async_trait::async_trait;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_flow::bus::Bus;
use bulkhead_flow::bus::Handler;
use bulkhead_flow::bus::Signal;
use bulkhead_flow::bus::Transport;
use bulkhead_services::Proxy;
use bulkhead_services::Redis;
use bulkhead_services::RedisOptions;
use bulkhead_services::shared;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

struct Tell(mpsc::UnboundedSender<Signal>);

#[async_trait]
impl Handler for Tell {
    async fn heard(&self, signal: Signal) {
        // A test that has seen enough no longer listens.
        let _ = self.0.send(signal);
    }
}

struct Node {
    bus: Bus,
    heard: mpsc::UnboundedReceiver<Signal>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Node {
    /// A node that is not connected yet.
    fn start(url: &str, store: &str) -> Self {
        let transport = Transport::new(url, store).expect("because the address reads");
        let (tell, heard) = mpsc::unbounded_channel();
        let (bus, stop) = (transport.bus(), CancellationToken::new());
        let running = tokio::spawn(transport.run(Arc::new(Tell(tell)), stop.clone()));
        Self { bus, heard, stop, running }
    }

    /// A node that hears the others from now on.
    async fn connected(url: &str, store: &str) -> Self {
        let mut node = Self::start(url, store);
        assert_eq!(node.next().await, Signal::Missed, "before it listened, anything may have been said");
        node
    }

    async fn next(&mut self) -> Signal {
        let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        heard.expect("because a signal comes in time").expect("because the node is running")
    }

    /// Hears until `last`, and says what came before it.
    async fn until(&mut self, last: Signal) -> Vec<Signal> {
        let mut before = Vec::new();
        loop {
            match self.next().await {
                signal if signal == last => return before,
                signal => before.push(signal),
            }
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.expect("because the transport does not panic");
    }
}

/// Nobody else's store.
fn store() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn events(tenant: i64) -> Signal {
    Signal::Events { tenant: TenantId(tenant), bit: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_hear_each_other_but_not_themselves_nor_another_store() {
    let redis = shared::redis().expect("because Redis is installed");
    let (ours, theirs) = (store(), store());
    let mut one = Node::connected(redis.url(), &ours).await;
    let mut two = Node::connected(redis.url(), &ours).await;
    let mut stranger = Node::connected(redis.url(), &theirs).await;
    let tenant = TenantId(i64::MAX);
    let said = [
        Signal::Work { tenant, shard: Shard(1_023) },
        Signal::Settings { tenant },
        Signal::Deliveries { tenant },
        Signal::Switch,
        Signal::Keys,
    ];
    for signal in said {
        one.bus.publish(signal);
        assert_eq!(two.next().await, signal);
    }
    // What comes last shows that nothing else came before.
    two.bus.publish(events(1));
    assert_eq!(one.next().await, events(1), "it did not hear itself");
    let third = Node::connected(redis.url(), &theirs).await;
    third.bus.publish(events(2));
    assert_eq!(stranger.next().await, events(2), "it heard nothing of another store");
    for node in [one, two, stranger, third] {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_again_and_again_goes_out_once_in_a_while() {
    let redis = shared::redis().expect("because Redis is installed");
    let store = store();
    let one = Node::connected(redis.url(), &store).await;
    let mut two = Node::connected(redis.url(), &store).await;
    let began = Instant::now();
    for round in 0..100_000_i64 {
        one.bus.publish(events(round % 10));
    }
    let took = began.elapsed();
    one.bus.publish(events(99));
    // What goes out in one message comes in no order.
    let (mut heard, mut tenants) = (0, BTreeSet::new());
    while tenants.len() < 11 {
        tenants.insert(format!("{:?}", two.next().await));
        heard += 1;
    }
    // A message at most every 2 ms, each with every tenant at most once.
    let most = 11 * (began.elapsed().as_millis() as usize / 2 + 2);
    assert!(heard <= most, "{heard} signals in {:?}", began.elapsed());
    println!("100,000 signals said in {took:?}, {heard} heard");
    one.end().await;
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_fit_become_one_that_stands_for_all() {
    let redis = Redis::start(RedisOptions::default()).expect("because Redis is installed");
    let store = store();
    redis.kill().expect("because it is running");
    let one = Node::start(&redis.url(), &store);
    for tenant in 0..10_000 {
        one.bus.publish(events(tenant));
    }
    redis.start_again().expect("because its port is free");
    let mut two = Node::connected(&redis.url(), &store).await;
    // Whichever node connects first, this one does not hear of every tenant, but that there is everything to look at.
    one.bus.publish(events(1));
    one.bus.publish(Signal::Keys);
    let last = two.next().await;
    assert!(matches!(last, Signal::Missed | Signal::Keys) || last == events(1), "{last:?}");
    one.end().await;
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_redis_everybody_looks_and_signals_go_again() {
    let redis = Redis::start(RedisOptions::default()).expect("because Redis is installed");
    let store = store();
    let mut one = Node::connected(&redis.url(), &store).await;
    let mut two = Node::connected(&redis.url(), &store).await;
    for _ in 0..3 {
        redis.kill().expect("because it is running");
        one.bus.publish(events(1));
        redis.start_again().expect("because its port is free");
        let before = two.until(Signal::Missed).await;
        assert!(!before.contains(&events(1)), "nothing is heard while Redis is away: {before:?}");
        assert_eq!(one.until(Signal::Missed).await, []);
        // Each tells the other, too, that something may have been lost; which comes first is a matter of luck, and what
        // is said before that may still be a part of it. From some moment on it is heard as it was said.
        let deadline = Instant::now() + PATIENCE;
        loop {
            one.bus.publish(events(2));
            match tokio::time::timeout(Duration::from_millis(100), two.next()).await {
                Ok(signal) if signal == events(2) => break,
                Ok(signal) => assert_eq!(signal, Signal::Missed),
                Err(_) => assert!(Instant::now() < deadline, "signals go again"),
            }
        }
    }
    one.end().await;
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_that_is_cut_without_a_word_is_noticed() {
    let redis = Redis::start(RedisOptions::default()).expect("because Redis is installed");
    let wire = Proxy::start(redis.port()).expect("because there are free ports");
    let store = store();
    let mut near = Node::connected(&redis.url(), &store).await;
    let mut far = Node::connected(&format!("redis://127.0.0.1:{}/", wire.port()), &store).await;
    wire.cut();
    let began = Instant::now();
    far.bus.publish(events(1));
    near.bus.publish(events(2));
    // Its answer is due within a second; from then on every attempt to connect gives up after the same time.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    wire.heal();
    let before = far.until(Signal::Missed).await;
    println!("heard again {:?} after the cut, and before that {before:?}", began.elapsed());
    // What `far` said was lost or late, so the others are told to look, too.
    let told = near.next().await;
    assert!(told == Signal::Missed || told == events(1), "{told:?}");
    near.bus.publish(events(3));
    far.until(events(3)).await;
    near.end().await;
    far.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_channel_is_passed_over() {
    let redis = shared::redis().expect("because Redis is installed");
    let store = store();
    let one = Node::connected(redis.url(), &store).await;
    let mut two = Node::connected(redis.url(), &store).await;
    let client = redis::Client::open(redis.url()).expect("because the address reads");
    let mut connection = client.get_multiplexed_async_connection().await.expect("because Redis is there");
    for garbage in [&b""[..], b"\x01", b"\x02garbage of another version.", b"{\"tenant\": 1}", &[0xff; 5_000]] {
        let heard: u64 = redis::cmd("PUBLISH")
            .arg(format!("bulkhead:bus:{store}"))
            .arg(garbage)
            .query_async(&mut connection)
            .await
            .expect("because Redis is there");
        assert_eq!(heard, 2, "both nodes are on this channel");
    }
    one.bus.publish(events(1));
    assert_eq!(two.next().await, events(1));
    one.end().await;
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_the_end_is_still_said() {
    let redis = shared::redis().expect("because Redis is installed");
    let store = store();
    let one = Node::connected(redis.url(), &store).await;
    let mut two = Node::connected(redis.url(), &store).await;
    for tenant in 0..5 {
        one.bus.publish(events(tenant));
    }
    one.bus.publish(Signal::Keys);
    one.end().await;
    let mut heard = BTreeSet::new();
    while heard.len() < 6 {
        heard.insert(format!("{:?}", two.next().await));
    }
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_fast() {
    let redis = shared::redis().expect("because Redis is installed");
    let store = store();
    let one = Node::connected(redis.url(), &store).await;
    let mut two = Node::connected(redis.url(), &store).await;
    let mut took = Vec::new();
    for tenant in 0..1_000 {
        let began = Instant::now();
        one.bus.publish(events(tenant));
        assert_eq!(two.next().await, events(tenant));
        took.push(began.elapsed());
        // Beyond the pause between two messages: one by one, as on a quiet host.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    took.sort_unstable();
    let (half, most, all) = (took[500], took[990], took[999]);
    println!("a signal over loopback: p50 {half:?}, p99 {most:?}, max {all:?}");
    assert!(half < Duration::from_millis(50), "half of them took longer than {half:?}");
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn a_bus_of_one_node_says_nothing_and_holds_nothing() {
    let bus = Bus::local();
    for tenant in 0..10_000 {
        bus.publish(events(tenant));
    }
    assert!(format!("{bus:?}").contains("None"), "nothing waits in it");
}
