//! Events as they come, over server-sent events.
//!
//! A stream reads the store from a position on, whenever something was appended and its reader has room: a slow reader
//! holds nothing up, and after a break `Last-Event-ID` goes on at the very next event. What no filter keeps moves the id,
//! too, so that going on does not look through it again.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use bulkhead_domain::id::Position;
use bulkhead_flow::live::Ticks;
use bulkhead_store::catalogue::TenantState;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use crate::api::code::Code;
use crate::api::events::filter::Fair;
use crate::api::events::filter::Filter;
use crate::api::events::render::CloudEvent;
use crate::api::extract::Caller;
use crate::api::extract::Params;
use crate::api::extract::Read;
use crate::api::problem::Document;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::api::state::OpenStream;

/// The list that the ids of streams are cursors of.
const LIST: &str = "events:stream";
/// A comment is sent this often, and at the same pace the key is looked at again.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The longest that events go on after the key is revoked or the tenant suspended.
const ALLOWED_FOR: Duration = Duration::from_secs(1);
/// Between two looks for what other nodes appended, in case nobody says so.
const LOOK: Duration = Duration::from_secs(1);
/// Events that are looked at at a time.
const CHUNK: u32 = 100;
/// How long a client that lost the connection should wait.
const RETRY_MS: u32 = 500;

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Of this type: a dotted glob, `*` for one part, `**` for any number.
    #[serde(rename = "type")]
    #[param(rename = "type")]
    kind: Option<String>,
    /// Only those for which this CEL expression holds.
    #[serde(rename = "where")]
    #[param(rename = "where")]
    condition: Option<String>,
}

/// Events as they come, each as a message with CloudEvents JSON. `Last-Event-ID` goes on without a gap and without a
/// duplicate; without it the stream begins now.
#[utoipa::path(
    get,
    path = "/v1/events/stream",
    tag = "events",
    summary = "Live events",
    params(Query, ("Last-Event-ID" = Option<String>, Header, description = "The id of the last message that was seen")),
    responses(
        (status = 200, description = "Server-sent events", body = String, content_type = "text/event-stream"),
        (status = 429, description = "The tenant has too many streams open", body = Document,
            content_type = "application/problem+json"),
    ),
)]
pub async fn stream(
    State(api): State<Api>,
    mut caller: Caller<Read>,
    Params(query): Params<Query>,
    headers: HeaderMap,
) -> Result<Response> {
    let filter = Filter::parse(query.kind.as_deref(), query.condition.as_deref())?;
    let place = api.streams.open(caller.id(), api.limits.streams).ok_or_else(|| {
        let detail = format!("the tenant has {} live streams open, as many as it may", api.limits.streams);
        Problem::new(Code::TooManyStreams, detail).retry_after(Duration::from_secs(5))
    })?;
    caller.leave();
    // Before the position is read: what is appended after it must tick.
    let kind = filter.exact_kind();
    let ticks = api.live.subscribe(caller.id(), kind.as_deref());
    let last = headers.get("last-event-id").filter(|value| !value.is_empty());
    let position = match last {
        None => api.store.head(caller.id()).await?,
        Some(value) => {
            let wrong = || Problem::new(Code::CursorInvalid, "`Last-Event-ID` is not an id of this stream");
            let text = value.to_str().map_err(|_| wrong())?;
            api.cursors.read_position(caller.uid(), LIST, text).map_err(|_| wrong())?
        }
    };
    let follower =
        Follower { api, caller, filter, kind, position, ticks, greeted: false, looked: Instant::now(), _place: place };
    let body = Body::from_stream(stream::unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), follower))
    }));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // A proxy that collects what it passes on would hold events back.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body).into_response())
}

/// One open stream.
struct Follower {
    api: Api,
    caller: Caller<Read>,
    filter: Filter,
    /// The one type that the filter asks for, if it is one.
    kind: Option<String>,
    /// Everything up to here is sent or was not wanted.
    position: Position,
    ticks: Ticks,
    /// The reader knows where it begins.
    greeted: bool,
    /// When the key was last seen to be valid.
    looked: Instant,
    _place: OpenStream,
}

impl Follower {
    /// What is to be sent next; none ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.greeted {
            self.greeted = true;
            return Some(Bytes::from(format!("retry: {RETRY_MS}\n{}", quiet(&self.cursor(self.position)))));
        }
        let beat = Instant::now() + HEARTBEAT;
        loop {
            if self.api.ending.is_cancelled() || !self.is_allowed().await {
                return None;
            }
            self.ticks.catch_up();
            let (messages, more) = match self.read().await {
                Ok(read) => read,
                Err(error) => {
                    tracing::warn!(%error, "a live stream ends: the store cannot be read");
                    return None;
                }
            };
            if !messages.is_empty() {
                return Some(messages.into());
            }
            if !more {
                // What another node appends may not be heard of.
                let look = if self.api.shared { Instant::now() + LOOK } else { beat };
                tokio::select! {
                    () = self.api.ending.cancelled() => return None,
                    () = self.ticks.next() => {}
                    () = tokio::time::sleep_until(look.min(beat)) => {}
                }
            }
            if Instant::now() >= beat {
                return Some(quiet(&self.cursor(self.position)).into());
            }
        }
    }

    /// Messages for the wanted ones among the next events, and whether there may be more.
    async fn read(&mut self) -> bulkhead_store::Result<(String, bool)> {
        let tail = self.api.store.tail(self.caller.id(), self.position, self.kind.as_deref(), CHUNK).await?;
        let mut messages = String::new();
        let mut fair = Fair::default();
        for logged in tail.events {
            let (keeps, steps) = self.filter.keeps(&logged.event, &self.caller.tenant.name);
            fair.took(steps).await;
            if keeps {
                messages.push_str(&message(&self.cursor(logged.position), CloudEvent::of(&logged.event).text()));
            }
        }
        self.position = tail.reached;
        Ok((messages, tail.more))
    }

    /// A key may be revoked and a tenant suspended while a stream is open.
    async fn is_allowed(&mut self) -> bool {
        if self.looked.elapsed() < ALLOWED_FOR {
            return true;
        }
        self.looked = Instant::now();
        match self.api.store.host_key(&self.caller.key).await {
            Ok(Some((key, Some(tenant)))) => key.revoked.is_none() && tenant.state != TenantState::Suspended,
            Ok(_) => false,
            // It was allowed a moment ago; the store's trouble is told by the next read.
            Err(_) => true,
        }
    }

    fn cursor(&self, position: Position) -> String {
        self.api.cursors.write_position(self.caller.uid(), LIST, position)
    }
}

/// An event.
fn message(id: &str, json: &str) -> String {
    // Between the parts of a JSON text line ends are blanks, and within them there are none.
    let line = json.replace(['\n', '\r'], " ");
    format!("id: {id}\nevent: event\ndata: {line}\n\n")
}

/// A comment that keeps the connection open, and an id without an event: it only moves where to go on.
fn quiet(id: &str) -> String {
    format!(": so far\nid: {id}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_data_whatever_the_payload_holds() {
        let text = message("c1", "{\"data\": {\r\n \"a\": \"x\\ny\"\n}}");
        let lines: Vec<&str> = text.split('\n').collect();
        let [id, event, data, "", ""] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((*id, *event), ("id: c1", "event: event"));
        let json = data.strip_prefix("data: ").expect("because it is data");
        let read: serde_json::Value = serde_json::from_str(json).expect("because it is JSON");
        assert_eq!(read, serde_json::json!({"data": {"a": "x\ny"}}));
        assert!(!json.contains('\r'));
        assert_eq!(quiet("c2"), ": so far\nid: c2\n\n");
    }
}
