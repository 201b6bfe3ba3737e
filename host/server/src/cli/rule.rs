//! `bulkhead rule`: what happens to which events. Every change makes a new rule set, so every change can be undone.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use reqwest::header::IF_MATCH;
use serde_json::Value;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::connection::Connection;
use crate::cli::document;
use crate::cli::document::Document;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::input;
use crate::cli::paint::Paint;
use crate::cli::problem::Fault;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Listing;
use crate::cli::value;
use crate::cli::value::at;

const EXAMPLES: &str = "Examples:
  bulkhead rule apply flag-big-orders.yaml
  bulkhead rule apply rules/                 # every .yaml, .yml and .json in it, one rule or several in each
  bulkhead rule apply rules/ --replace       # these are all the rules: others go
  bulkhead rule history
  bulkhead rule restore 6
  bulkhead rule pause flag-big-orders";

const COLUMNS: &[Column] = &[
    ("NAME", "/name", Cell::Text),
    ("STATE", "/state", Cell::State),
    ("ENABLED", "/enabled", Cell::Text),
    ("PAUSED", "/paused", Cell::Text),
    ("ON", "/on", Cell::Text),
    ("WHERE", "/where", Cell::Text),
    ("STEPS", "/step_names", Cell::Text),
];

const HISTORY: &[Column] = &[
    ("RULE SET", "/number|/rule_set", Cell::Count),
    ("CURRENT", "/current", Cell::Text),
    ("RULES", "/count", Cell::Count),
    ("BY", "/author", Cell::Text),
    ("NOTE", "/note", Cell::Text),
    ("CREATED", "/created", Cell::Time),
];

/// Rules: apply, list, show, delete, history, restore, pause, resume
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Rule {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add or change rules from YAML or JSON files
    Apply {
        /// Files, folders, or - for standard input
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// These are all the rules: remove the others, in one step
        #[arg(long)]
        replace: bool,
        /// Only if this is the current rule set
        #[arg(long, value_name = "RULE_SET")]
        if_match: Option<i64>,
    },
    /// All rules
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// One rule, whole
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Remove a rule
    Delete {
        /// Its name
        name: String,
    },
    /// Past rule sets, newest first
    History {
        #[command(flatten)]
        listing: Listing,
    },
    /// Make a past rule set the current one, as a new number
    Restore {
        /// Its number, as `history` lists it
        rule_set: i64,
    },
    /// Hold the rule's runs; nothing is lost
    Pause {
        /// Its name
        name: String,
    },
    /// Let held runs go on, in order
    Resume {
        /// Its name
        name: String,
    },
}

impl Rule {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let client = self.connection.tenant()?;
        match self.action {
            Action::Apply { paths, replace, if_match } => {
                let documents = read(&paths).await?;
                if replace {
                    apply_set(&client, &documents, if_match).await
                } else {
                    apply(&client, documents, if_match).await
                }
            }
            Action::List { listing } => {
                let items = client.list(&["v1", "rules"], &[], listing.limit).await?;
                let items = if listing.output == screen::Output::Json { items } else { shown(items) };
                screen::list(items, listing.output, COLUMNS, "no rules yet: bulkhead rule apply FILE")
            }
            Action::Show { name, format } => {
                screen::one(&client.get(&["v1", "rules", &name], &[]).await?, format.output)
            }
            Action::Delete { name } => {
                let answer = client.delete(&["v1", "rules", &name]).await?;
                screen::line(&format!("rule {name} is gone{}", in_set(&answer)))
            }
            Action::History { listing } => {
                let items = client.list(&["v1", "rule-sets"], &[], listing.limit).await?;
                screen::list(items, listing.output, HISTORY, "no rule has been applied yet")
            }
            Action::Restore { rule_set } => {
                let number = rule_set.to_string();
                let answer = client.post(&["v1", "rule-sets", &number, "restore"], &json!({})).await?;
                screen::line(&format!("the rules are as in rule set {rule_set} again{}", in_set(&answer)))
            }
            Action::Pause { name } => {
                client.post(&["v1", "rules", &name, "pause"], &json!({})).await?;
                screen::line(&format!("rule {name} is paused; its runs are held"))
            }
            Action::Resume { name } => {
                client.post(&["v1", "rules", &name, "resume"], &json!({})).await?;
                screen::line(&format!("rule {name} goes on"))
            }
        }
    }
}

fn in_set(answer: &Value) -> String {
    match at(answer, "/rule_set") {
        number if number.is_empty() => String::new(),
        number => format!(" (rule set {number})"),
    }
}

