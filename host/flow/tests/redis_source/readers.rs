//! Those who read: restarts, dead ones, living ones.

use std::collections::BTreeSet;
use std::time::Duration;

use bulkhead_services::shared;
use bulkhead_store::catalogue::TenantState;

use crate::fixture::Host;
use crate::fixture::Queue;
use crate::fixture::Running;
use crate::fixture::until;

fn queue() -> Queue {
    Queue::on(shared::redis().expect("because Redis is installed").url())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_under_the_same_name_begins_with_what_was_left() {
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    host.switch(&tenant, TenantState::Suspended).await;
    queue.number(0..50).await;
    let mut options = Running::options(&queue, &tenant);
    options.batch = 10;
    let mut source = Running::start(&host, options.clone());
    source.waiting().await;
    until("two batches are read", async || queue.pending_of("one").await == 20).await;
    source.die().await;
    host.switch(&tenant, TenantState::Active).await;
    let source = Running::start(&host, options);
    until("all are acknowledged", async || source.counted("acked") == 50).await;
    assert_eq!(host.numbers(&tenant).await, (0..50).collect::<Vec<_>>(), "in the order of the stream");
    assert_eq!((queue.pending().await, source.counted("claimed")), (0, 0));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_nothing_behind_that_the_next_run_does_not_find() {
    const ENTRIES: u32 = 20_000;
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    queue.number(0..ENTRIES).await;
    let mut options = Running::options(&queue, &tenant);
    options.batch = 100;
    for stops in 1..=5 {
        let source = Running::start(&host, options.clone());
        let some = u64::from(ENTRIES) * stops / 10;
        until("some are acknowledged", async || source.counted("acked") >= some).await;
        source.stop().await;
    }
    let source = Running::start(&host, options);
    until("all are acknowledged", async || source.counted("acked") == u64::from(ENTRIES)).await;
    assert_eq!(host.numbers(&tenant).await, (0..ENTRIES).collect::<Vec<_>>());
    assert_eq!(queue.pending().await, 0);
    // A batch that is under way at a stop is ended and acknowledged.
    assert_eq!(source.counted("duplicates"), 0);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_consumer_has_read_is_claimed() {
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    host.switch(&tenant, TenantState::Suspended).await;
    queue.number(0..25).await;
    let mut options = Running::options(&queue, &tenant);
    (options.batch, options.claim_idle) = (10, Duration::from_millis(300));
    let mut source = Running::start(&host, options.clone());
    source.waiting().await;
    until("two batches are read", async || queue.pending_of("one").await == 20).await;
    source.die().await;
    host.switch(&tenant, TenantState::Active).await;
    options.consumer = "two".to_owned();
    let source = Running::start(&host, options);
    until("all are taken in", async || host.numbers(&tenant).await.len() == 25).await;
    until("nothing is pending", async || queue.pending().await == 0).await;
    let numbers = host.numbers(&tenant).await;
    assert_eq!(numbers.iter().copied().collect::<BTreeSet<_>>(), (0..25).collect());
    let claimed: Vec<u32> = numbers.into_iter().filter(|number| *number < 20).collect();
    assert_eq!(claimed, (0..20).collect::<Vec<_>>(), "what was claimed is in order, too");
    assert!(source.counted("claimed") >= 20, "{} claimed", source.counted("claimed"));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_living_consumer_has_read_is_left_to_it() {
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    queue.make_group().await;
    queue.number(0..20).await;
    assert_eq!(queue.read_as("living", 10).await, 10);
    // Half of the usual minute goes by between two claims; the first is at once.
    let source = Running::usual(&host, &queue, &tenant);
    until("the others are acknowledged", async || source.counted("acked") == 10).await;
    assert_eq!(host.numbers(&tenant).await, (10..20).collect::<Vec<_>>());
    assert_eq!((queue.pending_of("living").await, source.counted("claimed")), (10, 0));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_one_group_divide_the_entries_among_themselves() {
    const ENTRIES: u32 = 10_000;
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    queue.number(0..ENTRIES).await;
    let mut options = Running::options(&queue, &tenant);
    options.batch = 50;
    let mut sources = Vec::new();
    for consumer in ["one", "two", "three"] {
        options.consumer = consumer.to_owned();
        sources.push(Running::start(&host, options.clone()));
    }
    // They count under one name.
    until("all are acknowledged", async || sources[0].counted("acked") == u64::from(ENTRIES)).await;
    let mut numbers = host.numbers(&tenant).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..ENTRIES).collect::<Vec<_>>());
    assert_eq!((queue.pending().await, sources[0].counted("duplicates")), (0, 0));
    for source in sources {
        source.stop().await;
    }
}
