//! What waits, why it does, and what a person does about it.

use bulkhead_store::catalogue::TenantState;
use serde_json::Value;
use serde_json::json;

use super::Host;
use super::column;

fn rule() -> Value {
    json!([{"name": "score", "on": ["a"], "order": "key", "steps": [{"handle": {"plugin": "nobody"}}]}])
}

#[tokio::test]
async fn a_parked_run_holds_its_key_until_a_person_decides() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    user.rules(rule()).await;
    for (id, key) in [("1", "k"), ("2", "k"), ("3", "other")] {
        user.publish("a", id, json!({"partitionkey": key})).await;
    }
    let parked = user.until("/v1/parked", |parked| parked["items"].as_array().is_some_and(|it| it.len() == 2)).await;
    assert_eq!((column(&parked, "event"), &parked["next"]), (vec!["3".to_owned(), "1".to_owned()], &Value::Null));
    let item = &parked["items"][1];
    assert_eq!(
        (&item["state"], &item["code"], &item["key"]),
        (&json!("parked"), &json!("plugin:missing"), &json!("k"))
    );
    assert_eq!(column(&user.get("/v1/runs?state=parked").await, "event"), ["3", "1"]);
    assert_eq!(column(&user.get("/v1/runs?state=blocked").await, "event"), ["2"]);
    // Pages, filters.
    let page = user.get("/v1/parked?limit=1").await;
    let next = page["next"].as_str().expect("because there is one more");
    let page = user.get(&format!("/v1/parked?limit=1&after={next}")).await;
    assert_eq!((column(&page, "event"), &page["next"]), (vec!["1".to_owned()], &Value::Null));
    assert_eq!(column(&user.get("/v1/parked?key=other&rule=score").await, "event"), ["3"]);
    assert_eq!(user.get("/v1/parked?reason=limit:fuel").await["items"], json!([]));
    // Why.
    let story = user.get("/v1/events/2").await;
    let id = item["id"].as_str().expect("because a run has an id");
    let why = story["runs"][0]["waits"].as_str().expect("because it waits");
    assert!(why.contains(id) && why.contains("`k`") && why.contains("plugin:missing"), "{why}");
    assert_eq!(story["runs"][0]["state"], "blocked");
    let why = user.get("/v1/events/1").await["runs"][0]["waits"].clone();
    assert!(why.as_str().is_some_and(|why| why.contains("a person")), "{why}");
    // It runs again and parks again; then it is let go, and the next of its key has its turn.
    let attempts = format!("/v1/runs/{id}");
    assert_eq!(user.post("/v1/parked/redrive", json!({"runs": [id]})).await, json!({"redriven": 1}));
    user.until(&attempts, |run| run["state"] == "parked" && run["history"].as_array().is_some_and(|it| it.len() == 2))
        .await;
    assert_eq!(user.post("/v1/parked/discard", json!({"key": "k"})).await, json!({"discarded": 1}));
    user.until("/v1/parked?key=k", |parked| column(parked, "event") == ["2"]).await;
    assert_eq!(column(&user.get("/v1/runs?state=dropped").await, "event"), ["1"]);
    assert_eq!(user.post("/v1/parked/discard", json!({})).await, json!({"discarded": 2}));
    assert_eq!(user.get("/v1/parked").await["items"], json!([]));
}

#[tokio::test]
async fn pages_of_runs_are_as_long_as_they_should_be() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let rule = |name: &str| json!({"name": name, "on": ["a"], "steps": [{"handle": {"plugin": "nobody"}}]});
    user.rules(json!([rule("x"), rule("y"), rule("z")])).await;
    for id in ["1", "2", "3"] {
        user.publish("a", id, json!({})).await;
    }
    user.until("/v1/parked", |parked| parked["items"].as_array().is_some_and(|it| it.len() == 9)).await;
    for path in ["/v1/parked?", "/v1/runs?", "/v1/runs?state=parked&"] {
        let all = column(&user.get(path).await, "id");
        for limit in [1, 2, 4, 8] {
            let (mut found, mut after) = (Vec::new(), String::new());
            loop {
                let page = user.get(&format!("{path}limit={limit}{after}")).await;
                assert!(column(&page, "id").len() <= limit, "{path} {limit}");
                found.extend(column(&page, "id"));
                let Some(next) = page["next"].as_str() else { break };
                after = format!("&after={next}");
            }
            assert_eq!(found, all, "{path} {limit}");
        }
        assert_eq!(user.get(&format!("{path}limit=9")).await["next"], Value::Null, "{path}");
    }
}

