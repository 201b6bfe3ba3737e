//! What a hostile tenant tries.

use std::time::Duration;
use std::time::Instant;

use axum::http::StatusCode;
use bulkhead_store::catalogue::TenantState;
use serde_json::json;

use super::Host;

#[tokio::test]
async fn a_request_that_was_let_in_before_a_suspension_does_not_undo_it() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    // The key is remembered from here on; to whoever knows it, the tenant is not suspended yet.
    user.get("/v1/rules").await;
    let store = &host.api.store;
    store.set_tenant_state(user.tenant.id, TenantState::Suspended).await.expect("because the store works");
    for path in ["/v1/resume", "/v1/pause"] {
        let answer = user.call("POST", path, &[], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::FORBIDDEN, "tenant-suspended"));
        let tenant = store.tenant(user.tenant.id).await.expect("because the store works");
        assert_eq!(tenant.expect("because it is there").state, TenantState::Suspended);
    }
}

#[tokio::test]
async fn a_preview_ends_however_much_its_rules_take() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let list: Vec<u8> = (0..200).map(|number| number % 10).collect();
    for id in 0..20 {
        user.publish("a", &id.to_string(), json!({"data": {"l": list}})).await;
    }
    let condition = "data.l.all(x, data.l.exists(y, y > x + 100) || x >= 0)";
    let rule = |number| json!({"name": format!("r{number}"), "on": ["a"], "where": condition, "steps": [{"emit": {"type": "b"}}]});
    let rules: Vec<_> = (0..2_000).map(rule).collect();
    let begun = Instant::now();
    let headers = [("content-type", "application/json")];
    let answer = user.call("POST", "/v1/rules/preview", &headers, json!(rules).to_string()).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "rule-invalid"));
    assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("takes longer")), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}
