//! Plugins: upload, versions, switches, settings.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Request;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_flow::inbox::codec::rfc3339;
use bulkhead_sandbox::inspect;
use bulkhead_store::catalogue;
use bulkhead_store::releases::Kind;
use bulkhead_store::releases::Rollout;
use bulkhead_store::work::Held;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::candidates::CandidateView;
use crate::api::code::Code;
use crate::api::extract::Body;
use crate::api::extract::Caller;
use crate::api::extract::Params;
use crate::api::extract::Path;
use crate::api::extract::Plugins;
use crate::api::extract::Read;
use crate::api::extract::shown;
use crate::api::page;
use crate::api::page::Page;
use crate::api::page::Paging;
use crate::api::problem::Fault;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::api::upload::Parts;
use crate::auth::scope::Scope;
use crate::install;
use crate::install::Activate;
use crate::install::Difference;
use crate::install::Installed;
use crate::install::Upload;
use crate::manifest;
use crate::manifest::Manifest;
use crate::manifest::Setting;
use crate::needs;
use crate::signature;
use crate::signature::Refusal;

/// Versions of a page: each may ask for as much as a manifest has room for.
const VERSIONS_OF_A_PAGE: u32 = 100;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(upload, show))
        .routes(routes!(show_version))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(get_config, put_config))
}

/// A plugin.
#[derive(Debug, Serialize, ToSchema)]
pub struct Plugin {
    /// Its name.
    name: String,
    /// `active`, `paused` (its runs are held), or `inactive` (no version is active yet).
    state: &'static str,
    /// The version that new runs use.
    active: Option<u32>,
    /// The version that was active before, to which a roll-back leads.
    previous: Option<u32>,
    /// When it was uploaded first.
    created: String,
    /// When its active version became so, the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    activated_at: Option<String>,
    /// The active version's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// Why its file in the watched folder was not taken the last time it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
    /// Candidates under way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    candidates: Vec<CandidateView>,
}

/// Why a file was not taken.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RefusedFile)]
pub struct Refused {
    /// When.
    at: String,
    /// For machines.
    code: String,
    /// For people.
    detail: String,
    /// What to do.
    hint: String,
}

/// A plugin with a page of its versions.
#[derive(Debug, Serialize, ToSchema)]
pub struct Shown {
    #[serde(flatten)]
    plugin: Plugin,
    /// What the active version asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    requested: Option<Grants>,
    /// What of that it is granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    effective: Option<Grants>,
    /// What was cut, and by whom.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cut: Vec<Cut>,
    /// Its versions, newest first, without their manifests and what was found in them.
    versions: Vec<VersionHead>,
    /// Where the next page of versions begins; null at the end. A page may be short while there is a next.
    next: Option<String>,
}

/// What a list shows of a version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PluginVersionHead)]
pub struct VersionHead {
    /// From 1.
    version: u32,
    /// `active`, `canary`, `shadow`, `ready`, `needs-consent`, or `retired`.
    state: &'static str,
    /// `sha256:…` of the component.
    digest: String,
    /// Bytes of the component.
    size: u64,
    /// Who uploaded it: a key's id, or `watch`.
    author: String,
    /// When.
    created: String,
    /// When it became active first.
    #[serde(skip_serializing_if = "Option::is_none")]
    activated: Option<String>,
    /// Who agreed to what it asks for beyond the one before it, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<Approval>,
    /// Whose signature came with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<SignedBy>,
    /// What it asks for.
    #[schema(value_type = Object)]
    grants: Grants,
}

/// Whose signature came with a version.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = VersionSignedBy)]
pub struct SignedBy {
    /// The key.
    key: String,
}

