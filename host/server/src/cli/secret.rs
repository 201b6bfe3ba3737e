//! `bulkhead secret`: values that plugins and sinks use by name, and that nobody can read back.

use std::io::IsTerminal as _;
use std::path::Path;

use clap::Args;
use clap::Subcommand;
use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::input;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Listing;

const EXAMPLES: &str = "Examples:
  bulkhead secret set crm-token                # asks for the value without showing it
  bulkhead secret set crm-token < token.txt
  openssl rand -hex 32 | bulkhead secret set crm-token
  bulkhead secret list";

const COLUMNS: &[Column] =
    &[("NAME", "/name", Cell::Text), ("VERSION", "/version", Cell::Count), ("UPDATED", "/updated", Cell::Time)];

/// Secrets of plugins and sinks: set, list, delete; values never come back out
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Secret {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Set a secret; the value comes from standard input or a prompt, never from the command line
    Set {
        /// Its name
        name: String,
    },
    /// Names and versions
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Remove a secret
    Delete {
        /// Its name
        name: String,
    },
}

impl Secret {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let client = self.connection.tenant()?;
        match self.action {
            Action::Set { name } => {
                let value = value(&name).await?;
                client.put(&["v1", "secrets", &name], &json!({"value": value})).await?;
                screen::line(&format!("secret {name} is set"))
            }
            Action::List { listing } => {
                let items = client.list(&["v1", "secrets"], &[], listing.limit).await?;
                screen::list(items, listing.output, COLUMNS, "no secrets yet: bulkhead secret set NAME")
            }
            Action::Delete { name } => {
                client.delete(&["v1", "secrets", &name]).await?;
                screen::line(&format!("secret {name} is gone"))
            }
        }
    }
}

/// From a pipe: all of it but one line end. From a terminal: one line, not shown.
async fn value(name: &str) -> Result<String> {
    let value = if std::io::stdin().is_terminal() {
        let name = name.to_owned();
        tokio::task::spawn_blocking(move || input::hidden(&format!("value of {name}: ")))
            .await
            .map_err(|cause| Error::failed(cause.to_string()))??
    } else {
        let text = input::text(Path::new("-")).await?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        text.strip_suffix('\r').unwrap_or(text).to_owned()
    };
    if value.is_empty() { Err(Error::Usage("an empty value is no secret".to_owned())) } else { Ok(value) }
}
