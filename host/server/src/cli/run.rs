//! `bulkhead run`: one event through one rule, with its attempts.

use clap::Args;
use clap::Subcommand;
use serde_json::Value;

use crate::cli::connection::Connection;
use crate::cli::error::Result;
use crate::cli::paint::Paint;
use crate::cli::plugin::log_line;
use crate::cli::plugin::log_lines;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Listing;
use crate::cli::screen::Output;
use crate::cli::value::at;
use crate::cli::value::items;

const EXAMPLES: &str = "Examples:
  bulkhead run list --state retrying
  bulkhead run list --plugin fraud-score --output json
  bulkhead run logs RUN";

const COLUMNS: &[Column] = &[
    ("RUN", "/id", Cell::Text),
    ("EVENT", "/event", Cell::Text),
    ("RULE", "/rule", Cell::Text),
    ("PLUGIN", "/plugin", Cell::Text),
    ("STATE", "/state", Cell::State),
    ("TRIES", "/attempts", Cell::Count),
    ("TIME", "/duration_us", Cell::Micros),
    ("FUEL", "/fuel", Cell::Count),
    ("CODE", "/code", Cell::Text),
];

const ATTEMPTS: &[Column] = &[
    ("TRY", "/attempt", Cell::Count),
    ("STATE", "/state", Cell::State),
    ("PLUGIN", "/plugin", Cell::Text),
    ("VERSION", "/version", Cell::Count),
    ("TIME", "/duration_us", Cell::Micros),
    ("FUEL", "/fuel", Cell::Count),
    ("EFFECTS", "/effects", Cell::Count),
    ("ENDED", "/ended", Cell::Time),
    ("CODE", "/code", Cell::Text),
    ("REASON", "/reason", Cell::Text),
];

/// Runs, one event through one rule each: list, show, logs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Runs, newest event first
    List {
        /// Of this event
        #[arg(long)]
        event: Option<String>,
        /// Of this rule
        #[arg(long)]
        rule: Option<String>,
        /// Of this plugin
        #[arg(long)]
        plugin: Option<String>,
        /// Only those that stand so
        #[arg(long, value_parser = ["done", "retrying", "parked", "dropped", "blocked", "held"])]
        state: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// One run with all its attempts
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        format: Format,
    },
    /// What plugins wrote to the log in its attempts
    Logs {
        /// Its id
        id: String,
        #[command(flatten)]
        format: Format,
    },
}

impl Run {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let client = self.connection.tenant()?;
        match self.action {
            Action::List { event, rule, plugin, state, listing } => {
                let all = [("event", &event), ("rule", &rule), ("plugin", &plugin), ("state", &state)];
                let query: Vec<_> = all.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
                let items = client.list(&["v1", "runs"], &query, listing.limit).await?;
                screen::list(items, listing.output, COLUMNS, "no runs")
            }
            Action::Show { id, format } => show(client.get(&["v1", "runs", &id], &[]).await?, format.output),
            Action::Logs { id, format } => {
                let answer = client.get(&["v1", "runs", &id, "logs"], &[]).await?;
                if format.output == Output::Json {
                    return screen::json(answer.get("items").unwrap_or(&answer));
                }
                let lines = log_lines(&answer);
                if lines.is_empty() {
                    return screen::note("its log is empty");
                }
                lines.iter().try_for_each(|line| screen::line(&log_line(line, Paint::stdout())))
            }
        }
    }
}

/// A run, and its attempts below it.
fn show(mut run: Value, output: Output) -> Result<()> {
    if output == Output::Json {
        return screen::json(&run);
    }
    let history = run.as_object_mut().and_then(|fields| fields.remove("history"));
    screen::object(&run)?;
    screen::line("")?;
    let attempts = history.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    let has_logs = attempts.iter().any(|attempt| !items(attempt, "/logs").is_empty());
    screen::list(attempts, Output::Table, ATTEMPTS, "no attempt has ended yet")?;
    if has_logs { screen::note(&format!("what it logged: bulkhead run logs {}", at(&run, "/id"))) } else { Ok(()) }
}