/// A version of a plugin.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PluginVersion)]
pub struct Version {
    /// From 1.
    version: u32,
    /// `active`, `canary`, `shadow`, `ready`, `needs-consent`, or `retired`.
    state: &'static str,
    /// `sha256:…` of the component.
    digest: String,
    /// Who uploaded it: a key's id, or `watch`.
    author: String,
    /// When.
    created: String,
    /// When it became active first.
    #[serde(skip_serializing_if = "Option::is_none")]
    activated: Option<String>,
    /// Who agreed to what it asks for beyond the one before it, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<Approval>,
    /// The signature that came with it: `key`, whose it is, and the `envelope`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    signature: Option<Value>,
    /// What it asks for.
    #[schema(value_type = Object)]
    grants: Grants,
    /// What of that it is granted.
    #[schema(value_type = Object)]
    effective: Grants,
    /// What was cut, and by whom.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cut: Vec<Cut>,
    /// What was found in the component.
    #[schema(value_type = Object)]
    inspection: Value,
    /// Its manifest.
    #[schema(value_type = Object)]
    manifest: Value,
}

/// Who agreed to what a version asks for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VersionApproval)]
pub struct Approval {
    /// A key's id.
    by: String,
    /// When.
    at: String,
}

/// A grant that a ceiling took away.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = GrantCut)]
pub struct Cut {
    /// `emit orders.*`
    grant: String,
    /// Whose ceiling: `tenant` is what the operator allows this tenant, `host` what it allows all.
    by: &'static str,
}

/// A new version.
#[derive(Debug, Serialize, ToSchema)]
pub struct Uploaded {
    /// The plugin.
    name: String,
    /// The version's number, from 1.
    version: u32,
    /// `sha256:…` of the component.
    digest: String,
    /// `active` if it is the active one now, `needs-consent` if somebody has to agree to what it asks for, else `ready`.
    state: &'static str,
    /// Whether these bytes with this manifest were there before; then nothing was added.
    existed: bool,
    /// Bytes of the component.
    size: u64,
    /// Bytes of its machine code on this node.
    artefact_size: u64,
    /// What it is built for: `handler-plugin of bulkhead:plugin@0.1.0`.
    world: String,
    /// What the component exports: `handler`, `transformer`.
    exports: Vec<&'static str>,
    /// What it imports.
    imports: Vec<String>,
    /// What that lets it ask for, in plain words.
    needs: Vec<&'static str>,
    /// The languages and tools that made it, as it says itself: `rustc 1.96.0`.
    made_with: Vec<String>,
    /// What it may do.
    #[schema(value_type = Object)]
    grants: Grants,
    /// How that differs from the version that was active before.
    difference: Difference,
    /// Odd, but not wrong.
    warnings: Vec<String>,
}

impl Plugin {
    fn new(api: &Api, caller: &Caller<Read>, plugin: &catalogue::Plugin, digest: Option<String>) -> Self {
        let refused = api.installer.refusal(caller.id(), &plugin.name).map(|refusal| Refused {
            at: rfc3339(refusal.at),
            code: refusal.code,
            detail: refusal.detail,
            hint: refusal.hint,
        });
        Self { refused, digest, ..Self::from(plugin) }
    }
}

impl From<&catalogue::Plugin> for Plugin {
    fn from(plugin: &catalogue::Plugin) -> Self {
        let state = match (plugin.paused, plugin.active) {
            (true, _) => "paused",
            (false, Some(_)) => "active",
            (false, None) => "inactive",
        };
        Self {
            name: plugin.name.clone(),
            state,
            active: plugin.active,
            previous: plugin.previous,
            created: rfc3339(plugin.created),
            activated_at: plugin.activated.map(rfc3339),
            digest: None,
            refused: None,
            candidates: Vec::new(),
        }
    }
}

impl Version {
    /// One of the versions of a plugin.
    pub(super) fn new(
        api: &Api,
        tenant: &catalogue::Tenant,
        known: &Known,
        rollouts: &[Rollout],
        version: &catalogue::Version,
    ) -> Self {
        let consent = || install::needs_consent(known, version);
        let state = state(&known.0, rollouts, version.number, version.retired, consent);
        let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
        let grants = install::grants_of(version);
        let (effective, cut) = effective(api, tenant, &grants);
        Self {
            version: version.number,
            state,
            digest: version.digest.clone(),
            author: version.author.clone(),
            created: rfc3339(version.created),
            activated: version.activated.map(rfc3339),
            approval: version.approval.as_ref().map(|(by, at)| Approval { by: by.clone(), at: rfc3339(*at) }),
            signature: version.signature.as_deref().map(json),
            grants,
            effective,
            cut,
            inspection: json(&version.inspection),
            manifest: json(&version.manifest),
        }
    }
}

