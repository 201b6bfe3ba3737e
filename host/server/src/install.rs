//! Taking plugins in: the one way of a component from bytes to a version, for the API and the watched folder alike.
//!
//! ```text
//! name, manifest ──check──▶ inspect (compiles, in a process of its own) ──▶ signature ──▶ add version ──▶ activate, if wanted
//! ```
//!
//! Nothing is stored before everything is checked. The same bytes with the same manifest are the same version, whoever
//! uploads them however often. A version that asks for more than the active one is stored, and becomes active once
//! somebody who may has agreed to that.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bulkhead_domain::clock::Clock;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::proof::ReleasePolicy;
use bulkhead_domain::policy::quota::Quotas;
use bulkhead_domain::rule::Diagnostic;
use bulkhead_flow::dispatch;
use bulkhead_flow::tenants::Directory;
use bulkhead_sandbox::Inspection;
use bulkhead_sandbox::Refused;
use bulkhead_sandbox::Sandbox;
use bulkhead_sandbox::inspect;
use bulkhead_store::Store;
use bulkhead_store::catalogue::NewVersion;
use bulkhead_store::catalogue::Plugin;
use bulkhead_store::catalogue::Room;
use bulkhead_store::catalogue::Storage;
use bulkhead_store::catalogue::Version;
use bulkhead_store::releases;
use bulkhead_store::releases::Act;
use bulkhead_store::releases::Switch;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::manifest::Manifest;
use crate::needs;
use crate::signature;
use crate::signature::Statement;
use crate::signature::Trust;
use crate::spool::Content;

/// Uploads that are inspected at a time, over all tenants.
const UPLOADS_MAX: usize = 4;
/// Bytes of components that are in memory for it at a time: one of full size, and small ones beside it.
const MEMORY_MAX: usize = inspect::SIZE_MAX + (8 << 20);
/// Bytes that are counted as one, because a semaphore counts in 32 bits.
const MEMORY_UNIT: usize = 1 << 10;
/// How long an upload waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(30);
/// Refusals remembered, for people who ask why a file is not active.
const REFUSALS_MAX: usize = 1_000;

/// What is uploaded.
#[derive(Debug)]
pub struct Upload {
    /// For whom.
    pub tenant: TenantId,
    /// The plugin's name.
    pub name: String,
    /// The component.
    pub wasm: Content,
    /// Its manifest; none is one without grants.
    pub manifest: Option<String>,
    /// Its signature: a DSSE envelope.
    pub signature: Option<String>,
    /// Who uploads it.
    pub author: String,
    /// Whether it becomes the active version.
    pub activate: Activate,
    /// Whether whoever uploads it may agree to more grants.
    pub may_consent: bool,
}

/// Whether a version becomes the active one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activate {
    /// It does.
    Yes,
    /// It does if it is new, or if the plugin has no active version.
    IfNew,
    /// It does not.
    No,
}

/// What an upload led to.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The plugin as it is now.
    pub plugin: Plugin,
    /// The version.
    pub version: Version,
    /// Whether the version was not there before.
    pub is_new: bool,
    /// What was found in the component.
    pub inspection: Inspection,
    /// How its grants differ from those of the version that was active.
    pub difference: Difference,
    /// Whether somebody has to agree to that before it can become active.
    pub needs_consent: bool,
    /// Odd, but not wrong.
    pub warnings: Vec<String>,
}

/// How the grants of one version differ from those of another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, utoipa::ToSchema)]
#[schema(as = GrantDifference)]
pub struct Difference {
    /// What the newer one may do, and the older one may not: `emit orders.*`.
    pub added: Vec<String>,
    /// What the older one may do, and the newer one may not.
    pub removed: Vec<String>,
}

/// Why an upload is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// That is no name of a plugin.
    #[error("`{0}` is no name of a plugin")]
    Name(String),
    /// The manifest is wrong.
    #[error("the manifest is wrong")]
    Manifest(Vec<Diagnostic>),
    /// The component cannot run here.
    #[error("the component is refused")]
    Refused(#[source] Refused),
    /// It is not signed as this host asks for it.
    #[error(transparent)]
    Signature(signature::Refusal),
    /// Too many uploads are in work.
    #[error("too many uploads are in work")]
    Busy,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] bulkhead_store::Error),
}

