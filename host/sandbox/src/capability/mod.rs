//! What a guest may reach, as plain Rust: no wasm, no WIT, no tenant.
//!
//! Every capability is a small value made for one call, holding what it collects and the limits it keeps. It asks
//! the grants itself, checks every argument itself, and answers with a [`Refusal`] that the guest can handle; only
//! what must end the attempt is a [`Stop`]. Nothing here has an effect outside: effects are collected and handed
//! back with the outcome.
//!
//! Reading order: [`run`] (what one call consists of), then the capabilities one by one.

pub(crate) mod check;
pub(crate) mod clock;
pub(crate) mod context;
pub(crate) mod effects;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod random;
pub(crate) mod redact;
pub(crate) mod run;
pub(crate) mod state;
pub(crate) mod tape;
pub(crate) mod usage;

use std::time::Duration;

use crate::port::StateError;

/// An answer that the guest can handle. The texts are for the plugin's author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not granted.
    Denied(String),
    /// A limit is reached; the text names it.
    Limit(String),
    /// The argument is malformed.
    Invalid(String),
    /// There is no such thing.
    NotFound(String),
}

/// What is said of what is not granted: what grants it, and who may have taken that away.
///
/// It does not say which of the two is missing. What is granted decides about the text and nothing else does, because that
/// is what a recording has, and a re-execution must say the same.
pub(crate) fn not_granted(what: &str, remedy: &str) -> String {
    format!(
        "{what} is not granted; add {remedy} under [grants] in plugin.toml. If that is there, a ceiling cut it: ask the \
         operator, `cut` of the plugin's version says whose it is"
    )
}

/// What ends the attempt at once.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Stop {
    /// The wall-clock limit is reached.
    #[error("the call took longer than {0:?}")]
    Wall(Duration),
    /// Somebody outside wants it to end.
    #[error("the call was cancelled")]
    Cancelled,
    /// Too many calls into the host.
    #[error("more than {0} calls into the host")]
    HostCalls(u32),
    /// More bytes asked for in one call than can be given.
    #[error("{0}")]
    Bytes(String),
    /// Too many handles.
    #[error("more than {0} handles")]
    Handles(usize),
    /// The guest ended itself.
    #[error("the plugin called exit with status {0}")]
    Exit(u8),
    /// The state could not be read.
    #[error("the state cannot be read")]
    State(#[source] StateError),
}

/// Why a capability did not do what it was asked.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The guest may go on.
    Refused(Refusal),
    /// It may not.
    Stopped(Stop),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_domain::clock::Timestamp;
    use bulkhead_domain::effect::EffectSeed;
    use bulkhead_domain::event::Draft;
    use bulkhead_domain::id::EventKey;

    use super::context;
    use super::effects::Effects;
    use super::*;

    #[test]
    fn what_is_denied_says_what_grants_it_and_who_may_have_cut_that() {
        let setup = crate::port::tests::setup();
        let seed = EffectSeed::new(&[7; 32], "ten_a", EventKey::of("/a", "1"), "rule", 1, 0);
        let mut effects = Effects::new(seed, 0, Timestamp(0));
        let draft = || Draft { kind: "orders.created".into(), ..Draft::default() };
        for (answer, list) in [
            (effects.emit(&setup, draft()), "`emit`"),
            (effects.deliver(&setup, "crm".into(), String::new(), vec![], vec![]), "`deliver`"),
            (effects.schedule(&setup, None, 0, draft()), "`schedule = true`"),
            (context::secret(&setup, "token"), "`secrets`"),
        ] {
            let Err(Refusal::Denied(text)) = answer else { panic!("{answer:?}") };
            assert!(text.contains(list) && text.contains("under [grants] in plugin.toml"), "{text}");
            assert!(text.contains("a ceiling cut it: ask the operator"), "{text}");
        }
    }
}
