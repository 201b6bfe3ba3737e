//! Versions at work: which one a run gets, what becomes of it when another is active, and candidates that are taken back.

use std::collections::BTreeSet;

use bulkhead_domain::clock::Clock as _;
use bulkhead_domain::clock::SystemClock;
use bulkhead_flow::tenants::Terms;
use bulkhead_store::catalogue::Tenant;
use bulkhead_store::releases::Act;
use bulkhead_store::releases::Action;
use bulkhead_store::releases::Ending;
use bulkhead_store::releases::Kind;
use bulkhead_store::releases::Switch;
use bulkhead_store::work::RunState;
use serde_json::Value;
use serde_json::json;

use crate::fixture::Host;

/// Tried again soon and often.
const RULE: &str = "name: check
on: [steps]
retry: { attempts: 50, first: 200ms, factor: 1 }
steps:
  - handle: { plugin: subject }
";

fn act() -> Act {
    Act::by("test", SystemClock.now()).consenting(true)
}

/// Two versions of one plugin, the first one active: always-fails, which asks for another attempt, and checker.
async fn versions(host: &Host, tenant: &Tenant, components: [&str; 2], manifest: &Value) {
    let grants = json!({"emit": ["**"], "deliver": ["*"]});
    for component in components {
        host.add(tenant, "subject", component, manifest, &grants).await;
    }
    let switch = Switch::to(1, act());
    host.store.switch_version(tenant.id, "subject", &switch).await.expect("because it is there");
    host.store.set_config(tenant.id, "subject", "{\"mode\":\"retry\"}").await.expect("because it is there");
    host.rules(tenant, RULE).await;
}

async fn activate(host: &Host, tenant: &Tenant, version: u32) {
    let switch = Switch::to(version, act());
    host.store.switch_version(tenant.id, "subject", &switch).await.expect("because it is there");
    host.changed(tenant).await;
}

/// The attempts of the only run, oldest first, as (version, state).
async fn attempts(host: &Host, tenant: &Tenant) -> Vec<(u32, RunState)> {
    let runs = host.runs(tenant, None).await;
    let Some(record) = runs.first().and_then(|run| run.record.as_ref()) else { return Vec::new() };
    let run = bulkhead_domain::id::RunId::of(record.event, &record.rule);
    let attempts = host.store.attempts(tenant.id, run).await.expect("because the store works");
    attempts.iter().map(|record| (record.plugin.as_ref().map_or(0, |(_, version)| *version), record.state)).collect()
}

