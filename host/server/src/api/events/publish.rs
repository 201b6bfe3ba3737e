//! Publishing, in four content modes: one event, a batch, a stream of lines, an event in headers.

use std::time::Duration;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use bulkhead_flow::inbox;
use bulkhead_flow::inbox::Envelope;
use bulkhead_flow::inbox::Inbox;
use bulkhead_flow::inbox::Receipt;
use bulkhead_flow::inbox::Rejection;
use bulkhead_flow::inbox::split_batch;
use bulkhead_store::catalogue::Tenant;
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::api::body;
use crate::api::body::Pieces;
use crate::api::code::Code;
use crate::api::events::ndjson::Lines;
use crate::api::extract::Caller;
use crate::api::extract::Publish;
use crate::api::extract::media_type;
use crate::api::extract::shown;
use crate::api::problem::Document;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::quota;
use crate::api::state::Api;

/// What an event has besides its data: attributes, quotes, names.
const FRAME_BYTES: usize = 64 << 10;
/// Lines that go into the inbox together, at most.
const GROUP_EVENTS: usize = 500;
const GROUP_BYTES: usize = 1 << 20;
/// The longest that a line waits for others.
const GROUP_WAIT: Duration = Duration::from_millis(20);
/// Rejected events that are told one by one; of a stream without end there may be as many as there are lines.
const REJECTED_MAX: usize = 10_000;

/// How events stand in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Single,
    Batch,
    Lines,
    Binary,
}

/// Takes events in. Answers when they are durable. One bad event never takes the others of its request down.
#[utoipa::path(
    post,
    path = "/v1/events",
    tag = "events",
    summary = "Publish events",
    request_body(
        description = "One event, a batch, one event per line, or (with `ce-*` headers) the payload of one event",
        content(
            (Object = "application/cloudevents+json"),
            (Vec<Object> = "application/cloudevents-batch+json"),
            (String = "application/x-ndjson"),
            (String = "*/*"),
        ),
    ),
    responses(
        (status = 202, description = "What became of each event; accepted ones are durable", body = Taken),
        (status = "4XX", description = "Nothing was accepted", body = Document, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now; of a stream, what was accepted before is counted in the answer",
            body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn publish(State(api): State<Api>, caller: Caller<Publish>, request: Request) -> Result<Response> {
    let (parts, content) = request.into_parts();
    let headers = &parts.headers;
    let limits = api.inbox.limits();
    // Base64 makes four bytes of three.
    let single_bytes = limits.event_bytes / 3 * 4 + FRAME_BYTES;
    let items = match mode(headers)? {
        Mode::Lines => return lines(&api.inbox, &caller.tenant, headers, content, single_bytes).await,
        Mode::Single => vec![structured(&body::read(headers, content, single_bytes).await?)],
        Mode::Batch => batch(&body::read(headers, content, limits.batch_bytes).await?, limits.batch_events)?,
        Mode::Binary => {
            let data = body::read(headers, content, limits.event_bytes).await?;
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            vec![Envelope::from_binary(headers, data)]
        }
    };
    let mut taken = Taken::default();
    let receipt = api.inbox.accept(&caller.tenant, items).await.map_err(|error| refused(error, &taken))?;
    taken.add(receipt, |index| index);
    taken.answer()
}

fn mode(headers: &HeaderMap) -> Result<Mode> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes());
    if let Some(encoding) = encoding.filter(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        let encoding = shown(&String::from_utf8_lossy(encoding));
        return Err(Problem::new(Code::MediaType, format!("the body is encoded as `{encoding}`; send it as it is")));
    }
    let media = media_type(headers);
    let in_headers = || headers.keys().any(|name| name.as_str().starts_with("ce-"));
    match media.as_str() {
        "application/cloudevents+json" => Ok(Mode::Single),
        "application/cloudevents-batch+json" => Ok(Mode::Batch),
        // Of other formats (Avro, Protobuf) the headers must not be taken for the event.
        other if other.starts_with("application/cloudevents") => Err(other_media(other)),
        _ if in_headers() => Ok(Mode::Binary),
        "application/x-ndjson" | "application/ndjson" => Ok(Mode::Lines),
        other => Err(other_media(other)),
    }
}

