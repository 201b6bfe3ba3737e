//! `bulkhead plugin policy`: what is asked of a plugin's versions before they run for real, and by whom.

use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::cli::asks::Asks;
use crate::cli::asks::said;
use crate::cli::asks::terms;
use crate::cli::client::Client;
use crate::cli::error::Result;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Output;
use crate::cli::value::items;

const PREVIEWS: &[Column] = &[
    ("AT", "/at", Cell::Time),
    ("VERSION", "/version", Cell::Count),
    ("AGAINST", "/against", Cell::Count),
    ("RUNS", "/runs", Cell::Count),
    ("NEW FAILURES", "/new_failures", Cell::Count),
    ("CHANGED", "/changed", Cell::Count),
    ("BY", "/author", Cell::Text),
];

const EXAMPLES: &str = "Examples:
  bulkhead plugin policy fraud-score                    # what is asked, by whom, and the last previews
  bulkhead plugin policy fraud-score --require-preview  # 20 runs, no new failure, at most a day old
  bulkhead plugin policy fraud-score --min-runs 500 --max-changed-percent 1
  bulkhead plugin policy fraud-score --none             # what the operator asks stays";

/// What to ask. What is not given stays as it is.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Policy {
    /// The plugin
    name: String,
    #[command(flatten)]
    asks: Asks,
    #[command(flatten)]
    format: Format,
}

impl Policy {
    /// Sets what is given, and shows what is asked then.
    pub async fn run(self, client: &Client) -> Result<()> {
        let path = ["v1", "plugins", &self.name, "policy"];
        let mut answer = client.get(&path, &[]).await?;
        if let Some(wanted) = self.asks.wanted(&answer["require_preview"]) {
            answer = client.put(&path, &json!({ "require_preview": wanted })).await?;
        }
        if self.format.output == Output::Json {
            return screen::json(&answer);
        }
        screen::line(&said(&answer["effective"]))?;
        if let Some(origin) = origin(&answer) {
            screen::line(&origin)?;
        }
        screen::list(items(&answer, "/previews").to_vec(), Output::Table, PREVIEWS, "no preview yet")
    }
}

/// Who asks what counts, with what each asks if that is not the same; none if nobody asks.
fn origin(answer: &Value) -> Option<String> {
    let effective = &answer["effective"];
    let who = [
        ("require_preview", "the plugin's own settings"),
        ("tenant", "the operator, of this tenant"),
        ("host", "the operator, of all tenants"),
    ];
    let asking: Vec<String> =
        who.into_iter()
            .filter(|(field, _)| !answer[*field].is_null())
            .map(|(field, who)| {
                if answer[field] == *effective { who.to_owned() } else { format!("{who} ({})", terms(&answer[field])) }
            })
            .collect();
    (!asking.is_empty()).then(|| format!("asked by: {}", asking.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_told() {
        let asks = |runs: u64| json!({"min_runs": runs, "max_new_failures": 0, "max_changed_percent": null, "within_hours": 24});
        let nobody = json!({"require_preview": null, "effective": null, "tenant": null, "host": null});
        assert_eq!(origin(&nobody), None);
        let both = json!({"require_preview": asks(5), "effective": asks(20), "tenant": null, "host": asks(20)});
        let text = origin(&both).unwrap_or_default();
        assert_eq!(
            text,
            "asked by: the plugin's own settings (at least 5 runs, at most 0 new failures, at most 24 hours old); the \
             operator, of all tenants"
        );
    }
}
