//! Who is running, and with what settings.

use serde::de::DeserializeOwned;

use crate::decode::{DecodeError, decode};
use crate::port;
use crate::refusal::Refusal;
use crate::timestamp::Timestamp;

/// This attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The plugin's name.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// The rule that called it.
    pub rule: String,
    /// 1 on the first try.
    pub attempt: u32,
    /// The time of this attempt, the same on every re-execution of it. There is no other clock.
    pub now: Timestamp,
}

/// This attempt.
pub fn current() -> Invocation {
    port::current()
}

/// A setting of this plugin; none if neither the tenant nor the manifest gives it a value.
pub fn config<T: DeserializeOwned>(name: &str) -> Result<Option<T>, DecodeError> {
    let Some(json) = port::config(name) else { return Ok(None) };
    decode(json.as_bytes(), || format!("the setting `{name}`")).map(Some)
}

/// A setting of this plugin, or a value in its place.
pub fn config_or<T: DeserializeOwned>(name: &str, otherwise: T) -> Result<T, DecodeError> {
    Ok(config(name)?.unwrap_or(otherwise))
}

/// A secret of the tenant; the manifest must ask for it under `secrets`.
pub fn secret(name: &str) -> Result<String, Refusal> {
    port::secret(name)
}

/// One value in the event's data by its JSON pointer, without decoding the whole.
///
/// Worth it for a few fields of a big document, together with an untyped [`Event`](crate::Event).
pub fn field<T: DeserializeOwned>(pointer: &str) -> Result<Option<T>, DecodeError> {
    let Some(json) = port::field(pointer) else { return Ok(None) };
    decode(json.as_bytes(), || format!("`{pointer}` in the event's data")).map(Some)
}

/// Random bytes: they differ between events and repeat on a re-execution. At most 64 KiB a call.
pub fn random(length: u32) -> Vec<u8> {
    port::random(length)
}
