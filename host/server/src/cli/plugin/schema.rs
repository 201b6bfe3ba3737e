//! `bulkhead plugin schema`: the JSON Schemas of what plugin authors write, for editors.

use clap::Args;
use serde_json::Value;

use crate::cli::error::Result;
use crate::cli::screen;
use crate::fixture::Fixture;
use crate::manifest::raw;

/// Which schema is printed.
#[derive(Debug, Args)]
pub struct Schema {
    /// That of fixtures (`tests/*.json`) instead of that of manifests
    #[arg(long)]
    fixture: bool,
}

impl Schema {
    /// Does it.
    pub fn run(&self) -> Result<()> {
        screen::json(&if self.fixture { fixture() } else { manifest() })
    }
}

/// The schema of `plugin.toml`.
pub fn manifest() -> Value {
    raw::schema::<raw::Raw>()
}

/// The schema of `tests/*.json`.
pub fn fixture() -> Value {
    raw::schema::<Fixture>()
}
