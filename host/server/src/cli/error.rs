//! Errors of the command line: what the user reads, and the exit code that scripts read.
//!
//! Each variant is a way to go on: write the command differently, ask the host's answer, start a host, or give up.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::problem::Problem;

/// What a command gives back.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that cannot be: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It did not work.
    #[error("{what}")]
    Failed {
        /// What did not work, in one sentence.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The host said no, and why.
    #[error("the host refused: {0}")]
    Refused(Box<Problem>),
    /// No host answered.
    #[error("no answer from {url}")]
    Unreachable {
        /// Where a host was expected.
        url: String,
        /// Nobody listens there at all.
        refused: bool,
        /// What the network said.
        #[source]
        source: reqwest::Error,
    },
    /// Standard output cannot be written.
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
    /// Everything has been said already: exit code 1.
    #[error("")]
    Told,
}

impl Error {
    /// A failure without a hint.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), hint: None }
    }

    /// A failure, and what to do about it.
    pub fn hinted(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), hint: Some(hint.into()) }
    }

    /// A file or folder that cannot be used.
    pub fn file(path: &std::path::Path, doing: &str, cause: &io::Error) -> Self {
        Self::failed(format!("{} cannot be {doing}: {cause}", path.display()))
    }

    /// Reads an `anyhow` chain into one sentence per cause.
    pub fn chain(error: &anyhow::Error) -> Self {
        let mut parts: Vec<String> = Vec::new();
        for cause in error.chain().map(ToString::to_string) {
            // Some errors repeat their cause's text; say it once.
            if !parts.last().is_some_and(|last| last.contains(&cause)) {
                parts.push(cause);
            }
        }
        Self::failed(parts.join(": "))
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            // Whoever read our output has gone (`| head`): nothing is wrong.
            Self::Output(cause) if cause.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    /// What goes to standard error; empty if there is nothing to say.
    pub fn render(&self, paint: Paint) -> String {
        let mut text = String::new();
        let error = paint.red("error:");
        let hint = paint.cyan("hint:");
        match self {
            Self::Told => {}
            Self::Output(cause) if cause.kind() == io::ErrorKind::BrokenPipe => {}
            Self::Output(cause) => _ = writeln!(text, "{error} {self}: {cause}"),
            Self::Usage(what) => {
                _ = writeln!(text, "{error} {}", clean_lines(what));
                _ = writeln!(text, "  {hint} `--help` behind any command shows what it takes");
            }
            Self::Failed { what, hint: advice } => {
                _ = writeln!(text, "{error} {}", clean_lines(what));
                for line in advice.iter().flat_map(|advice| advice.lines()) {
                    _ = writeln!(text, "  {hint} {}", clean(line));
                }
            }
            Self::Refused(problem) => text = problem.render(paint),
            Self::Unreachable { url, refused: true, .. } => {
                _ = writeln!(text, "{error} no host listens on {url}");
                _ = writeln!(
                    text,
                    "  {hint} start one with `bulkhead dev`, or say where it is with --url or BULKHEAD_URL"
                );
            }
            Self::Unreachable { url, source, .. } => {
                _ = writeln!(text, "{error} no answer from {url}: {}", innermost(source));
                _ = writeln!(text, "  {hint} `bulkhead doctor --url {url}` looks for the cause");
            }
        }
        text
    }
}

/// Names of files and words of manifests are in it, which others have written; its own lines stay lines.
fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// The cause that says most.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let gone = Error::Output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(gone.render(Paint::plain()), "");
        assert_eq!(format!("{:?}", gone.exit_code()), format!("{:?}", ExitCode::SUCCESS));
    }

    #[test]
    fn a_hostile_name_cannot_reach_the_terminal() {
        let what = "a\u{1b}[2J is not there\n  | caret";
        let shown = Error::hinted(what, "build\u{9b}2J it").render(Paint::plain());
        assert_eq!(shown, "error: a\\u{1b}[2J is not there\n  | caret\n  hint: build\\u{9b}2J it\n");
        assert!(!Error::Usage(what.to_owned()).render(Paint::plain()).contains('\u{1b}'));
    }

    #[test]
    fn a_chain_says_each_thing_once() {
        let error = anyhow::anyhow!("disk full").context("the store cannot be opened: disk full").context("no start");
        assert_eq!(
            Error::chain(&error).render(Paint::plain()),
            "error: no start: the store cannot be opened: disk full\n"
        );
    }
}