async fn failing(host: &Host, tenant: &Tenant, more: usize) {
    let before = attempts(host, tenant).await.len();
    host.until("it was tried again", async || attempts(host, tenant).await.len() >= before + more).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_moves_to_the_active_version_unless_the_plugin_says_otherwise() {
    let host = Host::start().await;
    let tenant = host.tenant("acme").await;
    versions(&host, &tenant, ["always-fails", "checker"], &json!({})).await;
    host.publish(&tenant, "steps", "1", None, &json!({"key": "k", "seq": 1})).await;
    failing(&host, &tenant, 2).await;
    activate(&host, &tenant, 2).await;
    host.settled(&tenant, 1).await;
    let attempts = attempts(&host, &tenant).await;
    assert_eq!(attempts.last(), Some(&(2, RunState::Done)), "{attempts:?}");
    assert!(attempts[..attempts.len() - 1].iter().all(|attempt| *attempt == (1, RunState::Retrying)), "{attempts:?}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_stays_is_on_its_version_until_that_is_retired() {
    let host = Host::start().await;
    let tenant = host.tenant("acme").await;
    versions(&host, &tenant, ["always-fails", "checker"], &json!({"versions": {"retry": "stay"}})).await;
    host.publish(&tenant, "steps", "1", None, &json!({"key": "k", "seq": 1})).await;
    failing(&host, &tenant, 2).await;
    activate(&host, &tenant, 2).await;
    host.publish(&tenant, "steps", "2", None, &json!({"key": "k", "seq": 1})).await;
    host.settled(&tenant, 1).await;
    // The other one is tried again on what it began with, also after a restart.
    let host = host.restart().await;
    let first = async || {
        let runs = host.runs(&tenant, Some(RunState::Retrying)).await;
        runs.first().and_then(|run| run.record.clone()).map(|record| (record.attempt, record.plugin))
    };
    let (before, _) = first().await.expect("because it waits");
    host.until("it was tried again", async || first().await.is_some_and(|(attempt, _)| attempt >= before + 2)).await;
    assert_eq!(first().await.and_then(|(_, plugin)| plugin), Some(("subject".to_owned(), 1)));
    host.store.retire(tenant.id, "subject", 1, 100, &act()).await.expect("because it is not active");
    host.changed(&tenant).await;
    host.settled(&tenant, 2).await;
    let runs = host.runs(&tenant, Some(RunState::Done)).await;
    let moved = runs.iter().find(|run| run.event_id == "1").and_then(|run| run.record.clone());
    let moved = moved.expect("because it is done");
    assert_eq!(moved.plugin, Some(("subject".to_owned(), 2)));
    let run = bulkhead_domain::id::RunId::of(moved.event, &moved.rule);
    let attempts = host.store.attempts(tenant.id, run).await.expect("because the store works");
    let said = attempts.last().is_some_and(|last| {
        last.logs.iter().any(|line| line.message.contains("began with version 1, which is out of use"))
    });
    assert!(said, "that it moved is in its log: {attempts:?}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_is_taken_back_and_its_events_are_done_by_the_active_version() {
    let host = Host::start().await;
    let tenant = host.tenant("acme").await;
    versions(&host, &tenant, ["checker", "always-fails"], &json!({"versions": {"retry": "stay"}})).await;
    let terms = json!({
        "slice": {"from": 0, "to": 5_000},
        "guard": {"max_failure_rate": 0.2, "max_fuel_ratio": 1000.0, "max_latency_ratio": 1000.0, "min_runs": 10},
    });
    let parsed: Terms = serde_json::from_value(terms.clone()).expect("because these are terms");
    let began = host.store.start_rollout(tenant.id, "subject", Kind::Canary, 2, &terms.to_string(), &act()).await;
    let plugin = began.expect("because none is under way").plugin;
    host.changed(&tenant).await;
    let keys: Vec<String> = (0..40).map(|key| format!("k{key}")).collect();
    for key in &keys {
        host.publish(&tenant, "steps", key, Some(key), &json!({"key": key, "seq": 1})).await;
    }
    let ended = async || host.store.rollouts(tenant.id, plugin).await.expect("because the store works").is_empty();
    host.until("the canary is taken back", ended).await;
    host.settled(&tenant, keys.len()).await;
    // Who began with the candidate was chosen by the key alone.
    let mut chosen = BTreeSet::new();
    for run in host.runs(&tenant, Some(RunState::Done)).await {
        let record = run.record.expect("because it ran");
        let id = bulkhead_domain::id::RunId::of(record.event, &record.rule);
        let attempts = host.store.attempts(tenant.id, id).await.expect("because the store works");
        let event = host.store.events_by_id(tenant.id, &run.event_id).await.expect("because the store works").remove(0);
        let first = attempts[0].plugin.as_ref().map(|(_, version)| *version);
        let candidate = parsed.slice.has(plugin, &event.event);
        assert!(first == Some(1) || candidate, "{} had version {first:?}", run.event_id);
        if first == Some(2) {
            chosen.insert(run.event_id.clone());
        }
        assert_eq!(record.plugin, Some(("subject".to_owned(), 1)), "the active version did it in the end");
    }
    assert!(!chosen.is_empty());
    let history = host.store.history(tenant.id, "subject", None, 10).await.expect("because the store works");
    assert_eq!((history[0].action, history[0].author.as_str()), (Action::CanaryEnded, "host"));
    let detail: Value = serde_json::from_str(&history[0].detail).expect("because it is JSON");
    assert_eq!((&detail["reason"], &detail["breach"]["measure"]), (&json!("rolled-back"), &json!("failure-rate")));
    let told = async || host.kinds(&tenant).await.get("bulkhead.plugin.canary_rolled_back").copied() == Some(1);
    host.until("the tenant is told once", told).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_sees_what_the_active_version_saw_and_nothing_comes_of_it() {
    let host = Host::start().await;
    let tenant = host.tenant("acme").await;
    versions(&host, &tenant, ["checker", "always-fails"], &json!({})).await;
    // The same component once more: it does the same, if it sees the same state.
    let grants = json!({"emit": ["**"], "deliver": ["*"]});
    host.add(&tenant, "subject", "checker", &json!({"again": true}), &grants).await;
    let terms = json!({"slice": {"from": 0, "to": 10_000}}).to_string();
    let mut sequence = 0;
    for (version, kind) in [(3, "same"), (2, "new failure")] {
        let began = host.store.start_rollout(tenant.id, "subject", Kind::Shadow, version, &terms, &act()).await;
        let rollout = began.expect("because none is under way");
        host.changed(&tenant).await;
        for _ in 0..3 {
            sequence += 1;
            let data = json!({"key": "k", "seq": sequence});
            host.publish(&tenant, "steps", &sequence.to_string(), Some("k"), &data).await;
            host.settled(&tenant, sequence).await;
        }
        let tally = async || {
            let under_way = host.store.rollouts(tenant.id, rollout.plugin).await.expect("because the store works");
            under_way[0].tally.clone()
        };
        host.until("its runs are compared", async || tally().await.candidate.runs + tally().await.skipped == 3).await;
        let tally = tally().await;
        let differ = (tally.changed, tally.newly_failed, tally.skipped);
        assert_eq!(differ, if kind == "same" { (0, 0, 0) } else { (0, 3, 0) }, "{tally:?}");
        assert_eq!(tally.samples.len() as u64, tally.newly_failed);
        let end = Ending { number: None, promote: false, detail: serde_json::Map::new(), act: act() };
        host.store.end_rollout(tenant.id, "subject", Kind::Shadow, &end).await.expect("because the store works");
        host.changed(&tenant).await;
    }
    let state = host.state(&tenant, "subject").await;
    assert_eq!((state["count:k"].as_str(), state.keys().any(|key| key.starts_with("disorder:"))), ("6", false));
    let runs = host.runs(&tenant, None).await;
    let active = |run: &bulkhead_store::work::RunView| {
        run.record.as_ref().and_then(|record| record.plugin.as_ref()).is_some_and(|(_, version)| *version == 1)
    };
    assert!(runs.len() == 6 && runs.iter().all(active), "what a shadow does is no run");
    host.stop().await;
}
