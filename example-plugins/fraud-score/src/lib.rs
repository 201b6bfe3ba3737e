//! Scores each order by what is known of its customer, and flags those above a threshold.
//!
//! The profile of a customer is one value in state. It is read and written in the same run as the flag is
//! emitted, so after a crash either both happened or neither. A rule with `order: key` keeps a customer's
//! orders in order.

use std::time::Duration;

use bulkhead_plugin::{Draft, Event, Failure, Timestamp, context, effects, handler, log, state};
use serde::{Deserialize, Serialize};

/// A burst is more than so many orders within this time.
const BURST: Duration = Duration::from_secs(600);

/// How many orders it takes until an average means something.
const ORDERS_KNOWN: u64 = 3;

/// Countries remembered per customer: enough to tell a traveller, and a bound on the value's size.
const COUNTRIES_MAX: usize = 8;

#[derive(Deserialize)]
struct Order {
    id: String,
    customer: Customer,
    #[serde(default)]
    channel: String,
    total: f64,
    /// Euros for one unit of the order's currency.
    #[serde(default = "one")]
    rate: f64,
}

#[derive(Deserialize)]
struct Customer {
    id: String,
    country: String,
}

/// What is known of a customer.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Profile {
    orders: u64,
    spent_eur: f64,
    countries: Vec<String>,
    /// When the current burst began, and how many orders are in it.
    burst: (Timestamp, u64),
}

/// What is published about a suspicious order.
#[derive(Serialize)]
struct Flag<'a> {
    order: &'a str,
    customer: &'a str,
    total_eur: f64,
    score: u32,
    reasons: &'a [&'static str],
}

#[handler]
fn handle(event: Event<Order>) -> Result<(), Failure> {
    let order = &event.data;
    let total_eur = order.total * order.rate;
    if total_eur < 0.0 {
        return Err(Failure::reject(format!("order {} has a total below zero", order.id)));
    }
    let key = format!("customer:{}", order.customer.id);
    let mut profile: Profile = state::get(&key)?.unwrap_or_default();
    let (score, reasons) = score(&profile, order, total_eur, event.time)?;
    profile.learn(order, total_eur, event.time);
    state::set(&key, &profile)?;

    let threshold: f64 = context::config_or("threshold", 5.0)?;
    if f64::from(score) >= threshold {
        log::info!(order = order.id, customer = order.customer.id, score; "flagged: {}", reasons.join(", "));
        let flag = Flag { order: &order.id, customer: &order.customer.id, total_eur, score, reasons: &reasons };
        let draft = Draft::json("orders.flagged", &flag)?;
        effects::emit(draft.with_subject(&order.id).with_key(&order.customer.id))?;
    }
    Ok(())
}

/// Points, and what they are for. Looks only at what was known before this order.
fn score(
    profile: &Profile,
    order: &Order,
    total_eur: f64,
    time: Timestamp,
) -> Result<(u32, Vec<&'static str>), Failure> {
    let times_average: f64 = context::config_or("times_average", 4.0)?;
    let burst: u64 = context::config_or("burst", 3)?;
    let known = profile.orders >= ORDERS_KNOWN;
    let signs = [
        (known && total_eur > times_average * profile.average_eur(), 3, "far above the customer's average"),
        (profile.orders == 0 && total_eur > 1_000.0, 3, "a large first order"),
        (known && !profile.countries.contains(&order.customer.country), 2, "a new country"),
        (profile.in_burst(time) && profile.burst.1 >= burst, 3, "a burst of orders"),
        (order.channel == "phone" && total_eur > 500.0, 1, "a large order by phone"),
        (total_eur > 5_000.0, 3, "a very large order"),
    ];
    let true_signs = signs.iter().filter(|(is_so, ..)| *is_so);
    Ok(true_signs.fold((0, Vec::new()), |(score, mut reasons), (_, points, reason)| {
        reasons.push(*reason);
        (score + points, reasons)
    }))
}

