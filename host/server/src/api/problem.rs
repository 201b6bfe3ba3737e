//! Problems: every answer that is no success, as RFC 9457 wants it.
//!
//! A [`Problem`] says what is wrong in a sentence, where, and what to do. Texts of the store, paths and addresses of the
//! host never get into it: what only the operator should know is logged, under the request's id that the answer names.

use std::sync::Arc;

use axum::Json;
use axum::http::HeaderValue;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use bulkhead_domain::rule::Diagnostic;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::code::Code;
use crate::auth::Refusal;

/// What a handler gives.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// The media type of problems.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A problem.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Which.
    pub code: Code,
    inner: Box<Inner>,
}

#[derive(Debug, Clone, Default)]
struct Inner {
    detail: String,
    hint: Option<String>,
    errors: Vec<Fault>,
    retry_after: Option<u64>,
    more: Map<String, Value>,
}

/// One thing that is wrong with what was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// The field at fault: `steps[1].handle.plugin`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The line, from 1, where what was sent is a text.
    #[serde(skip_serializing_if = "is_zero")]
    pub line: usize,
    /// The column in characters, from 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The line at fault with a caret under the place.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub excerpt: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl From<Diagnostic> for Fault {
    fn from(diagnostic: Diagnostic) -> Self {
        let Diagnostic { line, column, path, message, hint, excerpt } = diagnostic;
        Self { path, line, column, message, hint, excerpt }
    }
}

impl Fault {
    /// About a field.
    pub fn field(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), ..Self::default() }
    }

    /// With advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A problem as it is sent.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document {
    /// A link to the page about this kind of problem, on this host: `/docs/errors/<code>`.
    #[serde(rename = "type")]
    kind: String,
    /// The kind of problem in a few words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// The same as the last part of `type`.
    code: &'static str,
    /// What is wrong, in one sentence.
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// What is wrong with the parts of what was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
    /// The request's id, by which the operator finds it in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// Whatever else belongs to this kind of problem.
    #[serde(flatten)]
    #[schema(ignore)]
    more: Map<String, Value>,
}

impl Problem {
    /// A problem with a sentence about it.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, inner: Box::new(Inner { detail: detail.into(), ..Inner::default() }) }
    }

    /// The thing named is not in this tenant; whether it is in another is nobody's business.
    pub fn not_found(what: &str, name: &str) -> Self {
        let name: String = name.chars().take(128).flat_map(char::escape_default).collect();
        Self::new(Code::NotFound, format!("there is no {what} `{name}`"))
    }

    /// A version that was there once.
    pub fn let_go(plugin: &str, version: u32) -> Self {
        let detail = format!(
            "version {version} of plugin `{plugin}` was let go: it was retired, and only the newest retired versions are kept"
        );
        Self::new(Code::NotFound, detail)
            .hint("its history is kept; `bulkhead plugin replay RUN --component FILE` makes its recorded calls with a component of yours")
    }

    /// A fault of the host. The cause goes to the log only.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed by the host's fault");
        Self::new(Code::Internal, "the host could not do this; its log says more")
    }

    /// With advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// With what is wrong in detail.
    pub fn faults(mut self, faults: impl IntoIterator<Item = impl Into<Fault>>) -> Self {
        self.inner.errors.extend(faults.into_iter().map(Into::into));
        self
    }

    /// With the time after which it may be otherwise, in whole seconds.
    pub fn retry_after(mut self, wait: std::time::Duration) -> Self {
        let seconds = u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX);
        self.inner.retry_after = Some(seconds.max(1));
        self
    }

    /// With further fields.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.inner.more.insert(name.to_owned(), value.into());
        self
    }

    /// What is wrong, in one sentence.
    pub fn detail(&self) -> &str {
        &self.inner.detail
    }

    /// As it is sent, under a request's id.
    pub fn render(&self, request_id: Option<&str>) -> Response {
        let document = Document {
            kind: format!("/docs/errors/{}", self.code.text()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            code: self.code.text(),
            detail: self.inner.detail.clone(),
            hint: self.inner.hint.clone(),
            errors: self.inner.errors.clone(),
            request_id: request_id.map(str::to_owned),
            more: self.inner.more.clone(),
        };
        let mut response = (self.code.status(), Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.inner.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code.status() == axum::http::StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A problem on its way out, until the request's id is known.
#[derive(Debug, Clone)]
pub struct Unrendered(pub Arc<Problem>);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        response.extensions_mut().insert(Unrendered(Arc::new(self)));
        response
    }
}

impl From<bulkhead_store::Error> for Problem {
    fn from(error: bulkhead_store::Error) -> Self {
        use bulkhead_store::Error;
        match error {
            Error::Unavailable { .. } => {
                tracing::warn!(%error, "the store is unavailable");
                let wait = std::time::Duration::from_secs(1);
                Self::new(Code::StoreUnavailable, "the store cannot do this now; send it again").retry_after(wait)
            }
            Error::Full => Self::new(Code::StoreFull, "the store's disk is full; nothing was changed")
                .hint("the operator has to make room; then it goes on by itself"),
            Error::NotFound { what, name } => Self::not_found(what, &name),
            Error::Conflict { what, name, detail } => Self::new(Code::Conflict, format!("{what} `{name}`: {detail}")),
            Error::Unproven { plugin, version, lack } => {
                let detail = format!("version {version} of plugin `{plugin}` needs a preview first: {lack}");
                Self::new(Code::PreviewRequired, detail).hint(format!("bulkhead plugin preview {plugin} {version}"))
            }
            Error::Unagreed { plugin, version, added } => {
                let added = added.join(", ");
                Self::new(Code::ConsentNeeded, format!("the version asks for more than the active one has: {added}")).hint(
                    format!("somebody with a key that has the scope `consent` approves it: bulkhead plugin approve {plugin} {version}"),
                )
            }
            Error::Weaker { plugin } => {
                let detail = format!(
                    "what plugin `{plugin}` asks of its versions would become less: for that the key needs the scope `consent`"
                );
                Self::new(Code::ScopeMissing, detail).hint("somebody with a key that has that scope sets it")
            }
            Error::LetGo { plugin, version } => Self::let_go(&plugin, version),
            Error::Crowded { limit, state, components, added } => {
                let used = state.saturating_add(components);
                let detail = format!(
                    "the tenant's plugins keep {used} bytes ({state} of state, {components} of components), and this \
                     component has {added}: more than the limit, {limit}"
                );
                Self::new(Code::LimitStorage, detail)
                    .hint(
                        "retire versions that are not used any more (`bulkhead plugin retire NAME VERSION`): retired ones \
                         make room, oldest first; let plugins delete state; or ask the operator for more",
                    )
                    .with("quota", "storage")
                    .with("limit", limit)
                    .with("used", used)
            }
            Error::Damaged(_) => Self::internal(&error),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing => Self::new(Code::KeyMissing, "the request has no key")
                .hint("send the header `Authorization: Bearer bhk_…`"),
            Refusal::Invalid => Self::new(Code::KeyInvalid, "the key is mistyped, unknown or revoked"),
            Refusal::TooManyFailures(wait) => {
                Self::new(Code::TooManyFailures, "too many wrong keys with this id").retry_after(wait)
            }
            Refusal::Suspended => Self::new(Code::TenantSuspended, "the tenant is suspended; its keys are refused"),
            Refusal::Unavailable(error) => error.into(),
        }
    }
}
