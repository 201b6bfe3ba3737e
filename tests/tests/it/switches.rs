//! Switches: whatever is paused takes events in and runs nothing, says so, and goes on where it was.

use std::time::Duration;

use anyhow::Result;
use anyhow::bail;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::event;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

/// A tenant whose events run through a rule with a plugin, and through one without.
async fn tenant(host: &Host, name: &str) -> Result<Client> {
    let client = host.tenant(name).await?;
    client.push("checker").await?;
    client.rule(json!({"name": "check", "on": "steps", "order": "key", "steps": [{"handle": "checker"}]})).await?;
    client.rule(json!({"name": "copy", "on": "steps", "steps": [{"emit": "copied"}]})).await?;
    Ok(client)
}

fn step(seq: u64) -> Value {
    let mut step = event(&format!("k-{seq}"), "steps", json!({"key": "k", "seq": seq}));
    step["partitionkey"] = "k".into();
    step
}

async fn turn(client: &Client, path: &str) -> Result<()> {
    client.expect_any(Method::POST, path, Some(json!({}))).await?;
    Ok(())
}

/// Waits until the event says that it waits, for a reason of which `part` is a part.
async fn waits(client: &Client, id: &str, part: &str) -> Result<()> {
    eventually(&format!("{id} to say why it waits"), SOON, async || {
        let story = client.get(&format!("/v1/events/{id}")).await?;
        if !story["waits"].to_string().contains(part) && !story["runs"].to_string().contains(part) {
            bail!("{story}");
        }
        Ok(Some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_rule_or_plugin_holds_its_own_runs_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path()).await?;
    let mut client = tenant(&host, "acme").await?;
    let mut seq = 0;
    for of in ["/v1/rules/check", "/v1/plugins/checker"] {
        turn(&client, &format!("{of}/pause")).await?;
        client.publish(&[step(seq + 1), step(seq + 2)]).await?;
        for id in [format!("k-{}", seq + 1), format!("k-{}", seq + 2)] {
            // The other rule shows that the events were looked at.
            client.run_in(&id, "copy", "done").await?;
            waits(&client, &id, "paused").await?;
        }
        assert_eq!(client.number("checker", "count:k").await?, seq, "{of} is paused");
        // A switch is not forgotten when the host dies.
        host.kill().await?;
        host.restart().await?;
        client = client.at(&host);
        client.publish(&[step(seq + 3)]).await?;
        client.run_in(&format!("k-{}", seq + 3), "copy", "done").await?;
        assert_eq!(client.number("checker", "count:k").await?, seq, "{of} is still paused");
        turn(&client, &format!("{of}/resume")).await?;
        seq += 3;
        client.run_in(&format!("k-{seq}"), "check", "done").await?;
        assert_eq!(client.number("checker", "count:k").await?, seq);
        assert_eq!(client.number("checker", "disorder:k").await?, 0, "held runs keep their order");
    }
    assert!(client.list("/v1/parked").await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_tenant_takes_events_in_and_runs_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let (client, other) = (tenant(&host, "acme").await?, tenant(&host, "other").await?);
    let operator = host.operator();
    // By itself, by the operator, and with everybody else.
    let switches = [
        (&client, "/v1/pause", "/v1/resume", false),
        (&operator, "/admin/v1/tenants/acme/pause", "/admin/v1/tenants/acme/resume", false),
        (&operator, "/admin/v1/pause", "/admin/v1/resume", true),
    ];
    for (seq, (who, pause, resume, all)) in (1..).zip(switches) {
        turn(who, pause).await?;
        client.publish(&[step(seq)]).await?;
        other.publish(&[step(seq)]).await?;
        let id = format!("k-{seq}");
        waits(&client, &id, "paused").await?;
        if !all {
            other.run_in(&id, "check", "done").await?;
        }
        assert!(client.runs(&id).await?.is_empty(), "{pause}: nothing runs");
        assert_eq!(client.list("/v1/events?type=steps").await?.len(), usize::try_from(seq)?, "{pause}: it is taken in");
        turn(who, resume).await?;
        for client in [&client, &other] {
            client.run_in(&id, "check", "done").await?;
            client.run_in(&id, "copy", "done").await?;
        }
    }
    for client in [&client, &other] {
        assert_eq!(client.number("checker", "count:k").await?, 3);
        assert_eq!(client.number("checker", "disorder:k").await?, 0);
    }
    Ok(())
}
