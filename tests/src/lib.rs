//! What the suites share: a real host process, a client, a receiver of webhooks, and the checker of invariants.
//!
//! Every test starts its own host on a free port in its own folder, so they do not see each other. Waits are on a
//! condition with a deadline, never on time alone.

pub mod cluster;
pub mod guest;
pub mod host;
pub mod ledger;
pub mod load;
pub mod openapi;
pub mod receiver;
pub mod stream;

use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

/// The host's binary, as `cargo xtask` built it.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("BULKHEAD_BIN").context("BULKHEAD_BIN is not set: run this by `cargo xtask test`")?;
    Ok(PathBuf::from(path))
}

/// An example plugin: its component and its manifest.
pub fn plugin(name: &str) -> Result<(Vec<u8>, String)> {
    let folder = std::env::var_os("BULKHEAD_PLUGINS")
        .map(PathBuf::from)
        .context("BULKHEAD_PLUGINS is not set: run this by `cargo xtask test`")?;
    let wasm = std::fs::read(folder.join(format!("{name}.wasm"))).with_context(|| format!("no component of {name}"))?;
    let manifest = std::fs::read_to_string(folder.join(format!("{name}.toml")))?;
    Ok((wasm, manifest))
}

/// True in the long form of the suites.
#[must_use]
pub fn nightly() -> bool {
    std::env::var_os("BULKHEAD_NIGHTLY").is_some()
}

/// Waits until `check` gives a value, at most `limit`. The error says what was waited for and what was seen last.
pub async fn eventually<T, F: AsyncFnMut() -> Result<Option<T>>>(
    what: &str,
    limit: Duration,
    mut check: F,
) -> Result<T> {
    let until = Instant::now() + limit;
    let mut last = None;
    loop {
        match check().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        if Instant::now() >= until {
            match last {
                Some(error) => return Err(error.context(format!("waited {limit:?} for {what}"))),
                None => bail!("waited {limit:?} for {what}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
