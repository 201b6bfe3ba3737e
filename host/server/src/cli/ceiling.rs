//! `bulkhead tenant grants`: the most that a tenant's plugins may be granted, and how an operator sets it.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::input;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Output;

const COLUMNS: &[Column] =
    &[("GRANT", "/grant", Cell::Text), ("TENANT", "/tenant", Cell::Text), ("HOST", "/host", Cell::Text)];

/// What an operator allows. Without a flag it is only shown.
#[derive(Debug, Args)]
pub struct Grants {
    /// Its name or id
    name: String,
    /// A file with the ceiling: {"emit": ["orders.*"], "http": [], "schedule": false}; what is left out is not limited
    #[arg(long, value_name = "FILE", conflicts_with = "clear")]
    set: Option<PathBuf>,
    /// Limit nothing but by the host's own ceiling
    #[arg(long)]
    clear: bool,
    #[command(flatten)]
    format: Format,
}

impl Grants {
    /// Sets what is given, and shows what counts then.
    pub async fn run(&self, client: &Client) -> Result<()> {
        let path = ["admin", "v1", "tenants", &self.name, "grants"];
        let wanted = match &self.set {
            Some(file) => Some(read(&input::text(file).await?)?),
            None => self.clear.then(|| json!({})),
        };
        let answer = match wanted {
            Some(ceiling) => client.put(&path, &ceiling).await?,
            None => client.get(&path, &[]).await?,
        };
        if self.format.output == Output::Json {
            return screen::json(&answer);
        }
        screen::list(rows(&answer), Output::Table, COLUMNS, "nothing is limited")
    }
}

fn read(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| {
        Error::hinted(
            format!("the ceiling is no JSON: {error}"),
            "a ceiling looks like {\"emit\": [\"orders.*\"], \"http\": [], \"schedule\": false}",
        )
    })
}

/// A row for each kind of grant.
fn rows(both: &Value) -> Vec<Value> {
    let row = |grant: &&str| {
        let of = |whose: &str| said(both.pointer(&format!("/{whose}/{grant}")));
        json!({ "grant": grant, "tenant": of("tenant"), "host": of("host") })
    };
    ["emit", "deliver", "http", "secrets", "schedule"].iter().map(row).collect()
}

/// A ceiling of one kind, in words.
fn said(most: Option<&Value>) -> String {
    match most {
        None | Some(Value::Null) => "not limited".to_owned(),
        Some(Value::Bool(true)) => "allowed".to_owned(),
        Some(Value::Bool(false)) => "none".to_owned(),
        Some(Value::Array(entries)) if entries.is_empty() => "none".to_owned(),
        Some(Value::Array(entries)) => entries.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_row() {
        let both = json!({"tenant": {"emit": ["a.*", "b"], "http": []}, "host": {"schedule": false}});
        let rows = rows(&both);
        assert_eq!(rows.len(), 5);
        assert_eq!(rows[0], json!({"grant": "emit", "tenant": "a.*, b", "host": "not limited"}));
        assert_eq!(rows[2], json!({"grant": "http", "tenant": "none", "host": "not limited"}));
        assert_eq!(rows[4], json!({"grant": "schedule", "tenant": "not limited", "host": "none"}));
    }

    #[test]
    fn what_is_no_json_is_refused_here() {
        assert!(read("{\"emit\": [}").is_err());
        assert!(read("{}").is_ok());
    }
}
