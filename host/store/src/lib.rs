//! Ports in domain verbs, and the backends behind them.
//!
//! A port method is one transaction. It takes the tenant first, or says in its name that it serves the operator
//! (`operator_…`) or the host itself (`host_…`), which work across tenants.
//!
//! One port per caller: [`log`] (inbox, readers of events), [`work`] (dispatch), [`state`] (guests, by way of dispatch),
//! [`deliveries`], [`timers`] (keeper), [`leases`] (keeper), [`catalogue`] (API), [`releases`] (API, dispatch),
//! [`recordings`] (API), [`usage`] (API).
//! Backends: [`sqlite`] for one node, [`postgres`] for several; both pass the same suite in [`mod@conformance`].

mod assemble;
pub mod catalogue;
pub mod conformance;
pub mod copy;
pub mod deliveries;
pub mod leases;
pub mod log;
mod look;
pub mod outbox;
pub mod postgres;
pub mod recordings;
pub mod releases;
mod retired;
mod row;
pub mod sqlite;
pub mod state;
pub mod timers;
pub mod upkeep;
pub mod usage;
pub mod work;

use std::sync::Arc;

/// All ports of one backend.
pub trait Backend:
    log::Log
    + work::Work
    + state::State
    + deliveries::Deliveries
    + timers::Timers
    + leases::Leases
    + catalogue::Tenants
    + catalogue::Keys
    + catalogue::Plugins
    + catalogue::Settings
    + recordings::Recordings
    + releases::Releases
    + usage::Usage
    + upkeep::Upkeep
    + 'static
{
}

/// A handle on the store.
pub type Store = Arc<dyn Backend>;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot take writes now; the same call may work later.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// For the operator's log.
        reason: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// No space is left where the store lives.
    #[error("the store is full")]
    Full,
    /// The thing named does not exist in this tenant.
    #[error("no such {what}: {name}")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A thing with this name exists already, or it changed since the caller looked.
    #[error("{what} {name} is not as expected: {detail}")]
    Conflict {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// How it differs.
        detail: String,
    },
    /// A version may not run for real yet: its plugin's settings ask for a preview that it has not.
    #[error("version {version} of plugin {plugin} needs a preview: {lack}")]
    Unproven {
        /// The plugin.
        plugin: String,
        /// The version.
        version: u32,
        /// What is missing.
        lack: bulkhead_domain::policy::proof::Lack,
    },
    /// A version may not run: it asks for more than the active one has, and nobody who may has agreed to that.
    #[error("version {version} of plugin {plugin} asks for more than the active one has: {}", added.join(", "))]
    Unagreed {
        /// The plugin.
        plugin: String,
        /// The version.
        version: u32,
        /// What it asks for beyond the active one: `emit orders.*`.
        added: Vec<String>,
    },
    /// Whoever sets what a plugin asks of its versions may not let through more than it does now.
    #[error("what plugin {plugin} asks of its versions would become less")]
    Weaker {
        /// The plugin.
        plugin: String,
    },
    /// The version is not there any more: it was retired, and a plugin keeps so many of those and no more.
    #[error("version {version} of plugin {plugin} was let go")]
    LetGo {
        /// The plugin.
        plugin: String,
        /// The version.
        version: u32,
    },
    /// With a further component the tenant's plugins would keep more than they may. All numbers are bytes.
    #[error("the tenant's plugins keep {} bytes, and may keep {limit}; the component has {added}", state + components)]
    Crowded {
        /// What they may keep.
        limit: u64,
        /// What they keep of state.
        state: u64,
        /// What they keep of components.
        components: u64,
        /// The component's.
        added: u64,
    },
    /// What is stored does not read back. Never the caller's fault.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
}

impl Error {
    /// Whether it is about what the caller asked for; the store itself is well.
    pub(crate) const fn is_refusal(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Unproven { .. }
            | Self::Unagreed { .. }
            | Self::Weaker { .. }
            | Self::LetGo { .. }
            | Self::Crowded { .. } => true,
            Self::Unavailable { .. } | Self::Full | Self::Damaged(_) => false,
        }
    }
}

/// The result of a store call.
pub type Result<T, E = Error> = std::result::Result<T, E>;
