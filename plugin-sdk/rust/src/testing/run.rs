//! What a run did, as the host would have committed it.

use std::fmt;
use std::time::Duration;

use crate::draft::{Body, Draft};
use crate::failure::Failure;
use crate::log::Level;

/// The outcome of one call of a plugin. The effects of a run that failed are empty: they were discarded.
#[derive(Debug, Clone)]
pub struct Run<T = ()> {
    /// What the function answered.
    pub result: Result<T, Failure>,
    /// Events to be published.
    pub emitted: Vec<Draft>,
    /// Bodies for sinks.
    pub delivered: Vec<Delivered>,
    /// Events to be published later.
    pub scheduled: Vec<Scheduled>,
    /// Ids and names of the timers taken back.
    pub cancelled: Vec<String>,
    /// Lines of the log; a failure keeps them.
    pub logs: Vec<LogLine>,
    /// Units and amounts; a failure keeps them.
    pub usage: Vec<(String, f64)>,
}

/// A body on its way to a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The sink's name.
    pub sink: String,
    /// What is sent.
    pub body: Body,
}

/// An event at a later time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// The id that the plugin was given.
    pub id: String,
    /// By which another timer replaces it.
    pub name: Option<String>,
    /// How long from now.
    pub after: Duration,
    /// The event.
    pub draft: Draft,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How loud.
    pub level: Level,
    /// The message.
    pub message: String,
    /// Names and values.
    pub fields: Vec<(String, String)>,
}

impl<T: fmt::Debug> Run<T> {
    /// The failure of a run that has to have failed; panics if it did not.
    #[track_caller]
    pub fn failure(&self) -> &Failure {
        match &self.result {
            Ok(value) => panic!("the run succeeded with {value:?}"),
            Err(failure) => failure,
        }
    }

    /// What a run that has to have succeeded answered; panics with its failure if it did not.
    #[track_caller]
    pub fn success(&self) -> &T {
        match &self.result {
            Ok(value) => value,
            Err(failure) => panic!("the run failed: {failure}"),
        }
    }
}

impl<T> Run<T> {
    /// Takes what `other` recorded, with this run's result.
    pub(super) fn recorded(result: Result<T, Failure>, record: Run) -> Self {
        let kept = result.is_ok();
        Self {
            result,
            emitted: if kept { record.emitted } else { Vec::new() },
            delivered: if kept { record.delivered } else { Vec::new() },
            scheduled: if kept { record.scheduled } else { Vec::new() },
            cancelled: if kept { record.cancelled } else { Vec::new() },
            logs: record.logs,
            usage: record.usage,
        }
    }
}

impl Run {
    /// Nothing happened yet.
    pub(super) fn empty() -> Self {
        Self {
            result: Ok(()),
            emitted: Vec::new(),
            delivered: Vec::new(),
            scheduled: Vec::new(),
            cancelled: Vec::new(),
            logs: Vec::new(),
            usage: Vec::new(),
        }
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.level, self.message)?;
        for (name, value) in &self.fields {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}
