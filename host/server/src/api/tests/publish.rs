//! The four content modes, and what each says to what is wrong.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Host;
use super::event;

const SINGLE: (&str, &str) = ("content-type", "application/cloudevents+json");
const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

/// A header, a body; the status and code that it is answered with.
type Case = ((&'static str, &'static str), Vec<u8>, u16, &'static str);

#[tokio::test]
async fn one_event_is_taken_once() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let body = event("a.b", "1").to_string();
    let first = user.call("POST", "/v1/events", &[SINGLE], body.clone()).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    assert_eq!(first.json(), json!({"accepted": 1, "duplicates": 0, "rejected": [], "ids": ["1"]}));
    let second = user.call("POST", "/v1/events", &[SINGLE], body).await;
    assert_eq!((second.status, second.json()["duplicates"].clone()), (StatusCode::ACCEPTED, json!(1)));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_has_a_code() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let big = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "a", "data": "x".repeat(2_000)});
    let deep = "[".repeat(20) + &"]".repeat(20);
    let deep = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a","data":{deep}}}"#);
    let four = json!([event("a", "1"), event("a", "2"), event("a", "3"), event("a", "4")]);
    let cases: Vec<Case> = vec![
        (("content-type", "application/json"), b"{}".into(), 415, "media-type"),
        (SINGLE, vec![b' '; 1 << 20], 413, "body-too-large"),
        (SINGLE, b"{\"id\":".into(), 422, "events-rejected"),
        (SINGLE, b"{\"id\":\"\xff\"}".into(), 422, "events-rejected"),
        (SINGLE, big.to_string().into(), 422, "events-rejected"),
        (SINGLE, deep.into(), 422, "events-rejected"),
        (BATCH, b"{}".into(), 400, "body-malformed"),
        (BATCH, b"[{}".into(), 400, "body-malformed"),
        (BATCH, b"[]".into(), 422, "events-rejected"),
        (BATCH, four.to_string().into(), 413, "body-too-large"),
        (LINES, b"\n \n".into(), 422, "events-rejected"),
        (LINES, b"{oops\n".into(), 422, "events-rejected"),
    ];
    for (header, body, status, code) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = user.call("POST", "/v1/events", &[header], body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{shown}");
    }
    assert_eq!(user.get("/v1/events").await["items"], json!([]));
}

#[tokio::test]
async fn a_rejected_event_says_why() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let code = async |body: Vec<u8>| {
        let answer = user.call("POST", "/v1/events", &[SINGLE], body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        answer.json()["rejected"][0]["code"].as_str().expect("because it is rejected").to_owned()
    };
    assert_eq!(code(b"{\"id\":\"\xff\"}".into()).await, "event:utf8");
    assert_eq!(code(b"[1".into()).await, "event:json");
    let changed = |name: &str, value: serde_json::Value| {
        let mut event = event("a", "1");
        event[name] = value;
        event.to_string().into_bytes()
    };
    assert_eq!(code(changed("specversion", "0.3".into())).await, "event:specversion");
    assert_eq!(code(changed("type", "bulkhead.x".into())).await, "event:type");
    assert_eq!(code(changed("time", "yesterday".into())).await, "event:time");
    assert_eq!(code(changed("data", "x".repeat(2_000).into())).await, "event:too-large");
    assert_eq!(code(changed("data", json!([[[[[[[[[[1]]]]]]]]]]))).await, "event:too-deep");
}

#[tokio::test]
async fn one_bad_event_takes_no_other_down() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let (one, two) = (event("a", "1"), event("a", "2"));
    let answer = user.call("POST", "/v1/events", &[BATCH], format!("[{one}, {{\"id\": tru}}, {two}]")).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let json = answer.json();
    assert_eq!((&json["accepted"], &json["ids"]), (&json!(2), &json!(["1", "2"])));
    assert_eq!((&json["rejected"][0]["index"], &json["rejected"][0]["code"]), (&json!(1), &json!("event:json")));
    let long = "x".repeat(200_000);
    let lines = format!("{one}\r\n\nnonsense\n{long}\n{}", event("a", "3"));
    let json = user.call("POST", "/v1/events", &[LINES], lines).await.json();
    assert_eq!((&json["accepted"], &json["duplicates"]), (&json!(1), &json!(1)));
    let rejected = json["rejected"].as_array().expect("because it is a list");
    let told: Vec<_> = rejected.iter().map(|it| (it["index"].clone(), it["code"].clone())).collect();
    assert_eq!(told, [(json!(2), json!("event:json")), (json!(3), json!("event:too-large"))]);
}

