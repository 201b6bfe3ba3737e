//! What every request goes through: an id, a span, and an answer whatever happens.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::MatchedPath;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::header;
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use axum::response::Response;
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use crate::api::code::Code;
use crate::api::problem::Problem;
use crate::api::problem::Unrendered;
use crate::auth;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken from a caller.
const REQUEST_ID_MAX: usize = 64;

/// Gives the request an id and a span, and sees to it that it is answered: a panic is a fault of the host, a key in the URL
/// a mistake that ends up in logs and is refused.
pub async fn finish(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!(
        "request",
        request_id = id,
        %method,
        path = request.uri().path().chars().take(200).collect::<String>(),
        tenant = tracing::field::Empty,
        key = tracing::field::Empty
    );
    let began = Instant::now();
    let answered = async {
        if auth::text::is_in(&request.uri().to_string()) {
            return Problem::new(Code::KeyInUrl, "a key stands in the URL, where proxies and histories keep it")
                .hint("send it in the header `Authorization: Bearer …`, and revoke this one")
                .into_response();
        }
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
                metrics::counter!("bulkhead_host_panics_total").increment(1);
                Problem::internal(&"a handler panicked").into_response()
            }
        }
    };
    let mut response = answered.instrument(span.clone()).await;
    if let Some(Unrendered(problem)) = response.extensions_mut().remove::<Unrendered>() {
        response = problem.render(Some(&id));
    }
    let (status, took) = (response.status(), began.elapsed());
    span.in_scope(|| {
        let millis = took.as_millis();
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), millis, "answered");
        } else {
            tracing::debug!(status = status.as_u16(), millis, "answered");
        }
    });
    let class = format!("{}xx", status.as_u16() / 100);
    let labels = [("method", method_label(&method)), ("route", route), ("status", class)];
    metrics::counter!("bulkhead_http_requests_total", &labels).increment(1);
    metrics::histogram!("bulkhead_http_request_seconds").record(took);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'none'"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Anybody can invent methods; a label must not follow them.
fn method_label(method: &axum::http::Method) -> String {
    let known = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    known.iter().find(|name| **name == method.as_str()).map_or("other", |name| name).to_owned()
}

/// The caller's id if it is fit for a log, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |text: &&str| {
        let byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (1..=REQUEST_ID_MAX).contains(&text.len()) && text.bytes().all(byte) && !auth::text::is_in(text)
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(plain);
    given.map_or_else(|| format!("req_{}", uuid::Uuid::now_v7().simple()), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_s_request_id_is_taken_only_if_it_is_plain() {
        let id = |text: &'static str| request_id(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(text))]));
        assert_eq!(id("abc-1.2_3"), "abc-1.2_3");
        for odd in ["", "a b", "a\"b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            assert!(id(odd).starts_with("req_"), "{odd}");
        }
        assert!(request_id(&HeaderMap::new()).starts_with("req_"));
    }
}