impl From<bulkhead_store::Error> for Error {
    fn from(error: bulkhead_store::Error) -> Self {
        Self::Store(error)
    }
}

/// Why the file of a plugin was not taken the last time it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// When.
    pub at: Timestamp,
    /// For machines.
    pub code: String,
    /// For people.
    pub detail: String,
    /// What to do.
    pub hint: String,
}

/// An upload's turn, with the memory for its component; dropping it lets others have theirs.
#[derive(Debug)]
struct Turn {
    _of_tenant: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

/// What the host's configuration says about what is taken in.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Whose signatures count, and whether one is needed.
    pub trust: Trust,
    /// What is asked of every version that is to run for real.
    pub asks: ReleasePolicy,
    /// How many plugins and versions a tenant may have.
    pub room: Room,
    /// Quotas of a tenant whose own are unset.
    pub quotas: Quotas,
}

/// Takes plugins in. Cheap to clone.
#[derive(Clone)]
pub struct Installer {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    sandbox: Sandbox,
    directory: Arc<Directory>,
    dispatch: dispatch::Handle,
    clock: Arc<dyn Clock>,
    terms: Terms,
    all: Arc<Semaphore>,
    /// Memory for components that are inspected.
    memory: Arc<Semaphore>,
    /// One upload at a time for each tenant.
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
    refusals: Mutex<HashMap<(TenantId, String), Refusal>>,
}

impl Installer {
    /// An installer into `store`.
    pub fn new(
        store: Store,
        sandbox: Sandbox,
        directory: Arc<Directory>,
        dispatch: dispatch::Handle,
        clock: Arc<dyn Clock>,
        terms: Terms,
    ) -> Self {
        let all = Arc::new(Semaphore::new(UPLOADS_MAX));
        let memory = Arc::new(Semaphore::new(MEMORY_MAX / MEMORY_UNIT));
        let (tenants, refusals) = (Mutex::default(), Mutex::default());
        let inner = Inner { store, sandbox, directory, dispatch, clock, terms, all, memory, tenants, refusals };
        Self { inner: Arc::new(inner) }
    }

    /// What this host asks of every version that is to run for real, whatever its tenant and its plugin ask.
    pub fn asks(&self) -> ReleasePolicy {
        self.inner.terms.asks
    }

    /// How much a tenant may keep, as far as it is known before its upload is stored.
    async fn room(&self, tenant: TenantId) -> Result<Room, Error> {
        let Inner { store, terms, .. } = &*self.inner;
        let own = store.tenant(tenant).await?.map(|tenant| tenant.quotas).unwrap_or_default();
        let storage = match own.or(&terms.quotas).storage_bytes {
            Some(limit) => Some(Storage { limit, state: store.state_bytes(tenant).await? }),
            None => None,
        };
        Ok(Room { storage, ..terms.room })
    }

