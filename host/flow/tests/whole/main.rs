//! The whole way of an event in one process: the inbox, the tenant's rules, its plugins, the commit, delivery. On the
//! embedded store and the real sandbox.

mod fixture;
mod quotas;
mod recorder;
mod releases;

use std::collections::BTreeMap;
use std::time::Duration;

use bulkhead_store::work::RunState;
use serde_json::json;

use crate::fixture::Host;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_runs_through_rules_plugin_and_sinks() {
    let host = Host::start().await;
    let tenant = host.tenant("acme").await;
    host.plugin(&tenant, "checker", &json!({"deliver": true})).await;
    host.sink(&tenant, "arrivals", &json!({"kind": "file", "path": "arrivals.ndjson"})).await;
    host.rules(
        &tenant,
        "name: check
on: [steps]
order: key
steps:
  - handle: { plugin: checker }
---
name: note
on: [checked]
where: data.seq == 3
steps:
  - map: { number: data.seq }
  - emit: { type: noted }
",
    )
    .await;
    for seq in 1..=5 {
        host.publish(&tenant, "steps", &format!("e{seq}"), Some("k"), &json!({"key": "k", "seq": seq})).await;
    }
    host.settled(&tenant, 5 + 1).await;
    let state = host.state(&tenant, "checker").await;
    let expected = BTreeMap::from([("count:k".to_owned(), "5".to_owned()), ("last:k".to_owned(), "5".to_owned())]);
    assert_eq!(state, expected, "each once and in order");
    let kinds = host.kinds(&tenant).await;
    assert_eq!(kinds, BTreeMap::from([("steps".into(), 5), ("checked".into(), 5), ("noted".into(), 1)]));
    host.until("five deliveries arrive", async || host.file(&tenant, "arrivals.ndjson").lines().count() == 5).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_is_done_after_a_restart_and_nothing_twice() {
    let mut host = Host::start().await;
    let tenant = host.tenant("acme").await;
    host.plugin(&tenant, "checker", &json!({})).await;
    host.rules(&tenant, "{name: check, on: [steps], order: key, steps: [{handle: {plugin: checker}}]}").await;
    for round in 0..4 {
        for seq in 1..=25 {
            let (key, id) = (format!("k{}", seq % 5), format!("{round}-{seq}"));
            let data = json!({"key": key, "seq": round * 5 + (seq - 1) / 5 + 1});
            host.publish(&tenant, "steps", &id, Some(&key), &data).await;
        }
        host = host.restart().await;
    }
    host.settled(&tenant, 100).await;
    let state = host.state(&tenant, "checker").await;
    let counts: Vec<_> = (0..5).map(|key| state[&format!("count:k{key}")].clone()).collect();
    assert_eq!(counts, ["20"; 5]);
    assert!(!state.keys().any(|key| key.starts_with("disorder:")), "{state:?}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_trigger_each_other_end_with_a_parked_run() {
    let host = Host::start().await;
    let tenant = host.tenant("acme").await;
    host.rules(
        &tenant,
        "name: ping
on: [ping]
where: data.n >= 0
steps: [{ emit: { type: pong } }]
---
name: pong
on: [pong]
where: data.n >= 0
steps: [{ emit: { type: ping } }]
",
    )
    .await;
    host.publish(&tenant, "ping", "first", None, &json!({"n": 1})).await;
    let parked = async || host.runs(&tenant, Some(RunState::Parked)).await;
    host.until("a run is parked", async || !parked().await.is_empty()).await;
    let parked = parked().await;
    assert_eq!(parked.len(), 1);
    let record = parked[0].record.as_ref().expect("because it was attempted");
    assert_eq!(record.code, "limit:causation");
    assert!(record.reason.contains("ping"), "{}", record.reason);
    let kinds = host.kinds(&tenant).await;
    assert!(kinds.values().sum::<u64>() <= 20, "it ends soon: {kinds:?}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_run_holds_its_key_alone_and_goes_on_in_order() {
    let host = Host::start().await;
    let tenant = host.tenant("acme").await;
    let rules = |plugin: &str| {
        format!(
            "{{name: check, on: [steps], order: key, retry: {{attempts: 1}}, \
             steps: [{{handle: {{plugin: {plugin}, when: data.seq == 1 && data.key == 'bad'}}}}, \
             {{handle: {{plugin: checker}}}}]}}"
        )
    };
    host.plugin(&tenant, "checker", &json!({})).await;
    host.plugin(&tenant, "always-fails", &json!({})).await;
    host.rules(&tenant, &rules("always-fails")).await;
    for seq in 1..=5 {
        for key in ["bad", "good"] {
            let data = json!({"key": key, "seq": seq});
            host.publish(&tenant, "steps", &format!("{key}{seq}"), Some(key), &data).await;
        }
    }
    host.until("the good key is done", async || {
        host.state(&tenant, "checker").await.get("count:good").is_some_and(|count| count == "5")
    })
    .await;
    host.until("the bad one is parked", async || host.runs(&tenant, Some(RunState::Parked)).await.len() == 1).await;
    assert!(!host.state(&tenant, "checker").await.contains_key("count:bad"));
    // The rule is mended; then what was parked goes on, and what waited behind it follows.
    host.rules(&tenant, "{name: check, on: [steps], order: key, steps: [{handle: {plugin: checker}}]}").await;
    host.redrive(&tenant).await;
    host.until("the bad key is done, too", async || {
        host.state(&tenant, "checker").await.get("count:bad").is_some_and(|count| count == "5")
    })
    .await;
    let state = host.state(&tenant, "checker").await;
    assert!(!state.keys().any(|key| key.starts_with("disorder:")), "{state:?}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_s_endless_plugin_takes_nothing_from_another() {
    let host = Host::start().await;
    let [busy, calm] = [host.tenant("busy").await, host.tenant("calm").await];
    host.plugin(&busy, "always-fails", &json!({})).await;
    host.rules(&busy, "{name: fail, on: [steps], steps: [{handle: {plugin: always-fails}}]}").await;
    host.plugin(&calm, "checker", &json!({})).await;
    host.rules(&calm, "{name: check, on: [steps], steps: [{handle: {plugin: checker}}]}").await;
    for number in 0..200 {
        host.publish(&busy, "steps", &format!("b{number}"), None, &json!({"key": "k", "seq": number})).await;
    }
    let began = std::time::Instant::now();
    host.publish(&calm, "steps", "c1", Some("k"), &json!({"key": "k", "seq": 1})).await;
    host.until("the calm one is done", async || host.state(&calm, "checker").await.contains_key("count:k")).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(host.state(&busy, "always-fails").await.is_empty());
    host.stop().await;
}
