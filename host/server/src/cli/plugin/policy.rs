//! `bulkhead plugin policy`: what is asked of a plugin's versions before they run for real, and by whom.

use clap::Args;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::error::Result;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Output;
use crate::cli::value::at;
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
    /// A version needs a preview against the active one before it is activated or gets a part of the events
    #[arg(long)]
    require_preview: bool,
    /// Runs that the preview has to compare
    #[arg(long, value_name = "RUNS")]
    min_runs: Option<u64>,
    /// Runs of it that may fail anew
    #[arg(long, value_name = "RUNS")]
    max_new_failures: Option<u64>,
    /// Runs of it that may do something else, in percent
    #[arg(long, value_name = "PERCENT")]
    max_changed_percent: Option<f64>,
    /// How old it may be
    #[arg(long, value_name = "HOURS")]
    within_hours: Option<u32>,
    /// The plugin asks nothing any more
    #[arg(long, conflicts_with_all = ["require_preview", "min_runs", "max_new_failures", "max_changed_percent", "within_hours"])]
    none: bool,
    #[command(flatten)]
    format: Format,
}

impl Policy {
    /// Sets what is given, and shows what is asked then.
    pub async fn run(self, client: &Client) -> Result<()> {
        let path = ["v1", "plugins", &self.name, "policy"];
        let mut answer = client.get(&path, &[]).await?;
        if let Some(wanted) = self.wanted(&answer["require_preview"]) {
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

    /// What to ask, if anything is to change.
    fn wanted(&self, present: &Value) -> Option<Value> {
        if self.none {
            return Some(Value::Null);
        }
        let given: Map<String, Value> = [
            ("min_runs", self.min_runs.map(Value::from)),
            ("max_new_failures", self.max_new_failures.map(Value::from)),
            ("max_changed_percent", self.max_changed_percent.map(Value::from)),
            ("within_hours", self.within_hours.map(Value::from)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
        if given.is_empty() && !self.require_preview {
            return None;
        }
        let mut wanted = present.as_object().cloned().unwrap_or_default();
        wanted.extend(given);
        Some(Value::Object(wanted))
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

/// What is asked, as a sentence.
fn said(required: &Value) -> String {
    if required.is_null() {
        return "a version may become active without a preview".to_owned();
    }
    format!("a version needs a preview against the active one: {}", terms(required))
}

fn terms(required: &Value) -> String {
    let of = |name: &str| at(required, &format!("/{name}"));
    let changed = match required["max_changed_percent"].as_f64() {
        Some(percent) => format!(", at most {percent} % changed"),
        None => String::new(),
    };
    format!(
        "at least {} runs, at most {} new failures{changed}, at most {} hours old",
        of("min_runs"),
        of("max_new_failures"),
        of("within_hours"),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        policy: Policy,
    }

    fn wanted(flags: &str, present: &Value) -> Option<Value> {
        let words = ["policy", "p"].into_iter().chain(flags.split_whitespace());
        Cli::try_parse_from(words).expect("because the flags are right").policy.wanted(present)
    }

    #[test]
    fn what_is_given_changes_and_the_rest_stays() {
        assert_eq!(wanted("", &json!({"min_runs": 5})), None);
        assert_eq!(wanted("--require-preview", &Value::Null), Some(json!({})));
        assert_eq!(wanted("--none", &json!({"min_runs": 5})), Some(Value::Null));
        let present = json!({"min_runs": 5, "within_hours": 24, "max_changed_percent": null});
        let expected = json!({"min_runs": 9, "within_hours": 24, "max_changed_percent": 2.5});
        assert_eq!(wanted("--min-runs 9 --max-changed-percent 2.5", &present), Some(expected));
        assert!(Cli::try_parse_from(["policy", "p", "--none", "--min-runs", "1"]).is_err());
    }

    #[test]
    fn what_is_asked_reads_as_a_sentence() {
        let required = json!({"min_runs": 5, "max_new_failures": 0, "max_changed_percent": 2.5, "within_hours": 24});
        let text = said(&required);
        assert!(
            text.contains("at least 5 runs") && text.contains("2.5 % changed") && text.contains("24 hours"),
            "{text}"
        );
        assert!(said(&Value::Null).contains("without a preview"));
    }

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
