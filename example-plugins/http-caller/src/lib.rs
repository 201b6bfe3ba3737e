//! What tests of outbound HTTP ask of the host. The event says what is called; what came back goes to state, one key a
//! call: `answer:0`, `answer:1` …
//!
//! All calls are begun before the first answer is waited for, unless `"one_by_one"` is true.

use bulkhead_plugin::{Event, Failure, handler, state};
use serde::{Deserialize, Serialize};
use wasi::http::outgoing_handler;
use wasi::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, Method, OutgoingBody, OutgoingRequest, RequestOptions,
    Scheme,
};
use wasi::io::streams::StreamError;

#[allow(unsafe_code, missing_docs, reason = "generated: the calls across the boundary")]
mod generated {
    wit_bindgen::generate!({
        path: "../../host/sandbox/wit",
        world: "bulkhead:portable/outbound",
        generate_all,
    });
}
use generated::wasi;

#[derive(Deserialize)]
struct Order {
    calls: Vec<Call>,
    #[serde(default)]
    one_by_one: bool,
    /// Fails at the end, so that nothing is kept and the run is tried again.
    #[serde(default)]
    fail: bool,
}

#[derive(Deserialize)]
struct Call {
    #[serde(default = "get")]
    method: String,
    /// `https://api.example.com/path`
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: Option<String>,
    /// Sends so many bytes.
    #[serde(default)]
    body_bytes: Option<usize>,
    #[serde(default)]
    timeout_ms: Option<u64>,
    /// Waits for the answer without having finished the body.
    #[serde(default)]
    unfinished: bool,
}

/// What came back.
#[derive(Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    /// The beginning of the body.
    body: String,
    body_bytes: usize,
}

#[handler]
fn handle(event: Event<Order>) -> Result<(), Failure> {
    let order = &event.data;
    let mut begun = Vec::new();
    for (at, call) in order.calls.iter().enumerate() {
        let exchange = begin(call);
        if order.one_by_one {
            keep(at, exchange.and_then(|exchange| finish(&exchange)))?;
        } else {
            begun.push(exchange);
        }
    }
    for (at, exchange) in begun.into_iter().enumerate() {
        keep(at, exchange.and_then(|exchange| finish(&exchange)))?;
    }
    if order.fail { Err(Failure::retry("as the event asks")) } else { Ok(()) }
}

fn keep(at: usize, answer: Result<Answer, ErrorCode>) -> Result<(), Failure> {
    let answer = answer.unwrap_or_else(|error| Answer {
        status: None,
        error: Some(format!("{error:?}")),
        headers: Vec::new(),
        body: String::new(),
        body_bytes: 0,
    });
    state::set(&format!("answer:{at}"), &answer)?;
    Ok(())
}

fn begin(call: &Call) -> Result<FutureIncomingResponse, ErrorCode> {
    let headers: Vec<(String, Vec<u8>)> =
        call.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    let headers = Fields::from_list(&headers).map_err(|error| ErrorCode::InternalError(Some(format!("{error:?}"))))?;
    let request = OutgoingRequest::new(headers);
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    let (scheme, rest) = call.url.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    request.set_method(&method(&call.method)).map_err(invalid)?;
    request.set_scheme(Some(&scheme_of(scheme))).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query((!path.is_empty()).then_some(path)).map_err(invalid)?;
    let options = call.timeout_ms.map(|timeout| {
        let options = RequestOptions::new();
        let _ = options.set_first_byte_timeout(Some(timeout * 1_000_000));
        options
    });
    let body = match (&call.body, call.body_bytes) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(bytes)) => Some(vec![b'x'; bytes]),
        (None, None) => None,
    };
    let outgoing = body.as_ref().and_then(|_| request.body().ok());
    let exchange = outgoing_handler::handle(request, options)?;
    if let (Some(bytes), Some(outgoing)) = (body, outgoing) {
        write(&outgoing, &bytes)?;
        if call.unfinished {
            // It is dropped, which is no end of a body.
            drop(outgoing);
        } else {
            OutgoingBody::finish(outgoing, None)?;
        }
    }
    Ok(exchange)
}

fn write(body: &OutgoingBody, bytes: &[u8]) -> Result<(), ErrorCode> {
    let broken = |_: StreamError| ErrorCode::HttpRequestBodySize(None);
    let stream = body.write().map_err(|()| ErrorCode::InternalError(Some("the body is taken".to_owned())))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let room = usize::try_from(stream.check_write().map_err(broken)?).unwrap_or(usize::MAX);
        let (piece, next) = rest.split_at(room.min(rest.len()));
        stream.write(piece).map_err(broken)?;
        rest = next;
    }
    stream.blocking_flush().map_err(broken)
}

fn finish(exchange: &FutureIncomingResponse) -> Result<Answer, ErrorCode> {
    exchange.subscribe().block();
    let internal = |text: &str| ErrorCode::InternalError(Some(text.to_owned()));
    let response = exchange.get().ok_or_else(|| internal("not ready"))?.map_err(|()| internal("taken"))??;
    let headers = response.headers().entries();
    let body = response.consume().map_err(|()| internal("the body is taken"))?;
    let stream = body.stream().map_err(|()| internal("the stream is taken"))?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(piece) => bytes.extend(piece),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => return Err(internal(&error.to_debug_string())),
        }
    }
    drop(stream);
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    Ok(Answer {
        status: Some(response.status()),
        error: None,
        headers: headers
            .into_iter()
            .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
            .collect(),
        body: String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned(),
        body_bytes: bytes.len(),
    })
}

fn get() -> String {
    "GET".to_owned()
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        other => Method::Other(other.to_owned()),
    }
}

fn scheme_of(name: &str) -> Scheme {
    match name {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    }
}
