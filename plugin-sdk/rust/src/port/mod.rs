//! The host as the SDK sees it: one set of functions, behind which stands the real host on wasm and the test
//! host elsewhere. Only this folder knows which.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
pub(crate) mod wasm;

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::{
    cancel, config, count, current, delete, deliver, emit, field, get, increment, keys, log, random, schedule, secret,
    set,
};
#[cfg(target_family = "wasm")]
pub(crate) use wasm::{
    cancel, config, count, current, delete, deliver, emit, field, get, increment, keys, log, random, schedule, secret,
    set,
};

/// Some of the keys in state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In order.
    pub keys: Vec<String>,
    /// From where the next page goes on; none after the last.
    pub next: Option<String>,
}
