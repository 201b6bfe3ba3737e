//! Meters orders: a line on the tenant's usage statement, and totals per customer in state.
//!
//! Totals are whole cents, added with `state::increment`: no value is read, so two shards never conflict over
//! what one of them has read.

use bulkhead_plugin::{Event, Failure, context, handler, state, usage};
use serde::Deserialize;

/// Beyond this a number of cents is not exact any more; nothing that large is an order.
const CENTS_MAX: f64 = 9_007_199_254_740_992.0;

#[derive(Deserialize)]
struct Order {
    customer: Customer,
    total: f64,
    /// Euros for one unit of the order's currency.
    #[serde(default = "one")]
    rate: f64,
}

#[derive(Deserialize)]
struct Customer {
    id: String,
}

#[handler]
fn handle(event: Event<Order>) -> Result<(), Failure> {
    let Order { customer, total, rate } = &event.data;
    let cents = (total * rate * 100.0).round();
    if !(0.0..CENTS_MAX).contains(&cents) {
        return Err(Failure::reject("a total that is no amount of money: below zero, or too large"));
    }
    let unit = context::config_or("unit", "orders".to_owned())?;
    usage::count(&unit, 1.0)?;
    usage::count("eur", cents / 100.0)?;
    state::increment(&format!("orders:{}", customer.id), 1)?;
    state::increment(&format!("cents:{}", customer.id), cents as i64)?;
    Ok(())
}

fn one() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use bulkhead_plugin::testing::{self, Host};
    use serde_json::json;

    use super::*;

    fn order(total: f64) -> Event {
        testing::event("orders.created", json!({"customer": {"id": "c-9"}, "total": total, "rate": 0.5}))
    }

    #[test]
    fn orders_add_up_per_customer() {
        let mut host = Host::new().with_config("unit", "documents");
        let run = host.handle(handle, order(10.01));
        assert_eq!(run.usage, [("documents".to_owned(), 1.0), ("eur".to_owned(), 5.01)]);
        host.handle(handle, order(1.0)).success();
        assert_eq!(host.state::<i64>("orders:c-9"), Some(2));
        assert_eq!(host.state::<i64>("cents:c-9"), Some(551));
    }

    #[test]
    fn of_the_sample_stream_it_rejects_only_poison() {
        let mut host = Host::new();
        let stream = include_str!("../../../tests/data/orders/events.ndjson").lines().map(testing::event_from_json);
        for event in stream.filter(|event| event.kind == "orders.created") {
            let poison = event.attribute("poison").is_some();
            let run = host.handle(handle, event);
            assert_eq!(run.result.is_err(), poison, "{:?}", run.result);
        }
    }

    #[test]
    fn what_is_no_amount_is_rejected() {
        for total in [-0.02, 1e300] {
            let mut host = Host::new();
            host.handle(handle, order(total)).failure();
            assert!(host.state_keys().is_empty());
        }
    }
}
