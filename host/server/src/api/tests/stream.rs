//! Live streams.

use std::time::Duration;
use std::time::Instant;

use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt as _;
use serde_json::Value;
use serde_json::json;

use super::Host;
use super::User;

/// Reads a stream: messages with their ids.
struct Reader {
    body: axum::body::BodyDataStream,
    text: String,
    last_id: Option<String>,
}

impl Reader {
    async fn open(user: &User<'_>, path: &str, last: Option<&str>) -> Self {
        let header = last.map(|last| [("last-event-id", last)]);
        let response = user.send("GET", path, header.as_ref().map_or(&[][..], |it| it), "").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut reader = Self { body: response.into_body().into_data_stream(), text: String::new(), last_id: None };
        // The greeting says where the stream begins.
        assert!(reader.frame().await.expect("because it is open").starts_with("retry:"));
        reader
    }

    /// The next frame; none at the end.
    async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                let id = frame.lines().find_map(|line| line.strip_prefix("id: "));
                self.last_id = id.map(str::to_owned).or(self.last_id.take());
                return Some(frame);
            }
            let piece = tokio::time::timeout(Duration::from_secs(20), self.body.next()).await;
            let piece = piece.expect("because something comes")?.expect("because the stream does not break");
            self.text += std::str::from_utf8(&piece).expect("because it is text");
        }
    }

    async fn event(&mut self) -> Value {
        loop {
            let frame = self.frame().await.expect("because it is open");
            if let Some(data) = frame.lines().find_map(|line| line.strip_prefix("data: ")) {
                return serde_json::from_str(data).expect("because it is JSON");
            }
        }
    }
}

async fn refused(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("because it is whole");
    (status, serde_json::from_slice(&bytes).expect("because it is JSON"))
}

#[tokio::test]
async fn a_stream_goes_on_where_it_broke() {
    let host = Host::start().await;
    let (user, other) = (host.tenant("acme").await, host.tenant("other").await);
    user.publish("a", "before", json!({})).await;
    let mut reader = Reader::open(&user, "/v1/events/stream", None).await;
    other.publish("a", "foreign", json!({})).await;
    for id in ["1", "2", "3"] {
        user.publish("a", id, json!({"data": {"n": 1}})).await;
    }
    assert_eq!(reader.event().await["id"], "1");
    assert_eq!(reader.event().await["id"], "2");
    let last = reader.last_id.clone();
    drop(reader);
    user.publish("a", "4", json!({})).await;
    let mut reader = Reader::open(&user, "/v1/events/stream", last.as_deref()).await;
    assert_eq!(reader.event().await["id"], "3");
    assert_eq!(reader.event().await["id"], "4");
    // Nothing twice, nothing of others: the very next is the next one published.
    user.publish("a", "5", json!({})).await;
    assert_eq!(reader.event().await["id"], "5");
}

#[tokio::test]
async fn a_filter_lets_only_some_through_and_a_stream_ends_with_the_host() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let path = "/v1/events/stream?type=orders.*&where=data.total%20%3E%205";
    let mut reader = Reader::open(&user, path, None).await;
    user.publish("orders.created", "small", json!({"data": {"total": 5}})).await;
    user.publish("other", "other", json!({"data": {"total": 6}})).await;
    user.publish("orders.created", "large", json!({"data": {"total": 6}})).await;
    assert_eq!(reader.event().await["id"], "large");
    host.api.ending.cancel();
    assert_eq!(reader.frame().await, None);
}

#[tokio::test]
async fn streams_are_few_and_ids_are_their_own() {
    let host = Host::start().await;
    let (user, other) = (host.tenant("acme").await, host.tenant("other").await);
    let one = Reader::open(&user, "/v1/events/stream", None).await;
    let two = Reader::open(&user, "/v1/events/stream", None).await;
    let (status, problem) = refused(user.send("GET", "/v1/events/stream", &[], "").await).await;
    assert_eq!((status.as_u16(), &problem["code"]), (429, &json!("too-many-streams")));
    let foreign = one.last_id.clone().expect("because the greeting has an id");
    drop((one, two));
    for last in [foreign.as_str(), "7"] {
        let (status, problem) =
            refused(other.send("GET", "/v1/events/stream", &[("last-event-id", last)], "").await).await;
        assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("cursor-invalid")));
    }
    drop(Reader::open(&user, "/v1/events/stream", Some(&foreign)).await);
}

#[tokio::test]
async fn a_busy_stream_ends_soon_after_its_key_is_revoked() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let revoked = host.user(user.tenant.clone(), &["read"]).await;
    let mut reader = Reader::open(&revoked, "/v1/events/stream", None).await;
    let id = revoked.key.split('_').nth(1).expect("because a key has an id");
    let now = host.api.now();
    host.api.store.operator_revoke_key(Some(user.tenant.id), id, now).await.expect("because the key is there");
    let begun = Instant::now();
    for number in 0.. {
        user.publish("a", &number.to_string(), json!({})).await;
        if reader.frame().await.is_none() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "events still come");
    }
}
