//! Limits of tenants: set by the operator, felt and seen by the tenant.

use axum::http::StatusCode;
use bulkhead_domain::policy::quota::Quotas;
use bulkhead_domain::policy::quota::Rate;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::Host;
use super::User;
use super::column;
use super::event;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn publish(user: &User<'_>, ids: &[u32]) -> Answer {
    let events: Vec<Value> = ids.iter().map(|id| event("a", &id.to_string())).collect();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    user.call("POST", "/v1/events", &headers, Value::from(events).to_string()).await
}

async fn allow(host: &Host, user: &User<'_>, quotas: Value) -> Answer {
    let path = format!("/admin/v1/tenants/{}/quotas", user.tenant.name);
    host.operator().await.call("PUT", &path, &JSON, quotas.to_string()).await
}

#[tokio::test]
async fn a_tenant_that_hands_in_too_much_is_told_when_to_come_again() {
    let host = Host::start().await;
    let (user, other) = (host.tenant("acme").await, host.tenant("other").await);
    assert_eq!(user.get("/v1/quotas").await["items"], json!([]), "nobody is limited");
    let set = allow(&host, &user, json!({"events_per_second": {"rate": 1, "burst": 2}})).await;
    assert_eq!(set.json()["effective"], json!({"events_per_second": {"rate": 1, "burst": 2}}));
    assert_eq!(publish(&user, &[1, 2]).await.status, StatusCode::ACCEPTED);
    assert_eq!(publish(&user, &[3, 4]).await.status, StatusCode::ACCEPTED, "late, but not refused");
    let refused = publish(&user, &[5, 6, 7]).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::TOO_MANY_REQUESTS, "limit-rate".to_owned()));
    let wait: u64 = refused.headers["retry-after"].to_str().ok().and_then(|text| text.parse().ok()).expect("a number");
    assert!((1..=3).contains(&wait), "{wait}");
    assert_eq!((&refused.json()["quota"], &refused.json()["limit"]), (&json!("rate"), &json!(1)));
    let quotas = user.get("/v1/quotas").await;
    let line = &quotas["items"][0];
    assert_eq!((&line["quota"], &line["state"], &line["limit"]), (&json!("rate"), &json!("soft"), &json!(1)));
    assert!(line["since"].is_string(), "{line}");
    assert_eq!(publish(&other, &[1, 2, 3]).await.status, StatusCode::ACCEPTED, "others notice nothing");
    // Raised, it counts at once.
    assert_eq!(allow(&host, &user, json!({})).await.status, StatusCode::OK);
    assert_eq!(publish(&user, &[5, 6, 7]).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn only_the_operator_sets_quotas_and_only_possible_ones() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let path = "/admin/v1/tenants/acme/quotas";
    for method in ["GET", "PUT"] {
        assert_eq!(user.call(method, path, &JSON, "{}").await.code(), "operator-only");
    }
    let wrong = allow(&host, &user, json!({"concurrency": 0, "events_per_second": {"rate": 0}})).await;
    assert_eq!(wrong.code(), "field-invalid");
    let paths: Vec<_> = wrong.json()["errors"].as_array().into_iter().flatten().map(|it| it["path"].clone()).collect();
    assert_eq!(paths, ["events_per_second.rate", "concurrency"]);
    let operator = host.operator().await;
    assert_eq!(
        operator.call("PUT", path, &JSON, r#"{"concurency": 1}"#).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(operator.call("PUT", "/admin/v1/tenants/nobody/quotas", &JSON, "{}").await.code(), "not-found");
    assert_eq!(operator.get(path).await, json!({"own": {}, "effective": {}}));
}

#[tokio::test]
async fn a_full_backlog_refuses_and_says_so() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    user.post("/v1/pause", json!({})).await;
    assert_eq!(publish(&user, &[1, 2, 3]).await.status, StatusCode::ACCEPTED);
    assert_eq!(allow(&host, &user, json!({"backlog_events": 3})).await.status, StatusCode::OK);
    let line = user.get("/v1/quotas").await["items"][0].clone();
    assert_eq!((&line["quota"], &line["used"], &line["state"]), (&json!("backlog"), &json!(3), &json!("stopped")));
    let refused = publish(&user, &[4]).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::TOO_MANY_REQUESTS, "limit-backlog".to_owned()));
    assert_eq!(refused.headers["retry-after"], "5");
    user.post("/v1/resume", json!({})).await;
    user.until("/v1/quotas", |quotas| quotas["items"][0]["used"] == 0).await;
    assert_eq!(publish(&user, &[4]).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn an_event_says_that_a_quota_makes_it_wait() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    host.api.dispatch.set_paused(true);
    let rate = Rate { rate: 1, burst: Some(1) };
    let quotas = Quotas { events_per_second: Some(rate), fuel_per_minute: Some(10), ..Quotas::default() };
    host.api.store.set_quotas(user.tenant.id, &quotas).await.expect("because the tenant is there");
    host.api.keyring.forget_all();
    let tenant = host.api.store.tenant(user.tenant.id).await.expect("because the store works");
    host.api.limiter.burned(&tenant.expect("because the tenant is there"), 100);
    assert_eq!(publish(&user, &[1, 2]).await.status, StatusCode::ACCEPTED);
    let story = user.get("/v1/events/2").await;
    let codes = column(&json!({"items": story["waits"]}), "code");
    assert_eq!(codes, ["quota-rate", "quota-fuel", "backlog"]);
    assert!(story["waits"][1]["detail"].as_str().is_some_and(|text| text.contains("fuel")), "{story}");
}

#[tokio::test]
async fn components_count_as_storage() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let text = [("content-type", "text/javascript")];
    let paste = async |name: &str, source: &str| {
        user.call("POST", &format!("/v1/plugins/{name}/source"), &text, source.to_owned()).await
    };
    let first = paste("p", "function handle() {}").await;
    assert_eq!(first.status, StatusCode::CREATED, "{:?}", first.bytes);
    let size = first.json()["size"].as_u64().expect("because a component has a size");
    assert_eq!(allow(&host, &user, json!({"storage_bytes": size + 10})).await.status, StatusCode::OK);
    let quotas = user.until("/v1/quotas", |quotas| quotas["items"][0]["used"] == size).await;
    assert_eq!(quotas["items"][0]["parts"], json!({"state": 0, "components": size}));
    assert_eq!(paste("q", "function handle() {}").await.status, StatusCode::CREATED, "it is there already");
    let refused = paste("q", "function handle() { return; }").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::TOO_MANY_REQUESTS, "limit-storage".to_owned()));
    let problem = refused.json();
    assert_eq!((&problem["used"], &problem["limit"]), (&json!(size), &json!(size + 10)));
    assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("plugin retire")), "{problem}");
    assert_eq!(publish(&user, &[1]).await.status, StatusCode::ACCEPTED, "it is within its quota");
    assert_eq!(allow(&host, &user, json!({})).await.status, StatusCode::OK);
    assert_eq!(paste("q", "function handle() { return; }").await.status, StatusCode::CREATED);
}
