//! Flags orders above a threshold, and counts them by customer.

use bulkhead_plugin::{Draft, Event, Failure, context, effects, handler, log, state};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Order {
    id: String,
    customer: String,
    total: f64,
}

#[derive(Serialize)]
struct Flag<'a> {
    order: &'a str,
    total: f64,
    /// How many orders of the customer have been flagged, this one included.
    flagged: i64,
}

/// Nothing that is done here happens before the host commits the run; if it fails, nothing of it happened.
#[handler]
fn handle(event: Event<Order>) -> Result<(), Failure> {
    let order = &event.data;
    if order.total < 0.0 {
        return Err(Failure::reject(format!("order {} has a total below zero", order.id)));
    }
    let threshold: f64 = context::config_or("threshold", 1_000.0)?;
    if order.total <= threshold {
        return Ok(());
    }
    let flagged = state::increment(&format!("flagged:{}", order.customer), 1)?;
    log::info!(order = order.id, customer = order.customer; "flagged for the {flagged}. time");
    let flag = Flag { order: &order.id, total: order.total, flagged };
    effects::emit(Draft::json("orders.flagged", &flag)?.with_subject(&order.id).with_key(&order.customer))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use bulkhead_plugin::testing::{self, Host};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_threshold_is_a_setting() {
        let mut host = Host::new().with_config("threshold", 100);
        let data = json!({"id": "A-1", "customer": "c-9", "total": 250.0});
        let run = host.handle(handle, testing::event("orders.placed", data));
        assert_eq!(run.emitted[0].kind, "orders.flagged");
        assert_eq!(host.state::<i64>("flagged:c-9"), Some(1));
    }
}
