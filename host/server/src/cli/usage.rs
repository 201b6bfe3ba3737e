//! `bulkhead usage`: what the tenant used, by day, plugin and rule.

use clap::Args;
use serde_json::Value;

use crate::cli::connection::Connection;
use crate::cli::error::Result;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Output;
use crate::cli::value;

const EXAMPLES: &str = "Examples:
  bulkhead usage
  bulkhead usage --from 2026-01-01 --to 2026-01-31 --output json";

const COLUMNS: &[Column] = &[
    ("DAY", "/day", Cell::Text),
    ("EVENTS", "/events", Cell::Count),
    ("PLUGIN", "/plugin", Cell::Text),
    ("RULE", "/rule", Cell::Text),
    ("ATTEMPTS", "/attempts", Cell::Count),
    ("DONE", "/done", Cell::Count),
    ("FAILED", "/failed", Cell::Count),
    ("EMITTED", "/emitted", Cell::Count),
    ("DELIVERIES", "/deliveries", Cell::Count),
    ("FUEL", "/fuel", Cell::Count),
    ("TIME", "/duration_us", Cell::Micros),
    ("UNITS", "/units_text", Cell::Text),
];

/// What the tenant used, by day, plugin and rule
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Usage {
    #[command(flatten)]
    connection: Connection,
    /// First day, YYYY-MM-DD
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// Last day, YYYY-MM-DD
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    #[command(flatten)]
    format: Format,
}

impl Usage {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let client = self.connection.tenant()?;
        let all = [("from", &self.from), ("to", &self.to)];
        let query: Vec<_> = all.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
        let answer = client.get(&["v1", "usage"], &query).await?;
        if self.format.output == Output::Json {
            return screen::json(answer.get("items").unwrap_or(&answer));
        }
        let mut items = value::items(&answer, "/items").to_vec();
        for item in &mut items {
            let units = item.get("units").and_then(Value::as_object);
            let units = units.into_iter().flatten().map(|(unit, amount)| format!("{} {unit}", value::text(amount)));
            item["units_text"] = units.collect::<Vec<_>>().join(", ").into();
        }
        screen::list(items, Output::Table, COLUMNS, "nothing was used in these days")
    }
}
