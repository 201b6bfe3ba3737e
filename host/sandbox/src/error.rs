//! Why the sandbox itself could not do its work. What a guest does wrong is never an [`Error`]: it is an outcome.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::inspect::Refused;

/// Named by what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The engine could not be set up; the text says what to change.
    #[error("the WebAssembly engine cannot start: {detail}")]
    Engine {
        /// What is wrong.
        detail: String,
    },
    /// The cache directory cannot be used.
    #[error("the artefact cache at {} cannot be used", path.display())]
    Cache {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
    /// The component's bytes could not be fetched.
    #[error("the component {digest} could not be fetched: {detail}")]
    Source {
        /// The component.
        digest: String,
        /// Why not.
        detail: String,
    },
    /// The component's bytes are not those that its digest names.
    #[error("the stored component {digest} is damaged: its bytes have the digest {found}")]
    Damaged {
        /// What was asked for.
        digest: String,
        /// What the bytes have.
        found: String,
    },
    /// The component is not fit to run.
    #[error("the component is refused")]
    Refused(#[source] Refused),
}

impl Error {
    /// For whoever implements the fetching of components.
    #[must_use]
    pub fn source(digest: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Source { digest: digest.into(), detail: detail.into() }
    }

    pub(crate) fn cache(path: &Path, source: io::Error) -> Self {
        Self::Cache { path: path.to_owned(), source: Arc::new(source) }
    }
}
