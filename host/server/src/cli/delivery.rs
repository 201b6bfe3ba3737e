//! `bulkhead delivery`: what is on its way to sinks, and what did not get there.

use clap::Args;
use clap::Subcommand;
use serde_json::Value;
use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Listing;
use crate::cli::value;
use crate::cli::value::number;

const EXAMPLES: &str = "Examples:
  bulkhead delivery list --state parked
  bulkhead delivery redeliver --sink crm      # after the receiver is well again
  bulkhead delivery redeliver eff_0190…
  bulkhead delivery drop eff_0190…";

const COLUMNS: &[Column] = &[
    ("ID", "/id", Cell::Text),
    ("SINK", "/sink", Cell::Text),
    ("STATE", "/state", Cell::State),
    ("EVENT", "/event", Cell::Text),
    ("RULE", "/rule", Cell::Text),
    ("TRIES", "/attempts", Cell::Count),
    ("CODE", "/code", Cell::Text),
    ("REASON", "/reason", Cell::Text),
    ("CREATED", "/created", Cell::Time),
];

/// Deliveries to sinks: list, redeliver, drop
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Delivery {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Deliveries, newest first
    List {
        /// To this sink
        #[arg(long)]
        sink: Option<String>,
        /// Only those that stand so
        #[arg(long, value_parser = ["pending", "delivered", "parked", "dropped"])]
        state: Option<String>,
        /// Caused by this event
        #[arg(long)]
        event: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Try parked deliveries again, attempts counted anew
    Redeliver(Which),
    /// Give parked deliveries up
    Drop(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// A delivery, by id
    #[arg(required_unless_present = "sink")]
    id: Option<String>,
    /// All parked deliveries to this sink
    #[arg(long, conflicts_with = "id")]
    sink: Option<String>,
}

impl Which {
    fn body(&self) -> Value {
        match (&self.id, &self.sink) {
            (Some(id), _) => json!({"id": id}),
            (None, sink) => json!({"sink": sink}),
        }
    }
}

impl Delivery {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let client = self.connection.tenant()?;
        let path = ["v1", "deliveries"];
        let (which, action, counted, done) = match self.action {
            Action::List { sink, state, event, listing } => {
                let all = [("sink", &sink), ("state", &state), ("event", &event)];
                let query: Vec<_> = all.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
                let items = client.list(&path, &query, listing.limit).await?;
                return screen::list(items, listing.output, COLUMNS, "no deliveries");
            }
            Action::Redeliver(which) => (which, "redeliver", "/redelivered", "will be tried again"),
            Action::Drop(which) => (which, "drop", "/dropped", "given up"),
        };
        let answer = client.post(&[&path[..], &[action]].concat(), &which.body()).await?;
        match number(&answer, counted) {
            0 => Err(Error::hinted("no parked delivery was meant", "bulkhead delivery list --state parked")),
            1 => screen::line(&format!("1 delivery {done}")),
            many => screen::line(&format!("{} deliveries {done}", value::count(many))),
        }
    }
}
