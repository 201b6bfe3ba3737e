//! The watched folder: `DIR/<tenant>/<plugin>.wasm`, with `<plugin>.toml` and `<plugin>.sig` beside it, becomes a new active
//! version whenever one of them changes.
//!
//! ```text
//! unseen ──changed──▶ settling ──300 ms unchanged, whole──▶ installing ──▶ handled (taken or refused)
//!                        ▲                                                     │ changed
//!                        └─────────────────────────────────────────────────────┘
//! ```
//!
//! The kernel's notifications only say when to look; what counts is what the folder looks like ([`scan`]). So nothing is
//! lost when notifications are, and renames, slow writers and copies need no rules of their own. Links and everything that
//! is no regular file are passed over. A file that is refused or removed changes nothing about the version that runs.
//!
//! Does not: retire, delete, or write into the folder.

mod read;
mod scan;

use std::collections::HashMap;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use bulkhead_domain::clock::Clock;
use bulkhead_store::Store;
use bulkhead_store::catalogue::Tenant;
use notify::RecursiveMode;
use notify_debouncer_full::DebounceEventResult;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::install::Activate;
use crate::install::Error;
use crate::install::Installer;
use crate::install::Refusal;
use crate::install::Upload;
use crate::signature;
use crate::watch::read::Files;
use crate::watch::read::Read;
use crate::watch::scan::Seen;
use crate::watch::scan::Stamp;

/// A file that has been the same for this long is taken for written.
const SETTLED: Duration = Duration::from_millis(300);
/// A file that is not whole is waited for so long, and then refused.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked while something settles.
const LOOK_SOON: Duration = Duration::from_millis(100);
/// How often is looked while a folder waits for its tenant to be made.
const LOOK_FOR_TENANT: Duration = Duration::from_millis(500);
/// How often is looked without any notification: for file systems that send none.
const LOOK: Duration = Duration::from_secs(5);
/// How long notifications are gathered.
const GATHER: Duration = Duration::from_millis(50);

/// Who uploads, as the versions say it.
const AUTHOR: &str = "watch";

/// Watches a folder.
pub struct Watch<C> {
    folder: PathBuf,
    store: Store,
    installer: Installer,
    clock: C,
    plugins: HashMap<(String, String), Plugin>,
    /// Already said; not to be said again while it is so.
    said: HashSet<String>,
    first: bool,
}

/// What is known of one plugin's files.
#[derive(Debug)]
struct Plugin {
    stamp: Stamp,
    since: Instant,
    handled: bool,
    /// It was there when the watch began.
    from_start: bool,
}

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Soon,
    ForTenant,
    Later,
}

impl<C: Clock> Watch<C> {
    /// A watch that does not look yet.
    pub fn new(folder: PathBuf, store: Store, installer: Installer, clock: C) -> Self {
        let (plugins, said) = (HashMap::new(), HashSet::new());
        Self { folder, store, installer, clock, plugins, said, first: true }
    }

