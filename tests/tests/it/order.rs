//! Order, failure and what is set aside: a run that fails holds its key and nothing else.

use std::time::Duration;

use anyhow::Context;
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

/// The `seq`th event of a key; it fails if the plugin is told to obey.
fn step(key: &str, seq: u64, fail: bool) -> Value {
    let mut step = event(&format!("{key}-{seq}"), "steps", json!({"key": key, "seq": seq}));
    step["partitionkey"] = key.into();
    if fail {
        step["data"]["fail"] = "reject".into();
    }
    step
}

/// A rule in which a plugin fails over events that ask for it, before another counts.
async fn fragile(host: &Host) -> Result<Client> {
    let client = host.tenant("acme").await?;
    client.push("always-fails").await?;
    client.push("checker").await?;
    client.configure("always-fails", json!({"mode": "none"})).await?;
    client
        .rule(json!({
            "name": "check", "on": "steps", "order": "key", "steps": [{"handle": "always-fails"}, {"handle": "checker"}],
        }))
        .await?;
    Ok(client)
}

/// Waits until the plugin has counted so many of a key.
async fn counted(client: &Client, key: &str, count: u64) -> Result<()> {
    eventually(&format!("{count} of {key} to be counted"), SOON, async || {
        let seen = client.number("checker", &format!("count:{key}")).await?;
        if seen < count {
            bail!("{seen} are");
        }
        assert_eq!(seen, count);
        Ok(Some(()))
    })
    .await
}

