//! Quotas of a tenant on several nodes: set on one, kept by all of them together.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use bulkhead_tests::cluster::Cluster;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::event;
use reqwest::Method;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde_json::Value;
use serde_json::json;

const RATE: u64 = 200;
/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn nodes_keep_a_tenant_to_its_rate_together_and_each_alone_without_redis() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    let here = cluster.tenant("acme").await?;
    let there = here.at(&cluster.nodes[1].host);
    let operator = cluster.nodes[0].host.operator();
    let quotas = json!({"events_per_second": {"rate": RATE}});
    operator.expect(200, Method::PUT, "/admin/v1/tenants/acme/quotas", Some(quotas)).await?;
    eventually("the other node to know the quota", Duration::from_secs(5), async || {
        let lines = there.get("/v1/quotas").await?;
        Ok((lines["items"][0]["limit"] == RATE).then_some(()))
    })
    .await?;

    let (accepted, took) = flood(&here, &there, "together").await?;
    let (accepted, rate) = (accepted as f64, RATE as f64 * took.as_secs_f64());
    println!("two nodes with Redis: {accepted} events in {took:?}");
    // What comes at once and on credit, once: no more than twice, if they did not hear of each other in time.
    let (once, twice) = (2.0 * RATE as f64, 4.0 * RATE as f64);
    assert!(accepted >= once + 0.7 * rate && accepted <= twice + 1.2 * rate, "{accepted} events in {took:?}");
    for node in [&here, &there] {
        let line = node.get("/v1/quotas").await?["items"][0].clone();
        // Which of the two depends on whether the node's last answer was credit or a refusal.
        let bites = line["state"] == "soft" || line["state"] == "stopped";
        assert!(bites && line["since"].is_string(), "{line}");
    }

    cluster.redis.kill()?;
    let (accepted, took) = flood(&here, &there, "alone").await?;
    println!("two nodes without Redis: {accepted} events in {took:?}");
    let each = RATE as f64 * took.as_secs_f64();
    assert!(accepted as f64 >= 1.4 * each, "{accepted} events in {took:?}: each node goes on by itself");
    let metrics = operator.request(Method::GET, "/metrics").send().await?.text().await?;
    assert!(metrics.contains("bulkhead_quota_refused_total{quota=\"rate\"}"), "it is counted");
    Ok(())
}

/// Publishes at two nodes as fast as they let it, for a while. Says how many events were accepted.
async fn flood(here: &Client, there: &Client, name: &str) -> Result<(u64, Duration)> {
    let began = Instant::now();
    let (one, two) = tokio::try_join!(
        publish(here, format!("{name}-1"), began + FLOOD),
        publish(there, format!("{name}-2"), began + FLOOD)
    )?;
    Ok((one + two, began.elapsed()))
}

async fn publish(client: &Client, name: String, until: Instant) -> Result<u64> {
    let (mut accepted, mut refused) = (0, 0);
    for round in 0.. {
        if Instant::now() > until {
            break;
        }
        let events: Vec<Value> = (0..10).map(|at| event(&format!("{name}-{round}-{at}"), "a", json!({}))).collect();
        let request = client.request(Method::POST, "/v1/events");
        let request = request.header("content-type", "application/cloudevents-batch+json");
        let answer = request.json(&events).send().await?;
        match answer.status() {
            StatusCode::ACCEPTED => accepted += 10,
            StatusCode::TOO_MANY_REQUESTS => {
                let wait: u64 = answer.headers().get(RETRY_AFTER).context("no Retry-After")?.to_str()?.parse()?;
                // More than a second if the nodes gave away more together than one burst.
                assert!((1..=3).contains(&wait), "{wait}");
                let problem: Value = answer.json().await?;
                assert_eq!((&problem["code"], &problem["limit"]), (&json!("limit-rate"), &json!(RATE)));
                refused += 1;
            }
            status => anyhow::bail!("{status}: {}", answer.text().await?),
        }
    }
    assert!(refused > 0, "it is a flood");
    Ok(accepted)
}