impl VersionHead {
    fn new(known: &Known, rollouts: &[Rollout], head: catalogue::VersionHead) -> Self {
        let grants: Grants = serde_json::from_str(&head.grants).unwrap_or_default();
        let asks = || !install::difference(&install::active_grants(Some(known)), &grants).added.is_empty();
        let consent = || head.approval.is_none() && head.activated.is_none() && asks();
        let state = state(&known.0, rollouts, head.number, head.retired, consent);
        Self {
            version: head.number,
            state,
            digest: head.digest,
            size: head.size,
            author: head.author,
            created: rfc3339(head.created),
            activated: head.activated.map(rfc3339),
            approval: head.approval.map(|(by, at)| Approval { by, at: rfc3339(at) }),
            signature: head.signature.and_then(|text| serde_json::from_str(&text).ok()),
            grants,
        }
    }
}

/// What a version is to its plugin now.
fn state(
    plugin: &catalogue::Plugin,
    rollouts: &[Rollout],
    number: u32,
    retired: bool,
    needs_consent: impl FnOnce() -> bool,
) -> &'static str {
    let tried = |kind| rollouts.iter().any(|rollout| rollout.kind == kind && rollout.version == number);
    match () {
        () if plugin.active == Some(number) => "active",
        () if retired => "retired",
        () if tried(Kind::Canary) => "canary",
        () if tried(Kind::Shadow) => "shadow",
        () if needs_consent() => "needs-consent",
        () => "ready",
    }
}

/// What is left of grants below both ceilings, and what each took away.
fn effective(api: &Api, tenant: &catalogue::Tenant, wanted: &Grants) -> (Grants, Vec<Cut>) {
    let by_tenant = tenant.policy.grants.cut(wanted);
    let left = api.directory.granted(tenant, wanted);
    let lost = |wide: &Grants, narrow: &Grants, by| {
        let lost = install::difference(wide, narrow).removed.into_iter();
        lost.map(move |grant| Cut { grant, by }).collect::<Vec<_>>()
    };
    let mut cut = lost(wanted, &by_tenant, "tenant");
    cut.extend(lost(&by_tenant, &left, "host"));
    (left, cut)
}

/// All plugins, by name.
#[utoipa::path(
    get, path = "/v1/plugins", tag = "plugins", summary = "All plugins", params(Paging),
    responses((status = 200, description = "A page of plugins", body = Page<Plugin>))
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<Read>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<Plugin>>> {
    let plugins = api.store.plugins(caller.id()).await?;
    let plugins =
        plugins.into_iter().map(|(plugin, head)| Plugin::new(&api, &caller, &plugin, head.map(|head| head.digest)));
    page::of_names(&api, caller.uid(), "plugins", &paging, plugins.collect(), |plugin| &plugin.name).map(Json)
}

/// The tenant as it is now: what a key's cache knows of its ceiling may be a second old.
pub(super) async fn present(api: &Api, tenant: &catalogue::Tenant) -> Result<catalogue::Tenant> {
    Ok(api.store.tenant(tenant.id).await?.unwrap_or_else(|| tenant.clone()))
}

/// A plugin with its active version.
pub(super) type Known = (catalogue::Plugin, Option<catalogue::Version>);

pub(super) async fn find(api: &Api, tenant: TenantId, name: &str) -> Result<Known> {
    api.store.plugin(tenant, name).await?.ok_or_else(|| Problem::not_found("plugin", name))
}

/// One version of a plugin that is there.
pub(super) async fn find_version(api: &Api, tenant: TenantId, name: &str, number: u32) -> Result<catalogue::Version> {
    match api.store.version(tenant, name, number).await? {
        Some((_, version)) => Ok(version),
        None => Err(missing(api, tenant, name, number).await?),
    }
}

