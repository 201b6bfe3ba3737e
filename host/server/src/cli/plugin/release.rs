//! Which version runs: history, consent, the way back, candidates.

use clap::Args;
use clap::Subcommand;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::error::Result;
use crate::cli::paint::clean;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Listing;
use crate::cli::screen::Output;
use crate::cli::value;
use crate::cli::value::at;

const ENTRIES: &[Column] = &[
    ("AT", "/at", Cell::Time),
    ("WHAT", "/action", Cell::State),
    ("VERSION", "/version", Cell::Count),
    ("BY", "/author", Cell::Text),
    ("MORE", "/detail/reason|/detail/from", Cell::Text),
];

/// What was done to its versions, by whom and when; newest first
#[derive(Debug, Args)]
pub struct History {
    /// Its name
    name: String,
    #[command(flatten)]
    listing: Listing,
}

impl History {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        let path = ["v1", "plugins", &self.name, "history"];
        let items = client.list(&path, &[], self.listing.limit).await?;
        screen::list(items, self.listing.output, ENTRIES, "nothing was done to its versions yet")
    }
}

/// Go back to the version that was active before, or to one that is named
#[derive(Debug, Args)]
pub struct Rollback {
    /// Its name
    name: String,
    /// The version's number [default: the one that was active before]
    version: Option<u32>,
}

impl Rollback {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        let body = self.version.map_or_else(|| json!({}), |version| json!({ "version": version }));
        let answer = client.post(&["v1", "plugins", &self.name, "rollback"], &body).await?;
        screen::line(&format!("plugin {}: version {} is active again", self.name, at(&answer, "/active")))
    }
}

/// Agree to what a version asks for beyond the active one; needs a key with the scope `consent`
#[derive(Debug, Args)]
pub struct Approve {
    /// Its name
    name: String,
    /// The version's number
    version: u32,
    /// Agree; without it, what the version asks for is only shown
    #[arg(long)]
    yes: bool,
}

impl Approve {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        let number = self.version.to_string();
        let plugin = client.get(&["v1", "plugins", &self.name], &[]).await?;
        let version = client.get(&["v1", "plugins", &self.name, "versions", &number], &[]).await?;
        let active = match plugin.get("active").and_then(Value::as_u64) {
            Some(active) => client.get(&["v1", "plugins", &self.name, "versions", &active.to_string()], &[]).await?,
            None => Value::Null,
        };
        let none = Value::Null;
        let before = active.get("grants").unwrap_or(&none);
        let added = added(before, version.get("grants").unwrap_or(&none));
        screen::line(&format!("plugin {}, version {}, uploaded by {}", self.name, number, at(&version, "/author")))?;
        if added.is_empty() {
            screen::line("  asks for nothing that the active version does not have")?;
        }
        for sentence in &added {
            screen::line(&format!("  will be able to {}", clean(sentence)))?;
        }
        if !self.yes {
            return screen::note(&format!("to agree: bulkhead plugin approve {} {number} --yes", self.name));
        }
        let path = ["v1", "plugins", &self.name, "versions", &number, "approve"];
        let approved = client.post(&path, &json!({})).await?;
        screen::line(&format!("approved by {} at {}", at(&approved, "/approval/by"), at(&approved, "/approval/at")))?;
        screen::note(&format!("next: bulkhead plugin activate {} {number}", self.name))
    }
}

/// What the grants of a version add to those of another, as sentences.
fn added(before: &Value, after: &Value) -> Vec<String> {
    let sentence = |kind: &str, entry: &str| match kind {
        "emit" => format!("emit events of type {entry}"),
        "deliver" if entry == "*" => "deliver to every sink of the tenant".to_owned(),
        "deliver" => format!("deliver to the sink {entry}"),
        "http" => format!("send requests to {entry}"),
        "secrets" => format!("read the secret {entry}"),
        other => format!("{other} {entry}"),
    };
    let mut found = Vec::new();
    for (kind, entries) in after.as_object().into_iter().flatten() {
        let had = |entry: &Value| value::items(before, &format!("/{kind}")).contains(entry);
        match entries {
            Value::Array(entries) => {
                let new = entries.iter().filter(|entry| !had(entry));
                found.extend(new.map(|entry| sentence(kind, &value::text(entry))));
            }
            Value::Bool(true) if before.get(kind) != Some(&Value::Bool(true)) => found.push("set timers".to_owned()),
            _ => {}
        }
    }
    found
}

/// Let a version handle a part of the events, for real
#[derive(Debug, Args)]
pub struct Canary {
    #[command(subcommand)]
    action: CanaryAction,
}

#[derive(Debug, Subcommand)]
enum CanaryAction {
    /// Begin
    Start {
        /// Its name
        name: String,
        /// The version's number
        version: u32,
        /// How many of the ordering keys it gets, in percent
        #[arg(long)]
        percent: f64,
        /// Take it back when it fails in more than this part of its attempts
        #[arg(long, value_name = "RATE")]
        max_failure_rate: Option<f64>,
        /// Take it back when it takes more fuel than this many times the active version's
        #[arg(long, value_name = "RATIO")]
        max_fuel_ratio: Option<f64>,
        /// Take it back when it takes more time than this many times the active version's
        #[arg(long, value_name = "RATIO")]
        max_latency_ratio: Option<f64>,
        /// Attempts of each before they are judged
        #[arg(long, value_name = "COUNT")]
        min_runs: Option<u64>,
    },
    /// Make it the active version
    Promote {
        /// Its name
        name: String,
    },
    /// Give all events back to the active version
    Stop {
        /// Its name
        name: String,
    },
    /// How it does
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        format: Format,
    },
}