fn other_media(media: &str) -> Problem {
    let detail = match media {
        "" => "the request does not say what its body is".to_owned(),
        media => format!("`{}` is not taken here", shown(media)),
    };
    Problem::new(Code::MediaType, detail).hint(
        "send application/cloudevents+json (one event), application/cloudevents-batch+json (a list), \
         application/x-ndjson (one event per line), or the attributes as `ce-*` headers",
    )
}

/// One event as JSON.
fn structured(bytes: &Bytes) -> Result<Envelope, Rejection> {
    if let Err(error) = std::str::from_utf8(bytes) {
        let detail = format!("not valid UTF-8 after {} bytes", error.valid_up_to());
        return Err(Rejection::new("event:utf8", detail));
    }
    Envelope::from_json(bytes)
}

fn batch(body: &Bytes, most: usize) -> Result<Vec<Result<Envelope, Rejection>>> {
    let parts = split_batch(body, most).map_err(|rejection| Problem::new(Code::BodyMalformed, rejection.detail))?;
    if parts.len() > most {
        let detail = format!("the batch has more than the {most} events that are taken at once");
        return Err(Problem::new(Code::BodyTooLarge, detail)
            .hint("send smaller batches, or stream one event per line as application/x-ndjson"));
    }
    Ok(parts.iter().map(structured).collect())
}

/// Takes a stream of lines in, group by group.
async fn lines(inbox: &Inbox, tenant: &Tenant, headers: &HeaderMap, body: Body, longest: usize) -> Result<Response> {
    let mut pieces = Pieces::new(headers, body, inbox.limits().stream_bytes)?;
    let mut lines = Lines::new(longest);
    let mut group = Group { inbox, tenant, items: Vec::new(), indices: Vec::new(), bytes: 0, taken: Taken::default() };
    loop {
        let begun = Instant::now();
        let piece = match tokio::time::timeout(GROUP_WAIT, pieces.next()).await {
            Ok(piece) => piece,
            Err(_) => {
                group.hand_in().await?;
                pieces.next().await
            }
        };
        match piece {
            Ok(Some(piece)) => {
                for line in lines.feed(piece) {
                    group.push(line.index, line.content).await?;
                }
                // A sender that drips must not keep its own events waiting.
                if begun.elapsed() > GROUP_WAIT / 2 {
                    group.hand_in().await?;
                }
            }
            Ok(None) => break,
            Err(problem) => {
                group.hand_in().await?;
                return Err(group.taken.interrupted(problem));
            }
        }
    }
    if let Some(line) = lines.end() {
        group.push(line.index, line.content).await?;
    }
    group.hand_in().await?;
    group.taken.answer()
}

/// Lines on their way into the inbox, and what became of those before.
struct Group<'a> {
    inbox: &'a Inbox,
    tenant: &'a Tenant,
    items: Vec<Result<Envelope, Rejection>>,
    indices: Vec<u32>,
    bytes: usize,
    taken: Taken,
}

impl Group<'_> {
    async fn push(&mut self, index: u32, line: Result<Bytes, Rejection>) -> Result<()> {
        self.bytes += line.as_ref().map_or(0, Bytes::len);
        self.items.push(line.and_then(|line| structured(&line)));
        self.indices.push(index);
        if self.items.len() >= GROUP_EVENTS || self.bytes >= GROUP_BYTES {
            return self.hand_in().await;
        }
        Ok(())
    }

    async fn hand_in(&mut self) -> Result<()> {
        if self.items.is_empty() {
            return Ok(());
        }
        let (items, indices) = (std::mem::take(&mut self.items), std::mem::take(&mut self.indices));
        self.bytes = 0;
        let receipt = self.inbox.accept(self.tenant, items).await.map_err(|error| refused(error, &self.taken))?;
        self.taken.add(receipt, |index| indices.get(index as usize).copied().unwrap_or(index));
        Ok(())
    }
}

/// What became of a request's events.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = Receipt)]
pub struct Taken {
    /// Events that are now in the log.
    accepted: u64,
    /// Events that were there before: same source, same id.
    duplicates: u64,
    /// Events that were refused.
    rejected: Vec<Rejected>,
    /// Further refused events, beyond those that are told one by one.
    #[serde(skip_serializing_if = "is_zero")]
    rejected_more: u64,
    /// The ids of accepted and duplicate events, in the order of the request.
    ids: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An event that was refused.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = RejectedEvent)]
