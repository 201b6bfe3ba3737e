//! `bulkhead parked`: runs that wait for a person, and what to do with them.

use clap::Args;
use clap::Subcommand;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::input;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Listing;
use crate::cli::value;
use crate::cli::value::number;

const EXAMPLES: &str = "Examples:
  bulkhead parked list
  bulkhead event show EVENT                       # why: logs and attempts of the run
  bulkhead parked redrive --plugin fraud-score    # after a fixed version is active
  bulkhead parked redrive RUN RUN
  bulkhead parked discard --rule old-rule --yes";

const COLUMNS: &[Column] = &[
    ("RUN", "/id", Cell::Text),
    ("EVENT", "/event", Cell::Text),
    ("RULE", "/rule", Cell::Text),
    ("PLUGIN", "/plugin", Cell::Text),
    ("TRIES", "/attempts", Cell::Count),
    ("CODE", "/code", Cell::Text),
    ("REASON", "/reason", Cell::Text),
];

/// Runs that wait for a person: list, redrive, discard
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Parked {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What is parked, and why
    List {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        listing: Listing,
    },
    /// Run again, in order, with attempts counted anew
    Redrive {
        /// Runs, by id
        runs: Vec<String>,
        #[command(flatten)]
        which: Which,
        /// All that are parked
        #[arg(long)]
        all: bool,
    },
    /// Let go for good; what waits behind them goes on
    Discard {
        /// Runs, by id
        runs: Vec<String>,
        #[command(flatten)]
        which: Which,
        /// All that are parked
        #[arg(long)]
        all: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Default, Args)]
struct Which {
    /// Of this rule
    #[arg(long)]
    rule: Option<String>,
    /// Of this plugin
    #[arg(long)]
    plugin: Option<String>,
    /// With this ordering key
    #[arg(long = "ordering-key", value_name = "KEY")]
    ordering_key: Option<String>,
    /// With this code
    #[arg(long)]
    code: Option<String>,
}

impl Which {
    fn pairs(&self) -> Vec<(&'static str, &str)> {
        let all = [("rule", &self.rule), ("plugin", &self.plugin), ("key", &self.ordering_key), ("code", &self.code)];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }

    /// The filter as the host takes it. Nothing at all would mean everything, so that must be said.
    fn body(&self, runs: &[String], all: bool) -> Result<Value> {
        let mut body = Map::new();
        if !runs.is_empty() {
            body.insert("runs".to_owned(), json!(runs));
        }
        for (name, value) in self.pairs() {
            body.insert(name.to_owned(), json!(value));
        }
        if body.is_empty() && !all {
            return Err(Error::Usage(
                "which ones? Name runs, or filter by --rule, --plugin, --ordering-key or --code, or say --all"
                    .to_owned(),
            ));
        }
        if all && !body.is_empty() {
            return Err(Error::Usage("--all and a filter exclude each other".to_owned()));
        }
        Ok(Value::Object(body))
    }
}

impl Parked {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let client = self.connection.tenant()?;
        match self.action {
            Action::List { which, listing } => {
                let items = client.list(&["v1", "parked"], &which.pairs(), listing.limit).await?;
                screen::list(items, listing.output, COLUMNS, "nothing is parked")
            }
            Action::Redrive { runs, which, all } => {
                let answer = client.post(&["v1", "parked", "redrive"], &which.body(&runs, all)?).await?;
                let redriven = number(&answer, "/redriven");
                screen::line(&format!("{} will run again", counted(redriven)))?;
                if redriven == 0 {
                    screen::note("none of these is parked: what is still retried runs again by itself")?;
                }
                Ok(())
            }
            Action::Discard { runs, which, all, yes } => {
                let body = which.body(&runs, all)?;
                if !yes && !input::confirmed("Discard them for good?")? {
                    return Err(Error::failed("nothing was discarded"));
                }
                let answer = client.post(&["v1", "parked", "discard"], &body).await?;
                screen::line(&format!("{} discarded", counted(number(&answer, "/discarded"))))
            }
        }
    }
}

/// `3 runs`
fn counted(runs: u64) -> String {
    if runs == 1 { "1 run".to_owned() } else { format!("{} runs", value::count(runs)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_discarded_by_leaving_something_out() {
        let which = |plugin: Option<&str>| Which { plugin: plugin.map(str::to_owned), ..Which::default() };
        assert!(which(None).body(&[], false).is_err());
        assert!(which(Some("p")).body(&[], true).is_err());
        assert_eq!(which(None).body(&[], true).expect("because it says all"), json!({}));
        let body = which(Some("p")).body(&["r".to_owned()], false).expect("because there is a filter");
        assert_eq!(body, json!({"runs": ["r"], "plugin": "p"}));
    }

    #[test]
    fn one_run_is_no_plural() {
        assert_eq!([0, 1, 1_200].map(counted), ["0 runs", "1 run", "1,200 runs"]);
    }
}
