//! The service: from the outbox to the receivers, whatever breaks on the way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use bulkhead_domain::clock::SystemClock;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_flow::deliver::Deliver;
use bulkhead_flow::deliver::Handle;
use bulkhead_flow::deliver::Options;
use bulkhead_flow::deliver::breaker::BreakerOptions;
use bulkhead_flow::deliver::breaker::BreakerState;
use bulkhead_store::deliveries::Deliveries;
use bulkhead_store::deliveries::DeliveryState;
use bulkhead_store::deliveries::DueDelivery;
use serde_json::Value;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fixture::directory::Sinks;
use crate::fixture::due;
use crate::fixture::local_outlets;
use crate::fixture::outbox::Outbox;
use crate::fixture::receiver::Receiver;
use crate::fixture::receiver::Say;
use crate::fixture::resolved;
use crate::fixture::until;

struct Service {
    outbox: Arc<Outbox>,
    sinks: Arc<Sinks>,
    handle: Handle,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Service {
    fn start() -> Self {
        let (outbox, sinks) = (Arc::<Outbox>::default(), Arc::<Sinks>::default());
        let options = Options {
            look: Duration::from_millis(50),
            grace: Duration::from_secs(5),
            breaker: BreakerOptions {
                in_row_max: 5,
                pause_first: Duration::from_millis(50),
                ..BreakerOptions::default()
            },
            ..Options::default()
        };
        let deliver = Deliver::new(
            options,
            Arc::clone(&outbox) as Arc<dyn Deliveries>,
            Arc::<Sinks>::clone(&sinks),
            local_outlets(),
            Arc::new(SystemClock),
            Arc::new(ArcSwap::from_pointee(HashMap::from([(Shard(0), Fence(1))]).into())),
        );
        let (handle, stop) = (deliver.handle(), CancellationToken::new());
        let running = tokio::spawn(deliver.run(stop.clone()));
        Self { outbox, sinks, handle, stop, running }
    }

    fn add(&self, delivery: DueDelivery) {
        self.outbox.add(delivery);
        self.handle.wake();
    }

    async fn delivered(&self, count: usize) {
        until("all are delivered", || self.outbox.count(DeliveryState::Delivered) == count).await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.expect("because the service does not panic");
    }
}

fn webhook(receiver: &Receiver, attempts: u32) -> Value {
    json!({"kind": "webhook", "url": receiver.url("/"),
           "retry": {"attempts": attempts, "first": "10ms", "factor": 1.0, "max": "10ms"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_tried_again_under_the_same_id_until_it_arrives() {
    let receiver = Receiver::start(|_, before| Say::Status(if before < 3 { 500 } else { 200 })).await;
    let service = Service::start();
    service.sinks.put(1, "crm", &webhook(&receiver, 10), &[]);
    service.add(due(1, "eff_1", "crm", "{}"));
    service.delivered(1).await;
    let ids: Vec<_> = receiver.seen().iter().map(|seen| seen.header("webhook-id").to_owned()).collect();
    assert_eq!(ids, ["eff_1"; 4]);
    assert_eq!(service.outbox.row("eff_1").due.attempts, 4);
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_attempt_it_is_parked_with_the_reason() {
    let receiver = Receiver::start(|_, _| Say::Status(500)).await;
    let service = Service::start();
    service.sinks.put(1, "crm", &webhook(&receiver, 3), &[]);
    service.add(due(1, "eff_1", "crm", "{}"));
    service.add(due(1, "eff_2", "nowhere", "{}"));
    until("both are parked", || service.outbox.count(DeliveryState::Parked) == 2).await;
    let row = service.outbox.row("eff_1");
    assert_eq!((row.code.as_str(), row.due.attempts, receiver.count()), ("http:500", 3, 3));
    assert_eq!(service.outbox.row("eff_2").code, "sink:missing");
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_with_a_key_arrive_in_order_one_at_a_time() {
    // The first attempt of each fails: order must survive that.
    let receiver = Receiver::start(|seen, _| {
        static FAILED: std::sync::Mutex<Option<HashMap<String, u32>>> = std::sync::Mutex::new(None);
        let mut failed = FAILED.lock().expect("because nobody panicked");
        let times = failed.get_or_insert_default().entry(seen.header("webhook-id").to_owned()).or_default();
        *times += 1;
        Say::Status(if *times == 1 { 500 } else { 200 })
    })
    .await;
    let service = Service::start();
    service.sinks.put(1, "crm", &webhook(&receiver, 10), &[]);
    for number in 0..10 {
        let delivery = due(1, &format!("eff_{number}"), "crm", "{}");
        service.outbox.add(DueDelivery { key: Some("k".to_owned()), ..delivery });
    }
    service.handle.wake();
    service.delivered(10).await;
    let ids: Vec<_> = receiver.seen().iter().map(|seen| seen.header("webhook-id").to_owned()).collect();
    let expected: Vec<_> = (0..10).flat_map(|number| vec![format!("eff_{number}"); 2]).collect();
    assert_eq!(ids, expected);
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_receiver_is_left_alone_and_holds_nobody_up() {
    let healthy = Arc::new(AtomicBool::new(false));
    let is_healthy = Arc::clone(&healthy);
    let dead =
        Receiver::start(move |_, _| Say::Status(if is_healthy.load(Ordering::SeqCst) { 200 } else { 503 })).await;
    let good = Receiver::start(|_, _| Say::Status(200)).await;
    let service = Service::start();
    service.sinks.put(1, "dead", &webhook(&dead, 50), &[]);
    service.sinks.put(1, "good", &webhook(&good, 3), &[]);
    for number in 0..100 {
        service.outbox.add(due(1, &format!("dead_{number}"), "dead", "{}"));
    }
    service.handle.wake();
    until("the breaker opens", || service.handle.breaker(TenantId(1), "dead").is_some()).await;
    for number in 0..20 {
        service.add(due(1, &format!("good_{number}"), "good", "{}"));
    }
    service.delivered(20).await;
    let view = service.handle.breaker(TenantId(1), "dead").expect("because it is still dead");
    assert!(matches!(view.state, BreakerState::Open | BreakerState::Probing));
    assert_eq!(view.code, "http:503");
    healthy.store(true, Ordering::SeqCst);
    service.delivered(120).await;
    until("the breaker closes", || service.handle.breaker(TenantId(1), "dead").is_none()).await;
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_the_store_loses_is_made_again_not_the_delivery() {
    let receiver = Receiver::start(|_, _| Say::Status(200)).await;
    let service = Service::start();
    service.sinks.put(1, "crm", &webhook(&receiver, 3), &[]);
    service.outbox.failing_settlings.store(2, Ordering::SeqCst);
    service.outbox.failing_fetches.store(2, Ordering::SeqCst);
    service.sinks.failing.store(1, Ordering::SeqCst);
    service.add(due(1, "eff_1", "crm", "{}"));
    service.delivered(1).await;
    assert_eq!(receiver.count(), 1);
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_panics_costs_one_attempt_and_not_the_service() {
    let receiver = Receiver::start(|_, _| Say::Status(200)).await;
    let service = Service::start();
    service.sinks.put(1, "crm", &webhook(&receiver, 3), &[]);
    service.sinks.panicking.store(1, Ordering::SeqCst);
    service.add(due(1, "eff_1", "crm", "{}"));
    service.delivered(1).await;
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_while_paused_or_held() {
    let receiver = Receiver::start(|_, _| Say::Status(200)).await;
    let service = Service::start();
    let spec = webhook(&receiver, 3);
    service.sinks.put(1, "crm", &spec, &[]);
    service.handle.set_paused(true);
    service.add(due(1, "eff_1", "crm", "{}"));
    // A tenant that is paused between the look into the outbox and the attempt.
    service.sinks.put_sink(2, "crm", bulkhead_flow::sink::ResolvedSink { held: true, ..resolved(&spec, &[]) });
    service.add(due(2, "eff_2", "crm", "{}"));
    service.outbox.set_active(3, false);
    service.sinks.put(3, "crm", &spec, &[]);
    service.add(due(3, "eff_3", "crm", "{}"));
    assert_eq!((receiver.count(), service.outbox.count(DeliveryState::Pending)), (0, 3));
    service.handle.set_paused(false);
    service.delivered(1).await;
    assert_eq!(receiver.seen()[0].header("webhook-id"), "eff_1");
    assert_eq!(
        (service.outbox.row("eff_2").due.attempts, service.outbox.row("eff_2").state),
        (0, DeliveryState::Pending)
    );
    service.outbox.set_active(3, true);
    service.sinks.put(2, "crm", &spec, &[]);
    service.handle.wake();
    service.delivered(3).await;
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_what_is_under_way_is_settled() {
    let receiver = Receiver::start(|_, _| Say::Late(Duration::from_millis(300))).await;
    let service = Service::start();
    service.sinks.put(1, "crm", &webhook(&receiver, 3), &[]);
    for number in 0..3 {
        service.add(due(1, &format!("eff_{number}"), "crm", "{}"));
    }
    until("they are under way", || receiver.count() == 3).await;
    let outbox = Arc::clone(&service.outbox);
    service.end().await;
    assert_eq!(outbox.count(DeliveryState::Delivered), 3, "{:?}", outbox.rows());
    assert!(outbox.settlings.load(Ordering::SeqCst) >= 1 && outbox.fetches.load(Ordering::SeqCst) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_of_a_sink_says_what_happened() {
    let receiver = Receiver::start(|_, before| Say::Status(if before == 0 { 200 } else { 500 })).await;
    let service = Service::start();
    service.sinks.put(1, "crm", &webhook(&receiver, 3), &[]);
    let tested = service.handle.test(TenantId(1), "crm").await.expect("because the sink is there");
    assert!(tested.arrived);
    let body: Value = serde_json::from_slice(&receiver.seen()[0].body).expect("because it is a CloudEvent");
    assert_eq!(body["type"], "bulkhead.sink.test");
    let tested = service.handle.test(TenantId(1), "crm").await.expect("because the sink is there");
    assert_eq!((tested.arrived, tested.code.as_str()), (false, "http:500"));
    assert!(service.handle.test(TenantId(1), "other").await.is_err());
    service.end().await;
}
