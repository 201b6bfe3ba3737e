//! The check of an upload: what it is, what it needs, whether it can run here. Refusals say what to do.

use serde::Deserialize;
use serde::Serialize;

/// Which of the contract's interfaces a component exports. At least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exports {
    /// It can act on events.
    pub handler: bool,
    /// It can turn events into others.
    pub transformer: bool,
}

/// What the author wrote into the component.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authors: Option<String>,
    /// Its licence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licenses: Option<String>,
    /// Where its source is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The commit that it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What made it: `("language", "Rust", "2024")`, `("processed-by", "wit-component", "0.254.0")` …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub producers: Vec<(String, String, String)>,
}

/// What an upload was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// What it can be called for.
    pub exports: Exports,
    /// What it needs, by interface, sorted.
    pub imports: Vec<String>,
    /// Bytes of the component.
    pub size: u64,
    /// Bytes of its machine code here.
    pub artefact_size: u64,
    /// What the author says about it.
    pub metadata: Metadata,
    /// What compiled it.
    pub engine: String,
}

/// Why an upload is not accepted, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail} {hint}")]
pub struct Refused {
    /// For machines: `rejected_upload:import` … or, where the host is at fault, `host:…`.
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
    /// What to do about it.
    pub hint: String,
}

impl Refused {
    /// True if the component may be fine and the host could not do its part: try again.
    #[must_use]
    pub fn is_host_fault(&self) -> bool {
        self.code.starts_with("host:")
    }
}
