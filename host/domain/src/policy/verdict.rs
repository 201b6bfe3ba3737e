//! What follows from how an attempt ended. One pure function, for plugins and for deliveries.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::policy::retry::Retry;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Outcome {
    /// It did what it should.
    Done,
    /// It failed and may be tried again.
    Failed(Failure),
    /// It failed and trying again is of no use until somebody changes something.
    Rejected(Failure),
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For machines: `plugin:reject`, `trap:unreachable`, `limit:fuel`, `rule:missing` …
    pub code: String,
    /// For people.
    pub reason: String,
    /// Not before this much time has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Duration>,
}

impl Failure {
    /// A failure without a wish for a wait.
    #[must_use]
    pub fn new(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { code: code.into(), reason: reason.into(), after: None }
    }
}

/// What a rule does with a run whose attempts are used up or that was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Set it aside for a person.
    #[default]
    Park,
    /// Let it go, with a record that it was let go.
    Drop,
}

/// What is to happen after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its effects are committed.
    Commit,
    /// Its effects are discarded; it runs again after this wait.
    Retry(Duration),
    /// Its effects are discarded; it waits for a person.
    Park,
    /// Its effects are discarded, and it is over.
    Drop,
}

/// The longest wait that a plugin or a receiver may ask for by `after`.
pub const AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Decides. `made` counts the attempts so far, this one included; `seed` names the run (for the jitter).
#[must_use]
pub fn verdict(outcome: &Outcome, made: u32, retry: &Retry, on_failure: OnFailure, seed: &[u8]) -> Verdict {
    let give_up = match on_failure {
        OnFailure::Park => Verdict::Park,
        OnFailure::Drop => Verdict::Drop,
    };
    match outcome {
        Outcome::Done => Verdict::Commit,
        Outcome::Rejected(_) => give_up,
        Outcome::Failed(failure) => match retry.wait(made, seed) {
            None => give_up,
            Some(wait) => Verdict::Retry(failure.after.map_or(wait, |after| after.min(AFTER_MAX))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_verdict() {
        let retry = Retry { attempts: 2, ..Retry::default() };
        let failed = |after| Outcome::Failed(Failure { code: "x".into(), reason: "y".into(), after });
        let check = |outcome: &Outcome, made, on_failure| verdict(outcome, made, &retry, on_failure, b"s");
        assert_eq!(check(&Outcome::Done, 9, OnFailure::Park), Verdict::Commit);
        assert_eq!(check(&Outcome::Rejected(Failure::new("x", "y")), 1, OnFailure::Park), Verdict::Park);
        assert_eq!(check(&Outcome::Rejected(Failure::new("x", "y")), 1, OnFailure::Drop), Verdict::Drop);
        assert!(matches!(check(&failed(None), 1, OnFailure::Park), Verdict::Retry(_)));
        assert_eq!(check(&failed(None), 2, OnFailure::Park), Verdict::Park);
        assert_eq!(check(&failed(None), 2, OnFailure::Drop), Verdict::Drop);
        // A wish is followed, within reason.
        let wish = Duration::from_secs(5);
        assert_eq!(check(&failed(Some(wish)), 1, OnFailure::Park), Verdict::Retry(wish));
        assert_eq!(check(&failed(Some(AFTER_MAX * 2)), 1, OnFailure::Park), Verdict::Retry(AFTER_MAX));
    }
}
