//! A handler of ordinary weight: three fields read, one value of 128 bytes written.
//!
//! Benchmarks measure the host with it, so its work must not change: a figure of today has to mean what a
//! figure of last year meant. Write another plugin for another question.

use bulkhead_plugin::{Event, Failure, handler, state};
use serde::Deserialize;

/// How many bytes are written.
const VALUE_BYTES: usize = 128;

#[derive(Deserialize)]
struct Order {
    id: String,
    total: f64,
    channel: String,
}

/// Remembers the order under its id.
#[handler]
fn handle(event: Event<Order>) -> Result<(), Failure> {
    let Order { id, total, channel } = &event.data;
    let mut value = Vec::with_capacity(VALUE_BYTES);
    value.extend_from_slice(&total.to_le_bytes());
    value.extend_from_slice(channel.as_bytes());
    value.resize(VALUE_BYTES, 0);
    state::set_bytes(&format!("order:{id}"), &value, None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use bulkhead_plugin::testing::{self, Host};

    use super::*;

    #[test]
    fn it_writes_one_value_of_128_bytes() {
        let mut host = Host::new();
        let data = serde_json::json!({"id": "A-1", "total": 12.5, "channel": "web", "items": [1, 2, 3]});
        host.handle(handle, testing::event("orders.created", data)).success();
        assert_eq!(host.state_keys(), ["order:A-1"]);
        assert_eq!(host.state_bytes("order:A-1").map(|value| value.len()), Some(VALUE_BYTES));
    }
}
