//! Looking up events, page by page, and one with its story.

use serde_json::json;

use super::Host;
use super::column;

#[tokio::test]
async fn pages_give_every_event_once_in_either_order() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let ids: Vec<String> = (0..25).map(|number| format!("e{number:02}")).collect();
    for (number, id) in ids.iter().enumerate() {
        let kind = if number % 2 == 0 { "orders.created" } else { "orders.paid" };
        user.publish(kind, id, json!({"data": {"n": number}, "subject": format!("s{}", number % 3)})).await;
    }
    let walk = async |query: &str| {
        let (mut found, mut after, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = user.get(&format!("/v1/events?limit=4&{query}{after}")).await;
            found.extend(column(&page, "id"));
            pages += 1;
            match page["next"].as_str() {
                None => return (found, pages),
                Some(next) => after = format!("&after={next}"),
            }
        }
    };
    assert_eq!(walk("order=asc").await, (ids.clone(), 7));
    let newest_first: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(walk("order=desc").await.0, newest_first);
    let even: Vec<String> = ids.iter().step_by(2).cloned().collect();
    assert_eq!(walk("order=asc&type=orders.created").await.0, even);
    assert_eq!(walk("order=asc&type=*.created").await.0, even);
    assert_eq!(walk("order=asc&type=orders.**&where=data.n%20%3E%3D%2020").await.0, ids[20..]);
    assert_eq!(walk("where=data.missing").await.0, Vec::<String>::new());
    assert_eq!(walk("subject=s0&order=asc").await.0.len(), 9);
    assert_eq!(walk("until=2020-01-01T00:00:00Z").await.0, Vec::<String>::new());
    assert_eq!(walk("since=2020-01-01T00:00:00Z").await.0.len(), 25);
}

#[tokio::test]
async fn a_query_that_is_wrong_says_where() {
    let host = Host::start().await;
    let (user, other) = (host.tenant("acme").await, host.tenant("other").await);
    for number in 0..3 {
        user.publish("a", &number.to_string(), json!({})).await;
        other.publish("a", &number.to_string(), json!({})).await;
    }
    let next = user.get("/v1/events?limit=1").await["next"].as_str().expect("because there are more").to_owned();
    for (query, code) in [
        ("typ=a", "query-invalid"),
        ("limit=0", "query-invalid"),
        ("limit=1001", "query-invalid"),
        ("limit=x", "query-invalid"),
        ("order=up", "query-invalid"),
        ("type=a..b", "query-invalid"),
        ("since=yesterday", "query-invalid"),
        ("where=data.n%20%3E", "condition-invalid"),
        ("after=AAAA", "cursor-invalid"),
        (&format!("order=asc&after={next}"), "cursor-invalid"),
    ] {
        assert_eq!(user.call("GET", &format!("/v1/events?{query}"), &[], "").await.code(), code, "{query}");
    }
    let answer = user.call("GET", "/v1/events?corelation=x", &[], "").await.json();
    assert_eq!(
        (&answer["detail"], &answer["hint"]),
        (&json!("`corelation` is not known here"), &json!("did you mean `correlation`?"))
    );
    let answer = user.call("GET", "/v1/events?limit=x", &[], "").await.json();
    assert!(answer["detail"].as_str().is_some_and(|detail| detail.starts_with("`limit`: ")), "{answer}");
    // A cursor of one tenant says nothing to another.
    assert_eq!(other.call("GET", &format!("/v1/events?after={next}"), &[], "").await.code(), "cursor-invalid");
    assert_eq!(user.get(&format!("/v1/events?after={next}")).await["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_story_goes_both_ways() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    user.rules(json!([
        {"name": "first", "on": ["a"], "steps": [{"emit": {"type": "b"}}]},
        {"name": "second", "on": ["b"], "steps": [{"emit": {"type": "c"}}]},
    ]))
    .await;
    user.publish("a", "1", json!({"data": {"n": 1}})).await;
    let last = user.until("/v1/events?type=c", |events| events["items"][0].is_object()).await;
    let last = last["items"][0].clone();
    let id = last["id"].as_str().expect("because an event has an id");
    let story = user.get(&format!("/v1/events/{id}")).await;
    assert_eq!(column(&json!({"items": story["causes"]}), "type"), ["b", "a"]);
    assert_eq!((&story["hops"], &story["event"]["data"]), (&json!(2), &json!({"n": 1})));
    let first = user.until("/v1/events/1", |story| story["waits"] == json!([])).await;
    assert_eq!(column(&json!({"items": first["follow_ups"]}), "type"), ["b"]);
    assert_eq!(first["causes"], json!([]));
    let run = &first["runs"][0];
    assert_eq!((&run["rule"], &run["state"], &run["effects"]), (&json!("first"), &json!("done"), &json!(1)));
    let run_id = run["id"].as_str().expect("because a run has an id");
    let whole = user.get(&format!("/v1/runs/{run_id}")).await;
    assert_eq!((&whole["event"], &whole["history"][0]["attempt"]), (&json!("1"), &json!(1)));
    assert_eq!(user.get(&format!("/v1/runs/{run_id}/logs")).await["items"][0]["logs"], json!([]));
    assert_eq!(column(&user.get("/v1/runs?event=1").await, "id"), [run_id]);
    assert_eq!(user.get("/v1/runs?event=nobody").await["items"], json!([]));
    assert_eq!(user.get("/v1/runs").await["items"].as_array().map(Vec::len), Some(2));
    for path in ["/v1/events/nobody", "/v1/runs/run_1", &format!("/v1/runs/run_{}", "0".repeat(40))] {
        assert_eq!(user.call("GET", path, &[], "").await.code(), "not-found", "{path}");
    }
    let usage = user.until("/v1/usage", |usage| usage["total"]["done"] == json!(2)).await;
    assert_eq!((&usage["total"]["events"], &usage["total"]["emitted"]), (&json!(1), &json!(2)));
    let missing = user.call("GET", "/v1/plugins/nobody/state", &[], "").await;
    assert_eq!(missing.code(), "not-found");
}
