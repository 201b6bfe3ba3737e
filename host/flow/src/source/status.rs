//! What a source is at, for operators: as a value that can be watched, and as log lines that do not repeat themselves.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::watch;

/// The same trouble is logged again after this long, not at every attempt.
const REPEAT: Duration = Duration::from_secs(60);

/// What a source is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// It has not reached its queue yet.
    Starting,
    /// Another node runs it.
    Elsewhere,
    /// It takes in what comes.
    Reading,
    /// Something keeps it from taking anything in; it tries again by itself.
    Waiting {
        /// What, for people.
        reason: String,
    },
    /// It was asked to end.
    Stopped,
}

/// What waits in front of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// Entries that nobody has read.
    pub unread: u64,
    /// Entries that a node has read and not acknowledged.
    pub pending: u64,
    /// How old the oldest of them is, in whole seconds; none if there is none, or its age cannot be told.
    pub oldest_seconds: Option<u64>,
}

/// A source as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The source's name.
    pub name: String,
    /// What it is doing.
    #[serde(flatten)]
    pub state: State,
    /// What waits for it, as it was a few seconds ago; none before the first look.
    pub backlog: Option<Backlog>,
}

/// The side of a source that tells its status.
#[derive(Debug)]
pub struct Reporter {
    status: watch::Sender<Status>,
    /// The trouble that was logged last, and when.
    said: Mutex<Option<(String, Instant)>>,
}

impl Reporter {
    /// For a source that is about to start.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let status = Status { name: name.into(), state: State::Starting, backlog: None };
        Self { status: watch::Sender::new(status), said: Mutex::default() }
    }

    /// A view that changes with the status.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// It takes in what comes.
    pub fn reading(&self) {
        if self.change(State::Reading) {
            tracing::info!(source = self.status.borrow().name, "the source is read");
        }
    }

    /// It waits, and this is why.
    pub fn waiting(&self, reason: &str) {
        self.change(State::Waiting { reason: reason.to_owned() });
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_ref().is_none_or(|(last, when)| last != reason || when.elapsed() >= REPEAT) {
            *said = Some((reason.to_owned(), Instant::now()));
            tracing::warn!(source = self.status.borrow().name, reason, "the source waits");
        }
    }

    /// Another node runs it.
    pub fn elsewhere(&self) {
        self.change(State::Elsewhere);
    }

    /// It was asked to end.
    pub fn stopped(&self) {
        self.change(State::Stopped);
    }

    /// What was seen to wait.
    pub fn backlog(&self, backlog: Backlog) {
        self.status.send_if_modified(|status| status.backlog.replace(backlog) != Some(backlog));
    }

    fn change(&self, state: State) -> bool {
        self.status.send_if_modified(|status| {
            let changed = status.state != state;
            status.state = state;
            changed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_see_what_changed_and_nothing_else() {
        let reporter = Reporter::new("orders");
        let mut status = reporter.subscribe();
        assert_eq!(status.borrow_and_update().state, State::Starting);
        reporter.reading();
        assert!(status.has_changed().expect("because the reporter lives"));
        assert_eq!(status.borrow_and_update().state, State::Reading);
        reporter.reading();
        assert!(!status.has_changed().expect("because the reporter lives"));
        reporter.waiting("the store is full");
        reporter.backlog(Backlog { unread: 3, pending: 1, oldest_seconds: Some(7) });
        let json = serde_json::to_value(&*status.borrow_and_update()).expect("because it is plain data");
        let expected = serde_json::json!({
            "name": "orders", "state": "waiting", "reason": "the store is full",
            "backlog": {"unread": 3, "pending": 1, "oldest_seconds": 7},
        });
        assert_eq!(json, expected);
    }
}
