//! `bulkhead config`: what a host's settings come to, and what there is to set.

use clap::Args;
use clap::Subcommand;

use crate::cli::error::Result;
use crate::cli::host::HostFlags;
use crate::cli::screen;

const EXAMPLES: &str = "Examples:
  bulkhead config default > bulkhead.toml
  bulkhead config check --config bulkhead.toml
  BULKHEAD_LIMITS_PLUGIN_TIME=1s bulkhead config check";

/// A host's settings: check, default
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check all settings and print what they come to, each with where it comes from; secrets are masked
    Check {
        #[command(flatten)]
        flags: HostFlags,
    },
    /// Print every setting with its default and what it is for
    Default,
}

impl Config {
    /// Does it.
    pub fn run(self) -> Result<()> {
        match self.action {
            Action::Check { flags } => screen::raw(flags.load()?.render().as_bytes()),
            Action::Default => screen::raw(crate::config::DEFAULTS.as_bytes()),
        }
    }
}
