//! The scan: bounds on the text that hold before the parser sees it, because the parser recurses.

use crate::rule::expression::BRACKETS_MAX;
use crate::rule::expression::OPERATORS_MAX;
use crate::rule::expression::Problem;
use crate::rule::expression::SOURCE_BYTES_MAX;

/// Checks length, number of operators and nesting of brackets.
pub fn scan(source: &str) -> Result<(), Problem> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(Problem {
            offset: 0,
            message: format!("the expression is {} bytes long; the limit is {SOURCE_BYTES_MAX}", source.len()),
            hint: Some("what needs this much is better a plugin".to_owned()),
        });
    }
    if source.trim().is_empty() {
        return Err(Problem { offset: 0, message: "the expression is empty".to_owned(), hint: None });
    }
    let characters: Vec<char> = source.chars().collect();
    let (mut at, mut operators, mut depth) = (0, 0, 0_usize);
    while let Some(&character) = characters.get(at) {
        at = match character {
            '"' | '\'' => after_text(&characters, at),
            '/' if characters.get(at + 1) == Some(&'/') => after_line(&characters, at),
            _ => at + 1,
        };
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > BRACKETS_MAX {
            return Err(Problem {
                offset: at - 1,
                message: format!("brackets nest deeper than {BRACKETS_MAX}"),
                hint: None,
            });
        }
        if character.is_ascii_punctuation() && !matches!(character, '"' | '\'' | '_') {
            operators += 1;
        }
        if operators > OPERATORS_MAX {
            return Err(Problem {
                offset: at - 1,
                message: format!("more than {OPERATORS_MAX} operators and brackets"),
                hint: Some("what needs this much is better a plugin".to_owned()),
            });
        }
    }
    Ok(())
}

/// The place after the text that starts at `at`. One that never ends reaches the end.
fn after_text(characters: &[char], at: usize) -> usize {
    let quote = characters[at];
    let raw = at > 0 && matches!(characters[at - 1], 'r' | 'R');
    let triple = characters.get(at + 1) == Some(&quote) && characters.get(at + 2) == Some(&quote);
    let width = if triple { 3 } else { 1 };
    let mut next = at + width;
    while next < characters.len() {
        if characters[next] == '\\' && !raw {
            next += 2;
        } else if characters[next..].iter().take(width).filter(|&&character| character == quote).count() == width {
            return next + width;
        } else {
            next += 1;
        }
    }
    characters.len()
}

fn after_line(characters: &[char], at: usize) -> usize {
    characters[at..].iter().position(|&character| character == '\n').map_or(characters.len(), |length| at + length)
}
