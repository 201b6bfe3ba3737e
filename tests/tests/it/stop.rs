//! What machines look at, and how a host ends.

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::event;
use bulkhead_tests::stream::Stream;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

/// A metric's value, summed over its labels.
fn metric(text: &str, name: &str) -> Result<f64> {
    let mut sum = None;
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, value) = line.rsplit_once(' ').with_context(|| format!("`{line}` is no sample"))?;
        let value: f64 = value.parse().with_context(|| format!("`{line}` has no number"))?;
        let series_name = series.split('{').next().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
        if series_name.is_empty() || !series_name.bytes().all(plain) || series.contains('{') != series.ends_with('}') {
            bail!("`{line}` is no sample");
        }
        if series_name == name {
            *sum.get_or_insert(0.0) += value;
        }
    }
    sum.with_context(|| format!("there is no {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_there_for_machines() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    client.rule(json!({"name": "copy", "on": "a", "steps": [{"emit": "b"}]})).await?;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(client.anonymous(Method::GET, path).send().await?.status(), 200, "{path}");
    }
    let events: Vec<Value> = (0..25).map(|n| event(&format!("a-{n}"), "a", json!({}))).collect();
    client.publish(&events).await?;
    client.publish(&events).await?;
    client.run_in("a-24", "copy", "done").await?;
    let operator = host.operator();
    eventually("the metrics to have counted", SOON, async || {
        let text = operator.request(Method::GET, "/metrics").send().await?.text().await?;
        let seen = ["bulkhead_events_accepted_total", "bulkhead_events_duplicate_total", "bulkhead_runs_total"]
            .map(|name| metric(&text, name).unwrap_or(-1.0));
        if seen != [25.0, 25.0, 25.0] {
            bail!("{seen:?}");
        }
        Ok(Some(()))
    })
    .await?;

    // The documents that machines and people read.
    let document = client.get("/openapi.json").await?;
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);
    for path in ["/docs", "/docs/errors/rule-invalid"] {
        let answer = client.anonymous(Method::GET, path).send().await?;
        assert_eq!(answer.status(), 200, "{path}");
        let text = answer.text().await?;
        assert!(!text.contains("https://cdn") && !text.contains("unpkg.com"), "{path} works offline");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_ends_streams_and_goes_on_after_the_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path()).await?;
    let mut client = host.tenant("acme").await?;
    client.push("checker").await?;
    client.rule(json!({"name": "check", "on": "steps", "order": "key", "steps": [{"handle": "checker"}]})).await?;
    let mut stream = Stream::open(&client, "/v1/events/stream?type=checked", None).await?;
    let steps: Vec<Value> = (1..=400)
        .map(|seq| {
            let mut step = event(&format!("k-{seq}"), "steps", json!({"key": "k", "seq": seq}));
            step["partitionkey"] = "k".into();
            step
        })
        .collect();
    client.publish(&steps).await?;
    let mut seen = Vec::new();
    seen.extend(stream.next(SOON).await?);

    // Asked to end while there is work: not ready any more, streams end, and the code is 0.
    let watcher = client.clone();
    let not_ready = eventually("the host to be not ready", SOON, async || {
        let answer = watcher.anonymous(Method::GET, "/readyz").send().await;
        Ok(answer.map_or(true, |answer| answer.status() == 503).then_some(()))
    });
    let ended = async {
        while let Some(event) = stream.next(SOON).await? {
            seen.push(event);
        }
        anyhow::Ok((seen, stream.last_id))
    };
    let (code, not_ready, ended) = tokio::join!(host.terminate(), not_ready, ended);
    assert_eq!(code?, Some(0), "{}", host.log()?);
    not_ready?;
    let (mut seen, last) = ended?;
    let before = seen.len();

    host.restart().await?;
    client = client.at(&host);
    let mut stream = Stream::open(&client, "/v1/events/stream?type=checked", last.as_deref()).await?;
    while seen.len() < 400 {
        seen.push(stream.next(SOON).await?.context("the stream ended")?);
    }
    let order: Vec<u64> = seen.iter().filter_map(|event| event["data"]["seq"].as_u64()).collect();
    assert_eq!(order, (1..=400).collect::<Vec<_>>(), "every follow-up once, in order, over the restart");
    println!("{before} of 400 were seen before the end");
    assert_eq!(client.number("checker", "count:k").await?, 400);
    assert_eq!(client.number("checker", "disorder:k").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_on_the_same_store_is_refused_or_harmless() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    client.push("checker").await?;
    client.rule(json!({"name": "check", "on": "steps", "steps": [{"handle": "checker"}]})).await?;
    // By mistake: a second process on the same files.
    let second = Host::start(folder.path()).await;
    let steps: Vec<Value> =
        (1..=100).map(|seq| event(&format!("k-{seq}"), "steps", json!({"key": "k", "seq": seq}))).collect();
    client.publish(&steps).await?;
    eventually("all to be counted", SOON, async || {
        Ok((client.number("checker", "count:k").await? >= 100).then_some(()))
    })
    .await?;
    assert_eq!(client.number("checker", "count:k").await?, 100);
    assert_eq!(client.list("/v1/events?type=checked").await?.len(), 100);
    println!("the second host {}", if second.is_ok() { "runs beside it" } else { "is refused" });
    Ok(())
}
