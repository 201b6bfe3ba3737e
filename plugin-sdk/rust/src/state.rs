//! Keys and values of this plugin in this tenant. Reads see the run's own earlier writes.
//!
//! Values are JSON unless the functions with `bytes` in their names are used. What [`increment`] counts is
//! a JSON number too, so `get::<i64>` reads it.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::decode::{DecodeError, decode};
use crate::port;
use crate::refusal::Refusal;

pub use crate::port::Page;

/// How many keys [`keys`] asks for at a time: the most that the host gives.
const PAGE_KEYS: u32 = 1_000;

/// A value could not be read or written.
#[derive(Debug)]
pub enum Error {
    /// The host did not carry out the call.
    Refused {
        /// The key.
        key: String,
        /// Why.
        source: Refusal,
    },
    /// The value is not of the expected type.
    Decode(DecodeError),
    /// The value has no JSON form.
    Encode {
        /// The key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// The value under a key.
pub fn get<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    let Some(value) = get_bytes(key)? else { return Ok(None) };
    decode(&value, || format!("the value of state key `{key}`")).map(Some).map_err(Error::Decode)
}

/// Puts a value under a key.
pub fn set(key: &str, value: &impl Serialize) -> Result<(), Error> {
    set_bytes(key, &encode(key, value)?, None)
}

/// Puts a value under a key; it is gone after the time.
pub fn set_with_ttl(key: &str, value: &impl Serialize, ttl: Duration) -> Result<(), Error> {
    set_bytes(key, &encode(key, value)?, Some(ttl))
}

/// The bytes under a key.
pub fn get_bytes(key: &str) -> Result<Option<Vec<u8>>, Error> {
    port::get(key).map_err(|source| refused(key, source))
}

/// Puts bytes under a key, for ever or for a time.
pub fn set_bytes(key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), Error> {
    port::set(key, value, ttl).map_err(|source| refused(key, source))
}

/// Removes a key; nothing happens if it is not there.
pub fn delete(key: &str) -> Result<(), Error> {
    port::delete(key).map_err(|source| refused(key, source))
}

/// Adds to a number (0 if absent) and answers the sum.
pub fn increment(key: &str, by: i64) -> Result<i64, Error> {
    port::increment(key, by).map_err(|source| refused(key, source))
}

/// The keys that begin with a prefix, in order, asked for page by page.
///
/// ```no_run
/// use bulkhead_plugin::state;
/// # fn example() -> Result<(), bulkhead_plugin::Failure> {
/// for key in state::keys("total:") {
///     state::delete(&key?)?;
/// }
/// # Ok(())
/// # }
/// ```
pub fn keys(prefix: &str) -> impl Iterator<Item = Result<String, Error>> {
    let prefix = prefix.to_owned();
    let mut ready = Vec::new().into_iter();
    let mut cursor = Some(None);
    std::iter::from_fn(move || {
        loop {
            if let Some(key) = ready.next() {
                return Some(Ok(key));
            }
            let after: Option<String> = cursor.take()?;
            match page(&prefix, after.as_deref(), PAGE_KEYS) {
                Ok(page) => {
                    ready = page.keys.into_iter();
                    cursor = page.next.map(Some);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

/// One page of the keys that begin with a prefix, from after a cursor; at most 1,000.
pub fn page(prefix: &str, after: Option<&str>, limit: u32) -> Result<Page, Error> {
    port::keys(prefix, after, limit).map_err(|source| refused(prefix, source))
}

fn encode(key: &str, value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|source| Error::Encode { key: key.to_owned(), source })
}

fn refused(key: &str, source: Refusal) -> Error {
    Error::Refused { key: key.to_owned(), source }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { key, .. } => write!(f, "state key `{key}`"),
            Self::Decode(error) => write!(f, "{error}"),
            Self::Encode { key, .. } => write!(f, "the value for state key `{key}` has no JSON form"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused { source, .. } => Some(source),
            // Its text stands for this error's, so its cause follows next.
            Self::Decode(error) => error.source(),
            Self::Encode { source, .. } => Some(source),
        }
    }
}
