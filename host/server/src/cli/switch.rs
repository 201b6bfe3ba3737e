//! `bulkhead pause` and `bulkhead resume`: the tenant's own switch.

use clap::Args;
use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::error::Result;
use crate::cli::screen;

/// The tenant's switch; which way it goes is in the command's name.
#[derive(Debug, Args)]
pub struct Switch {
    #[command(flatten)]
    connection: Connection,
}

impl Switch {
    /// Takes events in, but works nothing off.
    pub async fn pause(self) -> Result<()> {
        self.connection.tenant()?.post(&["v1", "pause"], &json!({})).await?;
        screen::line("paused: events are taken in and wait; `bulkhead resume` lets them go on")
    }

    /// Works everything off again.
    pub async fn resume(self) -> Result<()> {
        self.connection.tenant()?.post(&["v1", "resume"], &json!({})).await?;
        screen::line("running")
    }
}
