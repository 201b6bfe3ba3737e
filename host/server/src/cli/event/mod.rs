//! `bulkhead event`: publish, look up, follow.
//!
//! Reading order: the tree of commands here, then `publish`, `tail`, and `story` (what became of one event).

mod publish;
mod story;
mod tail;

use clap::Args;
use clap::Subcommand;

use crate::cli::connection::Connection;
use crate::cli::error::Result;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Listing;
use crate::cli::screen::Output;

const EXAMPLES: &str = "Examples:
  bulkhead event publish -f events.ndjson                  # any size; the same file again publishes nothing twice
  zcat old.ndjson.gz | bulkhead event publish -f -
  bulkhead event publish --type orders.created --data '{\"id\":17,\"total\":120}'
  bulkhead event show 17-created                           # what became of it, and why it waits
  bulkhead event list --type 'orders.**' --where 'data.total > 100'
  bulkhead event tail --type 'orders.*' | jq .data";

const COLUMNS: &[Column] = &[
    ("TIME", "/time", Cell::Time),
    ("TYPE", "/type", Cell::Text),
    ("ID", "/id", Cell::Text),
    ("SOURCE", "/source", Cell::Text),
    ("SUBJECT", "/subject", Cell::Text),
    ("KEY", "/partitionkey", Cell::Text),
];

/// Events: publish, list, show, tail
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Event {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Publish events from a file or a pipe, or one event from flags
    Publish(publish::Publish),
    /// Past events, newest first
    List(List),
    /// One event and its story: runs with logs, deliveries, follow-ups, and why anything waits
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        format: Format,
    },
    /// Events as they come; JSON lines on a pipe
    Tail(tail::Tail),
}

#[derive(Debug, Args)]
struct List {
    /// Of this type: a dotted glob, `*` for one part, `**` for any number
    #[arg(long = "type", value_name = "GLOB")]
    kind: Option<String>,
    /// Only those for which this CEL expression holds
    #[arg(long = "where", value_name = "CEL")]
    condition: Option<String>,
    /// With this ordering key
    #[arg(long = "ordering-key", value_name = "KEY")]
    ordering_key: Option<String>,
    /// With this subject
    #[arg(long)]
    subject: Option<String>,
    /// With this correlation id
    #[arg(long)]
    correlation: Option<String>,
    /// Accepted at or after this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Accepted before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Oldest first
    #[arg(long)]
    asc: bool,
    #[command(flatten)]
    listing: Listing,
}

impl Event {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let client = self.connection.tenant()?;
        match self.action {
            Action::Publish(publish) => publish.run(&client).await,
            Action::List(list) => {
                let order = list.asc.then(|| "asc".to_owned());
                let all = [
                    ("type", &list.kind),
                    ("where", &list.condition),
                    ("key", &list.ordering_key),
                    ("subject", &list.subject),
                    ("correlation", &list.correlation),
                    ("since", &list.since),
                    ("until", &list.until),
                    ("order", &order),
                ];
                let query: Vec<_> = all.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
                let items = client.list(&["v1", "events"], &query, list.listing.limit).await?;
                screen::list(items, list.listing.output, COLUMNS, "no such events")
            }
            Action::Show { id, format } => {
                let answer = client.get(&["v1", "events", &id], &[]).await?;
                match format.output {
                    Output::Json => screen::json(&answer),
                    Output::Table => story::print(&answer),
                }
            }
            Action::Tail(tail) => tail.run(&client).await,
        }
    }
}
