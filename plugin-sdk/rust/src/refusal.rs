//! Refusals: the host's answer to a call that it does not carry out.

use std::error::Error;
use std::fmt;

/// Why the host refused a call. The plugin goes on; nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The tenant or the operator did not grant this; see `[grants]` in the plugin's manifest.
    Denied(String),
    /// A limit of this invocation or of the tenant's plan; the text names it.
    Limit(String),
    /// The argument is malformed; the text says how.
    Invalid(String),
    /// No such sink, timer or name.
    NotFound(String),
    /// Something that this version of the SDK has no word for.
    Other(String),
}

impl Refusal {
    /// Whether the same call may be carried out later without anybody doing anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Limit(_) | Self::Other(_) => true,
            Self::Denied(_) | Self::Invalid(_) | Self::NotFound(_) => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match self {
            Self::Denied(text) => ("denied", text),
            Self::Limit(text) => ("over a limit", text),
            Self::Invalid(text) => ("invalid", text),
            Self::NotFound(text) => ("not found", text),
            Self::Other(text) => ("refused", text),
        };
        write!(f, "{word}: {text}")
    }
}

impl Error for Refusal {}