impl Profile {
    fn average_eur(&self) -> f64 {
        self.spent_eur / self.orders.max(1) as f64
    }

    fn in_burst(&self, time: Timestamp) -> bool {
        time - self.burst.0 < BURST
    }

    fn learn(&mut self, order: &Order, total_eur: f64, time: Timestamp) {
        self.burst = if self.in_burst(time) { (self.burst.0, self.burst.1 + 1) } else { (time, 1) };
        self.orders += 1;
        self.spent_eur += total_eur;
        let country = &order.customer.country;
        if !self.countries.contains(country) && self.countries.len() < COUNTRIES_MAX {
            self.countries.push(country.clone());
        }
    }
}

fn one() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use bulkhead_plugin::Verdict;
    use bulkhead_plugin::testing::{self, Host};
    use serde_json::{Value, json};

    use super::*;

    fn order(total: f64, country: &str) -> Event {
        let customer = json!({"id": "c-9", "country": country});
        let data = json!({"id": "A-1", "customer": customer, "channel": "web", "total": total, "rate": 1.0});
        testing::event("orders.created", data)
    }

    /// A customer with five orders of 50 EUR from Germany, an hour apart.
    fn known(host: &mut Host) -> Timestamp {
        let mut time = host.now();
        for _ in 0..5 {
            time = time + Duration::from_secs(3_600);
            let run = host.handle(handle, Event { time, ..order(50.0, "DE") });
            assert!(run.success() == &() && run.emitted.is_empty());
        }
        time + Duration::from_secs(3_600)
    }

    #[test]
    fn an_unusual_order_from_a_new_country_is_flagged() {
        let mut host = Host::new();
        let time = known(&mut host);
        let run = host.handle(handle, Event { time, ..order(900.0, "BR") });
        run.success();
        let flag: Value = serde_json::from_slice(&run.emitted[0].data).expect("a flag of JSON");
        assert_eq!(flag["score"], 5);
        assert_eq!(flag["reasons"], json!(["far above the customer's average", "a new country"]));
        assert_eq!(run.emitted[0].key.as_deref(), Some("c-9"));
    }

    #[test]
    fn the_threshold_is_a_setting() {
        let mut host = Host::new().with_config("threshold", 6);
        let time = known(&mut host);
        let run = host.handle(handle, Event { time, ..order(900.0, "BR") });
        assert!(run.success() == &() && run.emitted.is_empty());
        assert_eq!(host.state::<Profile>("customer:c-9").map(|profile| profile.orders), Some(6));
    }

    #[test]
    fn a_burst_counts_from_its_first_order() {
        let mut host = Host::new().with_config("threshold", 3);
        let flagged: Vec<bool> = (0..5).map(|_| !host.handle(handle, order(10.0, "DE")).emitted.is_empty()).collect();
        assert_eq!(flagged, [false, false, false, true, true]);
    }

    #[test]
    fn in_the_sample_stream_it_flags_the_burst_and_rejects_only_poison() {
        let mut host = Host::new();
        let mut flagged = Vec::new();
        let stream = include_str!("../../../tests/data/orders/events.ndjson").lines().map(testing::event_from_json);
        for event in stream.filter(|event| event.kind == "orders.created") {
            let (poison, customer) = (event.attribute("poison").is_some(), event.key.clone());
            let run = host.handle(handle, event);
            assert_eq!(run.result.is_err(), poison, "{:?}", run.result);
            flagged.extend(run.emitted.iter().map(|_| customer.clone().unwrap_or_default()));
        }
        assert!(flagged.contains(&"C-100".to_owned()) && flagged.len() < 20, "{flagged:?}");
    }

    #[test]
    fn an_order_that_makes_no_sense_is_rejected_and_forgotten() {
        let mut host = Host::new();
        assert_eq!(host.handle(handle, order(-1.0, "DE")).failure().verdict, Verdict::Reject);
        assert!(host.state_keys().is_empty());
    }
}
