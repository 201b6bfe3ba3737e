//! Proof: what a plugin's settings ask of a version before it may run on live events for real, and whether its last
//! preview gives that.
//!
//! The settings are the plugin's, not a version's: what is uploaded has no say in what is asked of it. An operator can ask
//! beside the plugin, of a tenant or of all; what counts is what gives all of them what they ask ([`ReleasePolicy::and`]).
//! Pure: who asks, and where previews are remembered, is the store's business.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;

/// What a plugin's settings say about its versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReleasePolicy {
    /// What a preview has to show; none: no preview is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_preview: Option<RequirePreview>,
}

impl ReleasePolicy {
    /// What gives both what they ask.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let require_preview = match (self.require_preview, other.require_preview) {
            (Some(this), Some(other)) => Some(this.and(other)),
            (this, other) => this.or(other),
        };
        Self { require_preview }
    }

    /// Whether something passes here that does not pass there.
    #[must_use]
    pub fn is_weaker_than(&self, other: &Self) -> bool {
        match (&self.require_preview, &other.require_preview) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(this), Some(other)) => {
                let changed = |wanted: &RequirePreview| wanted.max_changed_percent.unwrap_or(100.0);
                this.min_runs < other.min_runs
                    || this.max_new_failures > other.max_new_failures
                    || this.within_hours > other.within_hours
                    || changed(this) > changed(other)
            }
        }
    }
}

/// What a preview has to show.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequirePreview {
    /// At least so many runs were compared.
    pub min_runs: u64,
    /// At most so many of them failed where the active version did not.
    pub max_new_failures: u64,
    /// At most this part of them did something else or less, in percent; none: as many as do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_changed_percent: Option<f64>,
    /// It is at most so many hours old.
    pub within_hours: u32,
}

impl Default for RequirePreview {
    fn default() -> Self {
        Self { min_runs: 20, max_new_failures: 0, max_changed_percent: None, within_hours: 24 }
    }
}

impl RequirePreview {
    /// What gives both what they ask: the stricter of each.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            min_runs: self.min_runs.max(other.min_runs),
            max_new_failures: self.max_new_failures.min(other.max_new_failures),
            max_changed_percent: match (self.max_changed_percent, other.max_changed_percent) {
                (Some(this), Some(other)) => Some(this.min(other)),
                (this, other) => this.or(other),
            },
            within_hours: self.within_hours.min(other.within_hours),
        }
    }

    /// Why nothing could be asked like this; none if it can.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        match self {
            Self { min_runs: 0, .. } => Some("`min_runs` is at least 1: of nothing nothing can be said"),
            Self { within_hours: 0, .. } => Some("`within_hours` is at least 1"),
            Self { max_changed_percent: Some(percent), .. } if !(0.0..=100.0).contains(percent) => {
                Some("`max_changed_percent` is from 0 to 100")
            }
            _ => None,
        }
    }

    /// Whether the last preview of a version against the active one is enough at this time.
    pub fn judge(&self, preview: Option<&Preview>, now: Timestamp) -> Result<(), Lack> {
        let preview = preview.ok_or(Lack::None)?;
        let counts = preview.counts;
        if now.since(preview.at) > Duration::from_secs(u64::from(self.within_hours) * 3_600) {
            return Err(Lack::Old { allowed: self.within_hours });
        }
        if counts.runs < self.min_runs {
            return Err(Lack::Runs { found: counts.runs, needed: self.min_runs });
        }
        if counts.new_failures > self.max_new_failures {
            return Err(Lack::NewFailures { found: counts.new_failures, allowed: self.max_new_failures });
        }
        match self.max_changed_percent {
            Some(allowed) if counts.changed_percent() > allowed => {
                Err(Lack::Changed { found: counts.changed_percent(), allowed })
            }
            _ => Ok(()),
        }
    }
}

/// What a preview of a version against another came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// The version that was tried.
    pub version: u32,
    /// The one that it was compared with; none: the plugin had none.
    pub against: Option<u32>,
    /// Who tried it.
    pub author: String,
    /// When.
    pub at: Timestamp,
    /// What it came to.
    pub counts: Counts,
}

/// How many runs of a preview did what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Runs compared.
    pub runs: u64,
    /// Runs that fail, and did not before.
    pub new_failures: u64,
    /// Runs that do something else or less than before.
    pub changed: u64,
}

