//! What a component is, needs and may do, as lines on the screen: the same after a build, after an upload and later.

use serde_json::Value;

use crate::cli::error::Result;
use crate::cli::paint::clean;
use crate::cli::screen;
use crate::cli::value;

/// Prints a name with what it stands for, line by line; nothing if there is nothing.
pub fn lines<T: AsRef<str>>(name: &str, lines: &[T]) -> Result<()> {
    for (at, line) in lines.iter().enumerate() {
        screen::line(&format!("  {:9}  {}", if at == 0 { name } else { "" }, clean(line.as_ref())))?;
    }
    Ok(())
}

/// The same in one line, with commas.
pub fn list<T: AsRef<str>>(name: &str, items: &[T]) -> Result<()> {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    if items.is_empty() { Ok(()) } else { lines(name, &[items.join(", ")]) }
}

/// What grants allow beyond others, as sentences that go on from `it may …`.
pub fn allowed(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, entries) in after.as_object().into_iter().flatten() {
        let had = |entry: &Value| value::items(before, &format!("/{kind}")).contains(entry);
        match entries {
            Value::Array(entries) => {
                let new = entries.iter().filter(|entry| !had(entry));
                found.extend(new.map(|entry| sentence(kind, &value::text(entry))));
            }
            Value::Bool(true) if before.get(kind) != Some(&Value::Bool(true)) => found.push(sentence(kind, "")),
            _ => {}
        }
    }
    found
}

/// The same for one grant as the host writes it in a line: `emit orders.*`, `schedule`.
pub fn grant(text: &str) -> String {
    let (kind, entry) = text.split_once(' ').unwrap_or((text, ""));
    sentence(kind, entry)
}

fn sentence(kind: &str, entry: &str) -> String {
    match kind {
        "emit" => format!("emit events of type {entry}"),
        "deliver" if entry == "*" => "deliver to every sink of the tenant".to_owned(),
        "deliver" => format!("deliver to the sink {entry}"),
        "http" => format!("send requests to {entry}"),
        "secrets" => format!("read the secret {entry}"),
        "schedule" => "set timers".to_owned(),
        other => format!("{other} {entry}").trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_added_reads_as_sentences() {
        let before = json!({"emit": ["a.*"], "secrets": ["token"]});
        let after = json!({"emit": ["a.*", "b"], "secrets": ["token", "key"], "schedule": true, "http": ["x.example"]});
        let mut found = allowed(&before, &after);
        found.sort();
        let expected = ["emit events of type b", "read the secret key", "send requests to x.example", "set timers"];
        assert_eq!(found, expected);
        assert!(allowed(&after, &before).is_empty());
        assert_eq!(allowed(&Value::Null, &json!({"deliver": ["*"]})), ["deliver to every sink of the tenant"]);
    }

    #[test]
    fn a_line_of_the_host_reads_the_same() {
        assert_eq!(grant("emit a.*"), "emit events of type a.*");
        assert_eq!(grant("schedule"), "set timers");
        assert_eq!(grant("something new"), "something new");
    }
}