async fn disorder(client: &Client, key: &str) -> Result<u64> {
    client.number("checker", &format!("disorder:{key}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_run_holds_its_key_and_redrives_in_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path()).await?;
    let mut client = fragile(&host).await?;
    let mut events = Vec::new();
    for seq in 1..=20 {
        for key in ["a", "b", "c"] {
            events.push(step(key, seq, key == "a" && seq == 3));
        }
    }
    client.publish(&events).await?;
    counted(&client, "b", 20).await?;
    counted(&client, "c", 20).await?;
    counted(&client, "a", 2).await?;
    let parked = client.run_in("a-3", "check", "parked").await?;
    assert_eq!((&parked["code"], &parked["plugin"]), (&json!("plugin:reject"), &json!("always-fails")), "{parked}");
    assert!(parked["reason"].as_str().is_some_and(|reason| reason.contains("rejected on purpose")), "{parked}");
    let all = client.list("/v1/parked").await?;
    assert_eq!(all.len(), 1, "those behind it wait, they have not failed: {all:?}");
    let story = client.get("/v1/events/a-4").await?;
    let waits = story["waits"].as_array().context("no waits")?;
    assert!(!waits.is_empty() || story["runs"][0]["waits"].is_string(), "it says why a-4 waits: {story}");

    // Nothing of that is forgotten when the host dies. Then the plugin is mended, and all of it is run in order.
    host.kill().await?;
    host.restart().await?;
    client = client.at(&host);
    client.configure("always-fails", json!({"mode": "none", "succeed_at": 1})).await?;
    let answer = client.expect(200, Method::POST, "/v1/parked/redrive", Some(json!({"rule": "check"}))).await?;
    assert_eq!(answer["redriven"], 1, "{answer}");
    counted(&client, "a", 20).await?;
    for key in ["a", "b", "c"] {
        assert_eq!(disorder(&client, key).await?, 0, "{key}");
    }
    assert!(client.list("/v1/parked").await?.is_empty());
    assert_eq!(client.run_in("a-3", "check", "done").await?["id"], parked["id"], "it is the same run");
    assert_eq!(client.list("/v1/events?type=checked").await?.len(), 60);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_run_lets_its_key_go_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = fragile(&host).await?;
    client.publish(&(1..=5).map(|seq| step("a", seq, seq == 1)).collect::<Vec<_>>()).await?;
    let parked = client.run_in("a-1", "check", "parked").await?;
    let body = json!({"runs": [parked["id"]]});
    let answer = client.expect(200, Method::POST, "/v1/parked/discard", Some(body)).await?;
    assert_eq!(answer["discarded"], 1, "{answer}");
    counted(&client, "a", 4).await?;
    assert_eq!(disorder(&client, "a").await?, 1, "only the gap that the first left");
    client.run_in("a-1", "check", "dropped").await?;
    assert!(client.list("/v1/parked").await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_follow_the_rule_and_keep_the_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    client.push("always-fails").await?;
    client.push("checker").await?;
    client.configure("always-fails", json!({"mode": "retry", "succeed_at": 3})).await?;
    let retry = json!({"attempts": 3, "first": "20ms", "factor": 1, "max": "20ms"});
    let steps = json!([{"handle": "always-fails"}, {"handle": "checker"}]);
    client.rule(json!({"name": "check", "on": "steps", "order": "key", "steps": steps, "retry": retry})).await?;
    // Rejection is final, traps and panics are tried again; what never succeeds is parked, or dropped if the rule says.
    let steps = json!([{"handle": "always-fails"}]);
    for (name, on_failure) in [("strict", "park"), ("lax", "drop")] {
        client.rule(json!({"name": name, "on": name, "steps": steps, "retry": {"attempts": 2, "first": "20ms", "max": "20ms"}, "on_failure": on_failure})).await?;
    }
    client.publish(&(1..=10).map(|seq| step("a", seq, false)).collect::<Vec<_>>()).await?;
    client
        .publish(&[event("s-1", "strict", json!({"fail": "trap"})), event("l-1", "lax", json!({"fail": "panic"}))])
        .await?;
    counted(&client, "a", 10).await?;
    assert_eq!(disorder(&client, "a").await?, 0);
    for seq in 1..=10 {
        let run = client.run_in(&format!("a-{seq}"), "check", "done").await?;
        assert_eq!(run["attempts"], 3, "{run}");
    }
    let parked = client.run_in("s-1", "strict", "parked").await?;
    assert_eq!((&parked["attempts"], &parked["code"]), (&json!(2), &json!("trap:unreachable")), "{parked}");
    let dropped = client.run_in("l-1", "lax", "dropped").await?;
    assert_eq!(dropped["attempts"], 2, "{dropped}");
    let id = dropped["id"].as_str().context("a run without an id")?;
    let logs = client.get(&format!("/v1/runs/{id}/logs")).await?.to_string();
    assert!(logs.contains("a panic on purpose"), "{logs}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_run_is_parked_and_runs_when_it_can() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    // A rule may name a plugin that is uploaded, but not yet active.
    let (wasm, _) = bulkhead_tests::plugin("checker")?;
    let answer = client
        .request(Method::PUT, "/v1/plugins/checker")
        .header("content-type", "application/wasm")
        .body(wasm)
        .send()
        .await?;
    assert!(answer.status().is_success(), "{}", answer.text().await?);
    client.rule(json!({"name": "check", "on": "steps", "order": "key", "on_failure": "drop", "steps": [{"handle": "checker"}]})).await?;
    client.publish(&[step("a", 1, false), step("a", 2, false)]).await?;
    let parked = client.run_in("a-1", "check", "parked").await?;
    assert_eq!(parked["code"], "plugin:missing", "never dropped, whatever the rule says: {parked}");
    client.push("checker").await?;
    client.expect(200, Method::POST, "/v1/parked/redrive", Some(json!({"plugin": "checker"}))).await?;
    counted(&client, "a", 2).await?;
    assert_eq!(disorder(&client, "a").await?, 0);

    // A rule that names what is not there at all is not saved.
    let rule = json!({"name": "lost", "on": "steps", "steps": [{"handle": "chekcer"}]});
    let problem = client.expect(422, Method::PUT, "/v1/rules/lost", Some(rule)).await?;
    assert_eq!(problem["code"], "rule-invalid", "{problem}");
    assert!(problem.to_string().contains("checker"), "it says what was probably meant: {problem}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_trigger_each_other_end_in_a_parked_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    // Without any condition the circle is seen when the rules are saved.
    client.rule(json!({"name": "one", "on": "loop.a", "steps": [{"emit": "loop.b"}]})).await?;
    let rule = json!({"name": "two", "on": "loop.b", "steps": [{"emit": "loop.a"}]});
    let problem = client.expect(422, Method::PUT, "/v1/rules/two", Some(rule)).await?;
    assert_eq!(problem["code"], "rule-invalid", "{problem}");

    // With one that always holds it is seen when it goes round.
    client.rule(json!({"name": "ping", "on": "ping", "where": "data.n >= 0", "steps": [{"emit": "pong"}]})).await?;
    client.rule(json!({"name": "pong", "on": "pong", "where": "data.n >= 0", "steps": [{"emit": "ping"}]})).await?;
    client.publish(&[event("start", "ping", json!({"n": 1}))]).await?;
    let parked =
        eventually("a parked run", SOON, async || Ok(client.list("/v1/parked").await?.into_iter().next())).await?;
    assert_eq!(parked["code"], "limit:causation", "{parked}");
    let reason = parked["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("ping → pong → ping"), "the chain is shown: {reason}");
    let events = client.list("/v1/events?correlation=start").await?.len();
    assert!((2..=64).contains(&events), "{events} events of one");

    // A storm: each event makes two more.
    for name in ["left", "right"] {
        client.rule(json!({"name": name, "on": "fan", "where": "data.n >= 0", "steps": [{"emit": "fan"}]})).await?;
    }
    client.publish(&[event("storm", "fan", json!({"n": 1}))]).await?;
    eventually("the storm to end", SOON, async || {
        let parked = client.list("/v1/parked?code=limit:causation").await?;
        let storm = client.list("/v1/events?correlation=storm").await?.len();
        // Every event has two runs: done, and then it has a follow-up, or parked.
        let of_storm = parked.iter().filter(|run| ["left", "right"].iter().any(|name| run["rule"] == *name)).count();
        if storm * 2 != (storm - 1) + of_storm {
            bail!("{storm} events, {of_storm} parked");
        }
        assert!((64..=1_001).contains(&storm), "{storm} events of one");
        Ok(Some(()))
    })
    .await?;
    // The tenant's other work goes on.
    client.rule(json!({"name": "calm", "on": "calm", "steps": [{"emit": "calmed"}]})).await?;
    client.publish(&[event("calm-1", "calm", json!({}))]).await?;
    client.run_in("calm-1", "calm", "done").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_from_50_connections_at_once_is_accepted_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    client.push("checker").await?;
    client.rule(json!({"name": "check", "on": "steps", "steps": [{"handle": "checker"}]})).await?;
    const ROUNDS: u64 = 10;
    for round in 1..=ROUNDS {
        let start = std::sync::Arc::new(tokio::sync::Barrier::new(50));
        // Requests that are under way at the same time have a connection each.
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (client, start) = (client.clone(), std::sync::Arc::clone(&start));
                tokio::spawn(async move {
                    start.wait().await;
                    client.publish(&[step("same", round, false)]).await
                })
            })
            .collect();
        let (mut accepted, mut duplicates) = (0, 0);
        for task in tasks {
            let receipt = task.await??;
            assert_eq!(receipt["ids"], json!([format!("same-{round}")]), "all are told the id");
            accepted += receipt["accepted"].as_u64().context("no number")?;
            duplicates += receipt["duplicates"].as_u64().context("no number")?;
        }
        assert_eq!((accepted, duplicates), (1, 49));
    }
    counted(&client, "same", ROUNDS).await?;
    for round in 1..=ROUNDS {
        assert_eq!(client.runs(&format!("same-{round}")).await?.len(), 1);
    }
    assert_eq!(client.list("/v1/events?type=checked").await?.len(), usize::try_from(ROUNDS)?);
    Ok(())
}