impl Counts {
    fn changed_percent(&self) -> f64 {
        if self.runs == 0 { 0.0 } else { self.changed as f64 * 100.0 / self.runs as f64 }
    }
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lack {
    /// There was no preview of this version against the one that is active now.
    None,
    /// It is too old.
    Old {
        /// Hours that it may be old.
        allowed: u32,
    },
    /// It compared too few runs.
    Runs {
        /// So many.
        found: u64,
        /// At least so many are needed.
        needed: u64,
    },
    /// Too many runs fail anew.
    NewFailures {
        /// So many.
        found: u64,
        /// So many may.
        allowed: u64,
    },
    /// Too many runs do something else.
    Changed {
        /// Percent of the runs.
        found: f64,
        /// So many may.
        allowed: f64,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "there is no preview of it against the version that is active now"),
            Self::Old { allowed } => write!(f, "its last preview is older than {allowed} hours"),
            Self::Runs { found, needed } => {
                write!(f, "its last preview compared {found} runs, and {needed} are needed")
            }
            Self::NewFailures { found, allowed } => {
                write!(f, "in its last preview {found} runs failed anew, and {allowed} may")
            }
            Self::Changed { found, allowed } => {
                write!(f, "in its last preview {found:.1} % of the runs did something else, and {allowed} % may")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn preview(runs: u64, new_failures: u64, changed: u64) -> Preview {
        let counts = Counts { runs, new_failures, changed };
        Preview { version: 2, against: Some(1), author: "key".into(), at: Timestamp(5 * HOUR), counts }
    }

    #[test]
    fn what_is_missing_is_named() {
        let policy = RequirePreview { max_changed_percent: Some(10.0), ..RequirePreview::default() };
        let judged = |preview: &Preview, hour: i64| policy.judge(Some(preview), Timestamp(hour * HOUR));
        assert_eq!(policy.judge(None, Timestamp(0)), Err(Lack::None));
        assert_eq!(judged(&preview(20, 0, 2), 6), Ok(()));
        assert_eq!(judged(&preview(20, 0, 2), 29), Ok(()), "to the hour");
        assert_eq!(judged(&preview(20, 0, 2), 30), Err(Lack::Old { allowed: 24 }));
        assert_eq!(judged(&preview(20, 0, 2), 1), Ok(()), "a later one than asked for is not old");
        assert_eq!(judged(&preview(19, 0, 0), 6), Err(Lack::Runs { found: 19, needed: 20 }));
        assert_eq!(judged(&preview(20, 1, 0), 6), Err(Lack::NewFailures { found: 1, allowed: 0 }));
        let changed = judged(&preview(20, 0, 3), 6);
        assert_eq!(changed, Err(Lack::Changed { found: 15.0, allowed: 10.0 }));
        assert!(changed.is_err_and(|lack| lack.to_string().contains("15.0 %")));
        let any = RequirePreview::default();
        assert_eq!(any.judge(Some(&preview(20, 0, 20)), Timestamp(6 * HOUR)), Ok(()), "changes are not limited");
    }

    #[test]
    fn a_policy_is_weaker_if_anything_passes_that_did_not() {
        let of = |require_preview| ReleasePolicy { require_preview };
        let usual = RequirePreview { max_changed_percent: Some(10.0), ..RequirePreview::default() };
        assert!(of(None).is_weaker_than(&of(Some(usual))));
        assert!(!of(Some(usual)).is_weaker_than(&of(None)));
        assert!(!of(Some(usual)).is_weaker_than(&of(Some(usual))));
        let stricter = RequirePreview { min_runs: 30, max_changed_percent: Some(5.0), within_hours: 1, ..usual };
        assert!(!of(Some(stricter)).is_weaker_than(&of(Some(usual))));
        for weaker in [
            RequirePreview { min_runs: 1, ..stricter },
            RequirePreview { max_new_failures: 1, ..stricter },
            RequirePreview { within_hours: 25, ..stricter },
            RequirePreview { max_changed_percent: None, ..stricter },
        ] {
            assert!(of(Some(weaker)).is_weaker_than(&of(Some(usual))), "{weaker:?}");
        }
    }

    #[test]
    fn what_several_ask_is_the_strictest_of_each() {
        let of = |require_preview| ReleasePolicy { require_preview };
        let some =
            RequirePreview { min_runs: 5, max_new_failures: 2, max_changed_percent: Some(10.0), within_hours: 48 };
        let usual = RequirePreview::default();
        let both = RequirePreview { max_changed_percent: Some(10.0), ..usual };
        assert_eq!(of(Some(some)).and(of(Some(usual))), of(Some(both)));
        assert_eq!(of(Some(usual)).and(of(Some(some))), of(Some(both)), "in any order");
        assert!(!of(Some(both)).is_weaker_than(&of(Some(some))) && !of(Some(both)).is_weaker_than(&of(Some(usual))));
        assert_eq!(of(None).and(of(Some(some))), of(Some(some)));
        assert_eq!(of(Some(some)).and(of(None)), of(Some(some)));
        assert_eq!(of(None).and(of(None)), of(None));
    }

    #[test]
    fn a_policy_is_read_with_defaults_and_without_nonsense() {
        let read = |text: &str| serde_json::from_str::<ReleasePolicy>(text);
        assert_eq!(read("{}").ok(), Some(ReleasePolicy::default()));
        let some = read(r#"{"require_preview": {"min_runs": 5}}"#).ok().and_then(|policy| policy.require_preview);
        assert_eq!(some, Some(RequirePreview { min_runs: 5, ..RequirePreview::default() }));
        assert!(read(r#"{"require_preview": {"min_rums": 5}}"#).is_err());
        let faulty = |change: fn(&mut RequirePreview)| {
            let mut policy = RequirePreview::default();
            change(&mut policy);
            policy.fault().is_some()
        };
        assert!(!faulty(|_| {}));
        assert!(faulty(|policy| policy.min_runs = 0));
        assert!(faulty(|policy| policy.within_hours = 0));
        assert!(faulty(|policy| policy.max_changed_percent = Some(f64::NAN)));
    }
}