    /// Takes one in.
    pub async fn install(&self, upload: Upload) -> Result<Installed, Error> {
        let inner = &*self.inner;
        if !crate::manifest::is_plain_name(&upload.name) {
            return Err(Error::Name(upload.name));
        }
        let manifest = match &upload.manifest {
            Some(text) => Manifest::parse(text).map_err(Error::Manifest)?,
            None => Manifest::bare(&upload.name),
        };
        // Before the component is compiled.
        let trust = &inner.terms.trust;
        if trust.required && upload.signature.is_none() {
            return Err(Error::Signature(signature::Refusal::Missing));
        }
        let turn = self.turn(upload.tenant, upload.wasm.size()).await?;
        let (wasm, inspection) = self.inspect(upload.wasm, Arc::clone(&turn)).await?;
        let mut warnings = warnings(&upload.name, &manifest, &inspection);
        let statement = Statement::new(&upload.name, &manifest, &inspection);
        let signature = match upload.signature.map(|envelope| trust.verify(&envelope, &statement)) {
            None => None,
            Some(Ok(verified)) => Some(stored(&verified)),
            Some(Err(refusal)) if trust.required => return Err(Error::Signature(refusal)),
            Some(Err(refusal)) => {
                warnings.push(format!("{refusal}; it is not kept"));
                None
            }
        };
        let present = inner.store.plugin(upload.tenant, &upload.name).await?;
        let difference = difference(&active_grants(present.as_ref()), &manifest.grants);
        let new = NewVersion {
            room: self.room(upload.tenant).await?,
            digest: inspection.digest.clone(),
            wasm,
            manifest: stored(&manifest),
            inspection: stored(&inspection),
            grants: stored(&manifest.grants),
            author: upload.author,
            approves: upload.may_consent && !difference.added.is_empty(),
            signature,
        };
        let now = inner.clock.now();
        let (version, is_new) = inner.store.add_version(upload.tenant, &upload.name, &new, now).await?;
        let had_active = present.as_ref().is_some_and(|(plugin, _)| plugin.active.is_some());
        let needs_consent = !upload.may_consent
            && match &present {
                Some(known) => needs_consent(known, &version),
                None => !difference.added.is_empty() && version.approval.is_none(),
            };
        let wanted = match upload.activate {
            Activate::No => false,
            Activate::IfNew => is_new || !had_active,
            Activate::Yes => true,
        };
        let plugin = if wanted && !needs_consent {
            let seen = present.as_ref().and_then(|(plugin, _)| plugin.active);
            let act = Act::by(&new.author, now).consenting(upload.may_consent).asking(inner.terms.asks);
            let switch = Switch { seen: Some(seen), ..Switch::to(version.number, act) };
            match self.switch(upload.tenant, &upload.name, &switch).await {
                // It is stored and waits, as one does that needs consent.
                Err(Error::Store(bulkhead_store::Error::Unproven { version, lack, .. })) => {
                    let next = format!("bulkhead plugin preview {} {version}", upload.name);
                    warnings.push(format!("version {version} is not active, it needs a preview first: {lack}; {next}"));
                    self.plugin(upload.tenant, &upload.name).await?
                }
                switched => switched?,
            }
        } else {
            self.plugin(upload.tenant, &upload.name).await?
        };
        self.refusals().remove(&(upload.tenant, upload.name.clone()));
        Ok(Installed { plugin, version, is_new, inspection, difference, needs_consent, warnings })
    }

    /// Changes the active version.
    pub async fn switch(&self, tenant: TenantId, name: &str, switch: &Switch) -> Result<Plugin, Error> {
        let plugin = self.inner.store.switch_version(tenant, name, switch).await?;
        self.inner.directory.invalidate(tenant).await;
        self.inner.dispatch.wake_tenant(tenant);
        Ok(plugin)
    }

    /// Remembers why a file was not taken.
    pub fn refuse(&self, tenant: TenantId, name: &str, refusal: Refusal) {
        let mut refusals = self.refusals();
        if refusals.len() < REFUSALS_MAX || refusals.contains_key(&(tenant, name.to_owned())) {
            refusals.insert((tenant, name.to_owned()), refusal);
        }
    }

    /// Why the plugin's file was not taken the last time it changed; none if it was.
    pub fn refusal(&self, tenant: TenantId, name: &str) -> Option<Refusal> {
        self.refusals().get(&(tenant, name.to_owned())).cloned()
    }

    fn refusals(&self) -> std::sync::MutexGuard<'_, HashMap<(TenantId, String), Refusal>> {
        self.inner.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn plugin(&self, tenant: TenantId, name: &str) -> Result<Plugin, Error> {
        match self.inner.store.plugin(tenant, name).await? {
            Some((plugin, _)) => Ok(plugin),
            None => Err(Error::Store(bulkhead_store::Error::NotFound { what: "plugin", name: name.to_owned() })),
        }
    }

