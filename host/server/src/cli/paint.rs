//! Colours and characters: only on a terminal, never with `NO_COLOR`, and nothing that a terminal would obey.

use std::io::IsTerminal as _;

/// Whether colours are used.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// No colours.
    pub const fn plain() -> Self {
        Self { on: false }
    }

    /// For standard output.
    pub fn stdout() -> Self {
        Self { on: std::io::stdout().is_terminal() && wanted() }
    }

    /// For standard error.
    pub fn stderr() -> Self {
        Self { on: std::io::stderr().is_terminal() && wanted() }
    }

    /// For what is wrong.
    pub fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// For what is well.
    pub fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// For what waits.
    pub fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// For what helps.
    pub fn cyan(self, text: &str) -> String {
        self.wrap("36", text)
    }

    /// For headings.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// For what is there but of less interest.
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// Coloured by the state that it names.
    pub fn state(self, text: &str) -> String {
        match text {
            "done" | "delivered" | "active" | "ok" => self.green(text),
            "retrying" | "pending" | "paused" | "held" | "blocked" | "waiting" => self.yellow(text),
            "parked" | "dropped" | "failed" | "suspended" | "error" => self.red(text),
            other => other.to_owned(),
        }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// `NO_COLOR` (any value but an empty one) and `TERM=dumb` switch colours off.
fn wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Makes text from events, plugins and receivers safe to print: control characters, which could move the cursor or
/// rewrite what stands above, become visible escapes. Line ends become spaces.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => cleaned.push(' '),
            '\r' => {}
            // Also what reverses the reading direction, and the marks that tables use inside.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e000}' | '\u{e001}' => {
                cleaned.extend(character.escape_unicode())
            }
            control if control.is_control() => cleaned.extend(control.escape_default()),
            other => cleaned.push(other),
        }
    }
    cleaned
}

/// At most `most` characters, with a mark where text was cut.
pub fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_log_line_cannot_reach_the_terminal() {
        assert_eq!(clean("ok\u{1b}[2Jgone\r\nnext\u{9b}1m\u{202e}"), "ok\\u{1b}[2Jgone next\\u{9b}1m\\u{202e}");
        assert_eq!(clean("Grüße, 世界"), "Grüße, 世界");
    }

    #[test]
    fn long_text_is_cut_by_characters() {
        assert_eq!(cut("äöüß", 4), "äöüß");
        assert_eq!(cut("äöüßx", 4), "äöü…");
    }
}