    /// Watches until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        // One waiting hint is enough: a look sees everything.
        let (hint, mut hints) = mpsc::channel(1);
        let mut debouncer = notify_debouncer_full::new_debouncer(GATHER, None, move |_: DebounceEventResult| {
            // A full channel means that a look is due already.
            let _ = hint.try_send(());
        })
        .context("the kernel gives no notifications of files")?;
        std::fs::create_dir_all(&self.folder)
            .with_context(|| format!("the folder {} cannot be made", self.folder.display()))?;
        debouncer
            .watch(&self.folder, RecursiveMode::Recursive)
            .with_context(|| format!("the folder {} cannot be watched", self.folder.display()))?;
        tracing::info!(folder = %self.folder.display(), "watching for plugins");
        loop {
            let wait = match self.look().await {
                Next::Soon => LOOK_SOON,
                Next::ForTenant => LOOK_FOR_TENANT,
                Next::Later => LOOK,
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hints.recv() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Looks once, and takes in what has settled.
    async fn look(&mut self) -> Next {
        let folder = self.folder.clone();
        let seen = match tokio::task::spawn_blocking(move || scan::scan(&folder)).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                self.say(format!("the folder of plugins cannot be read: {error}"));
                return Next::Later;
            }
            Err(_) => return Next::Later,
        };
        let first = std::mem::take(&mut self.first);
        let mut still: HashSet<String> = HashSet::new();
        for odd in &seen.odd {
            still.insert(self.say(odd.clone()));
        }
        self.forget(&seen);
        let tenants = match self.tenants(&seen).await {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::warn!(%error, "the tenants of the watched folder cannot be looked up");
                return Next::Soon;
            }
        };
        let mut next = Next::Later;
        for (key, stamp) in seen.plugins {
            let Some(tenant) = tenants.get(&key.0) else {
                let text = format!("the folder `{}` is of no tenant: make one of that name, or rename it", key.0);
                still.insert(self.say(text));
                next = if next == Next::Soon { next } else { Next::ForTenant };
                continue;
            };
            if !self.attend(key, stamp, tenant, first).await {
                next = Next::Soon;
            }
        }
        // What is not so any more may be said again.
        self.said.retain(|text| still.contains(text));
        next
    }

    /// Looks after one plugin; true if there is nothing more to do for now.
    async fn attend(&mut self, key: (String, String), stamp: Stamp, tenant: &Tenant, first: bool) -> bool {
        let now = Instant::now();
        let plugin = self.plugins.entry(key.clone()).or_insert_with(|| Plugin {
            stamp: stamp.clone(),
            since: now,
            handled: false,
            from_start: first,
        });
        if plugin.stamp != stamp {
            *plugin = Plugin { stamp, since: now, handled: false, from_start: false };
        }
        if plugin.handled {
            return true;
        }
        let waited = now - plugin.since;
        // At the start the files have been there before; a writer that is still at work is noticed by what is not whole.
        if waited < SETTLED && !plugin.from_start {
            return false;
        }
        let from_start = plugin.from_start;
        let stamp = plugin.stamp.clone();
        let folder = self.folder.clone();
        let (dir, name) = key.clone();
        let read = tokio::task::spawn_blocking(move || read::read(&folder, &dir, &name, &stamp)).await;
        let handled = match read {
            Ok(Read::Whole(files)) => {
                let activate = if from_start { Activate::IfNew } else { Activate::Yes };
                self.install(tenant, &key.1, files, activate).await
            }
            Ok(Read::Partial(reason)) if waited >= PATIENCE => {
                self.refused(
                    tenant,
                    &key.1,
                    "rejected_upload:truncated",
                    &reason,
                    "Write the whole file, best beside it, and rename it into place.",
                );
                true
            }
            Ok(Read::Partial(_) | Read::Changed) | Err(_) => false,
            Ok(Read::Impossible(reason)) => {
                self.refused(tenant, &key.1, "rejected_upload:file", &reason, "");
                true
            }
        };
        if let Some(plugin) = self.plugins.get_mut(&key) {
            plugin.handled = handled;
        }
        handled
    }

    /// True unless it should be tried again.
    async fn install(&self, tenant: &Tenant, name: &str, files: Files, activate: Activate) -> bool {
        let upload = Upload {
            tenant: tenant.id,
            name: name.to_owned(),
            wasm: files.wasm.into(),
            manifest: files.manifest,
            signature: files.signature,
            author: AUTHOR.to_owned(),
            activate,
            // The folder is the operator's: whoever can write there has agreed.
            may_consent: true,
        };
        match self.installer.install(upload).await {
            Ok(installed) => {
                let (number, active) = (installed.version.number, installed.plugin.active);
                let digest = &installed.version.digest;
                if active == Some(number) {
                    tracing::info!(
                        tenant = tenant.name,
                        plugin = name,
                        version = number,
                        digest,
                        "a plugin is active from its file"
                    );
                } else {
                    tracing::info!(
                        tenant = tenant.name,
                        plugin = name,
                        version = number,
                        digest,
                        ?active,
                        "a plugin's file is known; another version is active"
                    );
                }
                for warning in installed.warnings {
                    tracing::warn!(tenant = tenant.name, plugin = name, warning, "a plugin's file is odd");
                }
                true
            }
            Err(Error::Busy) => false,
            Err(Error::Store(error))
                if !matches!(error, bulkhead_store::Error::Conflict { .. } | bulkhead_store::Error::Crowded { .. }) =>
            {
                tracing::warn!(tenant = tenant.name, plugin = name, %error, "a plugin's file cannot be taken in now");
                false
            }
            Err(error) => {
                let (code, detail, hint) = words(&error);
                self.refused(tenant, name, &code, &detail, &hint);
                true
            }
        }
    }

    fn refused(&self, tenant: &Tenant, name: &str, code: &str, detail: &str, hint: &str) {
        tracing::warn!(
            tenant = tenant.name,
            plugin = name,
            code,
            detail,
            hint,
            "a plugin's file is refused; what runs stays as it is"
        );
        let (code, detail, hint) = (code.to_owned(), detail.to_owned(), hint.to_owned());
        self.installer.refuse(tenant.id, name, Refusal { at: self.clock.now(), code, detail, hint });
    }

    /// Plugins whose files are gone. Nothing is retired by that.
    fn forget(&mut self, seen: &Seen) {
        self.plugins.retain(|key, _| {
            let there = seen.plugins.contains_key(key);
            if !there {
                tracing::info!(
                    tenant = key.0,
                    plugin = key.1,
                    "a plugin's file is gone; its versions stay as they are"
                );
            }
            there
        });
    }

    /// The tenants of all folders, by the folder's name: only asked for when something is to be done.
    async fn tenants(&self, seen: &Seen) -> bulkhead_store::Result<HashMap<String, Tenant>> {
        let mut tenants = HashMap::new();
        for (folder, _) in seen.plugins.keys() {
            if !tenants.contains_key(folder)
                && let Some(tenant) = self.store.operator_tenant(folder).await?
            {
                tenants.insert(folder.clone(), tenant);
            }
        }
        Ok(tenants)
    }

    /// Says something once.
    fn say(&mut self, text: String) -> String {
        if self.said.insert(text.clone()) {
            tracing::warn!(folder = %self.folder.display(), "{text}");
        }
        text
    }
}

/// Code, sentence and advice of a refusal.
fn words(error: &Error) -> (String, String, String) {
    match error {
        Error::Refused(refused) => (refused.code.clone(), refused.detail.clone(), refused.hint.clone()),
        Error::Manifest(faults) => {
            let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
            ("manifest-invalid".to_owned(), lines.join("\n"), "Mend the manifest beside the component.".to_owned())
        }
        Error::Signature(refusal) => {
            let code = match refusal {
                signature::Refusal::Missing => "signature-missing",
                signature::Refusal::Invalid(_) => "signature-invalid",
            };
            (
                code.to_owned(),
                format!("{refusal}."),
                format!("The .sig lies beside the component; {}.", signature::HINT),
            )
        }
        other => {
            let cause = std::error::Error::source(other).map(|cause| format!(": {cause}")).unwrap_or_default();
            ("rejected_upload:other".to_owned(), format!("{other}{cause}"), String::new())
        }
    }
}