    fn turn_of(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut tenants = self.inner.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever waits holds a clone; the others are not needed any more.
        tenants.retain(|_, turn| Arc::strong_count(turn) > 1 || turn.available_permits() == 0);
        Arc::clone(tenants.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(1))))
    }

    /// A turn for a component of that many bytes.
    async fn turn(&self, tenant: TenantId, bytes: usize) -> Result<Arc<Turn>, Error> {
        let units = bytes.min(MEMORY_MAX).div_ceil(MEMORY_UNIT);
        let units = u32::try_from(units).expect("because `MEMORY_MAX` has fewer units");
        let waiting = async {
            let of_tenant = self.turn_of(tenant).acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.inner.all).acquire_owned().await.ok()?;
            let memory = Arc::clone(&self.inner.memory).acquire_many_owned(units).await.ok()?;
            Some(Arc::new(Turn { _of_tenant: of_tenant, _of_all: of_all, _memory: memory }))
        };
        tokio::time::timeout(TURN_WAIT, waiting).await.ok().flatten().ok_or(Error::Busy)
    }

    /// Reads the component and inspects it. Whoever waits for that may go; the turn is over when the work is.
    async fn inspect(&self, wasm: Content, turn: Arc<Turn>) -> Result<(Bytes, Inspection), Error> {
        let sandbox = self.inner.sandbox.clone();
        let inspected = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let wasm = wasm.read()?;
            let inspected = sandbox.inspect(&wasm);
            Ok::<_, io::Error>(inspected.map(|inspection| (wasm, inspection)))
        });
        let host = |detail: &str| Refused {
            code: "host:compile".to_owned(),
            detail: detail.to_owned(),
            hint: "The host is at fault, not the component. Try again; if it stays, its operator must look.".to_owned(),
        };
        match inspected.await {
            Ok(Ok(inspected)) => inspected.map_err(Error::Refused),
            Ok(Err(error)) => {
                tracing::error!(%error, "an upload cannot be read back");
                Err(Error::Refused(host("the upload cannot be read back.")))
            }
            Err(error) => {
                tracing::error!(%error, "the inspection of a component panicked");
                Err(Error::Refused(host("the inspection broke off.")))
            }
        }
    }
}

/// What the active version may do; nothing if there is none.
pub fn active_grants(known: Option<&(Plugin, Option<Version>)>) -> Grants {
    known.and_then(|(_, active)| active.as_ref()).map(grants_of).unwrap_or_default()
}

/// Whether somebody has to agree to what a version asks for beyond the active one, and nobody has. The store looks at it
/// again when the version is to run.
pub fn needs_consent((plugin, active): &(Plugin, Option<Version>), version: &Version) -> bool {
    releases::agreed(plugin, active.as_ref(), version).is_err()
}

/// What a version asks for.
pub fn grants_of(version: &Version) -> Grants {
    serde_json::from_str(&version.grants).unwrap_or_else(|error| {
        tracing::error!(%error, digest = version.digest, "stored grants do not read back");
        Grants::default()
    })
}

/// How `new` differs from `old`.
pub fn difference(old: &Grants, new: &Grants) -> Difference {
    Difference { added: new.beyond(old), removed: old.beyond(new) }
}

fn stored<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("because it is plain data")
}

fn warnings(name: &str, manifest: &Manifest, inspection: &Inspection) -> Vec<String> {
    let mut warnings = Vec::new();
    if manifest.plugin.name != name {
        warnings.push(format!("the manifest names the plugin `{}`; it is stored as `{name}`", manifest.plugin.name));
    }
    warnings.extend(needs::warnings(manifest, inspection));
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_compared_entry_by_entry() {
        let grants = |emit: &[&str], schedule| Grants {
            emit: emit.iter().map(|entry| (*entry).to_owned()).collect(),
            schedule,
            ..Grants::default()
        };
        let found = difference(&grants(&["a", "b"], false), &grants(&["b", "c"], true));
        assert_eq!(found.added, ["emit c", "schedule"]);
        assert_eq!(found.removed, ["emit a"]);
        assert_eq!(difference(&Grants::default(), &Grants::default()), Difference::default());
    }
}
