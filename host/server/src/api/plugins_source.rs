//! A plugin from text: JavaScript is sent, and what comes of it is a version like any other.
//!
//! The component is made here, without a compiler: see [`bulkhead_sandbox::script`]. From then on it goes the way of an
//! upload: inspected, stored, its manifest granted, its digest that of its bytes, which are the source's, too.

use std::sync::LazyLock;

use axum::extract::Request;
use axum::extract::State;
use axum::response::Response;
use bulkhead_domain::id::TenantId;
use bulkhead_sandbox::script;
use bulkhead_sandbox::script::Unfit;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::body;
use crate::api::code::Code;
use crate::api::extract::Caller;
use crate::api::extract::Params;
use crate::api::extract::Path;
use crate::api::extract::Plugins;
use crate::api::extract::media_type;
use crate::api::extract::shown;
use crate::api::places::Places;
use crate::api::plugins;
use crate::api::plugins::UploadQuery;
use crate::api::plugins::Uploaded;
use crate::api::problem::Fault;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::api::upload::Parts;
use crate::install;
use crate::manifest;
use crate::signature;

/// Bytes of a body: a source that is all escapes in JSON, a manifest and a signature.
const BODY_MAX: usize = 2 * script::SIZE_MAX + manifest::SIZE_MAX + 2 * signature::SIZE_MAX;
/// Sources that are looked at at a time, one of them of one tenant: each is run for up to two seconds.
static CHECKS: LazyLock<Places> = LazyLock::new(|| Places::new(2, "sources"));

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(upload_source))
}

/// A source with its manifest.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PluginSource)]
pub struct Source {
    /// JavaScript: a function `handle(event)`, a function `transform(event)`, or both.
    source: String,
    /// Its manifest (plugin.toml); without one the plugin gets no grants.
    #[serde(default)]
    manifest: Option<String>,
    /// The signature of the component that comes of it, as `bulkhead plugin sign` writes it.
    #[serde(default)]
    signature: Option<String>,
}

/// Makes a version of a plugin from JavaScript. The body is the text (`text/javascript`), or JSON with the text and a
/// manifest. At most 256 KiB. The same text with the same manifest is the version that is there already.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/source", tag = "plugins", summary = "Make a version from JavaScript",
    params(("name" = String, Path, description = "The plugin's name"), UploadQuery),
    request_body(content((Source = "application/json"), (String = "text/javascript"))),
    responses(
        (status = 201, description = "A new version", body = Uploaded),
        (status = 200, description = "The version that is there already", body = Uploaded),
        (status = 422, description = "The manifest or the source is refused; `errors` says where")
    )
)]
async fn upload_source(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
    Params(query): Params<UploadQuery>,
    request: Request,
) -> Result<Response> {
    // Before anything is read.
    if !manifest::is_plain_name(&name) {
        return Err(plugins::refused(install::Error::Name(name)));
    }
    let _place = api.uploads.place(caller.id()).await?;
    let Source { source, manifest, signature } = read(request).await?;
    let sandbox = api.sandbox.clone();
    let make = move || script::component(&sandbox, &source).map_err(|unfit| refused(unfit, &source));
    let wasm = in_turn(&CHECKS, caller.id(), make).await??;
    plugins::install(&api, &caller, name, Parts { wasm: wasm.into(), manifest, signature }, &query).await
}

/// The body in either form.
async fn read(request: Request) -> Result<Source> {
    let (parts, content) = request.into_parts();
    let media = media_type(&parts.headers);
    let is_json = media == "application/json";
    if !is_json && !matches!(media.as_str(), "text/javascript" | "application/javascript" | "text/plain") {
        return Err(Problem::new(Code::MediaType, format!("`{}` is not taken here", shown(&media))).hint(
            "send the source as text/javascript, or application/json: {\"source\": \"…\", \"manifest\": \"…\"}",
        ));
    }
    let bytes = body::read(&parts.headers, content, BODY_MAX).await?;
    if is_json {
        return serde_json::from_slice(&bytes)
            .map_err(|error| Problem::new(Code::BodyMalformed, format!("the body is not a source: {error}")));
    }
    let source = String::from_utf8(bytes.to_vec())
        .map_err(|_| Problem::new(Code::BodyMalformed, "the source is not UTF-8 text"))?;
    Ok(Source { source, manifest: None, signature: None })
}

/// Does blocking work in the tenant's turn. Whoever waits for it may go; the turn is over when the work is.
async fn in_turn<T: Send + 'static>(
    places: &Places,
    tenant: TenantId,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let place = places.take(tenant).await?;
    let done = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    done.await.map_err(|error| Problem::internal(&error))
}

fn refused(unfit: Unfit, source: &str) -> Problem {
    match unfit {
        Unfit::Size(bytes) => Problem::new(
            Code::BodyTooLarge,
            format!("the source has {bytes} bytes; at most {} are taken", script::SIZE_MAX),
        )
        .hint("build larger plugins with the SDK: bulkhead plugin new -t js"),
        Unfit::Source { detail, place } => {
            let fault = place.map(|place| fault(&detail, place, source));
            Problem::new(Code::PluginRefused, detail)
                .hint("the source is a script with a function `handle(event)` or `transform(event)`")
                .with("reason", "rejected_upload:source")
                .faults(fault.into_iter().collect::<Vec<Fault>>())
        }
        Unfit::Host(error) => Problem::internal(&error),
    }
}

fn fault(message: &str, (line, column): (u32, u32), source: &str) -> Fault {
    let (line, column) = (line as usize, column as usize);
    let text: String = source.lines().nth(line.saturating_sub(1)).unwrap_or_default().chars().take(160).collect();
    let excerpt = if column <= 160 { format!("{text}\n{:>column$}", "^") } else { text };
    Fault { line, column, message: message.to_owned(), excerpt, ..Fault::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_its_work_whoever_goes_meanwhile() {
        let places = Places::new(2, "sources");
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (go, goes) = mpsc::channel::<()>();
        let first = in_turn(&places, TenantId(1), move || {
            let _ = begun.send(());
            goes.recv()
        });
        // The request ends here, as when its connection breaks off; its work goes on.
        tokio::select! {
            _ = first => unreachable!("because the work waits for a message"),
            started = begins => started.expect("because the work says that it began"),
        }
        let mut second = Box::pin(in_turn(&places, TenantId(1), || ()));
        let waits = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
        assert!(waits.is_err(), "the tenant's work is not done, so it has no second turn");
        in_turn(&places, TenantId(2), || ()).await.expect("because others do not wait for it");
        go.send(()).expect("because the work waits for it");
        second.await.expect("because the first work is done");
    }

    #[test]
    fn a_fault_shows_its_place() {
        let fault = fault("unexpected token", (2, 11), "function handle(event) {\n  let x = ;\n}");
        assert_eq!((fault.line, fault.column), (2, 11));
        assert_eq!(fault.excerpt, "  let x = ;\n          ^");
    }
}
