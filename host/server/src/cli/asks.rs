//! What is asked of versions before they run for real: the flags that say it, and the sentence that tells it. A plugin's
//! settings ask, and the operator of its tenant.

use clap::Args;
use serde_json::Map;
use serde_json::Value;

use crate::cli::value::at;

/// What to ask. What is not given stays as it is.
#[derive(Debug, Args)]
pub struct Asks {
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
    /// Nothing is asked any more
    #[arg(long, conflicts_with_all = ["require_preview", "min_runs", "max_new_failures", "max_changed_percent", "within_hours"])]
    none: bool,
}

impl Asks {
    /// What to ask, if anything is to change.
    pub fn wanted(&self, present: &Value) -> Option<Value> {
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

/// What is asked, as a sentence.
pub fn said(required: &Value) -> String {
    if required.is_null() {
        return "a version may become active without a preview".to_owned();
    }
    format!("a version needs a preview against the active one: {}", terms(required))
}

/// What the preview has to show.
pub fn terms(required: &Value) -> String {
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
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        asks: Asks,
    }

    fn wanted(flags: &str, present: &Value) -> Option<Value> {
        let words = ["policy"].into_iter().chain(flags.split_whitespace());
        Cli::try_parse_from(words).expect("because the flags are right").asks.wanted(present)
    }

    #[test]
    fn what_is_given_changes_and_the_rest_stays() {
        assert_eq!(wanted("", &json!({"min_runs": 5})), None);
        assert_eq!(wanted("--require-preview", &Value::Null), Some(json!({})));
        assert_eq!(wanted("--none", &json!({"min_runs": 5})), Some(Value::Null));
        let present = json!({"min_runs": 5, "within_hours": 24, "max_changed_percent": null});
        let expected = json!({"min_runs": 9, "within_hours": 24, "max_changed_percent": 2.5});
        assert_eq!(wanted("--min-runs 9 --max-changed-percent 2.5", &present), Some(expected));
        assert!(Cli::try_parse_from(["policy", "--none", "--min-runs", "1"]).is_err());
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
}