/// Why a version is not there. A plugin's newest version stays, so what is older than that and missing was let go.
async fn missing(api: &Api, tenant: TenantId, name: &str, number: u32) -> Result<Problem> {
    let newest = api.store.versions(tenant, name, None, 1).await?;
    let was_there = number > 0 && newest.first().is_some_and(|newest| number < newest.number);
    Ok(if was_there { Problem::let_go(name, number) } else { Problem::not_found("version", &number.to_string()) })
}

/// A plugin with a page of its versions, newest first.
#[utoipa::path(
    get, path = "/v1/plugins/{name}", tag = "plugins", summary = "One plugin",
    params(("name" = String, Path, description = "The plugin's name"), Paging),
    responses((status = 200, description = "The plugin", body = Shown), (status = 404, description = "No such plugin"))
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<Read>,
    Path(name): Path<String>,
    Params(paging): Params<Paging>,
) -> Result<Json<Shown>> {
    let limit = page::limit(paging.limit)?.min(VERSIONS_OF_A_PAGE);
    let list = format!("plugin-versions {name}");
    let read = |cursor: &String| api.cursors.read_position(caller.uid(), &list, cursor);
    let before = paging.after.as_ref().map(read).transpose()?.and_then(|position| u32::try_from(position.0).ok());
    let known = find(&api, caller.id(), &name).await?;
    let rollouts = api.store.rollouts(caller.id(), known.0.id).await?;
    let mut versions = api.store.versions(caller.id(), &name, before, limit + 1).await?;
    let more = versions.len() > limit as usize;
    versions.truncate(limit as usize);
    let last = versions.last().filter(|_| more).map(|version| Position(i64::from(version.number)));
    let next = last.map(|number| api.cursors.write_position(caller.uid(), &list, number));
    let versions = versions.into_iter().map(|head| VersionHead::new(&known, &rollouts, head)).collect();
    let candidates = rollouts.iter().map(CandidateView::from).collect();
    let (plugin, active) = &known;
    let digest = active.as_ref().map(|version| version.digest.clone());
    let plugin = Plugin { candidates, ..Plugin::new(&api, &caller, plugin, digest) };
    let requested = active.as_ref().map(install::grants_of);
    let (effective, cut) = match &requested {
        Some(requested) => {
            let (left, cut) = effective(&api, &present(&api, &caller.tenant).await?, requested);
            (Some(left), cut)
        }
        None => (None, Vec::new()),
    };
    Ok(Json(Shown { plugin, requested, effective, cut, versions, next }))
}

/// One version of a plugin.
#[utoipa::path(
    get, path = "/v1/plugins/{name}/versions/{version}", tag = "plugins", summary = "One version",
    params(("name" = String, Path, description = "The plugin's name"), ("version" = u32, Path, description = "Its number")),
    responses((status = 200, description = "The version", body = Version), (status = 404, description = "No such version"))
)]
async fn show_version(
    State(api): State<Api>,
    caller: Caller<Read>,
    Path((name, number)): Path<(String, u32)>,
) -> Result<Json<Version>> {
    let known = find(&api, caller.id(), &name).await?;
    let rollouts = api.store.rollouts(caller.id(), known.0.id).await?;
    let version = find_version(&api, caller.id(), &name, number).await?;
    let tenant = present(&api, &caller.tenant).await?;
    Ok(Json(Version::new(&api, &tenant, &known, &rollouts, &version)))
}

/// How to take an upload.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// Whether new runs use it at once.
    #[serde(default)]
    activate: bool,
}

/// Uploads a version of a plugin: a component (`application/wasm`), or `multipart/form-data` with the parts `component`,
/// `manifest` (plugin.toml) and `signature` (a DSSE envelope). The same bytes with the same manifest are the version that
/// is there already.
#[utoipa::path(
    put, path = "/v1/plugins/{name}", tag = "plugins", summary = "Upload a version",
    params(("name" = String, Path, description = "The plugin's name"), UploadQuery),
    request_body(content(("application/wasm"), ("multipart/form-data"))),
    responses(
        (status = 201, description = "A new version", body = Uploaded),
        (status = 200, description = "The version that is there already", body = Uploaded),
        (status = 413, description = "The component is larger than 64 MiB, or the whole larger than is taken"),
        (status = 422, description = "The manifest, the component or the signature is refused"),
        (status = 429, description = "With this component the tenant's plugins would keep more than its quota allows")
    )
)]
async fn upload(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
    Params(query): Params<UploadQuery>,
    request: Request,
) -> Result<Response> {
    // Before anything is read.
    if !manifest::is_plain_name(&name) {
        return Err(refused(install::Error::Name(name)));
    }
    let _place = api.uploads.place(caller.id()).await?;
    let parts = api.uploads.receive(request, api.limits.upload_bytes).await?;
    install(&api, &caller, name, parts, &query).await
}

