//! The composition root: starts the parts of a host in order, and ends them in the opposite one.

use std::net::SocketAddr;

use crate::config::Config;

/// A running host.
#[derive(Debug)]
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    /// The operator's key, only when it was made just now: it is never shown again.
    pub operator_key: Option<String>,
}

/// Starts a host. When this returns, it serves.
pub async fn start(config: Config) -> anyhow::Result<App> {
    let _ = config;
    anyhow::bail!("the host cannot start yet")
}

impl App {
    /// Serves until the process is asked to end (SIGTERM, Ctrl-C), then drains.
    pub async fn wait(self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Drains and ends: what is under way gets the grace period, what is not done by then is done after the next start.
    pub async fn stop(self) {}
}