pub struct Rejected {
    /// Its place in the request, from 0; of a stream the line, blank ones counted.
    index: u32,
    /// For machines: `event:…`.
    code: &'static str,
    /// For people.
    detail: String,
}

impl Taken {
    fn add(&mut self, receipt: Receipt, index: impl Fn(u32) -> u32) {
        self.accepted += u64::from(receipt.accepted);
        self.duplicates += u64::from(receipt.duplicates);
        self.ids.extend(receipt.ids);
        for rejected in receipt.rejected {
            if self.rejected.len() < REJECTED_MAX {
                let inbox::Rejected { index: at, code, detail } = rejected;
                self.rejected.push(Rejected { index: index(at), code, detail });
            } else {
                self.rejected_more += 1;
            }
        }
    }

    fn answer(self) -> Result<Response> {
        if self.accepted + self.duplicates > 0 {
            return Ok((StatusCode::ACCEPTED, Json(self)).into_response());
        }
        let detail = match self.rejected.as_slice() {
            [] => "there is no event in the body".to_owned(),
            [one] => format!("the event was not accepted: {}", one.detail),
            many => {
                let count = many.len() as u64 + self.rejected_more;
                format!("none of the {count} events was accepted; the first: {}", many[0].detail)
            }
        };
        Err(self.told(Problem::new(Code::EventsRejected, detail)))
    }

    /// The request ended early by this problem; what was taken before stays taken, and the answer says so.
    fn interrupted(&self, problem: Problem) -> Problem {
        if self.accepted + self.duplicates == 0 && self.rejected.is_empty() {
            return problem;
        }
        let (accepted, duplicates) = (self.accepted, self.duplicates);
        let detail = format!("after {accepted} accepted and {duplicates} duplicate events: {}", problem.detail());
        let anew = Problem::new(problem.code, detail)
            .hint("send all of them again: what has been accepted counts as a duplicate then");
        self.told(anew)
    }

    fn told(&self, problem: Problem) -> Problem {
        let problem = problem
            .with("accepted", self.accepted)
            .with("duplicates", self.duplicates)
            .with("rejected", json!(self.rejected))
            .with("ids", json!(self.ids));
        if self.rejected_more > 0 { problem.with("rejected_more", self.rejected_more) } else { problem }
    }
}