/// Takes a component with its manifest as a new version.
pub(super) async fn install(
    api: &Api,
    caller: &Caller<Plugins>,
    name: String,
    Parts { wasm, manifest, signature }: Parts,
    query: &UploadQuery,
) -> Result<Response> {
    let upload = Upload {
        tenant: caller.id(),
        name,
        wasm,
        manifest,
        signature,
        author: caller.key.clone(),
        activate: if query.activate { Activate::Yes } else { Activate::No },
        may_consent: caller.may(Scope::Consent),
    };
    let name = upload.name.clone();
    let Installed { plugin, version, is_new, inspection, difference, needs_consent, warnings } =
        api.installer.install(upload).await.map_err(refused)?;
    let state = match () {
        () if plugin.active == Some(version.number) => "active",
        () if version.retired => "retired",
        () if needs_consent => "needs-consent",
        () => "ready",
    };
    let uploaded = Uploaded {
        name,
        version: version.number,
        digest: version.digest.clone(),
        state,
        existed: !is_new,
        size: inspection.size,
        artefact_size: inspection.artefact_size,
        world: needs::world(&inspection),
        exports: exports(&inspection),
        needs: inspect::needs(&inspection.imports),
        made_with: inspection.metadata.made_with(),
        imports: inspection.imports,
        grants: install::grants_of(&version),
        difference,
        warnings,
    };
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(uploaded)).into_response())
}

fn exports(inspection: &bulkhead_sandbox::Inspection) -> Vec<&'static str> {
    let exports = inspection.exports;
    [("handler", exports.handler), ("transformer", exports.transformer)]
        .into_iter()
        .filter_map(|(name, is)| is.then_some(name))
        .collect()
}

pub(super) fn refused(error: install::Error) -> Problem {
    match error {
        install::Error::Name(name) => {
            Problem::new(Code::FieldInvalid, format!("`{}` is no name of a plugin", shown(&name)))
                .hint("small letters, digits and dashes, at most 64, beginning with a letter")
        }
        install::Error::Manifest(faults) => {
            let first = faults.first().map(|fault| fault.message.clone()).unwrap_or_default();
            Problem::new(Code::ManifestInvalid, format!("the manifest is not valid: {first}")).faults(faults)
        }
        install::Error::Refused(refused) if refused.code.starts_with("host:") => {
            tracing::error!(code = refused.code, detail = refused.detail, "a component could not be compiled");
            Problem::internal(&refused.detail)
        }
        install::Error::Refused(refused) => {
            Problem::new(Code::PluginRefused, refused.detail).hint(refused.hint).with("reason", refused.code)
        }
        install::Error::Signature(refusal) => {
            let code = match refusal {
                Refusal::Missing => Code::SignatureMissing,
                Refusal::Invalid(_) => Code::SignatureInvalid,
            };
            Problem::new(code, refusal.to_string()).hint(signature::HINT)
        }
        install::Error::Busy => {
            Problem::new(Code::Busy, "too many uploads are in work").retry_after(std::time::Duration::from_secs(5))
        }
        install::Error::Store(error) => error.into(),
    }
}

