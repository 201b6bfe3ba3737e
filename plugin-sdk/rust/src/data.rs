//! Data: an event's payload as it came.

use std::fmt;
use std::ops::Deref;
use std::str::Utf8Error;

use serde::Deserialize;

/// The payload of an event, byte for byte. Reads as `&[u8]`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Data(Vec<u8>);

impl Data {
    /// Decodes JSON, borrowing from the payload where `T` does.
    ///
    /// ```
    /// use bulkhead_plugin::Data;
    ///
    /// let data = Data::from(r#"{"total": 12.5}"#);
    /// let fields: std::collections::BTreeMap<&str, f64> = data.json()?;
    /// assert_eq!(fields["total"], 12.5);
    /// # Ok::<(), bulkhead_plugin::Failure>(())
    /// ```
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }

    /// The payload as text, if it is UTF-8.
    pub fn text(&self) -> Result<&str, Utf8Error> {
        std::str::from_utf8(&self.0)
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&str> for Data {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Ok(text) => write!(f, "{text:?}"),
            Err(_) => write!(f, "{} bytes", self.0.len()),
        }
    }
}