/// Adds what the list shows of the steps: `map, handle fraud-score, deliver crm`.
fn shown(mut rules: Vec<Value>) -> Vec<Value> {
    for rule in &mut rules {
        let names: Vec<Value> = value::items(rule, "/steps").iter().map(|step| step_name(step).into()).collect();
        rule["step_names"] = Value::Array(names);
    }
    rules
}

fn step_name(step: &Value) -> String {
    let Some((kind, body)) = step.as_object().and_then(|fields| fields.iter().next()) else { return String::new() };
    let target = ["plugin", "sink", "type"].iter().find_map(|name| body.get(name)).map(value::text);
    target.map_or_else(|| kind.clone(), |target| format!("{kind} {target}"))
}

/// All documents of all files, in order.
async fn read(paths: &[PathBuf]) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for path in paths {
        for file in document::files(path)? {
            let text = input::text(&file).await?;
            documents.extend(Document::split(&shown_path(&file), &text));
        }
    }
    if documents.is_empty() {
        return Err(Error::Usage("no rules found: files end in .yaml, .yml or .json".to_owned()));
    }
    Ok(documents)
}

fn shown_path(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

/// One after the other, each under its own name.
async fn apply(client: &Client, documents: Vec<Document>, mut if_match: Option<i64>) -> Result<()> {
    for document in documents {
        let Some(name) = document.name() else {
            return Err(Error::hinted(
                format!("{}: a rule without a name", document.place()),
                "begin it with `name: …`; a file with `rules: […]` is a whole set, for which there is --replace",
            ));
        };
        let path = ["v1", "rules", &name];
        let answer = put(client, &path, &document.text, document.is_json(), if_match).await;
        let answer = answer.map_err(|error| document.placed(error))?;
        screen::line(&format!("rule {name} applied{}", in_set(&answer)))?;
        warn(&answer, |line| document.at(line))?;
        // The next one is guarded by what this one has made.
        if_match = if_match.and(answer.get("rule_set").and_then(Value::as_i64));
    }
    Ok(())
}

/// All at once, as the whole set.
async fn apply_set(client: &Client, documents: &[Document], if_match: Option<i64>) -> Result<()> {
    let (text, lines) = document::joined(documents);
    let place = |line: usize| document::found(documents, &lines, line);
    let json = documents.len() == 1 && documents[0].is_json();
    let answer = put(client, &["v1", "rules"], &text, json, if_match).await.map_err(|error| match error {
        Error::Refused(mut problem) => {
            for fault in &mut problem.errors {
                let (file, line) = place(fault.line);
                fault.place = Some(file);
                fault.line = line;
            }
            Error::Refused(problem)
        }
        other => other,
    })?;
    screen::line(&format!("the rules are replaced{}", in_set(&answer)))?;
    warn(&answer, place)
}

async fn put(client: &Client, path: &[&str], text: &str, json: bool, if_match: Option<i64>) -> Result<Value> {
    let kind = if json { "application/json" } else { "application/yaml" };
    let mut request = client.request(Method::PUT, path, &[])?.header(CONTENT_TYPE, kind).body(text.to_owned());
    if let Some(number) = if_match {
        request = request.header(IF_MATCH, format!("\"{number}\""));
    }
    client.call(request).await
}

/// Prints the warnings of an answer, each with its place.
fn warn(answer: &Value, place: impl Fn(usize) -> (String, usize)) -> Result<()> {
    let paint = Paint::stderr();
    for warning in value::items(answer, "/warnings") {
        let mut text = format!("{}\n", paint.yellow("warning:"));
        match serde_json::from_value::<Fault>(warning.clone()) {
            Ok(mut fault) if !fault.message.is_empty() => {
                let (file, line) = place(fault.line);
                fault.line = line;
                fault.render(Some(&file), paint, &mut text);
            }
            _ => text += &format!("      {}\n", crate::cli::paint::clean(&value::text(warning))),
        }
        screen::note(text.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_read_well() {
        for (step, expected) in [
            (json!({"handle": {"plugin": "fraud-score", "when": "true"}}), "handle fraud-score"),
            (json!({"deliver": {"sink": "crm"}}), "deliver crm"),
            (json!({"emit": {"type": "orders.flagged"}}), "emit orders.flagged"),
            (json!({"map": {"order": "data.id"}}), "map"),
            (json!({"redact": ["/a"]}), "redact"),
            (json!(7), ""),
        ] {
            assert_eq!(step_name(&step), expected);
        }
    }
}