/// Why the inbox took nothing, after what it had taken before.
fn refused(error: inbox::Error, before: &Taken) -> Problem {
    let again = Duration::from_secs(1);
    let (problem, wait) = match error {
        inbox::Error::Suspended => {
            (Problem::new(Code::TenantSuspended, "the tenant is suspended; no events are taken"), None)
        }
        inbox::Error::Quota(refused) => (quota::problem(refused), Some(refused.retry_after)),
        inbox::Error::Busy(wait) => {
            let detail = "too many events are on their way into the store";
            (Problem::new(Code::Busy, detail).hint("send it again a little later"), Some(wait))
        }
        inbox::Error::Unavailable(error @ bulkhead_store::Error::Unavailable { .. }) => {
            tracing::warn!(%error, "the store takes no events");
            (Problem::new(Code::StoreUnavailable, "the store cannot take events now"), Some(again))
        }
        inbox::Error::Unavailable(error) => (Problem::from(error), None),
        inbox::Error::Full => (
            Problem::new(Code::StoreFull, "the store's disk is full; no events can be taken")
                .hint("the operator has to make room; then it goes on by itself"),
            None,
        ),
    };
    let problem = before.interrupted(problem);
    match wait {
        Some(wait) => problem.retry_after(wait),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;
    use axum::http::HeaderValue;

    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_mode_follows_from_the_headers() {
        let mode = |list| mode(&headers(list)).map_err(|problem| problem.code);
        assert_eq!(mode(&[("content-type", "application/cloudevents+json; charset=utf-8")]), Ok(Mode::Single));
        assert_eq!(mode(&[("content-type", "Application/CloudEvents-Batch+JSON")]), Ok(Mode::Batch));
        assert_eq!(mode(&[("content-type", "application/x-ndjson")]), Ok(Mode::Lines));
        assert_eq!(mode(&[("content-type", "application/json"), ("ce-id", "1")]), Ok(Mode::Binary));
        assert_eq!(mode(&[("content-type", "application/x-ndjson"), ("ce-id", "1")]), Ok(Mode::Binary));
        assert_eq!(mode(&[("ce-specversion", "1.0")]), Ok(Mode::Binary));
        let wrong: [&[(&str, &str)]; 5] = [
            &[],
            &[("content-type", "application/json")],
            &[("content-type", "application/cloudevents+avro"), ("ce-id", "1")],
            &[("content-type", "text/plain; x=application/cloudevents+json")],
            &[("content-type", "application/cloudevents+json"), ("content-encoding", "gzip")],
        ];
        for list in wrong {
            assert_eq!(mode(list), Err(Code::MediaType), "{list:?}");
        }
    }

    #[test]
    fn what_is_no_event_says_which_way() {
        let code = |bytes: &'static [u8]| structured(&Bytes::from_static(bytes)).expect_err("because it is wrong").code;
        assert_eq!(code(b"{\"id\":\"\xff\"}"), "event:utf8");
        assert_eq!(code(b"{\"id\":"), "event:json");
        assert_eq!(code(b"[]"), "event:json");
        let deep = format!("{{\"data\":{}{}}}", "[".repeat(500), "]".repeat(500));
        assert_eq!(structured(&Bytes::from(deep)).expect_err("because it is too deep").code, "event:too-deep");
    }

    #[test]
    fn one_bad_event_of_a_batch_is_one_bad_event() {
        let good = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a","data":{"x":"]},{["}}"#;
        let deep = format!("{{\"data\":{}{}}}", "[".repeat(500), "]".repeat(500));
        let body = Bytes::from(format!("[{good}, {deep}, {{\"id\": tru}}, 7 ,{good}]"));
        let items = batch(&body, 5).expect("because it is a list");
        let codes: Vec<&str> = items.iter().map(|item| item.as_ref().map_or_else(|it| it.code, |_| "ok")).collect();
        assert_eq!(codes, ["ok", "event:too-deep", "event:json", "event:json", "ok"]);
        let mut bytes = body.to_vec();
        bytes.splice(2..2, [0xff]);
        let items = batch(&Bytes::from(bytes), 5).expect("because it is a list");
        assert_eq!(items[0].as_ref().expect_err("because it is no text").code, "event:utf8");
        assert!(items[4].is_ok());
        assert_eq!(batch(&body, 4).expect_err("because it has five").code, Code::BodyTooLarge);
        for wrong in ["", "{}", "[{}", "[{},]", "[{}] x", "[,]", "[\"a]"] {
            let code = batch(&Bytes::from_static(wrong.as_bytes()), 5).expect_err(wrong).code;
            assert_eq!(code, Code::BodyMalformed, "{wrong}");
        }
        assert!(batch(&Bytes::from_static(b" [ ] "), 5).expect("because it is a list").is_empty());
    }

    #[test]
    fn what_was_taken_before_a_failure_is_told() {
        let mut taken = Taken::default();
        let rejected = inbox::Rejected { index: 1, code: "event:id", detail: "no id".to_owned() };
        let receipt = Receipt { accepted: 2, duplicates: 1, rejected: vec![rejected], ids: vec!["a".to_owned()] };
        taken.add(receipt, |index| index + 10);
        assert_eq!(taken.rejected[0].index, 11);
        let problem = refused(inbox::Error::Busy(Duration::from_secs(3)), &taken);
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
        let problem = refused(inbox::Error::Full, &taken);
        assert_eq!(problem.code, Code::StoreFull);
        assert!(problem.detail().starts_with("after 2 accepted and 1 duplicate events: "), "{}", problem.detail());
    }

    #[test]
    fn rejections_without_end_are_counted_only() {
        let mut taken = Taken::default();
        let rejected = inbox::Rejected { index: 0, code: "event:id", detail: String::new() };
        for _ in 0..3 {
            let receipt = Receipt { rejected: vec![rejected.clone(); REJECTED_MAX / 2], ..Receipt::default() };
            taken.add(receipt, |index| index);
        }
        assert_eq!((taken.rejected.len(), taken.rejected_more), (REJECTED_MAX, REJECTED_MAX as u64 / 2));
        assert_eq!(taken.answer().expect_err("because nothing was accepted").code, Code::EventsRejected);
    }
}
