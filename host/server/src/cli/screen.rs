//! Standard output: text and lists, as a table for people or as JSON for programs.

use std::io::IsTerminal as _;
use std::io::Write as _;

use serde_json::Value;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::paint::cut;
use crate::cli::value;

/// The widest that a table's cell is on a terminal; JSON has the whole.
const CELL: usize = 72;

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// Columns for people
    #[default]
    Table,
    /// The host's own items, as a JSON array
    Json,
}

/// The flag that says how a list or an object is printed.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Format {
    /// How the result is printed: table, or json
    #[arg(short, long, value_enum, default_value_t = Output::Table, hide_possible_values = true)]
    pub output: Output,
}

/// The flags of a command that prints a list.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Listing {
    /// How the result is printed: table, or json
    #[arg(short, long, value_enum, default_value_t = Output::Table, hide_possible_values = true)]
    pub output: Output,
    /// At most this many
    #[arg(short = 'n', long, default_value_t = 50, value_name = "COUNT")]
    pub limit: usize,
}

/// What a column shows of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// Text, numbers, lists as they are.
    Text,
    /// A state, coloured.
    State,
    /// A point in time, without fractions.
    Time,
    /// A number, with thousands apart, to the right.
    Count,
    /// Microseconds, in a fitting unit, to the right.
    Micros,
    /// Bytes, in a fitting unit, to the right.
    Bytes,
}

/// Stand around what is to be coloured while columns are laid out, so that escapes do not count as width. [`clean`]
/// lets neither of them through from outside.
const MARKS: [char; 2] = ['\u{e000}', '\u{e001}'];

/// A heading, the pointer to the value, and how to show it.
pub type Column = (&'static str, &'static str, Cell);

/// Prints one line.
pub fn line(text: &str) -> Result<()> {
    raw(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are.
pub fn raw(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::Output)
}

/// Prints JSON, indented.
pub fn json(value: &Value) -> Result<()> {
    line(&format!("{value:#}"))
}

/// Prints a list. An empty one prints `none` for people, and `[]` for programs.
pub fn list(items: Vec<Value>, output: Output, columns: &[Column], none: &str) -> Result<()> {
    match output {
        Output::Json => json(&Value::Array(items)),
        Output::Table if items.is_empty() => note(none),
        Output::Table => line(&table(&items, columns, Paint::stdout(), std::io::stdout().is_terminal())),
    }
}

/// Prints one thing.
pub fn one(value: &Value, output: Output) -> Result<()> {
    match output {
        Output::Json => json(value),
        Output::Table => object(value),
    }
}

/// Prints an object for people: a line per field, in the host's order.
pub fn object(value: &Value) -> Result<()> {
    let Some(fields) = value.as_object() else { return line(&clean(&value::text(value))) };
    let paint = Paint::stdout();
    let width = fields.keys().map(|name| name.chars().count()).max().unwrap_or_default();
    for (name, value) in fields {
        let shown = match value {
            Value::Null => continue,
            Value::Array(items) if items.iter().any(|it| it.is_object() || it.is_array()) => {
                line(&paint.bold(&clean(name)))?;
                for item in items {
                    line(&format!("  {}", clean(&item.to_string())))?;
                }
                continue;
            }
            value => clean(&value::text(value)),
        };
        let padded = format!("{:width$}", clean(name));
        line(&format!("{}  {}", paint.bold(&padded), paint.state(&shown)))?;
    }
    Ok(())
}

/// Says something to people that is no part of the result.
pub fn note(text: &str) -> Result<()> {
    let mut out = std::io::stderr().lock();
    writeln!(out, "{text}").map_err(Error::Output)
}

/// Lays a list out in columns. Columns that are empty in every item are left out.
pub fn table(items: &[Value], columns: &[Column], paint: Paint, narrow: bool) -> String {
    let filled = |column: &&Column| items.iter().any(|item| !cell(item, column).is_empty());
    let columns: Vec<&Column> = columns.iter().filter(filled).collect();
    let mut table = plain_table();
    let shown = |text: &str, kind: Cell| match kind {
        Cell::State => comfy_table::Cell::new(marked(text)),
        Cell::Count | Cell::Micros | Cell::Bytes => {
            comfy_table::Cell::new(text).set_alignment(comfy_table::CellAlignment::Right)
        }
        Cell::Text | Cell::Time => comfy_table::Cell::new(text),
    };
    table.set_header(columns.iter().map(|(title, _, kind)| shown(title, *kind)));
    for item in items {
        table.add_row(columns.iter().map(|column| {
            let text = cell(item, column);
            shown(&if narrow { cut(&text, CELL) } else { text }, column.2)
        }));
    }
    coloured(&trimmed(&table), paint)
}

/// A text that [`coloured`] will colour by the state that it names.
pub fn marked(text: &str) -> String {
    format!("{}{text}{}", MARKS[0], MARKS[1])
}

/// Colours the first line as a heading and every marked text by its state, once the columns stand.
pub fn coloured(table: &str, paint: Paint) -> String {
    let mut lines = Vec::new();
    for (index, line) in table.lines().enumerate() {
        if index == 0 {
            lines.push(paint.bold(&line.replace(MARKS, "")));
            continue;
        }
        let mut parts = line.split(MARKS);
        let mut text = parts.next().unwrap_or_default().to_owned();
        while let Some(state) = parts.next() {
            text += &paint.state(state);
            text += parts.next().unwrap_or_default();
        }
        lines.push(text);
    }
    lines.join("\n")
}

/// A table without lines: columns two blanks apart.
pub fn plain_table() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table
}

/// The table's text without blanks at line ends and at the left edge.
pub fn trimmed(table: &comfy_table::Table) -> String {
    let lines = table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

fn cell(item: &Value, (_, pointer, kind): &Column) -> String {
    // Several pointers: the first that leads somewhere.
    let found = pointer.split('|').find_map(|pointer| item.pointer(pointer).filter(|value| !value.is_null()));
    let Some(found) = found else { return String::new() };
    match kind {
        Cell::Text | Cell::State => clean(&value::text(found)),
        Cell::Time => value::time(found),
        Cell::Count => found.as_u64().map_or_else(|| value::text(found), value::count),
        Cell::Micros => found.as_u64().map_or_else(|| value::text(found), value::micros),
        Cell::Bytes => found.as_u64().map_or_else(|| value::text(found), value::bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_columns_without_empty_ones() {
        let items = [
            serde_json::json!({"name": "a", "state": "active", "size": 1_500_000, "note": null}),
            serde_json::json!({"name": "longer\u{1b}[2J", "state": "paused", "size": 20, "versions": [1, 2]}),
        ];
        let columns = [
            ("NAME", "/name", Cell::Text),
            ("STATE", "/status|/state", Cell::State),
            ("SIZE", "/size", Cell::Count),
            ("NOTE", "/note", Cell::Text),
            ("VERSIONS", "/versions", Cell::Text),
        ];
        assert_eq!(
            table(&items, &columns, Paint::plain(), true),
            "NAME             STATE        SIZE  VERSIONS\n\
             a                active  1,500,000\n\
             longer\\u{1b}[2J  paused         20  1, 2"
        );
    }
}