#[tokio::test]
async fn headers_make_an_event_too() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "h%C3%A9"),
        ("ce-source", "/s"),
        ("ce-type", "a.b"),
        ("ce-partitionkey", "k"),
        ("content-type", "text/plain"),
    ];
    let answer = user.call("POST", "/v1/events", &headers, "hello").await;
    assert_eq!(answer.json()["ids"], json!(["hé"]));
    let event = user.get("/v1/events").await["items"][0].clone();
    assert_eq!((&event["data"], &event["partitionkey"]), (&json!("hello"), &json!("k")));
    let answer = user.call("POST", "/v1/events", &headers, "x".repeat(1_001)).await;
    assert_eq!(answer.code(), "body-too-large");
    let answer = user.call("POST", "/v1/events", &headers[1..], "hello").await;
    assert_eq!(answer.json()["rejected"][0]["code"], "event:specversion");
}

#[tokio::test]
async fn lines_are_taken_in_while_they_come() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let (pieces, body) = mpsc::channel::<Result<String, std::io::Error>>(1);
    let publish = user.call("POST", "/v1/events", &[LINES], Body::from_stream(ReceiverStream::new(body)));
    let feed = async {
        let send = async |text: String| pieces.send(Ok(text)).await.expect("because the host reads");
        let (one, two) = (event("a", "1").to_string(), event("a", "2").to_string());
        send(format!("{one}\n{}", &two[..9])).await;
        // The first is in before the second has come as a whole.
        user.until("/v1/events", |events| events["items"].as_array().is_some_and(|items| items.len() == 1)).await;
        send(two[9..].to_owned()).await;
        pieces.send(Err(std::io::Error::other("gone"))).await.expect("because the host reads");
    };
    let (answer, ()) = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(publish, feed) })
        .await
        .expect("because both end");
    // It broke off: what was accepted is told, and the line that never ended is not counted.
    assert_eq!(answer.code(), "body-malformed");
    let json = answer.json();
    assert_eq!((&json["accepted"], &json["ids"]), (&json!(1), &json!(["1"])));
}

#[tokio::test]
async fn who_keeps_many_requests_open_keeps_nobody_else_out() {
    let host = Host::start().await;
    let (noisy, quiet) = (host.tenant("noisy").await, host.tenant("quiet").await);
    // More bodies without an end than there are places for all.
    let endless = || Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>());
    let open = futures_util::future::join_all((0..80).map(|_| noisy.call("POST", "/v1/events", &[LINES], endless())));
    let others = async {
        for id in ["1", "2", "3"] {
            quiet.publish("a", id, json!({})).await;
        }
        quiet.get("/v1/events").await["items"].as_array().map(Vec::len)
    };
    tokio::select! {
        biased;
        _ = open => panic!("because none of them ends"),
        published = others => assert_eq!(published, Some(3)),
    }
}

#[tokio::test]
async fn only_those_who_may_publish_and_only_in_their_own() {
    let host = Host::start().await;
    let (user, other) = (host.tenant("acme").await, host.tenant("other").await);
    let reader = host.user(user.tenant.clone(), &["read"]).await;
    let answer = reader.call("POST", "/v1/events", &[SINGLE], event("a", "1").to_string()).await;
    assert_eq!(answer.code(), "scope-missing");
    let writer = host.user(user.tenant.clone(), &["publish"]).await;
    writer.publish("a", "1", json!({})).await;
    assert_eq!(writer.call("GET", "/v1/events", &[], "").await.code(), "scope-missing");
    assert_eq!(reader.get("/v1/events/1").await["event"]["id"], "1");
    assert_eq!(other.call("GET", "/v1/events/1", &[], "").await.code(), "not-found");
    assert_eq!(other.get("/v1/events").await["items"], json!([]));
}
