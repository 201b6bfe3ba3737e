//! The bus: tells the other nodes of a store that something happened, so that they need not wait for their next look.
//!
//! ```text
//! commit, append, change ──publish──▶ Pending ──one PUBLISH, at most every 2 ms──▶ Redis ──▶ Pending ──▶ Handler
//!                                     (each once)                                            (each once)   asks the store
//! ```
//!
//! A signal is a hint. It may come twice, late, or never (no Redis, a cut wire, a restart): whoever relies on it looks by
//! itself as well, at the latest after a second, and after a gap hears [`Signal::Missed`]. So `publish` neither waits nor
//! fails, and nothing of a tenant but its number is on the wire.
//!
//! Reading order: [`Signal`], [`Bus`], `pending`, [`Transport`].

mod pending;
mod signal;
mod transport;

use std::sync::Arc;

use async_trait::async_trait;

use crate::bus::pending::Pending;
pub use crate::bus::signal::Signal;
pub use crate::bus::transport::Transport;

/// Where signals go out. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Bus {
    outgoing: Option<Arc<Pending>>,
}

impl Bus {
    /// A bus without other nodes: signals go nowhere.
    #[must_use]
    pub fn local() -> Self {
        Self::default()
    }

    /// Tells the other nodes, soon. Never waits; what cannot be told becomes [`Signal::Missed`] later.
    pub fn publish(&self, signal: Signal) {
        if let Some(outgoing) = &self.outgoing
            && !outgoing.add(signal)
        {
            metrics::counter!("bulkhead_bus_signals_coalesced_total").increment(1);
        }
    }
}

/// What signals of other nodes mean here.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// A signal came. One at a time; those that come meanwhile wait, each once.
    async fn heard(&self, signal: Signal);
}
