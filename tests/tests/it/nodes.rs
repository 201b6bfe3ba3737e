//! Several nodes as one host: what one is told, all of them do.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use bulkhead_tests::cluster::Cluster;
use bulkhead_tests::eventually;
use bulkhead_tests::host::event;
use bulkhead_tests::receiver::Receiver;
use bulkhead_tests::stream::Stream;
use reqwest::Method;
use serde_json::json;

/// What nodes do without being told, they do within this time.
const ALWAYS: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_the_work_as_they_join_and_leave() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    cluster.balanced(1).await?;
    cluster.join(&[]).await?;
    cluster.join(&[]).await?;
    cluster.balanced(3).await?;
    let began = Instant::now();
    assert_eq!(cluster.nodes[1].host.terminate().await?, Some(0));
    cluster.balanced(2).await?;
    println!("shards handed over by a node that ended: {:?}", began.elapsed());
    let began = Instant::now();
    cluster.nodes[2].host.kill().await?;
    cluster.balanced(1).await?;
    println!("shards taken over from a node that was killed: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_is_told_the_others_do() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    cluster.balanced(2).await?;
    said_here_done_there(&cluster, "with Redis").await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nodes_look_for_themselves() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    cluster.balanced(2).await?;
    cluster.redis.kill()?;
    said_here_done_there(&cluster, "without Redis").await
}

/// Keys, rules, pauses and the operator's switch: said to the first node, they count on the second.
async fn said_here_done_there(cluster: &Cluster, how: &str) -> Result<()> {
    let receiver = Receiver::start().await?;
    let here = cluster.tenant("acme").await?;
    let there = here.at(&cluster.nodes[1].host);
    let (second, second_id) = cluster.nodes[0].host.key("acme", &["*"]).await?;
    let second = second.at(&cluster.nodes[1].host);
    second.get("/v1/rules").await?;

    here.sink("out", json!({"kind": "webhook", "url": receiver.url})).await?;
    here.rule(json!({"name": "all", "on": "order", "steps": [{"deliver": "out"}]})).await?;

    // What a rule does is decided per batch, so every node follows it at once.
    there.publish(&[event("1", "order", json!({}))]).await?;
    timed(how, "an event goes through a new rule", async || Ok((receiver.distinct() == 1).then_some(()))).await?;

    here.expect_any(Method::POST, "/v1/pause", None).await?;
    there.publish(&[event("2", "order", json!({}))]).await?;
    here.expect_any(Method::POST, "/v1/resume", None).await?;
    timed(how, "a paused tenant goes on", async || Ok((receiver.distinct() == 2).then_some(()))).await?;

    let operator = cluster.nodes[0].host.operator();
    let other = operator.at(&cluster.nodes[1].host);
    let stands = async |paused: bool| Ok((other.get("/admin/v1/overview").await?["paused"] == paused).then_some(()));
    operator.expect_any(Method::POST, "/admin/v1/pause", None).await?;
    timed(how, "everything is paused on the other node", async || stands(true).await).await?;
    operator.expect_any(Method::POST, "/admin/v1/resume", None).await?;
    timed(how, "everything goes on on the other node", async || stands(false).await).await?;

    operator.expect_any(Method::DELETE, &format!("/admin/v1/tenants/acme/keys/{second_id}"), None).await?;
    timed(how, "a revoked key is refused by the other node", async || {
        Ok((second.send(Method::GET, "/v1/rules", None).await?.0 == 401).then_some(()))
    })
    .await
}

/// Waits for something that was said to one node to count on another, and says how long that took.
async fn timed(how: &str, what: &str, seen: impl AsyncFnMut() -> Result<Option<()>>) -> Result<()> {
    let began = Instant::now();
    eventually(what, Duration::from_secs(10), seen).await?;
    let took = began.elapsed();
    println!("{how}: {what}: {took:?}");
    assert!(took <= ALWAYS, "{how}: {what}: {took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_at_one_node_shows_what_is_published_at_another() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    cluster.balanced(2).await?;
    let here = cluster.tenant("acme").await?;
    let there = here.at(&cluster.nodes[1].host);
    let mut stream = Stream::open(&there, "/v1/events/stream", None).await?;
    for how in ["with Redis", "without Redis"] {
        let mut took = Vec::new();
        for number in 0..10 {
            let id = format!("{how} {number}");
            let began = Instant::now();
            here.publish(&[event(&id, "order", json!({}))]).await?;
            let seen = stream.next(ALWAYS).await?.context("the stream ended")?;
            assert_eq!(seen["id"], id);
            took.push(began.elapsed());
        }
        took.sort();
        println!("{how}: from publish to a stream at another node: median {:?}, longest {:?}", took[5], took[9]);
        if how == "with Redis" {
            assert!(took[5] <= Duration::from_millis(300), "{took:?}");
            cluster.redis.kill()?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_publishers_are_told_to_come_back() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    cluster.balanced(2).await?;
    let client = cluster.tenant("acme").await?;
    client.publish(&[event("before", "order", json!({}))]).await?;
    cluster.postgres.stop_immediate()?;
    for node in &cluster.nodes {
        let client = client.at(&node.host);
        let answer = client.offer(&event("away", "order", json!({}))).await?;
        assert_eq!(answer.status(), 503);
        let again: u64 = answer.headers()["retry-after"].to_str()?.parse()?;
        assert!((1..=60).contains(&again), "{again}");
        let problem: serde_json::Value = answer.json().await?;
        assert!(problem["type"].as_str().is_some_and(|kind| kind.ends_with("store-unavailable")), "{problem}");
        eventually("the node to say that it is not ready", ALWAYS, async || {
            Ok((client.anonymous(Method::GET, "/readyz").send().await?.status() == 503).then_some(()))
        })
        .await?;
    }
    cluster.postgres.start_again()?;
    let began = Instant::now();
    for node in &cluster.nodes {
        let client = client.at(&node.host);
        eventually("the node to take events in again", Duration::from_secs(10), async || {
            client.publish(&[event("after", "order", json!({}))]).await.map(Some)
        })
        .await?;
    }
    println!("from Postgres' return to events taken in on every node: {:?}", began.elapsed());
    let ids: Vec<_> = client.list("/v1/events?order=asc").await?.iter().map(|event| event["id"].clone()).collect();
    assert_eq!(ids, ["before", "after"], "what was refused was not taken in");
    Ok(())
}
