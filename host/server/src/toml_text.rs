//! Reads TOML that people write: every fault with its place, the line drawn, and what was probably meant.

use bulkhead_domain::rule::Diagnostic;
use serde::de::DeserializeOwned;

/// The widest part of a line that is shown.
const WIDTH: usize = 120;

/// Reads a document into `T`.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Diagnostic> {
    let parsed = toml::Deserializer::parse(text).map_err(|error| fault(text, String::new(), &error))?;
    serde_path_to_error::deserialize(parsed).map_err(|error| {
        let path = error.path().to_string();
        // A dot alone is how the root is written; what could not be followed is a question mark.
        let path = path.trim_matches(['.', '?']).to_owned();
        fault(text, path, error.inner())
    })
}

fn fault(text: &str, path: String, error: &toml::de::Error) -> Diagnostic {
    let (message, hint) = explain(error.message());
    let Some(span) = error.span() else {
        return Diagnostic { line: 1, column: 1, path, message, hint, excerpt: String::new() };
    };
    at(text, span.start, path, message, hint)
}

/// A fault at a byte of the text.
pub fn at(text: &str, offset: usize, path: String, message: String, hint: Option<String>) -> Diagnostic {
    let offset = (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let before = &text[..offset];
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    let column = before[start..].chars().count() + 1;
    let shown: String = text[start..]
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(WIDTH)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    let number = line.to_string();
    let (margin, indent) = (" ".repeat(number.len()), " ".repeat((column - 1).min(WIDTH)));
    let excerpt = format!("{number} | {}\n{margin} | {indent}^", shown.trim_end());
    Diagnostic { line, column, path, message, hint, excerpt }
}

/// Where a key stands first: the byte of `key` at the start of a line, below the heading of its table.
pub fn find(text: &str, table: &str, key: &str) -> Option<usize> {
    let mut offset = 0;
    let mut within = table.is_empty();
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        if let Some(heading) = trimmed.strip_prefix('[') {
            within = heading.split(']').next().unwrap_or_default().trim() == table;
        } else if within {
            let name = trimmed.split('=').next().unwrap_or_default().trim().trim_matches('"');
            if name == key {
                return Some(offset + line.len() - trimmed.len());
            }
        }
        offset += line.len();
    }
    None
}

/// In our words, with a guess at what was meant.
pub fn explain(message: &str) -> (String, Option<String>) {
    let message = message.trim();
    for what in ["field", "variant"] {
        let Some(rest) = message.strip_prefix(&format!("unknown {what} `")) else { continue };
        let Some((word, expected)) = rest.split_once('`') else { continue };
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let hint = match nearest(word, known.iter().copied()) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if known.is_empty() => None,
            None => Some(format!("known here: {}", known.join(", "))),
        };
        let message = match what {
            "field" => format!("`{word}` is not known here"),
            _ => format!("`{word}` is not one of the values that are possible here"),
        };
        return (message, hint);
    }
    (message.replace('\n', " "), None)
}

/// The word that was most likely meant, if one is near: at most a third of the letters differ.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    #[derive(Default)]
    struct Document {
        listen: String,
        log: Log,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Log {
        level: u8,
    }

    fn wrong(text: &str) -> Diagnostic {
        read::<Document>(text).expect_err("because it is wrong")
    }

    #[test]
    fn faults_have_a_place_and_a_guess() {
        let fault = wrong("# x\nlisten = \"a\"\nlisen = 1\n");
        assert_eq!((fault.line, fault.column), (3, 1), "{fault:?}");
        assert_eq!(fault.message, "`lisen` is not known here");
        assert_eq!(fault.hint.as_deref(), Some("did you mean `listen`?"));
        assert_eq!(fault.excerpt, "3 | lisen = 1\n  | ^");
        let fault = wrong("[log]\nlevel = \"x\"");
        assert_eq!((fault.line, fault.column, fault.path.as_str()), (2, 9, "log.level"), "{fault:?}");
        let fault = wrong("listen = ");
        assert_eq!(fault.line, 1, "{fault:?}");
        let fault = wrong("[log]\nzzzzzz = 1");
        assert_eq!(fault.hint.as_deref(), Some("known here: level"), "{fault:?}");
    }

    #[test]
    fn keys_are_found_in_their_table() {
        let text = "name = 1\n[a]\nname = 2\n[b.c]\n  name = 3\n";
        assert_eq!(find(text, "", "name"), Some(0));
        assert_eq!(find(text, "a", "name").map(|at| &text[at..at + 8]), Some("name = 2"));
        assert_eq!(find(text, "b.c", "name").map(|at| &text[at..at + 8]), Some("name = 3"));
        assert_eq!(find(text, "d", "name"), None);
    }
}
