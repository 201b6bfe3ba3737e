//! What came out, for `bulkhead config check`.

use std::fmt::Write as _;

use toml::Value;

use crate::config::Config;

/// How wide a line is before the origin stands behind it.
const COLUMN: usize = 44;

/// All settings as TOML that reads back, each with its origin behind it.
pub fn render(config: &Config) -> String {
    let mut text = String::new();
    let mut table = "";
    // What is in no table stands first: after a table's head it would be in that table.
    let mut settled: Vec<_> = config.settled.iter().collect();
    settled.sort_by_key(|setting| setting.path.rsplit_once('.').map_or("", |(within, _)| within));
    for setting in settled {
        let (within, name) = setting.path.rsplit_once('.').unwrap_or(("", &setting.path));
        if within != table {
            let _ = writeln!(text, "\n[{within}]");
            table = within;
        }
        let value = without_passwords(&setting.value);
        let line = format!("{name} = {value}");
        match &setting.origin {
            Some(origin) => _ = writeln!(text, "{line:COLUMN$} # {origin}"),
            None => _ = writeln!(text, "{line}"),
        }
    }
    if config.operator_key.is_some() {
        text.push_str("\n# The operator's key is set by BULKHEAD_OPERATOR_KEY (not shown).\n");
    }
    for warning in &config.warnings {
        let _ = writeln!(text, "\n# warning: {warning}");
    }
    text
}

fn without_passwords(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(masked(text)),
        Value::Array(items) => Value::Array(items.iter().map(without_passwords).collect()),
        Value::Table(table) => {
            Value::Table(table.iter().map(|(name, value)| (name.clone(), without_passwords(value))).collect())
        }
        value => value.clone(),
    }
}

/// The password of a URL becomes stars. Also of one that does not read, as when signs of the password were not encoded:
/// what stands before the last `@` is taken to be the user's.
pub fn masked(text: &str) -> String {
    let text = match text.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((user, place)) => format!("{scheme}://{}:***@{place}", user.split(':').next().unwrap_or_default()),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    };
    // Postgres takes one as a parameter, too.
    match text.split_once("password=") {
        Some((before, after)) => {
            let rest = after.find(['&', ' ']).map_or("", |end| &after[end..]);
            format!("{before}password=***{rest}")
        }
        None => text,
    }
}
