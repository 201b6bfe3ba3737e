//! Previews: what a version would have done with past events, with nothing applied.

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use bulkhead_tests::eventually;
use bulkhead_tests::guest;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::event;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;

const EVENTS: usize = 12;

/// A tenant whose checker has worked off some events.
async fn prepare(host: &Host) -> Result<Client> {
    let client = host.tenant("acme").await?;
    client.push("checker").await?;
    client.rule(json!({"name": "check", "on": "steps", "steps": [{"handle": {"plugin": "checker"}}]})).await?;
    let events: Vec<Value> =
        (1..=EVENTS).map(|seq| event(&format!("e-{seq}"), "steps", json!({"key": "k", "seq": seq}))).collect();
    client.publish(&events).await?;
    client.publish(&[event("other", "other", json!({}))]).await?;
    eventually("the events to be worked off", Duration::from_secs(30), async || {
        Ok((client.number("checker", "count:k").await? == EVENTS as u64).then_some(()))
    })
    .await?;
    Ok(client)
}

/// Everything that a preview must leave as it was.
async fn traces(client: &Client) -> Result<Value> {
    Ok(json!({
        "count": client.number("checker", "count:k").await?,
        "events": client.list("/v1/events").await?.len(),
        "runs": client.list("/v1/runs").await?.len(),
        "plugin": client.get("/v1/plugins/checker").await?["active"],
        "recordings": client.send(Method::GET, "/v1/plugins/checker/recordings", None).await?.1["items"],
    }))
}

async fn stored(client: &Client, wasm: Vec<u8>) -> Result<u64> {
    let (_, manifest) = bulkhead_tests::plugin("checker")?;
    let answer = client.store_as("checker", wasm, Some(manifest)).await?;
    answer["version"].as_u64().context("no version")
}

async fn preview(client: &Client, body: Value) -> Result<Value> {
    client.expect(200, Method::POST, "/v1/plugins/checker/preview", Some(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_tells_versions_apart_and_applies_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = prepare(&host).await?;
    let (wasm, _) = bulkhead_tests::plugin("checker")?;
    let same = stored(&client, guest::marked(&wasm, 2)).await?;
    let idle = stored(&client, guest::idler()?).await?;
    let trap = stored(&client, guest::trapper()?).await?;
    let before = traces(&client).await?;
    for (version, group) in [(same, "same"), (idle, "fewer_effects"), (trap, "new_failure")] {
        let report = preview(&client, json!({ "version": version })).await?;
        assert_eq!(report["against"], 1, "{report}");
        assert_eq!((&report["events"], &report["runs"]), (&json!(EVENTS), &json!(EVENTS)), "{report}");
        assert_eq!(report["groups"][group]["count"], EVENTS, "{report}");
        let fuel = report["fuel"]["p50"].as_array().context("no fuel")?;
        assert!(fuel[0].as_u64() > Some(0), "{report}");
        if group != "same" {
            let sample = &report["groups"][group]["samples"][0];
            assert_eq!(
                (&sample["event"], &sample["rule"]),
                (&json!("e-12"), &json!("check")),
                "newest first: {report}"
            );
            assert!(!sample["differences"].as_array().context("none")?.is_empty(), "{report}");
        }
    }
    // What fails in the older version and not in the newer one is mended.
    let report = preview(&client, json!({ "version": same, "against": trap, "last": 3 })).await?;
    assert_eq!((&report["runs"], &report["groups"]["mended"]["count"]), (&json!(3), &json!(3)), "{report}");
    assert_eq!(traces(&client).await?, before, "nothing may come of a preview");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_is_bounded_and_says_what_is_wrong() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = prepare(&host).await?;
    let burner = stored(&client, guest::burner()?).await?;
    let report = preview(&client, json!({ "version": burner, "last": 2 })).await?;
    let failed = &report["groups"]["new_failure"];
    assert_eq!(failed["count"], 2, "{report}");
    assert!(failed["samples"][0]["differences"][0]["after"].to_string().contains("limit:"), "{report}");
    // No event in the range.
    let report = preview(&client, json!({ "version": 1, "until": "2001-01-01T00:00:00Z" })).await?;
    assert_eq!((&report["events"], &report["runs"]), (&json!(0), &json!(0)), "{report}");
    for (status, body) in [
        (404, json!({ "version": 99 })),
        (404, json!({ "version": 1, "against": 98 })),
        (422, json!({ "version": 1, "last": 0 })),
        (422, json!({ "version": 1, "last": 1001 })),
        (400, json!({ "version": 1, "since": "yesterday" })),
        (422, json!({ "version": 1, "lats": 5 })),
    ] {
        let (found, answer) = client.send(Method::POST, "/v1/plugins/checker/preview", Some(body.clone())).await?;
        assert_eq!(found, status, "{body}: {answer}");
        assert!(answer["code"].is_string() || answer["type"].is_string(), "{answer}");
    }
    // Another tenant has no such plugin, and a key that only reads may not compute.
    let other = host.tenant("other").await?;
    other.expect(404, Method::POST, "/v1/plugins/checker/preview", Some(json!({ "version": 1 }))).await?;
    let (reader, _) = host.key("acme", &["read"]).await?;
    reader.expect(403, Method::POST, "/v1/plugins/checker/preview", Some(json!({ "version": 1 }))).await?;
    Ok(())
}
