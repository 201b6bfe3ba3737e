//! Inside a plugin: its settings, what it has stored, what it has written to its log.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use reqwest::Method;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::input;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Output;
use crate::cli::value;
use crate::cli::value::at;

/// Its settings.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Print the settings as JSON
    Get {
        /// The plugin
        name: String,
    },
    /// Change settings; they count from the next batch, without a restart
    Set {
        /// The plugin
        name: String,
        /// `name=value`; a value that is JSON counts as such, anything else as text; `name=` removes one
        #[arg(value_name = "NAME=VALUE", required_unless_present = "file")]
        settings: Vec<String>,
        /// Replace all settings with this JSON file; - is standard input
        #[arg(short, long, conflicts_with = "settings")]
        file: Option<PathBuf>,
    },
}

impl Config {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Get { name } => screen::json(&client.get(&["v1", "plugins", &name, "config"], &[]).await?),
            Self::Set { name, settings, file } => {
                let path = ["v1", "plugins", &name, "config"];
                let config = match file {
                    Some(file) => {
                        let text = input::text(&file).await?;
                        serde_json::from_str(&text)
                            .map_err(|cause| Error::failed(format!("{} is no JSON: {cause}", file.display())))?
                    }
                    None => merged(client.get(&path, &[]).await?, &settings)?,
                };
                client.put(&path, &config).await?;
                screen::line(&format!("plugin {name}: settings changed"))
            }
        }
    }
}

/// What is set in this answer, with these changes.
fn merged(mut answer: Value, settings: &[String]) -> Result<Value> {
    let mut fields = match answer.get_mut("config").map(Value::take) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    for setting in settings {
        let Some((name, text)) = setting.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::Usage(format!("`{setting}` is no setting: write `name=value`")));
        };
        if text.is_empty() {
            fields.remove(name);
        } else {
            fields.insert(name.to_owned(), serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
        }
    }
    Ok(Value::Object(fields))
}

/// What it has stored.
#[derive(Debug, Args)]
pub struct State {
    /// The plugin
    name: String,
    /// Print the value under this key, byte for byte
    #[arg(value_name = "KEY")]
    entry: Option<String>,
    /// Only keys that begin so
    #[arg(long, conflicts_with = "entry")]
    prefix: Option<String>,
    #[command(flatten)]
    listing: screen::Listing,
}

impl State {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        let path = ["v1", "plugins", &self.name, "state"];
        if let Some(key) = &self.entry {
            let request = client.request(Method::GET, &[&path[..], &[key]].concat(), &[])?;
            let value = client.accepted(request).await?.bytes().await;
            let value = value.map_err(|cause| Error::failed(format!("the answer broke off: {cause}")))?;
            if std::io::stdout().is_terminal() {
                return screen::line(&clean(&String::from_utf8_lossy(&value)));
            }
            return screen::raw(&value);
        }
        let query: Vec<(&str, &str)> = self.prefix.iter().map(|prefix| ("prefix", prefix.as_str())).collect();
        let items = client.list(&path, &query, self.listing.limit).await?;
        screen::list(items, self.listing.output, &[("KEY", "/key", Cell::Text)], "nothing stored")
    }
}

/// What it has written.
#[derive(Debug, Args)]
pub struct Logs {
    /// The plugin
    name: String,
    /// Look through the logs of this many runs
    #[arg(short = 'n', long, default_value_t = 20, value_name = "COUNT")]
    limit: usize,
    /// How the result is printed: table, or json
    #[arg(short, long, value_enum, default_value_t = Output::Table, hide_possible_values = true)]
    output: Output,
}

