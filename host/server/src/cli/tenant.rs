//! `bulkhead tenant`: the operator's list of tenants, and their switches.

use clap::Args;
use clap::Subcommand;
use serde_json::Value;
use serde_json::json;

use crate::cli::asks;
use crate::cli::asks::Asks;
use crate::cli::ceiling;
use crate::cli::client::Client;
use crate::cli::connection::Connection;
use crate::cli::error::Result;
use crate::cli::quota;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Listing;
use crate::cli::screen::Output;
use crate::cli::value::at;

const EXAMPLES: &str = "Examples:
  bulkhead tenant create acme
  bulkhead tenant list --output json
  bulkhead tenant pause acme      # events are taken in, nothing is worked off
  bulkhead tenant suspend acme    # its keys are refused at once
  bulkhead tenant resume acme
  bulkhead tenant quota acme --rate 100 --burst 500 --storage 100MiB
  bulkhead tenant grants acme --set ceiling.json
  bulkhead tenant policy acme --require-preview";

const COLUMNS: &[Column] = &[
    ("NAME", "/name", Cell::Text),
    ("STATE", "/state", Cell::State),
    ("ID", "/id", Cell::Text),
    ("BACKLOG", "/backlog", Cell::Count),
    ("PARKED", "/parked", Cell::Count),
    ("CREATED", "/created", Cell::Time),
];

/// Tenants: create, list, show, quota, grants, policy, pause, resume, suspend (operator)
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Tenant {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a tenant; `bulkhead key create` then makes a key for it
    Create {
        /// Letters, digits and dashes
        name: String,
    },
    /// All tenants
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// One tenant
    Show {
        /// Its name or id
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Show what it may use, or set it
    Quota(quota::Set),
    /// Show the most that its plugins may be granted, or set it
    Grants(ceiling::Grants),
    /// Show what is asked of its plugins' versions before they run for real, or set it
    Policy {
        /// Its name or id
        name: String,
        #[command(flatten)]
        asks: Asks,
        #[command(flatten)]
        format: Format,
    },
    /// Take its events in, but work nothing off
    Pause {
        /// Its name or id
        name: String,
    },
    /// Undo a pause or a suspension
    Resume {
        /// Its name or id
        name: String,
    },
    /// Refuse its keys, work nothing off
    Suspend {
        /// Its name or id
        name: String,
    },
}

impl Tenant {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let client = self.connection.operator()?;
        let path = ["admin", "v1", "tenants"];
        let (name, switch) = match &self.action {
            Action::Create { name } => {
                let tenant = client.post(&path, &json!({"name": name})).await?;
                screen::line(&format!("tenant {} made ({})", at(&tenant, "/name"), at(&tenant, "/id")))?;
                return screen::note(&format!("next: bulkhead key create {name}"));
            }
            Action::List { listing } => {
                let items = client.list(&path, &[], listing.limit).await?;
                return screen::list(items, listing.output, COLUMNS, "no tenants yet: bulkhead tenant create NAME");
            }
            Action::Show { name, format } => {
                let tenant = client.get(&["admin", "v1", "tenants", name], &[]).await?;
                return screen::one(&tenant, format.output);
            }
            Action::Pause { name } => (name, "pause"),
            Action::Resume { name } => (name, "resume"),
            Action::Suspend { name } => (name, "suspend"),
            Action::Quota(quota) => return quota.run(&client).await,
            Action::Grants(grants) => return grants.run(&client).await,
            Action::Policy { name, asks, format } => return policy(&client, name, asks, format.output).await,
        };
        let tenant = client.post(&["admin", "v1", "tenants", name, switch], &Value::Null).await?;
        screen::line(&format!("tenant {name} is {}", at(&tenant, "/state")))
    }
}

/// Sets what is given, and shows what is asked then.
async fn policy(client: &Client, name: &str, asks: &Asks, output: Output) -> Result<()> {
    let path = ["admin", "v1", "tenants", name, "policy"];
    let mut answer = client.get(&path, &[]).await?;
    if let Some(wanted) = asks.wanted(&answer["tenant"]["require_preview"]) {
        answer = client.put(&path, &json!({ "require_preview": wanted })).await?;
    }
    if output == Output::Json {
        return screen::json(&answer);
    }
    for (whose, field) in [("of this tenant's plugins", "tenant"), ("of all, by the host's configuration", "host")] {
        screen::line(&format!("{whose}: {}", asks::said(&answer[field]["require_preview"])))?;
    }
    Ok(())
}
