//! Retention: what is over and old goes, and a duplicate of it is new again; what waits stays, unless it is parked.

use std::time::Duration;

use anyhow::Result;
use anyhow::bail;
use bulkhead_tests::cluster::Cluster;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::Settings;
use bulkhead_tests::host::event;
use reqwest::Method;
use reqwest::StatusCode;
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
/// How long events are kept here; parked runs for less, so that their ends are seen.
const EVENTS: (&str, &str) = ("BULKHEAD_RETENTION_EVENTS", "8s");
const PARKED: (&str, &str) = ("BULKHEAD_RETENTION_PARKED", "2s");

/// A tenant with a rule that works, one that nobody can run, and one that is paused.
async fn furnish(client: &Client) -> Result<()> {
    client.rule(json!({"name": "copy", "on": "plain", "steps": [{"emit": "copied"}]})).await?;
    // Uploaded, and not active.
    let (wasm, _) = bulkhead_tests::plugin("checker")?;
    let upload =
        client.request(Method::PUT, "/v1/plugins/checker").header("content-type", "application/wasm").body(wasm);
    upload.send().await?.error_for_status()?;
    client.rule(json!({"name": "lost", "on": "lost", "steps": [{"handle": "checker"}]})).await?;
    client.rule(json!({"name": "wait", "on": "wait", "steps": [{"emit": "copied"}]})).await?;
    client.expect_any(Method::POST, "/v1/rules/wait/pause", Some(json!({}))).await?;
    Ok(())
}

/// Publishes an event; says whether it was new.
async fn is_new(client: &Client, id: &str, kind: &str) -> Result<bool> {
    let receipt = client.publish(&[event(id, kind, json!({}))]).await?;
    match (receipt["accepted"].as_u64(), receipt["duplicates"].as_u64()) {
        (Some(1), Some(0)) => Ok(true),
        (Some(0), Some(1)) => Ok(false),
        _ => bail!("{receipt}"),
    }
}

async fn is_gone(client: &Client, id: &str) -> Result<bool> {
    let answer = client.request(Method::GET, &format!("/v1/events/{id}")).send().await?;
    match answer.status() {
        StatusCode::OK => Ok(false),
        StatusCode::NOT_FOUND => Ok(true),
        status => bail!("{status}: {}", answer.text().await?),
    }
}

async fn goes(client: &Client, id: &str) -> Result<()> {
    eventually(&format!("{id} to go"), SOON, async || Ok(is_gone(client, id).await?.then_some(()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_goes_and_what_waits_stays() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let environment = [EVENTS, PARKED].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let host = Host::start_as(folder.path(), Settings { environment, ..Settings::default() }).await?;
    let client = host.tenant("acme").await?;
    furnish(&client).await?;
    for (id, kind) in [("done", "plain"), ("held", "wait"), ("parked", "lost")] {
        assert!(is_new(&client, id, kind).await?, "{id}");
    }
    client.run_in("done", "copy", "done").await?;
    assert!(!is_new(&client, "done", "plain").await?, "it is known for as long as it is kept");

    // Parked for too long: dropped, and one sees why.
    let dropped = client.run_in("parked", "lost", "dropped").await?;
    assert_eq!(dropped["code"], "retention:expired", "{dropped}");
    assert!(dropped["reason"].as_str().is_some_and(|reason| reason.contains("plugin:missing")), "{dropped}");
    assert!(client.list("/v1/parked").await?.is_empty());

    for id in ["done", "parked"] {
        goes(&client, id).await?;
    }
    assert!(client.list("/v1/runs?rule=lost").await?.is_empty(), "its runs went with it");
    assert!(!is_gone(&client, "held").await?, "it waits for somebody");
    assert!(!is_new(&client, "held", "wait").await?);
    assert!(is_new(&client, "done", "plain").await?, "nobody remembers the first one");
    client.run_in("done", "copy", "done").await?;

    client.expect_any(Method::POST, "/v1/rules/wait/resume", Some(json!({}))).await?;
    goes(&client, "held").await?;
    let copies = client.list("/v1/events?type=copied").await?;
    assert!(copies.iter().any(|copy| copy["causationid"] == "held"), "it was worked off before it went: {copies:?}");
    let metrics = host.operator().request(Method::GET, "/metrics").send().await?.text().await?;
    for line in [
        "bulkhead_retired_total{what=\"event\"}",
        "bulkhead_retired_total{what=\"key\"}",
        "bulkhead_expired_total{what=\"run\"} 1",
        "bulkhead_oldest_event_seconds",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    assert!(host.log()?.contains("what was parked for too long has been dropped"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_drop_segments_and_forget_what_was_in_them() -> Result<()> {
    let cluster = Cluster::start_with(2, &[EVENTS, PARKED]).await?;
    let here = cluster.tenant("acme").await?;
    let there = here.at(&cluster.nodes[1].host);
    furnish(&here).await?;
    for (id, kind) in [("done", "plain"), ("parked", "lost")] {
        assert!(is_new(&here, id, kind).await?, "{id}");
    }
    here.run_in("done", "copy", "done").await?;
    here.run_in("parked", "lost", "dropped").await?;
    // A day ends, and another one, with an event that waits.
    let turn = "UPDATE segments SET opened = opened - 86400000001; SELECT grow()";
    cluster.ask(turn)?;
    assert!(is_new(&there, "held", "wait").await?);
    eventually("it to be held", SOON, async || {
        Ok((cluster.ask("SELECT count(*) FROM unfinished WHERE waiting = 2")? == ["1"]).then_some(()))
    })
    .await?;
    cluster.ask(turn)?;
    for id in ["done", "parked"] {
        goes(&here, id).await?;
        goes(&there, id).await?;
    }
    forgotten(&cluster, 1).await?;
    assert!(is_new(&there, "done", "plain").await?, "nobody remembers the first one");
    assert!(!is_gone(&here, "held").await?);
    here.expect_any(Method::POST, "/v1/rules/wait/resume", Some(json!({}))).await?;
    goes(&here, "held").await?;
    let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
                  WHERE relnamespace = 'bulkhead'::regnamespace AND relkind = 'r' AND relname ~ '^(events|runs)_[0-9]+$'";
    assert_eq!(cluster.ask(tables)?, ["events_2 events_3 runs_2 runs_3"], "a segment goes as a whole");
    forgotten(&cluster, 2).await?;
    assert!(is_new(&here, "held", "plain").await?);
    Ok(())
}

/// Waits until the keys of the first segments are swept away, which comes after them.
async fn forgotten(cluster: &Cluster, segments: u64) -> Result<()> {
    let sql = format!("SELECT count(*) FROM event_keys WHERE pos < {segments}::BIGINT << 32");
    eventually("the keys to be swept away", SOON, async || Ok((cluster.ask(&sql)? == ["0"]).then_some(()))).await
}
