//! Which version runs: consent, the way back, candidates.

use clap::Args;
use clap::Subcommand;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::paint::clean;
use crate::cli::plugin::candidate;
use crate::cli::plugin::words;
use crate::cli::screen;
use crate::cli::screen::Format;
use crate::cli::screen::Output;
use crate::cli::value;
use crate::cli::value::at;

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
        let answer = decided(client, &self.name, "rollback", self.version, &body).await?;
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
        let added = words::allowed(before, version.get("grants").unwrap_or(&none));
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
        // The host says what is missing still, if anything is.
        match approved.get("hint").and_then(Value::as_str) {
            Some(hint) => screen::note(&clean(hint)),
            None => screen::note(&format!("next: bulkhead plugin activate {} {number}", self.name)),
        }
    }
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
                decided(client, &name, "canary", Some(version), &Value::Object(body)).await?;
                screen::line(&format!("plugin {name}: version {version} gets {percent} % of the keys"))?;
                screen::note(&format!("next: bulkhead plugin canary show {name}"))
            }
            CanaryAction::Promote { name } => {
                let ended = client.post(&["v1", "plugins", &name, "canary", "promote"], &json!({})).await?;
                screen::line(&format!("plugin {name}: version {} is active", at(&ended, "/version")))
            }
            CanaryAction::Stop { name } => {
                let ended = client.delete(&["v1", "plugins", &name, "canary"]).await?;
                candidate::sides(&ended, &Value::Null)?;
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
                decided(client, &name, "shadow", Some(version), &body).await?;
                screen::line(&format!("plugin {name}: version {version} runs beside the active one"))?;
                screen::note(&format!("next: bulkhead plugin shadow show {name}"))
            }
            ShadowAction::Stop { name } => {
                let ended = client.delete(&["v1", "plugins", &name, "shadow"]).await?;
                candidate::sides(&ended, &Value::Null)?;
                screen::line(&format!("plugin {name}: version {} does not run any more", at(&ended, "/version")))
            }
            ShadowAction::Show { name, format } => show(client, &name, "shadow", format.output).await,
        }
    }
}

/// Makes a version the active one.
pub async fn activate(client: &Client, name: &str, version: u32) -> Result<()> {
    decided(client, name, "activate", Some(version), &json!({ "version": version })).await?;
    screen::line(&format!("plugin {name}: version {version} is active"))
}

/// Asks for something to be done with a version; where that is retired, the refusal says which.
async fn decided(client: &Client, name: &str, action: &str, version: Option<u32>, body: &Value) -> Result<Value> {
    let mut problem = match (client.post(&["v1", "plugins", name, action], body).await, version) {
        (Err(Error::Refused(problem)), Some(_)) if problem.status == 409 && problem.hint.is_none() => problem,
        (answer, _) => return answer,
    };
    let version = version.unwrap_or_default().to_string();
    let known = client.get(&["v1", "plugins", name, "versions", &version], &[]).await;
    if known.is_ok_and(|known| at(&known, "/state") == "retired") {
        let hint = format!("version {version} is retired for good; bulkhead plugin show {name} lists the others");
        problem.hint = Some(hint);
    }
    Err(Error::Refused(problem))
}

async fn show(client: &Client, name: &str, kind: &str, output: Output) -> Result<()> {
    let plugin = client.get(&["v1", "plugins", name], &[]).await?;
    match value::items(&plugin, "/candidates").iter().find(|candidate| at(candidate, "/kind") == kind) {
        Some(candidate) if output == Output::Json => screen::json(candidate),
        Some(candidate) => candidate::print(name, &plugin["active"], candidate),
        None => {
            screen::note(&format!("plugin {name} has no {kind}; bulkhead plugin history {name} says what became of it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::routing::post;

    use super::*;
    use crate::cli::client;
    use crate::cli::paint::Paint;

    #[tokio::test]
    async fn a_version_that_is_retired_is_named() {
        let refused = async || (StatusCode::CONFLICT, Json(json!({"title": "Conflict", "detail": "so not"})));
        let version = |state: &'static str| get(async move || Json(json!({"state": state})));
        let routes = Router::new()
            .route("/v1/plugins/p/activate", post(refused))
            .route("/v1/plugins/p/versions/2", version("retired"))
            .route("/v1/plugins/p/versions/3", version("ready"));
        let client = client::of(routes).await;
        let said = async |version| {
            let error = activate(&client, "p", version).await.expect_err("because it is refused");
            error.render(Paint::plain())
        };
        let retired = said(2).await;
        assert!(retired.contains("hint: version 2 is retired for good; bulkhead plugin show p"), "{retired}");
        assert!(!said(3).await.contains("hint"), "it is refused for something else");
    }
}
