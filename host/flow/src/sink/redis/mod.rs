//! Sinks in the operator's own Redis: [`stream`]s that keep deliveries, and [`channel`]s that tell whoever listens.
//!
//! A sink names a stream or a channel, never a key: what it writes to lies under `bulkhead:<tenant id>:`, so that no
//! tenant reaches another's keys or the host's. Which Redis that is, is the operator's choice; a tenant has no say in it.
//!
//! At least once: an attempt whose answer is lost is made again, and its entry or message then comes twice under the same
//! id. Redis may also lose what it has confirmed (a crash between two writes to its disk, a failover); who cannot do
//! without takes a webhook.

pub mod channel;
pub mod outlet;
pub mod stream;

pub use channel::ChannelSink;
pub use outlet::Outlet;
pub use stream::StreamSink;

use crate::sink::Attempt;
use crate::sink::spec::SpecError;

/// Commands of a sink under way at a time: they share a connection, and one that waits costs Redis nothing.
pub(super) const CONCURRENCY: usize = 32;
const NAME_BYTES_MAX: usize = 64;

/// Says whether there is a Redis to write to.
pub(super) fn check(outlet: Option<&Outlet>) -> Result<&Outlet, SpecError> {
    outlet.ok_or_else(|| SpecError::new("kind", "this host has no Redis to write to: its operator can give it one"))
}

fn disabled() -> Attempt {
    Attempt::refused("sink:disabled", "this host has no Redis to write to")
}

/// A name that keeps its place in a key.
fn name(field: &str, name: String) -> Result<String, SpecError> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(fits) {
        let message = format!(
            "`{}` is no name of at most {NAME_BYTES_MAX} small letters, digits, `.`, `_` and `-`; the host puts the \
             tenant's prefix before it",
            name.escape_debug()
        );
        return Err(SpecError::new(field, message));
    }
    Ok(name)
}
