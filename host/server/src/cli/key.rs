//! `bulkhead key`: API keys of a tenant, made and revoked by the operator.

use clap::Args;
use clap::Subcommand;
use serde_json::json;

use crate::auth::text;
use crate::cli::connection::Connection;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Listing;
use crate::cli::screen::Output;
use crate::cli::value::at;

const EXAMPLES: &str = "Examples:
  bulkhead key create acme                                  # may do everything in the tenant
  bulkhead key create acme --scope publish --note webshop
  export BULKHEAD_KEY=$(bulkhead key create acme --quiet)
  bulkhead key list acme
  bulkhead key revoke acme q7w2mz5kfh3a                     # its id, or the whole key";

const COLUMNS: &[Column] = &[
    ("ID", "/id", Cell::Text),
    ("SCOPES", "/scopes", Cell::Text),
    ("NOTE", "/note", Cell::Text),
    ("CREATED", "/created", Cell::Time),
    ("REVOKED", "/revoked", Cell::Time),
];

/// API keys of a tenant: create, list, revoke (operator)
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Key {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key; it is shown this once
    Create {
        /// Whose
        tenant: String,
        /// What it may do: publish, read, rules, plugins, consent, admin, or * for everything; may stand several times
        #[arg(long = "scope", value_name = "SCOPE", default_value = "*", value_delimiter = ',')]
        scopes: Vec<String>,
        /// What it is for
        #[arg(long)]
        note: Option<String>,
        /// Print the key and nothing else
        #[arg(short, long, conflicts_with = "output")]
        quiet: bool,
        #[command(flatten)]
        format: Format,
    },
    /// A tenant's keys, without their secrets
    List {
        /// Whose
        tenant: String,
        #[command(flatten)]
        listing: Listing,
    },
    /// Refuse a key from now on
    Revoke {
        /// Whose
        tenant: String,
        /// The key's id, as `list` shows it, or the whole key
        id: String,
    },
}

impl Key {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let client = self.connection.operator()?;
        match self.action {
            Action::Create { tenant, scopes, note, quiet, format } => {
                let mut body = json!({"scopes": scopes});
                if let Some(note) = note {
                    body["note"] = note.into();
                }
                let key = client.post(&["admin", "v1", "tenants", &tenant, "keys"], &body).await?;
                match format.output {
                    Output::Json => return screen::json(&key),
                    Output::Table => screen::line(&at(&key, "/key"))?,
                }
                if quiet {
                    return Ok(());
                }
                let id = at(&key, "/id");
                screen::note(&format!("This is the only time that the key is shown. It is listed and revoked as {id}."))
            }
            Action::List { tenant, listing } => {
                let items = client.list(&["admin", "v1", "tenants", &tenant, "keys"], &[], listing.limit).await?;
                screen::list(items, listing.output, COLUMNS, &format!("no keys yet: bulkhead key create {tenant}"))
            }
            Action::Revoke { tenant, id } => {
                // A secret has no business in a URL.
                let id = match text::parse(id.trim()) {
                    Some(shown) => shown.id,
                    None if text::is_in(&id) => {
                        return Err(Error::Usage(
                            "that is a key with a typing error; `key list` shows its id".to_owned(),
                        ));
                    }
                    None => id.trim().to_owned(),
                };
                client.delete(&["admin", "v1", "tenants", &tenant, "keys", &id]).await?;
                screen::line(&format!("key {id} of {tenant} is revoked"))
            }
        }
    }
}
