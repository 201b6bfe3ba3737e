//! An inbox that takes nothing now, and what operators see of that.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use bulkhead_flow::inbox;
use bulkhead_flow::source::Backlog;
use bulkhead_flow::source::State;
use bulkhead_services::shared;
use bulkhead_store::catalogue::TenantState;
use tokio_util::sync::CancellationToken;

use crate::fixture::Host;
use crate::fixture::Queue;
use crate::fixture::Running;
use crate::fixture::until;

fn queue() -> Queue {
    Queue::on(shared::redis().expect("because Redis is installed").url())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenants_entries_wait_in_the_stream_and_come_in_order_afterwards() {
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    queue.number(0..100).await;
    let mut options = Running::options(&queue, &tenant);
    options.batch = 10;
    host.switch(&tenant, TenantState::Suspended).await;
    let mut source = Running::start(&host, options);
    assert_eq!(source.waiting().await, "the tenant is suspended");
    until("it tried again and again", async || source.counted("waits") >= 3).await;
    assert!(host.events(&tenant).await.is_empty());
    assert_eq!((queue.pending().await, source.counted("acked")), (20, 0), "one batch waits behind the one at hand");
    host.switch(&tenant, TenantState::Active).await;
    source.reading().await;
    until("all are acknowledged", async || source.counted("acked") == 100).await;
    assert_eq!(host.numbers(&tenant).await, (0..100).collect::<Vec<_>>());
    assert_eq!((queue.pending().await, source.counted("reconnects")), (0, 0));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_tenants_entries_are_taken_in() {
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    host.switch(&tenant, TenantState::Paused).await;
    queue.number(0..10).await;
    let source = Running::usual(&host, &queue, &tenant);
    until("all are acknowledged", async || source.counted("acked") == 10).await;
    assert_eq!(host.numbers(&tenant).await, (0..10).collect::<Vec<_>>());
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_an_inbox_that_takes_nothing() {
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    queue.number(0..10).await;
    host.switch(&tenant, TenantState::Suspended).await;
    let mut source = Running::usual(&host, &queue, &tenant);
    source.waiting().await;
    let stopped = tokio::time::timeout(Duration::from_secs(3), source.stop()).await;
    assert!(stopped.is_ok(), "it waits on");
    assert_eq!(queue.pending_of("one").await, 10, "they are there for the next run");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_that_is_busy_with_others_is_waited_for_and_order_is_kept() {
    const ENTRIES: u32 = 2_000;
    // One request at a time.
    let host = Host::with(inbox::Limits { under_way_bytes: 1, ..inbox::Limits::default() }).await;
    let queue = queue();
    let (tenant, other) = (host.tenant("ours").await, host.tenant("other").await);
    queue.number(0..ENTRIES).await;
    let enough = CancellationToken::new();
    let flood = host.flood(&other, &enough);
    let mut options = Running::options(&queue, &tenant);
    options.batch = 100;
    let mut source = Running::start(&host, options);
    let reason = source.waiting().await;
    assert_eq!(reason, "too many events are on their way into the store");
    enough.cancel();
    for writer in flood {
        writer.await.expect("because the store works");
    }
    source.reading().await;
    until("all are acknowledged", async || source.counted("acked") == u64::from(ENTRIES)).await;
    assert_eq!(host.numbers(&tenant).await, (0..ENTRIES).collect::<Vec<_>>());
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_in_the_status() {
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("because it is later");
    let old = format!("{}-0", (now - Duration::from_secs(100)).as_millis());
    queue.ask::<String>(&["XADD"], &[&old, "type", "test.counted", "data", "0"]).await;
    queue.number(1..50).await;
    host.switch(&tenant, TenantState::Suspended).await;
    let mut options = Running::options(&queue, &tenant);
    options.batch = 10;
    let mut source = Running::start(&host, options);
    assert_eq!(source.status().backlog, None, "nobody has looked");
    let aged = |backlog: &Backlog| backlog.oldest_seconds.is_some_and(|age| (100..200).contains(&age));
    let seen = |unread, pending| {
        move |backlog: &Backlog| (backlog.unread, backlog.pending) == (unread, pending) && aged(backlog)
    };
    source.until("all wait unread", |status| status.backlog.as_ref().is_some_and(seen(50, 0))).await;
    let waiting = source.until("some are read", |status| status.backlog.as_ref().is_some_and(seen(30, 20))).await;
    assert!(matches!(waiting.state, State::Waiting { .. }), "{waiting:?}");
    host.switch(&tenant, TenantState::Active).await;
    let nothing = Backlog { unread: 0, pending: 0, oldest_seconds: None };
    let ready = source.until("nothing waits", |status| status.backlog == Some(nothing)).await;
    assert_eq!(ready.state, State::Reading);
    source.stop().await;
}
