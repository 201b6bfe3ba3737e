//! Decoding: JSON text of the host into a type of the plugin, or an error that names the place.

use std::error::Error;
use std::fmt;

use serde::de::DeserializeOwned;

/// A setting, a field or a value in state is there but is not of the expected type.
#[derive(Debug)]
pub struct DecodeError {
    what: String,
    source: serde_json::Error,
}

pub fn decode<T: DeserializeOwned>(json: &[u8], what: impl FnOnce() -> String) -> Result<T, DecodeError> {
    serde_json::from_slice(json).map_err(|source| DecodeError { what: what(), source })
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not of the expected type", self.what)
    }
}

impl Error for DecodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}
