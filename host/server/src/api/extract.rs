//! What handlers ask of a request: who calls and may they, the query, the body. Refusals are problems.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequest;
use axum::extract::FromRequestParts;
use axum::extract::OptionalFromRequestParts;
use axum::extract::Query;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header;
use axum::http::request::Parts;
use bulkhead_domain::id::TenantId;
use bulkhead_store::catalogue::Tenant;
use serde::de::DeserializeOwned;

use crate::api::body;
use crate::api::code::Code;
use crate::api::places::Place;
use crate::api::problem::Fault;
use crate::api::problem::Problem;
use crate::api::state::Api;
use crate::auth::Identity;
use crate::auth::scope;
use crate::auth::scope::Scope;
use crate::toml_text;

/// Which scope a handler needs; given as a type, so that no handler can forget to look.
pub trait Needs: Send + Sync {
    /// The scope.
    const SCOPE: Option<Scope>;
}

macro_rules! needs {
    ($($(#[$doc:meta])* $name:ident = $scope:expr;)*) => {
        $($(#[$doc])* #[derive(Debug, Clone, Copy)] pub struct $name; impl Needs for $name { const SCOPE: Option<Scope> = $scope; })*
    };
}

needs! {
    /// `publish`
    Publish = Some(Scope::Publish);
    /// `read`
    Read = Some(Scope::Read);
    /// `rules`
    Rules = Some(Scope::Rules);
    /// `plugins`
    Plugins = Some(Scope::Plugins);
    /// `consent`
    Consent = Some(Scope::Consent);
    /// `admin`
    Admin = Some(Scope::Admin);
}

/// A caller with a tenant's key that has a scope. The only way to a tenant's id in this crate's handlers.
#[derive(Debug, Clone)]
pub struct Caller<N> {
    /// The tenant, from the key.
    pub tenant: Tenant,
    /// The key's id: the author of what it changes.
    pub key: String,
    scopes: Vec<String>,
    /// Among the requests in work, until the handler is done.
    place: Option<Arc<Place>>,
    needs: PhantomData<N>,
}

impl<N> Caller<N> {
    /// The tenant's id.
    pub fn id(&self) -> TenantId {
        self.tenant.id
    }

    /// The tenant's id as the outside sees it.
    pub fn uid(&self) -> &str {
        &self.tenant.uid
    }

    /// Makes room for another request: what follows may take for ever.
    pub fn leave(&mut self) {
        self.place = None;
    }

    /// May it do this, too?
    pub fn may(&self, scope: Scope) -> bool {
        scope::covers(&self.scopes, scope)
    }

    /// Refuses what it may not do, besides what it came for.
    pub fn also(&self, scope: Scope) -> Result<(), Problem> {
        if self.may(scope) {
            return Ok(());
        }
        let detail = format!("the key lacks the scope `{scope}`; it has: {}", self.scopes.join(", "));
        Err(Problem::new(Code::ScopeMissing, detail).hint("ask the operator for a key with that scope"))
    }
}

async fn identify(parts: &Parts, api: &Api) -> Result<Identity, Problem> {
    let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let identity = api.keyring.identify(header).await?;
    match &identity {
        Identity::Tenant { tenant, key, .. } => {
            tracing::Span::current().record("tenant", tenant.name.as_str()).record("key", key.as_str());
        }
        Identity::Operator { key } => _ = tracing::Span::current().record("key", key.as_str()),
    }
    Ok(identity)
}

impl<N: Needs> FromRequestParts<Api> for Caller<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Identity::Tenant { tenant, key, scopes } = identify(parts, api).await? else {
            return Err(Problem::new(Code::TenantOnly, "this is an operator's key, and it belongs to no tenant")
                .hint("use a tenant's key; POST /admin/v1/tenants/{tenant}/keys makes one"));
        };
        let mut caller = Self { tenant: *tenant, key, scopes, place: None, needs: PhantomData };
        if let Some(scope) = N::SCOPE {
            caller.also(scope)?;
        }
        caller.place = Some(Arc::new(api.places.take(caller.tenant.id).await?));
        Ok(caller)
    }
}

/// A caller with an operator's key.
#[derive(Debug, Clone)]
pub struct Operator;

impl FromRequestParts<Api> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match identify(parts, api).await? {
            Identity::Operator { .. } => Ok(Self),
            Identity::Tenant { .. } => {
                Err(Problem::new(Code::OperatorOnly, "this is a tenant's key; the operator's begins with `bho_`"))
            }
        }
    }
}

/// The query, every parameter known.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Query::<T>::try_from_uri(&parts.uri).map(|Query(query)| Self(query)).map_err(|rejection| {
            let text = rejection.body_text();
            let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            // `limit: invalid digit found in string`
            let (name, text) = text.split_once(": ").unwrap_or(("query", text));
            let (mut message, hint) = toml_text::explain(text);
            if !text.starts_with("unknown field") {
                message = format!("`{}`: {message}", shown(name));
            }
            let problem = Problem::new(Code::QueryInvalid, message);
            match hint {
                Some(hint) => problem.hint(hint),
                None => problem,
            }
        })
    }
}

/// A part of the path. That it is text is all that is known.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        use axum::extract::Path as AxumPath;
        let path = <AxumPath<T> as FromRequestParts<Api>>::from_request_parts(parts, api).await;
        path.map(|AxumPath(path)| Self(path)).map_err(|_| Problem::not_found("such thing as", parts.uri.path()))
    }
}

impl<T: DeserializeOwned + Send + 'static> OptionalFromRequestParts<Api> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Option<Self>, Problem> {
        <Self as FromRequestParts<Api>>::from_request_parts(parts, api).await.map(Some)
    }
}

/// A JSON body, every field known.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, content) = request.into_parts();
        require_json(&parts.headers)?;
        let bytes = body::read(&parts.headers, content, api.limits.document_bytes).await?;
        parse(&bytes).map(Self)
    }
}

/// The media type of the body, in lower case and without parameters; empty if there is none.
pub fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let media = media_type(headers);
    if media.is_empty() || media == "application/json" || media.ends_with("+json") {
        return Ok(());
    }
    Err(Problem::new(Code::MediaType, format!("`{}` is not taken here; send application/json", shown(&media))))
}

/// Somebody's text, fit to be shown.
pub fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

/// Reads JSON; a fault names the field.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // A list would be read as the values of the fields, in order: nobody means that.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::new(Code::FieldInvalid, "the body is a list; it must be an object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner();
        if inner.is_data() {
            let text = inner.to_string();
            let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
            let (message, hint) = toml_text::explain(text);
            let mut fault = Fault::field(path.trim_matches('.'), message.clone());
            (fault.line, fault.column, fault.hint) = (inner.line(), inner.column(), hint);
            return Problem::new(Code::FieldInvalid, format!("the body is not as it should be: {message}"))
                .faults([fault]);
        }
        not_json(inner)
    })?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::new(Code::BodyMalformed, format!("the body is not JSON: {error}"))
}
