//! Failures: how a run ends when it does not succeed, and how errors become one.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::refusal::Refusal;

/// Whether the host should try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Later, as often as the rule's `retry` allows.
    Retry,
    /// Not by itself: the run is parked for a person to look at.
    Reject,
}

/// The end of a run that did not succeed. Its effects are discarded.
///
/// Deliberately not a [`std::error::Error`], so that `?` turns every error into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whether to try again.
    pub verdict: Verdict,
    /// For people: what went wrong.
    pub reason: String,
    /// When to try again; the host decides if none.
    pub after: Option<Duration>,
    /// Further facts.
    pub attributes: Vec<(String, String)>,
}

impl Failure {
    /// Asks for another attempt.
    ///
    /// ```
    /// use bulkhead_plugin::Failure;
    /// use std::time::Duration;
    ///
    /// let failure = Failure::retry("the price list is not here yet").after(Duration::from_secs(30));
    /// ```
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::new(Verdict::Retry, reason.into())
    }

    /// Parks the run: another attempt would end the same.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::new(Verdict::Reject, reason.into())
    }

    /// No attempt before this much time has passed. Only a retry heeds it.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = Some(delay);
        self
    }

    /// Adds a fact for whoever looks at the run.
    #[must_use]
    pub fn with_attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    fn new(verdict: Verdict, reason: String) -> Self {
        Self { verdict, reason, after: None, attributes: Vec::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Retry => "retry",
            Verdict::Reject => "reject",
        };
        write!(f, "{word}: {}", self.reason)
    }
}

/// `?`: a refusal that time may lift is retried; everything else is rejected, since a plugin computes from the
/// event alone and would come to the same error again.
impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let passing = chain(&error).any(|error| error.downcast_ref::<Refusal>().is_some_and(Refusal::may_pass));
        let texts: Vec<String> = chain(&error).map(ToString::to_string).collect();
        let verdict = if passing { Verdict::Retry } else { Verdict::Reject };
        Self::new(verdict, texts.join(": "))
    }
}

/// An error and its causes.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// Chooses between retry and reject where a `Result` or an `Option` is at hand.
///
/// ```
/// use bulkhead_plugin::{Failure, OrFail, Verdict};
///
/// fn rate(currency: &str) -> Result<f64, Failure> {
///     let known = (currency == "EUR").then_some(1.0);
///     known.or_retry("the rate is not known yet")
/// }
/// assert_eq!(rate("DKK").unwrap_err().verdict, Verdict::Retry);
/// ```
pub trait OrFail<T>: Sized {
    /// The value, or a failure that asks for another attempt.
    fn or_retry(self, reason: impl Into<String>) -> Result<T, Failure>;

    /// The value, or a failure that parks the run.
    fn or_reject(self, reason: impl Into<String>) -> Result<T, Failure>;
}

impl<T> OrFail<T> for Option<T> {
    fn or_retry(self, reason: impl Into<String>) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::retry(reason))
    }

    fn or_reject(self, reason: impl Into<String>) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::reject(reason))
    }
}

impl<T, E: fmt::Display> OrFail<T> for Result<T, E> {
    fn or_retry(self, reason: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::retry(format!("{}: {error}", reason.into())))
    }

    fn or_reject(self, reason: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::reject(format!("{}: {error}", reason.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question_mark<E: Error + 'static>(error: E) -> Failure {
        let ends = |error: E| -> Result<(), Failure> { Err(error)? };
        ends(error).expect_err("because it was given an error")
    }

    #[test]
    fn an_error_of_the_plugins_own_is_rejected() {
        let failure = question_mark("x".parse::<u8>().expect_err("because x is no number"));
        assert_eq!(failure, Failure::reject("invalid digit found in string"));
    }

    #[test]
    fn a_refusal_is_retried_only_if_time_may_lift_it() {
        let verdict = |refusal: Refusal| question_mark(refusal).verdict;
        assert_eq!(verdict(Refusal::Limit("effects".into())), Verdict::Retry);
        assert_eq!(verdict(Refusal::Other("?".into())), Verdict::Retry);
        assert_eq!(verdict(Refusal::Denied("emit".into())), Verdict::Reject);
        assert_eq!(verdict(Refusal::Invalid("key".into())), Verdict::Reject);
        assert_eq!(verdict(Refusal::NotFound("sink".into())), Verdict::Reject);
    }

    #[test]
    fn the_reason_tells_the_whole_chain() {
        let error = crate::state::Error::Refused { key: "k".into(), source: Refusal::Limit("state bytes".into()) };
        let failure = question_mark(error);
        assert_eq!(failure.reason, "state key `k`: over a limit: state bytes");
        assert_eq!(failure.verdict, Verdict::Retry);
    }
}