impl Logs {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        let runs = client.list(&["v1", "runs"], &[("plugin", &self.name)], self.limit).await?;
        if runs.is_empty() {
            // One that is unknown has no runs either.
            client.get(&["v1", "plugins", &self.name], &[("limit", "1")]).await?;
        }
        let mut all = Vec::new();
        for run in &runs {
            let id = at(run, "/id");
            let answer = client.get(&["v1", "runs", &id, "logs"], &[]).await?;
            let lines = lines(&answer);
            if self.output == Output::Json {
                all.push(json!({"run": id, "event": run.get("event"), "lines": lines}));
            } else if !lines.is_empty() {
                let paint = Paint::stdout();
                let title =
                    format!("run {id}  {}  event {}", paint.state(&at(run, "/state")), clean(&at(run, "/event")));
                screen::line(&paint.bold(&title))?;
                lines.iter().try_for_each(|line| screen::line(&format!("  {}", log_line(line, paint))))?;
            }
        }
        match self.output {
            Output::Json => screen::json(&Value::Array(all)),
            Output::Table if runs.is_empty() => screen::note(&format!("no runs of {} yet", self.name)),
            Output::Table => Ok(()),
        }
    }
}

/// The lines of an answer: of all attempts, in order.
pub fn lines(answer: &Value) -> Vec<Value> {
    let direct = answer.as_array().map_or_else(|| value::items(answer, "/items"), Vec::as_slice);
    let inner = |item: &Value| match item.get("logs").or(item.get("lines")) {
        Some(Value::Array(lines)) => lines.clone(),
        _ => vec![item.clone()],
    };
    direct.iter().flat_map(inner).collect()
}

/// `info  score 7  order=17`
pub fn log_line(line: &Value, paint: Paint) -> String {
    let level = at(line, "/level");
    let shown = match level.as_str() {
        "error" => paint.red("error"),
        "warn" => paint.yellow("warn "),
        other => paint.dim(&format!("{other:5}")),
    };
    let mut text = format!("{shown} {}", clean(&at(line, "/message")));
    for field in value::items(line, "/fields") {
        let (name, value) = (at(field, "/0"), at(field, "/1"));
        text += &paint.dim(&format!("  {}={}", clean(&name), clean(&value)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_merged() {
        let settings = ["a=10", "b=EUR", "c=", "d={\"x\":[true]}", "e=a=b"].map(str::to_owned);
        let answer = json!({"config": {"c": 1, "z": 2}, "effective": {"c": 1, "z": 2, "y": 3}, "declared": {"y": {}}});
        let config = merged(answer, &settings).expect("because all are settings");
        assert_eq!(config, json!({"a": 10, "b": "EUR", "d": {"x": [true]}, "e": "a=b", "z": 2}));
        for wrong in ["a", "=b"] {
            assert!(matches!(merged(json!({}), &[wrong.to_owned()]), Err(Error::Usage(_))), "{wrong}");
        }
    }

    #[tokio::test]
    async fn logs_of_an_unknown_plugin_are_an_error() {
        let known = axum::routing::get(async || axum::Json(json!({"name": "known"})));
        let none = axum::routing::get(async || axum::Json(json!({"items": [], "next": null})));
        let routes =
            axum::Router::new().route("/v1/runs", none).route("/v1/plugins/known", known).fallback(async || {
                (axum::http::StatusCode::NOT_FOUND, axum::Json(json!({"title": "Not found", "code": "not-found"})))
            });
        let client = crate::cli::client::of(routes).await;
        let logs = |name: &str| Logs { name: name.to_owned(), limit: 1, output: Output::Table };
        assert!(logs("known").run(&client).await.is_ok());
        let error = logs("nope").run(&client).await.expect_err("because there is no such plugin");
        assert!(matches!(&error, Error::Refused(problem) if problem.status == 404), "{error}");
    }

    #[test]
    fn log_lines_read_well() {
        let line = json!({"level": "info", "message": "score\u{1b}[0m 7", "fields": [["order", "17"]]});
        assert_eq!(log_line(&line, Paint::plain()), "info  score\\u{1b}[0m 7  order=17");
        let attempts = json!({"items": [{"attempt": 1, "logs": [{"message": "a"}]}, {"attempt": 2, "logs": []}]});
        assert_eq!(lines(&attempts), [json!({"message": "a"})]);
        assert_eq!(lines(&json!([{"message": "a"}])).len(), 1);
    }
}
