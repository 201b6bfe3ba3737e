//! Splits an order into one event per line item, and tells each what the price table knows.
//!
//! A transformer: what it answers goes on through the pipeline of the rule, one document at a time. An order
//! that makes no sense is rejected as a whole, so that no half of it goes on.

use std::collections::BTreeMap;

use bulkhead_plugin::{Draft, Event, Failure, context, log, transformer};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Order {
    id: String,
    customer: Customer,
    currency: String,
    /// Euros for one unit of the currency.
    rate: f64,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Customer {
    id: String,
    country: String,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
    quantity: u32,
    /// For one, in the order's currency.
    price: f64,
}

/// A row of the price table.
#[derive(Deserialize)]
struct Article {
    category: String,
    /// For one, in euros.
    price: f64,
}

/// What goes on.
#[derive(Serialize)]
struct Line<'a> {
    order: &'a str,
    /// 1 for the first.
    line: usize,
    lines: usize,
    sku: &'a str,
    quantity: u32,
    amount: f64,
    currency: &'a str,
    amount_eur: f64,
    category: &'a str,
    /// Below the list price, in percent; none where the table does not know the article.
    discount: Option<f64>,
    customer: &'a str,
    country: &'a str,
}

#[transformer]
fn transform(event: Event<Order>) -> Result<Vec<Draft>, Failure> {
    let prices: BTreeMap<String, Article> = context::config_or("prices", BTreeMap::new())?;
    let strict = context::config_or("strict", false)?;
    let Order { id, customer, currency, rate, items } = &event.data;
    if items.is_empty() {
        return Err(Failure::reject(format!("order {id} has no items")));
    }
    if *rate <= 0.0 {
        return Err(Failure::reject(format!("order {id} has a rate that is not above zero")));
    }
    let mut drafts = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let article = prices.get(&item.sku);
        if article.is_none() {
            if strict {
                return Err(Failure::reject(format!("article {} of order {id} is not in the price table", item.sku)));
            }
            log::warn!(sku = item.sku, order = id; "an article that is not in the price table");
        }
        let amount = cents(f64::from(item.quantity) * item.price);
        let line = Line {
            order: id,
            line: at + 1,
            lines: items.len(),
            sku: &item.sku,
            quantity: item.quantity,
            amount,
            currency,
            amount_eur: cents(amount * rate),
            category: article.map_or("unknown", |article| &article.category),
            discount: article.map(|article| cents(100.0 * (1.0 - item.price * rate / article.price))),
            customer: &customer.id,
            country: &customer.country,
        };
        let mut draft = event.with_data(&line)?.with_subject(format!("{id}/{}", line.line));
        draft.kind = "orders.line".to_owned();
        drafts.push(draft);
    }
    Ok(drafts)
}

/// Rounded to two places.
fn cents(amount: f64) -> f64 {
    (amount * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use bulkhead_plugin::Verdict;
    use bulkhead_plugin::testing::{self, Host};
    use serde_json::{Value, json};

    use super::*;

    fn host() -> Host {
        Host::new().with_config("prices", json!({"KB-87": {"category": "keyboards", "price": 100.0}}))
    }

    fn order(items: Value) -> Event {
        let customer = json!({"id": "c-9", "country": "DK", "email": "a@example.com"});
        let data = json!({"id": "A-1", "customer": customer, "currency": "DKK", "rate": 0.125, "items": items});
        let mut event = testing::event("orders.created", data);
        event.key = Some("c-9".to_owned());
        event
    }

    #[test]
    fn an_order_becomes_its_lines() {
        let items = json!([{"sku": "KB-87", "quantity": 2, "price": 720}, {"sku": "XX-00", "quantity": 1, "price": 8}]);
        let run = host().transform(transform, order(items));
        let drafts = run.success();
        assert_eq!(drafts.len(), 2);
        assert_eq!(drafts[0].kind, "orders.line");
        assert_eq!(drafts[0].subject.as_deref(), Some("A-1/1"));
        assert_eq!(drafts[0].key.as_deref(), Some("c-9"));
        let line: Value = serde_json::from_slice(&drafts[0].data).expect("a line of JSON");
        assert_eq!(line["amount_eur"], 180.0);
        assert_eq!(line["discount"], 10.0);
        let line: Value = serde_json::from_slice(&drafts[1].data).expect("a line of JSON");
        assert_eq!((&line["category"], &line["discount"]), (&json!("unknown"), &Value::Null));
        assert_eq!(run.logs.len(), 1);
    }

    #[test]
    fn a_strict_table_parks_what_it_does_not_know() {
        let items = json!([{"sku": "XX-00", "quantity": 1, "price": 8}]);
        let run = host().with_config("strict", true).transform(transform, order(items));
        assert_eq!(*run.failure(), Failure::reject("article XX-00 of order A-1 is not in the price table"));
    }

    #[test]
    fn an_order_that_makes_no_sense_is_rejected_whole() {
        for items in [json!([]), json!("none"), json!([{"sku": "KB-87", "quantity": -1, "price": 8}])] {
            assert_eq!(host().transform(transform, order(items)).failure().verdict, Verdict::Reject);
        }
    }
}