#[tokio::test]
async fn only_an_administrator_decides() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let reader = host.user(user.tenant.clone(), &["read", "publish", "rules", "plugins"]).await;
    for path in ["/v1/parked/redrive", "/v1/parked/discard", "/v1/deliveries/redeliver", "/v1/deliveries/drop"] {
        let answer = reader.call("POST", path, &[("content-type", "application/json")], "{}").await;
        assert_eq!(answer.code(), "scope-missing", "{path}");
    }
    for (path, body) in [
        ("/v1/parked/discard", r#"{"runs":[]}"#),
        ("/v1/parked/discard", r#"{"rul":"score"}"#),
        ("/v1/deliveries/drop", "{}"),
    ] {
        let answer = user.call("POST", path, &[("content-type", "application/json")], body).await;
        assert_eq!(answer.code(), "field-invalid", "{body}");
    }
}

#[tokio::test]
async fn a_paused_tenant_is_why_its_events_wait() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    user.rules(rule()).await;
    host.api.store.set_tenant_state(user.tenant.id, TenantState::Paused).await.expect("because the store works");
    host.api.changed(user.tenant.id).await;
    user.publish("a", "1", json!({})).await;
    let story = user.get("/v1/events/1").await;
    assert_eq!(column(&json!({"items": story["waits"]}), "code"), ["tenant-paused", "backlog"]);
    host.api.store.set_tenant_state(user.tenant.id, TenantState::Active).await.expect("because the store works");
    host.api.changed(user.tenant.id).await;
    let story = user.until("/v1/events/1", |story| story["waits"] == json!([])).await;
    assert_eq!(story["runs"][0]["state"], "parked");
}

#[tokio::test]
async fn deliveries_say_where_they_stand() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let spec = json!({"kind": "webhook", "url": "https://203.0.113.1/x"});
    host.api.store.put_sink(user.tenant.id, "crm", &spec.to_string(), host.api.now()).await.expect("because it works");
    user.rules(json!([{"name": "tell", "on": ["a"], "steps": [{"deliver": {"sink": "crm"}}]}])).await;
    host.api.deliver.set_paused(true);
    for number in 0..3 {
        user.publish("a", &number.to_string(), json!({})).await;
    }
    let all = user.until("/v1/deliveries", |all| all["items"].as_array().is_some_and(|it| it.len() == 3)).await;
    assert_eq!(column(&all, "state"), ["pending"; 3]);
    let ids = column(&all, "id");
    let page = user.get("/v1/deliveries?limit=2&sink=crm&state=pending").await;
    let next = page["next"].as_str().expect("because there is one more");
    let rest = user.get(&format!("/v1/deliveries?limit=2&after={next}")).await;
    assert_eq!([column(&page, "id"), column(&rest, "id")].concat(), ids);
    assert_eq!(rest["next"], Value::Null);
    assert_eq!(user.get("/v1/deliveries?event=1").await["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(user.get("/v1/deliveries?state=delivered").await["items"], json!([]));
    let story = user.get("/v1/events/1").await;
    assert!(story["deliveries"][0]["waits"].is_string(), "{story}");
    // Without its sink a delivery is parked; a person drops it.
    let deleted = host.api.store.delete_sink(user.tenant.id, "crm", host.api.now()).await;
    assert!(deleted.expect("because the store works"));
    assert_eq!(column(&user.get("/v1/deliveries?state=parked").await, "id").len(), 3);
    assert_eq!(user.post("/v1/deliveries/drop", json!({"id": ids[0]})).await, json!({"dropped": 1}));
    assert_eq!(user.post("/v1/deliveries/redeliver", json!({"sink": "crm"})).await, json!({"redelivered": 2}));
    assert_eq!(column(&user.get("/v1/deliveries?state=pending").await, "id"), ids[1..]);
}
