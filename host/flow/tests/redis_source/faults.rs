//! A server that dies, loses what it had, or is out of reach.

use std::collections::BTreeSet;
use std::time::Duration;

use bulkhead_flow::source::State;
use bulkhead_services::AppendOnly;
use bulkhead_services::Proxy;
use bulkhead_services::Redis;
use bulkhead_services::RedisOptions;

use crate::fixture::Host;
use crate::fixture::Queue;
use crate::fixture::Running;
use crate::fixture::until;

#[tokio::test(flavor = "multi_thread")]
async fn after_each_kill_of_the_server_it_goes_on_and_nothing_is_double() {
    const ENTRIES: u32 = 20_000;
    let redis = Redis::start(RedisOptions { append_only: AppendOnly::Always }).expect("because Redis is installed");
    let (host, queue) = (Host::start().await, Queue::on(redis.url()));
    let tenant = host.tenant("ours").await;
    queue.number(0..ENTRIES).await;
    let mut options = Running::options(&queue, &tenant);
    options.batch = 20;
    let mut source = Running::start(&host, options);
    for kills in 1..=5 {
        let some = u64::from(ENTRIES) * kills / 10;
        until("some are taken in", async || source.counted("acked") >= some).await;
        redis.kill().expect("because it is running");
        let reason = source.waiting().await;
        assert!(reason.starts_with("Redis: "), "{reason}");
        redis.start_again().expect("because its port is free");
        source.reading().await;
    }
    until("all are taken in", async || queue.progress().await == Some((u64::from(ENTRIES), 0))).await;
    assert_eq!(host.numbers(&tenant).await, (0..ENTRIES).collect::<Vec<_>>(), "each once, and in order");
    assert!(source.counted("reconnects") >= 5, "{} reconnects", source.counted("reconnects"));
    assert_eq!(source.counted("set_back"), 0, "the server lost nothing");
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let redis = Redis::start(RedisOptions::default()).expect("because Redis is installed");
    let (host, queue) = (Host::start().await, Queue::on(redis.url()));
    let tenant = host.tenant("ours").await;
    redis.kill().expect("because it is running");
    let mut source = Running::usual(&host, &queue, &tenant);
    source.waiting().await;
    redis.start_again().expect("because its port is free");
    source.reading().await;
    queue.number(0..10).await;
    until("all are taken in", async || source.counted("acked") == 10).await;
    assert_eq!(host.numbers(&tenant).await, (0..10).collect::<Vec<_>>());
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_the_group_is_made_anew_and_the_loss_is_said_once() {
    let redis = Redis::start(RedisOptions::default()).expect("because Redis is installed");
    let (host, queue) = (Host::start().await, Queue::on(redis.url()));
    let tenant = host.tenant("ours").await;
    queue.number(0..10).await;
    let mut source = Running::usual(&host, &queue, &tenant);
    until("the first are taken in", async || source.counted("acked") == 10).await;
    for flushes in 1..=3 {
        redis.flush_all().expect("because it answers");
        until("the loss is counted", async || source.counted("set_back") == flushes).await;
        source.reading().await;
        queue.number(0..10).await;
        until("the next are taken in", async || source.counted("acked") == 10 * (flushes + 1)).await;
    }
    // Entries of before and after are different ones, even with the same content.
    let four_times: Vec<u32> = (0..4).flat_map(|_| 0..10).collect();
    assert_eq!(host.numbers(&tenant).await, four_times);
    assert_eq!((source.counted("set_back"), source.counted("duplicates")), (3, 0));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_without_what_it_had_is_noticed() {
    let redis = Redis::start(RedisOptions::default()).expect("because Redis is installed");
    let (host, queue) = (Host::start().await, Queue::on(redis.url()));
    let tenant = host.tenant("ours").await;
    queue.number(0..10).await;
    let source = Running::usual(&host, &queue, &tenant);
    until("the first are taken in", async || source.counted("acked") == 10).await;
    redis.kill().expect("because it is running");
    redis.start_again().expect("because its port is free");
    queue.number(10..20).await;
    until("the next are taken in", async || source.counted("acked") == 20).await;
    assert_eq!(host.numbers(&tenant).await, (0..20).collect::<Vec<_>>());
    assert_eq!(source.counted("set_back"), 1);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_that_is_cut_without_a_word_is_noticed_and_nothing_is_lost() {
    let redis = Redis::start(RedisOptions::default()).expect("because Redis is installed");
    let wire = Proxy::start(redis.port()).expect("because there are free ports");
    let (host, queue) = (Host::start().await, Queue::on(redis.url()));
    let tenant = host.tenant("ours").await;
    let mut options = Running::options(&queue, &tenant);
    options.url = format!("redis://127.0.0.1:{}/", wire.port()).into();
    // What the server sends into the cut belongs to nobody until it is read again.
    options.claim_idle = Duration::from_secs(1);
    let mut source = Running::start(&host, options);
    source.reading().await;
    queue.number(0..10).await;
    until("the first are taken in", async || source.counted("acked") == 10).await;
    wire.cut();
    queue.number(10..30).await;
    source.waiting().await;
    wire.heal();
    source.reading().await;
    queue.number(30..40).await;
    until("all are let go of", async || queue.progress().await == Some((40, 0))).await;
    let numbers = host.numbers(&tenant).await;
    assert_eq!((numbers.len(), numbers.into_iter().collect::<BTreeSet<_>>()), (40, (0..40).collect()));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_all_the_time_lose_and_double_nothing() {
    const ENTRIES: u32 = 10_000;
    let redis = Redis::start(RedisOptions::default()).expect("because Redis is installed");
    let wire = Proxy::start(redis.port()).expect("because there are free ports");
    let (host, queue) = (Host::start().await, Queue::on(redis.url()));
    let tenant = host.tenant("ours").await;
    queue.number(0..ENTRIES).await;
    let mut options = Running::options(&queue, &tenant);
    options.url = format!("redis://127.0.0.1:{}/", wire.port()).into();
    (options.batch, options.claim_idle) = (10, Duration::from_secs(1));
    let source = Running::start(&host, options);
    for breaks in 1..=10 {
        let some = u64::from(ENTRIES) * breaks / 20;
        until("some are taken in", async || source.counted("acked") >= some).await;
        wire.drop_all();
        until("it is noticed", async || source.counted("reconnects") >= breaks).await;
    }
    until("all are let go of", async || queue.progress().await == Some((u64::from(ENTRIES), 0))).await;
    let numbers = host.numbers(&tenant).await;
    assert_eq!((numbers.len(), numbers.into_iter().collect::<BTreeSet<_>>()), (10_000, (0..ENTRIES).collect()));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_for_long_is_no_failure() {
    let redis = Redis::start(RedisOptions::default()).expect("because Redis is installed");
    let (host, queue) = (Host::start().await, Queue::on(redis.url()));
    let tenant = host.tenant("ours").await;
    let mut options = Running::options(&queue, &tenant);
    options.block = Duration::from_millis(1_500);
    let mut source = Running::start(&host, options);
    source.reading().await;
    // The library's usual limit is 500 ms; two reads in a row wait for longer.
    for _ in 0..2 {
        until("a read waits for a second", async || waits(&queue).await >= Some(1)).await;
        until("the next read begins", async || waits(&queue).await == Some(0)).await;
    }
    queue.number(0..1).await;
    until("it is taken in", async || source.counted("acked") == 1).await;
    assert_eq!((source.status().state, source.counted("reconnects")), (State::Reading, 0));
    source.stop().await;
}

/// For how many whole seconds a read has waited; none if none waits now.
async fn waits(queue: &Queue) -> Option<u64> {
    let list = redis::cmd("CLIENT").arg("LIST").query_async(&mut queue.connection().await).await;
    let list: String = list.expect("because Redis is there");
    let reader = list.lines().find(|line| line.contains(" cmd=xreadgroup "))?;
    let field = |name| reader.split(' ').find_map(|field| field.strip_prefix(name));
    field("flags=").filter(|flags| flags.contains('b'))?;
    field("idle=")?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_waited_for_and_needs_to_allow_little() {
    let redis = Redis::start(RedisOptions::default()).expect("because Redis is installed");
    let (host, queue) = (Host::start().await, Queue::on(redis.url()));
    let tenant = host.tenant("ours").await;
    let mut options = Running::options(&queue, &tenant);
    options.url = format!("redis://somebody:hidden@127.0.0.1:{}/", redis.port()).into();
    assert!(!format!("{options:?}").contains("hidden"));
    let mut source = Running::start(&host, options);
    let reason = source.waiting().await;
    assert!(reason.starts_with("Redis: ") && !reason.contains("hidden"), "{reason}");
    // As little as the documentation asks for.
    let mut user = redis::cmd("ACL");
    user.arg(&["SETUSER", "somebody", "on", ">hidden", "resetkeys", "-@all"]);
    user.arg(format!("~{}", queue.stream)).arg(format!("~{}:rejected", queue.stream));
    for command in ["xgroup", "xreadgroup", "xautoclaim", "xack", "xinfo", "xpending", "xrange", "xadd"] {
        user.arg(format!("+{command}"));
    }
    user.arg("+evalsha").arg("+script|load");
    user.query_async::<()>(&mut queue.connection().await).await.expect("because it is right");
    source.reading().await;
    queue.number(0..10).await;
    queue.add(&[("data", b"of no type")]).await;
    until("all are acknowledged", async || source.counted("acked") == 11).await;
    assert_eq!((host.numbers(&tenant).await.len(), queue.rejected().await.len()), (10, 1));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_no_stream_is_waited_for() {
    let redis = Redis::start(RedisOptions::default()).expect("because Redis is installed");
    let (host, queue) = (Host::start().await, Queue::on(redis.url()));
    let tenant = host.tenant("ours").await;
    queue.ask::<()>(&["SET"], &["something else"]).await;
    let mut source = Running::usual(&host, &queue, &tenant);
    let reason = source.waiting().await;
    assert!(reason.contains("wrong kind"), "{reason}");
    queue.ask::<()>(&["DEL"], &[]).await;
    source.reading().await;
    queue.number(0..1).await;
    until("it is taken in", async || source.counted("acked") == 1).await;
    source.stop().await;
}
