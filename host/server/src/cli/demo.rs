//! `bulkhead demo`: a host to look around in.

use std::path::PathBuf;

use clap::Args;

use crate::cli::error::Result;

/// A host with two tenants, example plugins and a stream of events, on a store that is forgotten
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask demo                # builds the example plugins first
  bulkhead demo --plugins target/plugins --data tests/data
  bulkhead demo --once            # ends after the summary; exit code 1 if anything was lost or applied twice")]
pub struct Demo {
    /// End after the summary
    #[arg(long)]
    once: bool,
    /// Where to listen [default: 127.0.0.1:8080 if that is free, else any free port]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Days of events that are fed
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
    days: u16,
    /// The folder with the example plugins, NAME.wasm and NAME.toml
    #[arg(long, env = "BULKHEAD_DEMO_PLUGINS", value_name = "DIR", default_value = "target/plugins")]
    plugins: PathBuf,
    /// The folder with the events, orders/events.ndjson and github/events.ndjson
    #[arg(long, env = "BULKHEAD_DEMO_DATA", value_name = "DIR", default_value = "tests/data")]
    data: PathBuf,
}

impl Demo {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let options = crate::demo::Options {
            listen: self.listen,
            once: self.once,
            days: usize::from(self.days),
            plugins: self.plugins,
            data: self.data,
        };
        crate::demo::run(options).await
    }
}
