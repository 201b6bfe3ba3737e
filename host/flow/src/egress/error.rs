//! What went wrong on the way out, by what follows from it.

use std::error::Error;
use std::io;

/// Why there is no answer. [`EgressError::code`] is for machines; none of the texts names an address that a name has.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// It was not sent and never will be.
    #[error("{reason}")]
    Denied {
        /// Which rule forbids it.
        reason: String,
    },
    /// The name has no addresses, or its name servers do not say.
    #[error("the host's name was not found")]
    Name {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No connection came about.
    #[error("no connection: {reason}")]
    Connect {
        /// What the network said, in words.
        reason: &'static str,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The other side could not prove who it is, or speaks no TLS that we do.
    #[error("no secure connection: {reason}")]
    Tls {
        /// What is wrong with its certificate or handshake.
        reason: String,
    },
    /// It took too long.
    #[error("timed out while {doing}")]
    Timeout {
        /// What was being waited for.
        doing: &'static str,
    },
    /// The answer is larger than what is read of any.
    #[error("the answer's {what} exceed {limit} bytes")]
    Limit {
        /// Its headers or its body.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The other side hung up or does not speak HTTP.
    #[error("the connection broke: {reason}")]
    Broken {
        /// What happened, in words.
        reason: &'static str,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
}

impl EgressError {
    /// For machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied:egress",
            Self::Name { .. } => "egress:dns",
            Self::Connect { .. } => "egress:connect",
            Self::Tls { .. } => "egress:tls",
            Self::Timeout { .. } => "egress:timeout",
            Self::Limit { .. } => "egress:limit",
            Self::Broken { .. } => "egress:broken",
        }
    }

    /// Whether trying again is of no use until somebody changes something.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    /// Finds out what a failure of the client means.
    pub(super) fn of(error: reqwest::Error) -> Self {
        if let Some(found) = find(&error, &|cause| cause.downcast_ref::<Self>().and_then(Self::of_resolver)) {
            return found;
        }
        if let Some(tls) = find(&error, &|cause| cause.downcast_ref::<rustls::Error>().map(ToString::to_string)) {
            return Self::Tls { reason: tls };
        }
        if error.is_timeout() {
            return Self::Timeout { doing: if error.is_connect() { "connecting" } else { "waiting for the answer" } };
        }
        let kind = find(&error, &|cause| cause.downcast_ref::<io::Error>().map(io::Error::kind));
        let large = find(&error, &|cause| cause.downcast_ref::<hyper::Error>()?.is_parse_too_large().then_some(()));
        match (error.is_connect(), kind) {
            _ if large.is_some() => Self::Limit { what: "headers", limit: super::HEADER_BUFFER_BYTES },
            (true, Some(io::ErrorKind::ConnectionRefused)) => Self::Connect { reason: "refused", source: error },
            (true, Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)) => {
                Self::Connect { reason: "unreachable", source: error }
            }
            (true, Some(io::ErrorKind::TimedOut)) => Self::Timeout { doing: "connecting" },
            (true, _) => Self::Connect { reason: "failed", source: error },
            (false, Some(io::ErrorKind::ConnectionReset)) => Self::Broken { reason: "reset", source: error },
            (false, _) => Self::Broken { reason: "closed, or no HTTP", source: error },
        }
    }

    /// The resolver's own words come back inside the client's error, which keeps them only by reference.
    fn of_resolver(&self) -> Option<Self> {
        match self {
            Self::Denied { reason } => Some(Self::Denied { reason: reason.clone() }),
            Self::Name { source } => Some(Self::Name { source: io::Error::new(source.kind(), source.to_string()) }),
            _ => None,
        }
    }
}

/// The first cause that `test` wants. An I/O error hides the error it was made of from `source`, so both are asked.
fn find<T>(error: &(dyn Error + 'static), test: &dyn Fn(&(dyn Error + 'static)) -> Option<T>) -> Option<T> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = test(cause) {
            return Some(found);
        }
        if let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = find(inner, test)
        {
            return Some(found);
        }
        next = cause.source();
    }
    None
}
