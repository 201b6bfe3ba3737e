//! Previews: what a version would have done with past events, with nothing applied.

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use bulkhead_tests::eventually;
use bulkhead_tests::guest;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::Settings;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_sees_the_state_and_settings_that_the_run_saw() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let environment = vec![("BULKHEAD_RECORDER_SAMPLE".to_owned(), "1".to_owned())];
    let host = Host::start_as(folder.path(), Settings { environment, ..Settings::default() }).await?;
    let client = prepare(&host).await?;
    let (wasm, _) = bulkhead_tests::plugin("checker")?;
    let same = stored(&client, guest::marked(&wasm, 2)).await?;
    let idle = stored(&client, guest::idler()?).await?;

    let report = preview(&client, json!({ "version": idle })).await?;
    assert_eq!(report["state"], json!({ "recorded": EVENTS, "partly": 0, "now": 0 }), "{report}");
    let sample = &report["groups"]["fewer_effects"]["samples"][0];
    assert_eq!((&sample["event"], &sample["state"]), (&json!("e-12"), &json!("recorded")), "{sample}");
    // The twelfth event of its key made the count twelve, in order; over today's state it would be a thirteenth, out of it.
    let did = sample["differences"].to_string().replace('\\', "");
    assert!(did.contains("count:k") && !did.contains("\"value\":13") && !did.contains("disorder"), "{did}");

    // A setting that was changed since is as it was then.
    client.configure("checker", json!({ "deliver": true })).await?;
    let report = preview(&client, json!({ "version": idle, "last": 1 })).await?;
    let did = report["groups"]["fewer_effects"]["samples"][0]["differences"].to_string();
    assert!(did.contains("checked") && !did.contains("arrivals"), "{did}");

    // Whichever is the older one, what is known is the run's.
    let report = preview(&client, json!({ "version": same, "against": idle, "last": 2 })).await?;
    assert_eq!(report["state"], json!({ "recorded": 2, "partly": 0, "now": 0 }), "{report}");
    // A version that ran without reading anything leaves nothing to go by.
    client.expect(200, Method::POST, "/v1/plugins/checker/activate", Some(json!({ "version": idle }))).await?;
    client.publish(&[event("e-13", "steps", json!({"key": "k", "seq": 13}))]).await?;
    client.run_in("e-13", "check", "done").await?;
    let report = preview(&client, json!({ "version": same, "last": 1 })).await?;
    assert_eq!(report["state"], json!({ "recorded": 0, "partly": 0, "now": 1 }), "{report}");

    // Without recordings it is state as it is now.
    let plain = tempfile::tempdir()?;
    let environment = vec![("BULKHEAD_RECORDER_SAMPLE".to_owned(), "0".to_owned())];
    let host = Host::start_as(plain.path(), Settings { environment, ..Settings::default() }).await?;
    let client = prepare(&host).await?;
    let idle = stored(&client, guest::idler()?).await?;
    let report = preview(&client, json!({ "version": idle })).await?;
    assert_eq!(report["state"], json!({ "recorded": 0, "partly": 0, "now": EVENTS }), "{report}");
    let did = report["groups"]["fewer_effects"]["samples"][0]["differences"].to_string();
    assert!(did.contains("disorder"), "the number does not follow today's: {did}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_can_ask_for_a_preview_before_a_version_becomes_active() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = prepare(&host).await?;
    let (wasm, manifest) = bulkhead_tests::plugin("checker")?;
    let path = "/v1/plugins/checker/policy";
    let nothing = json!({ "require_preview": null, "effective": null, "tenant": null, "host": null, "previews": [] });
    assert_eq!(client.get(path).await?, nothing);
    let (reader, _) = host.key("acme", &["read", "publish", "rules", "consent"]).await?;
    let asked = json!({ "require_preview": { "min_runs": EVENTS, "max_changed_percent": 50.0 } });
    reader.expect(403, Method::PUT, path, Some(asked.clone())).await?;
    client.expect(422, Method::PUT, path, Some(json!({ "require_preview": { "min_runs": 0 } }))).await?;
    client.expect(422, Method::PUT, path, Some(json!({ "require_previews": null }))).await?;
    let policy = client.expect(200, Method::PUT, path, Some(asked)).await?;
    assert_eq!(policy["require_preview"]["within_hours"], 24, "{policy}");

    // Neither of the ways to live events leads past it, and no manifest does.
    let manifest = format!("{manifest}\n# require_preview = false\n");
    let pushed = client.push_as("checker", guest::marked(&wasm, 2), Some(manifest)).await?;
    assert_eq!((&pushed["version"], &pushed["state"]), (&json!(2), &json!("ready")), "{pushed}");
    assert!(pushed["warnings"].to_string().contains("plugin preview checker 2"), "{pushed}");
    let trap = stored(&client, guest::trapper()?).await?;
    let idle = stored(&client, guest::idler()?).await?;
    let refused = async |path: &str, body: Value, why: &str| -> Result<()> {
        let path = format!("/v1/plugins/checker/{path}");
        let problem = client.expect(409, Method::POST, &path, Some(body)).await?;
        assert_eq!(problem["code"], "preview-required", "{problem}");
        assert!(problem["detail"].to_string().contains(why), "{problem}");
        assert!(problem["hint"].to_string().contains("bulkhead plugin preview checker"), "{problem}");
        Ok(())
    };
    let none = "there is no preview";
    refused("activate", json!({ "version": 2 }), none).await?;
    refused("rollback", json!({ "version": 2 }), none).await?;
    refused("canary", json!({ "version": 2, "percent": 1 }), none).await?;
    client.expect(201, Method::POST, "/v1/plugins/checker/shadow", Some(json!({ "version": 2 }))).await?;
    for (version, why) in [(trap, "failed anew"), (idle, "100.0 %")] {
        preview(&client, json!({ "version": version })).await?;
        refused("activate", json!({ "version": version }), why).await?;
    }
    preview(&client, json!({ "version": 2, "last": 3 })).await?;
    refused("activate", json!({ "version": 2 }), "compared 3 runs").await?;
    preview(&client, json!({ "version": 2 })).await?;
    let seen = client.get(path).await?["previews"][0].clone();
    assert_eq!((&seen["version"], &seen["runs"], &seen["changed"]), (&json!(2), &json!(EVENTS), &json!(0)), "{seen}");
    client.expect(200, Method::POST, "/v1/plugins/checker/activate", Some(json!({ "version": 2 }))).await?;
    let history = client.list("/v1/plugins/checker/history").await?;
    let entry = history.iter().find(|entry| entry["action"] == "activated").context("it is in the history")?;
    assert_eq!(entry["detail"]["preview"]["counts"]["runs"], EVENTS, "{entry}");
    assert!(history.iter().any(|entry| entry["action"] == "policy-changed"), "{history:?}");

    // The way back is open, and forth again.
    client.expect(200, Method::POST, "/v1/plugins/checker/rollback", None).await?;
    client.expect(200, Method::POST, "/v1/plugins/checker/activate", Some(json!({ "version": 2 }))).await?;
    // A preview beside another version does not count any more.
    refused("activate", json!({ "version": trap }), none).await?;
    client.expect(200, Method::PUT, path, Some(json!({ "require_preview": null }))).await?;
    client.expect(200, Method::POST, "/v1/plugins/checker/activate", Some(json!({ "version": trap }))).await?;
    Ok(())
}