/// Holds its runs; nothing is lost.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/pause", tag = "plugins", summary = "Pause a plugin",
    params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 204, description = "It is paused"), (status = 404, description = "No such plugin"))
)]
async fn pause(State(api): State<Api>, caller: Caller<Plugins>, Path(name): Path<String>) -> Result<StatusCode> {
    api.store.pause_plugin(caller.id(), &name, true).await?;
    api.changed(caller.id()).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets held runs go on, in order.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/resume", tag = "plugins", summary = "Resume a plugin",
    params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 204, description = "It goes on"), (status = 404, description = "No such plugin"))
)]
async fn resume(State(api): State<Api>, caller: Caller<Plugins>, Path(name): Path<String>) -> Result<StatusCode> {
    api.store.pause_plugin(caller.id(), &name, false).await?;
    api.store.resume_held(caller.id(), &Held::Plugin(name), api.now()).await?;
    api.changed(caller.id()).await;
    Ok(StatusCode::NO_CONTENT)
}

/// A plugin's settings.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PluginConfig)]
pub struct Config {
    /// What is set.
    config: Map<String, Value>,
    /// What counts: what is set over the manifest's defaults.
    effective: Map<String, Value>,
    /// What its active version's manifest declares.
    declared: BTreeMap<String, Setting>,
}

/// What is set, what counts, and what can be set.
#[utoipa::path(
    get, path = "/v1/plugins/{name}/config", tag = "plugins", summary = "A plugin's settings",
    params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 200, description = "The settings", body = Config), (status = 404, description = "No such plugin"))
)]
async fn get_config(State(api): State<Api>, caller: Caller<Read>, Path(name): Path<String>) -> Result<Json<Config>> {
    let known = find(&api, caller.id(), &name).await?;
    let config: Map<String, Value> = serde_json::from_str(&known.0.config).unwrap_or_default();
    Ok(Json(view(config, &manifest_of(&api, caller.id(), known).await?)))
}

fn view(config: Map<String, Value>, manifest: &Manifest) -> Config {
    let defaults = manifest.config.iter().filter(|(_, setting)| !setting.default.is_null());
    let mut effective: Map<String, Value> =
        defaults.map(|(name, setting)| (name.clone(), setting.default.clone())).collect();
    effective.extend(config.clone());
    Config { config, effective, declared: manifest.config.clone() }
}

/// The manifest that settings have to fit: the active version's, else the newest one's.
async fn manifest_of(api: &Api, tenant: TenantId, (plugin, active): Known) -> Result<Manifest> {
    let version = match active {
        Some(active) => Some(active),
        None => match api.store.versions(tenant, &plugin.name, None, 1).await?.first() {
            Some(newest) => Some(find_version(api, tenant, &plugin.name, newest.number).await?),
            None => None,
        },
    };
    Ok(version.and_then(|version| serde_json::from_str(&version.manifest).ok()).unwrap_or_default())
}

/// Replaces a plugin's settings by this object; the next batch of its runs sees them.
#[utoipa::path(
    put, path = "/v1/plugins/{name}/config", tag = "plugins", summary = "Set a plugin's settings", request_body = Object,
    params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 200, description = "The settings", body = Config), (status = 422, description = "They do not fit"))
)]
async fn put_config(
    State(api): State<Api>,
    caller: Caller<Plugins>,
    Path(name): Path<String>,
    Body(config): Body<Map<String, Value>>,
) -> Result<Json<Config>> {
    let known = find(&api, caller.id(), &name).await?;
    let manifest = manifest_of(&api, caller.id(), known).await?;
    let text = Value::Object(config.clone()).to_string();
    if text.len() > manifest::CONFIG_BYTES_MAX {
        let most = crate::measure::Bytes(manifest::CONFIG_BYTES_MAX as u64);
        return Err(Problem::new(Code::ConfigInvalid, format!("the settings are larger than {most}")));
    }
    let wrong = manifest.check_config(&config);
    if let Some(first) = wrong.first() {
        let detail = format!("`{}`: {}", shown(&first.name), first.message);
        let faults = wrong.into_iter().map(|wrong| {
            let fault = Fault::field(wrong.name, wrong.message);
            match wrong.hint {
                Some(hint) => fault.hint(hint),
                None => fault,
            }
        });
        return Err(Problem::new(Code::ConfigInvalid, detail).faults(faults));
    }
    api.store.set_config(caller.id(), &name, &text).await?;
    api.changed(caller.id()).await;
    Ok(Json(view(config, &manifest)))
}
