//! Plugins of every toolchain, from the upload on: also those that know nothing of us are taken, run, and stopped at
//! their limits, and none of that harms their neighbour.

use anyhow::Result;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::event;
use serde_json::Value;
use serde_json::json;

/// Uploads a plugin and gives it the events whose type is its name.
async fn begin(client: &Client, plugin: &str) -> Result<Value> {
    let version = client.push(plugin).await?;
    client.rule(json!({"name": plugin, "on": plugin, "steps": [{"handle": plugin}], "retry": {"attempts": 1}})).await?;
    Ok(version)
}

/// The end of one event that says what to do.
async fn asks(client: &Client, plugin: &str, what: &str, state: &str) -> Result<Value> {
    let id = format!("{plugin}-{what}");
    client.publish(&[event(&id, plugin, json!({"do": what}))]).await?;
    client.run_in(&id, plugin, state).await
}

#[tokio::test(flavor = "multi_thread")]
async fn components_of_other_toolchains_are_uploaded_run_and_stopped() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    for (plugin, imports_of_wasi) in [("foreign-c", 0), ("foreign-starling", 18), ("foreign-python", 25)] {
        let version = begin(&client, plugin).await?;
        assert_eq!(version["state"], "active", "{version}");
        let imports = version["imports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let wasi = imports.iter().filter(|name| name.as_str().is_some_and(|name| name.starts_with("wasi:"))).count();
        assert_eq!(wasi, imports_of_wasi, "{plugin}: {imports:?}");

        asks(&client, plugin, "works", "done").await?;
        assert_eq!(client.number(plugin, "count").await?, 1, "{plugin}");
        let emitted = client.list(&format!("/v1/events?type=orders.foreign&correlation={plugin}-works")).await?;
        assert_eq!(emitted.len(), 1, "{plugin}: {emitted:?}");

        let rejected = asks(&client, plugin, "rejects", "parked").await?;
        assert_eq!((&rejected["code"], &rejected["reason"]), (&json!("plugin:reject"), &json!("rejected")), "{plugin}");
        let looped = asks(&client, plugin, "loops", "parked").await?;
        assert!(["limit:wall", "limit:fuel"].map(Value::from).contains(&looped["code"]), "{plugin}: {looped}");
        let filled = asks(&client, plugin, "allocates", "parked").await?;
        let ends = ["limit:memory", "trap:unreachable", "limit:wall", "limit:fuel"].map(Value::from);
        assert!(ends.contains(&filled["code"]), "{plugin}: {filled}");

        // A fresh instance serves on.
        client.publish(&[event(&format!("{plugin}-again"), plugin, json!({"do": "works"}))]).await?;
        client.run_in(&format!("{plugin}-again"), plugin, "done").await?;
        assert_eq!(client.number(plugin, "count").await?, 2, "{plugin}");
    }
    assert_eq!(host.terminate().await?, Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_python_raises_an_alarm() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    client.push("sentiment-py").await?;
    client.rule(json!({"name": "watch", "on": "reviews.created", "steps": [{"handle": "sentiment-py"}]})).await?;
    let review = |at: usize, text: &str| {
        event(&format!("r-{at}"), "reviews.created", json!({"product": "kettle", "text": text}))
    };
    let texts = ["Great!", "Broken after a week.", "Awful, it broke.", "Not good, I want a refund."];
    for (at, text) in texts.iter().enumerate() {
        client.publish(&[review(at, text)]).await?;
        client.run_in(&format!("r-{at}"), "watch", "done").await?;
    }
    let alarms = client.list("/v1/events?type=reviews.alarm").await?;
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert_eq!(alarms[0]["data"], json!({"product": "kettle", "bad": 3}));
    assert_eq!(alarms[0]["subject"], "kettle");
    assert_eq!(client.number("sentiment-py", "scored:kettle").await?, 4);
    let logs = client.runs("r-1").await?;
    let id = logs[0]["id"].as_str().unwrap_or_default();
    let attempts = client.list(&format!("/v1/runs/{id}/logs")).await?;
    assert_eq!(attempts[0]["logs"][0]["message"], "scored", "{attempts:?}");
    assert_eq!(host.terminate().await?, Some(0));
    Ok(())
}
