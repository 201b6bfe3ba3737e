//! Previews and shadows of plugins that compute without end: what they take is bounded, and others have their turn.

use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::policy::quota::Quota;
use serde_json::Value;
use serde_json::json;

use super::Host;
use super::PATIENCE;
use super::User;

/// Many documents out of one; after two such steps 900 of one event, each of which is handled.
const MANY: &str = "export function transform() {
  const many = [];
  for (let i = 0; i < 30; i++) many.push({ type: 'done', data: { i } });
  return many;
}
";
/// Some ten milliseconds, well within what one call may use.
const SLOW: &str = "export function handle() { for (let i = 0; i < 1e6; i++); }";
const ENDLESS: &str = "export function handle() { while (true) {} }";
const EMPTY: &str = "export function handle() {}";

/// Adds a version; says its number.
async fn paste(user: &User<'_>, source: String, activate: bool) -> u64 {
    let path = format!("/v1/plugins/p/source?activate={activate}");
    let answer = user
        .call("POST", &path, &[("content-type", "application/json")], json!({ "source": source }).to_string())
        .await;
    assert!(answer.status.is_success(), "{:?}", answer.bytes);
    answer.json()["version"].as_u64().expect("because it has a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_ends_in_the_middle_of_a_run_and_is_paid_for() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    paste(&user, EMPTY.to_owned(), true).await;
    let version = paste(&user, ENDLESS.to_owned(), false).await;
    let rules: Vec<Value> = (0..400)
        .map(|number| json!({"name": format!("r{number}"), "on": ["a.b"], "steps": [{"handle": {"plugin": "p"}}]}))
        .collect();
    user.rules(json!(rules)).await;
    user.publish("a.b", "1", json!({})).await;
    let quotas = bulkhead_domain::policy::quota::Quotas { fuel_per_minute: Some(1_000), ..Default::default() };
    host.api.store.set_quotas(user.tenant.id, &quotas).await.expect("because the tenant is there");
    let tenant = host.api.store.tenant(user.tenant.id).await.expect("because the store works");
    let tenant = tenant.expect("because it is there");

    let range = bulkhead_flow::preview::Range { last: 1, since: None, until: None };
    let version = u32::try_from(version).expect("because it is small");
    let prepare = async || {
        let prepared = host.api.previewer.prepare(tenant.id, "p", Some(1), version, range).await;
        prepared.expect("because both are there")
    };
    // The time is up in the middle of a run: all of its rules would take minutes.
    let began = Instant::now();
    let report = prepare().await.go(Duration::from_millis(300), |_| {}).await.expect("because it does not panic");
    assert_eq!((report.events, report.left_out), (1, 1), "{report:?}");
    assert!(report.runs < 400 && report.burned > 0 && began.elapsed() < PATIENCE, "{report:?}");

    // Nobody waits any more.
    let (sender, ended) = tokio::sync::oneshot::channel();
    let limiter = host.api.limiter.clone();
    let gone = prepare().await.go(Duration::from_secs(600), move |report| {
        limiter.burned(&tenant, report.burned);
        _ = sender.send((report.left_out, limiter.lines(&tenant)));
    });
    assert!(tokio::time::timeout(Duration::from_millis(300), gone).await.is_err());
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("because it is cancelled");
    let (left_out, lines) = ended.expect("because it says so");
    let fuel = lines.iter().find(|line| line.quota == Quota::Fuel).expect("because it has that quota");
    assert!(left_out == 1 && fuel.used > 1_000, "{left_out} {fuel:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_takes_too_long_is_given_up() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    paste(&user, format!("{MANY}{EMPTY}"), true).await;
    let slow = paste(&user, format!("{MANY}{SLOW}"), false).await;
    user.rules(json!([{
        "name": "r", "on": ["a.b"],
        "steps": [{"transform": {"plugin": "p"}}, {"transform": {"plugin": "p"}}, {"handle": {"plugin": "p"}}],
    }]))
    .await;
    let body = json!({ "version": slow }).to_string();
    assert_eq!(user.call("POST", "/v1/plugins/p/shadow", &[], body).await.status.as_u16(), 201);
    user.publish("a.b", "1", json!({})).await;
    let counted = |shown: &Value| {
        let shadow = &shown["candidates"][0];
        (shadow["candidate"]["runs"].as_u64(), shadow["compared"]["skipped"].as_u64())
    };
    let shown = user.until("/v1/plugins/p", |shown| counted(shown) != (Some(0), Some(0))).await;
    assert_eq!(counted(&shown), (Some(0), Some(1)), "{shown}");
}