impl Canary {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        match self.action {
            CanaryAction::Start {
                name,
                version,
                percent,
                max_failure_rate,
                max_fuel_ratio,
                max_latency_ratio,
                min_runs,
            } => {
                let mut body = Map::new();
                body.insert("version".to_owned(), version.into());
                body.insert("percent".to_owned(), percent.into());
                let limits = [
                    ("max_failure_rate", max_failure_rate.map(Value::from)),
                    ("max_fuel_ratio", max_fuel_ratio.map(Value::from)),
                    ("max_latency_ratio", max_latency_ratio.map(Value::from)),
                    ("min_runs", min_runs.map(Value::from)),
                ];
                body.extend(limits.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
                client.post(&["v1", "plugins", &name, "canary"], &Value::Object(body)).await?;
                screen::line(&format!("plugin {name}: version {version} gets {percent} % of the keys"))?;
                screen::note(&format!("next: bulkhead plugin canary show {name}"))
            }
            CanaryAction::Promote { name } => {
                let ended = client.post(&["v1", "plugins", &name, "canary", "promote"], &json!({})).await?;
                screen::line(&format!("plugin {name}: version {} is active", at(&ended, "/version")))
            }
            CanaryAction::Stop { name } => {
                let ended = client.delete(&["v1", "plugins", &name, "canary"]).await?;
                figures(&ended)?;
                screen::line(&format!("plugin {name}: version {} gets no events any more", at(&ended, "/version")))
            }
            CanaryAction::Show { name, format } => show(client, &name, "canary", format.output).await,
        }
    }
}

/// Run a version beside the active one on live events; nothing is applied
#[derive(Debug, Args)]
pub struct Shadow {
    #[command(subcommand)]
    action: ShadowAction,
}

#[derive(Debug, Subcommand)]
enum ShadowAction {
    /// Begin
    Start {
        /// Its name
        name: String,
        /// The version's number
        version: u32,
        /// How many of the ordering keys it sees, in percent
        #[arg(long, default_value_t = 100.0)]
        percent: f64,
    },
    /// End it
    Stop {
        /// Its name
        name: String,
    },
    /// How its runs compare
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        format: Format,
    },
}

impl Shadow {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        match self.action {
            ShadowAction::Start { name, version, percent } => {
                let body = json!({ "version": version, "percent": percent });
                client.post(&["v1", "plugins", &name, "shadow"], &body).await?;
                screen::line(&format!("plugin {name}: version {version} runs beside the active one"))?;
                screen::note(&format!("next: bulkhead plugin shadow show {name}"))
            }
            ShadowAction::Stop { name } => {
                let ended = client.delete(&["v1", "plugins", &name, "shadow"]).await?;
                figures(&ended)?;
                screen::line(&format!("plugin {name}: version {} does not run any more", at(&ended, "/version")))
            }
            ShadowAction::Show { name, format } => show(client, &name, "shadow", format.output).await,
        }
    }
}

async fn show(client: &Client, name: &str, kind: &str, output: Output) -> Result<()> {
    let plugin = client.get(&["v1", "plugins", name], &[]).await?;
    match value::items(&plugin, "/candidates").iter().find(|candidate| at(candidate, "/kind") == kind) {
        Some(candidate) if output == Output::Json => screen::json(candidate),
        Some(candidate) => figures(candidate),
        None => {
            screen::note(&format!("plugin {name} has no {kind}; bulkhead plugin history {name} says what became of it"))
        }
    }
}

fn figures(candidate: &Value) -> Result<()> {
    for (what, place) in [("active", "/active"), ("candidate", "/candidate")] {
        let of = |name: &str| at(candidate, &format!("{place}/{name}"));
        let (runs, failed, fuel, micros) = (of("runs"), of("failed"), of("fuel"), of("typical_micros"));
        screen::line(&format!(
            "  {what:9}  {runs} runs, {failed} failed, {fuel} fuel and typically {micros} µs a run"
        ))?;
    }
    if candidate.get("compared").is_some() {
        let of = |name: &str| at(candidate, &format!("/compared/{name}"));
        let (same, changed, failure, skipped) = (of("same"), of("changed"), of("new_failure"), of("skipped"));
        screen::line(&format!(
            "  compared   {same} same, {changed} changed, {failure} new failures, {skipped} left out"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_reads_as_sentences() {
        let before = json!({"emit": ["a.*"], "secrets": ["token"]});
        let after = json!({"emit": ["a.*", "b"], "secrets": ["token", "key"], "schedule": true, "http": ["x.example"]});
        let mut found = added(&before, &after);
        found.sort();
        let expected = ["emit events of type b", "read the secret key", "send requests to x.example", "set timers"];
        assert_eq!(found, expected);
        assert!(added(&after, &before).is_empty());
        assert_eq!(added(&Value::Null, &json!({"deliver": ["*"]})), ["deliver to every sink of the tenant"]);
    }
}
