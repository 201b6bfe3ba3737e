//! Syntax errors in plain words: the parser's own list every token that could have come.

use cel::ParseErrors;

use crate::rule::expression::Problem;

/// What other languages write, and what CEL writes.
const HABITS: [(&str, &str); 11] = [
    ("and", "`&&`"),
    ("or", "`||`"),
    ("not", "`!`"),
    ("=", "`==`"),
    ("===", "`==`"),
    ("!==", "`!=`"),
    ("<>", "`!=`"),
    ("=>", "`>=`"),
    ("=<", "`<=`"),
    ("??", "`data.?field.orValue(…)`"),
    ("is", "`==`"),
];

/// The first of the parser's errors; the others mostly follow from it.
pub fn problem(source: &str, errors: &ParseErrors) -> Problem {
    let first =
        errors.errors.iter().min_by_key(|error| (error.msg.starts_with("Incomplete"), error.pos.0 <= 0, error.pos));
    let Some(first) = first else {
        return Problem { offset: 0, message: "this is not an expression".to_owned(), hint: None };
    };
    let offset = offset(source, first.pos).min(source.chars().count());
    let hint = habit(source, offset);
    let message = plain(first.msg.trim_start_matches("Syntax error: "));
    Problem { offset, message, hint }
}

/// The parser's message in plain words.
fn plain(message: &str) -> String {
    let early = || "the expression ends too early".to_owned();
    if message.starts_with("Incomplete") {
        return early();
    }
    if message.contains("OtherError") {
        return "the expression nests too deeply".to_owned();
    }
    if let Some((missing, at)) = message.strip_prefix("missing '").and_then(|rest| rest.split_once("' at ")) {
        let place = if at.contains("<EOF>") { "at the end" } else { "here" };
        return format!("`{missing}` is missing {place}");
    }
    let Some((what, rest)) = message.split_once('\'') else { return message.to_owned() };
    let token =
        rest.split(" expecting ").next().and_then(|rest| rest.rsplit_once('\'')).map_or(rest, |(token, _)| token);
    if token == "<EOF>" {
        return early();
    }
    if what.starts_with("token") && token.starts_with(['\'', '"']) {
        return format!("`{token}` is a text without an end, or with an unknown escape");
    }
    format!("`{}` is not expected here", token.trim())
}

/// What the author may have meant, by the word at or around `offset`.
fn habit(source: &str, offset: usize) -> Option<String> {
    let characters: Vec<char> = source.chars().collect();
    let is_sign = |character: &char| matches!(character, '=' | '<' | '>' | '!' | '?');
    let word = |same: &dyn Fn(&char) -> bool, at: usize| -> String {
        let start = characters[..at].iter().rposition(|character| !same(character)).map_or(0, |found| found + 1);
        let end = characters[at..].iter().position(|character| !same(character)).map_or(characters.len(), |n| at + n);
        characters[start..end].iter().collect()
    };
    let is_letter = |character: &char| character.is_alphanumeric() || *character == '_';
    let before = characters[..offset.min(characters.len())].iter().rposition(|character| !character.is_whitespace());
    let places = [Some(offset), before];
    places.into_iter().flatten().filter(|at| *at < characters.len()).find_map(|at| {
        let word = if is_sign(&characters[at]) { word(&is_sign, at) } else { word(&is_letter, at) };
        let (_, right) = HABITS.iter().find(|(wrong, _)| wrong.eq_ignore_ascii_case(&word))?;
        Some(format!("in place of `{word}` write {right}"))
    })
}

/// The parser counts lines and columns from 1.
fn offset(source: &str, (line, column): (isize, isize)) -> usize {
    let line = usize::try_from(line - 1).unwrap_or_default();
    let column = usize::try_from(column - 1).unwrap_or_default();
    let before: usize = source.split('\n').take(line).map(|text| text.chars().count() + 1).sum();
    before + column
}
