//! Releases: which version of a plugin runs, who said so and when.
//!
//! Everything here is a decision about a version that is there already ([`catalogue`](crate::catalogue) adds them). Each
//! decision is one transaction, leaves an entry in the plugin's history, and raises the version of the tenant's settings.
//!
//! A plugin can ask for a preview of a version before it runs for real ([`proof`](bulkhead_domain::policy::proof)): that is
//! looked at in the transaction that activates it or starts its canary, so there is no way around it. So is consent, for
//! every way that makes a version run: activating, trying as a candidate, promoting.
//!
//! An operator can ask for a preview, too, of a tenant's plugins or (whoever acts says so, [`Act::asks`]) of all: the
//! stricter of all counts.
//!
//! Of retired versions a plugin keeps a bounded number. When one is retired or added, the oldest beyond that go, with their
//! previews, and with their component if nobody else has it; so do some when a component needs their room. What is active,
//! what was before, candidates, and a plugin's newest version stay. The history stays, too.
//!
//! At most one candidate of a kind is under way in a plugin. What it came to is a sum that nodes add to, each what it has
//! committed itself; whoever ends it names it by its number, so that of several that want to one does.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::proof::Preview;
use bulkhead_domain::policy::proof::ReleasePolicy;
use bulkhead_domain::policy::rollout::Counts;
use serde::Deserialize;
use serde::Serialize;

use crate::Error;
use crate::Result;
use crate::catalogue::Plugin;
use crate::catalogue::Version;

/// Who does something, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    /// A key's id, `watch`, `host`, …
    pub author: String,
    /// When.
    pub at: Timestamp,
    /// Whether they may agree to what a version asks for, and let pass what a plugin's policy does not. Making a version run
    /// that needs agreement is agreeing to it.
    pub consents: bool,
    /// What the host asks of every version that is to run for real.
    pub asks: ReleasePolicy,
}

impl Act {
    /// By somebody who may agree to nothing, at a time, on a host that asks for nothing.
    #[must_use]
    pub fn by(author: &str, at: Timestamp) -> Self {
        Self { author: author.to_owned(), at, consents: false, asks: ReleasePolicy::default() }
    }

    /// On a host that asks for this.
    #[must_use]
    pub fn asking(self, asks: ReleasePolicy) -> Self {
        Self { asks, ..self }
    }

    /// By somebody who may agree, or not.
    #[must_use]
    pub fn consenting(self, consents: bool) -> Self {
        Self { consents, ..self }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The version became the active one.
    Activated,
    /// It became the active one again.
    RolledBack,
    /// It can never be activated again.
    Retired,
    /// What it asks for beyond the version before it was agreed to.
    Approved,
    /// It got a part of the events.
    CanaryStarted,
    /// It gets none any more, or all.
    CanaryEnded,
    /// It began to run beside the active one.
    ShadowStarted,
    /// It does not any more.
    ShadowEnded,
    /// What the plugin asks of its versions was changed. Of the version that was active then; 0 if none was.
    PolicyChanged,
}

/// An entry of a plugin's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From 1 in each plugin.
    pub number: i64,
    /// What was done.
    pub action: Action,
    /// To which version.
    pub version: u32,
    /// Who.
    pub author: String,
    /// When.
    pub at: Timestamp,
    /// More about it, as a JSON object.
    pub detail: String,
}

/// A change of the active version.
#[derive(Debug, Clone)]
pub struct Switch {
    /// To this one; none is the one before.
    pub to: Option<u32>,
    /// Whether it is told as a step back.
    pub back: bool,
    /// The active version that whoever decided it has seen; if another is active by now it is a conflict.
    pub seen: Option<Option<u32>>,
    /// By whom.
    pub act: Act,
}

impl Switch {
    /// To a version.
    #[must_use]
    pub const fn to(version: u32, act: Act) -> Self {
        Self { to: Some(version), back: false, seen: None, act }
    }

    /// To the version that was active before.
    #[must_use]
    pub const fn back(act: Act) -> Self {
        Self { to: None, back: true, seen: None, act }
    }
}

/// How a candidate is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It gets a part of the events, and what it does counts.
    Canary,
    /// It runs beside the active version, and what it does is compared and forgotten.
    Shadow,
}

/// What a candidate came to so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// The active version, over the same time.
    pub active: Counts,
    /// The candidate.
    pub candidate: Counts,
    /// Shadow: runs that ended as the active version's, but with other effects.
    pub changed: u64,
    /// Shadow: runs that failed where the active version's did not.
    pub newly_failed: u64,
    /// Shadow: runs that did not fit into what a shadow may cost, or whose state was not known any more.
    pub skipped: u64,
    /// Shadow: some of those that differ, as JSON objects.
    pub samples: Vec<serde_json::Value>,
}

/// Differences kept of a shadow.
pub const SAMPLES_MAX: usize = 20;

impl Tally {
    /// Adds what somebody else counted.
    pub fn add(&mut self, more: &Self) {
        self.active.add(&more.active);
        self.candidate.add(&more.candidate);
        self.changed = self.changed.saturating_add(more.changed);
        self.newly_failed = self.newly_failed.saturating_add(more.newly_failed);
        self.skipped = self.skipped.saturating_add(more.skipped);
        let room = SAMPLES_MAX.saturating_sub(self.samples.len());
        self.samples.extend(more.samples.iter().take(room).cloned());
    }
}

/// A candidate under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// The plugin.
    pub plugin: PluginId,
    /// How it is tried.
    pub kind: Kind,
    /// That of the entry of its beginning.
    pub number: i64,
    /// The candidate.
    pub version: u32,
    /// Who began it.
    pub author: String,
    /// When.
    pub started: Timestamp,
    /// How, as a JSON object: the store does not look into it.
    pub terms: String,
    /// What it came to so far.
    pub tally: Tally,
}

