//! `bulkhead serve`: a host for others.

use clap::Args;

use crate::app;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::host::HostFlags;
use crate::cli::screen;

const EXAMPLES: &str = "Examples:
  bulkhead serve
  bulkhead serve --listen 0.0.0.0:8080 --store sqlite:/var/lib/bulkhead/bulkhead.db
  bulkhead serve --config /etc/bulkhead.toml --log-format json
  bulkhead serve --store postgres://bulkhead_host@db/bulkhead --redis redis://cache
                    one of several nodes; `bulkhead store migrate` makes the tables

The first line on standard output is `listening on http://ADDRESS`; on the very first start
the operator's key follows. BULKHEAD_OPERATOR_KEY sets that key instead.
`bulkhead config check` shows what all settings come to.";

/// A host for others
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    #[command(flatten)]
    flags: HostFlags,
}

impl Serve {
    /// Does it, until the process is asked to end.
    pub async fn run(self) -> Result<()> {
        let config = self.flags.load()?;
        let app = app::start(config).await.map_err(|error| Error::chain(&error))?;
        screen::line(&format!("listening on http://{}", app.address))?;
        if let Some(key) = &app.operator_key {
            screen::line(&format!("operator key {key}"))?;
        }
        app.wait().await.map_err(|error| Error::chain(&error))
    }
}
