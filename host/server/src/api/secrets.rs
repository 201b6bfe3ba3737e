//! Secrets: set and removed here, opened only where they are used; values never come back.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bulkhead_flow::inbox::codec::rfc3339;
use bulkhead_flow::vault::SECRET_BYTES_MAX;
use secrecy::ExposeSecret as _;
use secrecy::SecretString;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::code::Code;
use crate::api::extract::Admin;
use crate::api::extract::Body;
use crate::api::extract::Caller;
use crate::api::extract::Params;
use crate::api::extract::Path;
use crate::api::extract::Read;
use crate::api::extract::shown;
use crate::api::page;
use crate::api::page::Page;
use crate::api::page::Paging;
use crate::api::problem::Fault;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;

/// Secrets of a tenant: every view of its settings carries them all.
const SECRETS_MAX: usize = 256;
/// How often a version is taken anew when another change came first.
const ATTEMPTS: usize = 8;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(put, delete))
}

/// A secret, without its value.
#[derive(Debug, Serialize, ToSchema)]
pub struct Secret {
    /// Its name.
    name: String,
    /// One more for each change.
    version: u32,
    /// When it last changed.
    updated: String,
}

/// A value to be kept.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSecret {
    /// The value. It is encrypted before it is stored, and never given back.
    #[schema(value_type = String)]
    value: SecretString,
}

/// All secrets' names and versions.
#[utoipa::path(
    get, path = "/v1/secrets", tag = "secrets", summary = "All secrets", params(Paging),
    responses((status = 200, description = "A page of secrets, without values", body = Page<Secret>))
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<Read>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<Secret>>> {
    let secrets = api.store.secrets(caller.id()).await?;
    let secrets = secrets
        .into_iter()
        .map(|row| Secret { name: row.name, version: row.version, updated: rfc3339(row.updated) })
        .collect();
    page::of_names(&api, caller.uid(), "secrets", &paging, secrets, |secret: &Secret| &secret.name).map(Json)
}

/// Sets a secret. Sinks and plugins use the new value from their next attempt and batch on.
#[utoipa::path(
    put, path = "/v1/secrets/{name}", tag = "secrets", summary = "Set a secret", request_body = NewSecret,
    params(("name" = String, Path, description = "The secret's name")),
    responses((status = 200, description = "Its name and version", body = Secret), (status = 422, description = "The name or the value does not fit"))
)]
async fn put(
    State(api): State<Api>,
    caller: Caller<Admin>,
    Path(name): Path<String>,
    Body(new): Body<NewSecret>,
) -> Result<Json<Secret>> {
    if !crate::manifest::is_plain_name(&name) {
        return Err(Problem::new(Code::FieldInvalid, format!("`{}` is no name of a secret", shown(&name)))
            .hint("small letters, digits and dashes, at most 64, beginning with a letter"));
    }
    let length = new.value.expose_secret().len();
    if length == 0 || length > SECRET_BYTES_MAX {
        let fault = Fault::field("value", format!("a value has 1 to {SECRET_BYTES_MAX} bytes"));
        return Err(Problem::new(Code::FieldInvalid, "the value does not fit").faults([fault]));
    }
    for _ in 0..ATTEMPTS {
        let present = api.store.secrets(caller.id()).await?;
        let version = present.iter().find(|row| row.name == name).map_or(1, |row| row.version + 1);
        if version == 1 && present.len() >= SECRETS_MAX {
            return Err(Problem::new(Code::Conflict, format!("a tenant has at most {SECRETS_MAX} secrets")));
        }
        let sealed = api.vault.seal(caller.uid(), &name, version, &new.value);
        let sealed = sealed.map_err(|error| Problem::internal(&error))?;
        let now = api.now();
        match api.store.put_secret(caller.id(), &name, version, &sealed, now).await {
            Ok(()) => {
                api.changed(caller.id()).await;
                return Ok(Json(Secret { name, version, updated: rfc3339(now) }));
            }
            Err(bulkhead_store::Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::new(Code::Conflict, "the secret is changed by others all the time; try again"))
}

/// Removes a secret. What needs it fails from then on, and says so.
#[utoipa::path(
    delete, path = "/v1/secrets/{name}", tag = "secrets", summary = "Remove a secret",
    params(("name" = String, Path, description = "The secret's name")),
    responses((status = 204, description = "It is gone"), (status = 404, description = "No such secret"))
)]
async fn delete(State(api): State<Api>, caller: Caller<Admin>, Path(name): Path<String>) -> Result<StatusCode> {
    if !api.store.delete_secret(caller.id(), &name).await? {
        return Err(Problem::not_found("secret", &name));
    }
    api.changed(caller.id()).await;
    Ok(StatusCode::NO_CONTENT)
}