/// How a candidate's time ends.
#[derive(Debug, Clone)]
pub struct Ending {
    /// The one meant; none is whichever is under way.
    pub number: Option<i64>,
    /// Whether the candidate becomes the active version with it.
    pub promote: bool,
    /// Why, as a JSON object; what it came to is added as `tally`.
    pub detail: serde_json::Map<String, serde_json::Value>,
    /// By whom.
    pub act: Act,
}

/// What a version lacks to run for real where this is asked of it. `Unproven` if it may not. What was active before was
/// proven then, and never has to be again, so that the way back is short.
pub fn proven(
    plugin: &Plugin,
    asked: &ReleasePolicy,
    version: &Version,
    preview: Option<&Preview>,
    now: Timestamp,
) -> Result<()> {
    match &asked.require_preview {
        Some(wanted) if version.activated.is_none() => wanted.judge(preview, now).map_err(|lack| Error::Unproven {
            plugin: plugin.name.clone(),
            version: version.number,
            lack,
        }),
        _ => Ok(()),
    }
}

/// Whether a version may run with all that it asks for: it asks for no more than the active one, or somebody agreed to it,
/// or it was active before, and what it asks for was agreed to then. `Unagreed` if it may not.
pub fn agreed(plugin: &Plugin, active: Option<&Version>, version: &Version) -> Result<()> {
    if version.approval.is_some() || version.activated.is_some() {
        return Ok(());
    }
    let has = active.map(grants).transpose()?.unwrap_or_default();
    let added = grants(version)?.beyond(&has);
    if added.is_empty() {
        return Ok(());
    }
    Err(Error::Unagreed { plugin: plugin.name.clone(), version: version.number, added })
}

fn grants(version: &Version) -> Result<Grants> {
    serde_json::from_str(&version.grants)
        .map_err(|error| Error::Damaged(format!("the grants of version {} do not read: {error}", version.number)))
}

/// Why a candidate's time is over as another version has become active, as a JSON object; none if it goes on.
pub(crate) fn over(
    plugin: &Plugin,
    active: &Version,
    candidate: &Version,
) -> Result<Option<serde_json::Map<String, serde_json::Value>>> {
    let mut detail = serde_json::Map::new();
    if active.number == candidate.number {
        // It has nobody to be compared with.
        detail.insert("reason".to_owned(), "became-active".into());
        return Ok(Some(detail));
    }
    match agreed(plugin, Some(active), candidate) {
        Ok(()) => Ok(None),
        Err(Error::Unagreed { added, .. }) => {
            detail.insert("reason".to_owned(), "asks-for-more".into());
            detail.insert("added".to_owned(), added.into());
            Ok(Some(detail))
        }
        Err(error) => Err(error),
    }
}

/// Decisions about versions.
#[async_trait]
pub trait Releases: Send + Sync {
    /// Changes the active version. `NotFound` for an unknown version, `LetGo` for one that is gone; `Conflict` for a retired one, for one that was not
    /// seen, and if there is none before; `Unproven` for one that lacks a preview; `Unagreed` for one that asks for more than
    /// the active one. The active one again changes nothing. Candidates that ask for more than the new active one end.
    async fn switch_version(&self, tenant: TenantId, plugin: &str, switch: &Switch) -> Result<Plugin>;

    /// Retires a version. `Conflict` if it is active or a candidate under way. Of the retired ones so many are kept.
    async fn retire(&self, tenant: TenantId, plugin: &str, version: u32, kept: u32, act: &Act) -> Result<()>;

    /// Agrees to what a version asks for. Who agrees again does not change who did first.
    async fn approve(&self, tenant: TenantId, plugin: &str, version: u32, act: &Act) -> Result<Version>;

    /// Changes what a plugin asks of its versions. The same again changes nothing. `Weaker` if more would pass than now and
    /// whoever does it may agree to nothing.
    async fn set_release_policy(&self, tenant: TenantId, plugin: &str, policy: &ReleasePolicy, act: &Act)
    -> Result<()>;

    /// Remembers a preview in the place of the last one of the same versions.
    async fn add_preview(&self, tenant: TenantId, plugin: &str, preview: &Preview) -> Result<()>;

    /// The last preview of each pair of versions, newest first.
    async fn previews(&self, tenant: TenantId, plugin: PluginId) -> Result<Vec<Preview>>;

    /// What was done, newest first, before an entry. `NotFound` for an unknown plugin.
    async fn history(&self, tenant: TenantId, plugin: &str, before: Option<i64>, limit: u32) -> Result<Vec<Entry>>;

    /// Begins to try a candidate. `Conflict` if it is active or retired, or if one of the kind is under way; `Unagreed` for
    /// one that asks for more than the active one; `Unproven` for a canary that lacks a preview: what it does is for real.
    async fn start_rollout(
        &self,
        tenant: TenantId,
        plugin: &str,
        kind: Kind,
        version: u32,
        terms: &str,
        act: &Act,
    ) -> Result<Rollout>;

    /// Those under way in a plugin.
    async fn rollouts(&self, tenant: TenantId, plugin: PluginId) -> Result<Vec<Rollout>>;

    /// Adds to what one came to; gives the sum, or none if it has ended.
    async fn count_rollout(
        &self,
        tenant: TenantId,
        plugin: PluginId,
        kind: Kind,
        number: i64,
        more: &Tally,
    ) -> Result<Option<Rollout>>;

    /// Ends one; none if there is none, or another. To be promoted it needs the preview that it needed to begin,
    /// and the consent that it would need to be activated.
    async fn end_rollout(&self, tenant: TenantId, plugin: &str, kind: Kind, end: &Ending) -> Result<Option<Rollout>>;
}
