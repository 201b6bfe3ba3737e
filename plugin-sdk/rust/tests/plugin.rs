//! A plugin as an author writes it, run in the test host.

use std::time::Duration;

use bulkhead_plugin::testing::{self, Call, Host};
use bulkhead_plugin::{
    Body, Draft, Event, Failure, OrFail, Refusal, Timestamp, Verdict, context, effects, handler, log, state,
    transformer, usage,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    id: String,
    total: f64,
}

#[handler]
fn handle(event: Event<Order>) -> Result<(), Failure> {
    let Order { id, total } = &event.data;
    let threshold: f64 = context::config("threshold")?.or_reject("no threshold is set")?;
    let count = state::increment("count", 1)?;
    state::set(&format!("order:{id}"), &event.data)?;
    state::set_with_ttl("recent", id, Duration::from_secs(60))?;
    usage::count("orders", 1.0)?;
    log::info!(id, total = total; "order number {count}");
    if *total > threshold {
        effects::emit(Draft::json("orders.flagged", &event.data)?.with_key(id))?;
        effects::deliver("crm", Body::text(format!("{id}: {total}")).with_attribute("token", context::secret("crm")?))?;
        effects::schedule_named(id, Duration::from_secs(5), Draft::text("orders.remind", id.as_str()))?;
    }
    if *total < 0.0 {
        return Err(Failure::retry("a total below zero").after(Duration::from_secs(7)));
    }
    Ok(())
}

#[transformer]
fn transform(event: Event<Vec<Order>>) -> Result<Vec<Draft>, Failure> {
    event.data.iter().map(|order| Ok(event.with_data(order)?)).collect()
}

fn host() -> Host {
    Host::new().with_config("threshold", 100).with_secret("crm", "s3cret").with_sinks(["crm"])
}

fn order(id: &str, total: f64) -> Event {
    testing::event("orders.created", Order { id: id.to_owned(), total })
}

#[test]
fn a_run_that_succeeds_leaves_state_and_effects() {
    let mut host = host();
    let run = host.handle(handle, order("a", 250.0));
    run.success();
    assert_eq!(run.emitted[0].kind, "orders.flagged");
    assert_eq!(run.emitted[0].key.as_deref(), Some("a"));
    assert_eq!(run.delivered[0].sink, "crm");
    assert_eq!(run.delivered[0].body.bytes, b"a: 250");
    assert_eq!(run.delivered[0].body.attributes, [("token".to_owned(), "s3cret".to_owned())]);
    assert_eq!(run.scheduled[0].name.as_deref(), Some("a"));
    assert_eq!(run.usage, [("orders".to_owned(), 1.0)]);
    assert_eq!(run.logs[0].to_string(), "Info order number 1 id=a total=250");
    assert_eq!(host.state::<i64>("count"), Some(1));
    assert_eq!(host.state_keys(), ["count", "order:a", "recent"]);
}

#[test]
fn a_run_that_fails_leaves_only_its_log_and_usage() {
    let mut host = host();
    let run = host.handle(handle, order("a", -1.0));
    assert_eq!(*run.failure(), Failure::retry("a total below zero").after(Duration::from_secs(7)));
    assert!(run.emitted.is_empty() && run.delivered.is_empty() && run.scheduled.is_empty());
    assert_eq!((run.logs.len(), run.usage.len()), (1, 1));
    assert!(host.state_keys().is_empty());
}

#[test]
fn state_lives_on_and_expires_with_the_clock() {
    let mut host = host();
    host.handle(handle, order("a", 1.0)).success();
    host.advance(Duration::from_secs(59));
    host.handle(handle, order("b", 1.0)).success();
    assert_eq!(host.state::<i64>("count"), Some(2));
    assert_eq!(host.state::<String>("recent").as_deref(), Some("b"));
    host.advance(Duration::from_secs(60));
    assert_eq!(host.state::<String>("recent"), None);
}

#[test]
fn data_of_another_shape_is_rejected_before_the_handler() {
    let mut host = host();
    let run = host.handle(handle, testing::event("orders.created", [("id", 1)]));
    let failure = run.failure();
    assert_eq!(failure.verdict, Verdict::Reject);
    assert!(failure.reason.starts_with("the data of this `orders.created` (application/json, 10 bytes)"));
    assert!(failure.reason.contains("Order") && failure.reason.contains("at line 1"), "{}", failure.reason);
    assert!(host.state_keys().is_empty());
}

#[test]
fn what_the_host_refuses_reaches_the_plugin() {
    let denied = Refusal::Denied("emit orders.flagged".to_owned());
    let run = host().refusing(Call::Emit, denied).handle(handle, order("a", 250.0));
    assert_eq!(*run.failure(), Failure::reject("denied: emit orders.flagged"));

    let limit = Refusal::Limit("state writes".to_owned());
    let run = host().refusing(Call::WriteState, limit).handle(handle, order("a", 250.0));
    assert_eq!(*run.failure(), Failure::retry("state key `count`: over a limit: state writes"));

    let run = host().with_sinks(["other"]).handle(handle, order("a", 250.0));
    assert_eq!(*run.failure(), Failure::reject("not found: sink `crm`"));
}

#[test]
fn a_setting_of_another_type_names_itself() {
    let run = host().with_config("threshold", "high").handle(handle, order("a", 1.0));
    let reason = &run.failure().reason;
    assert!(reason.starts_with("the setting `threshold` is not of the expected type: invalid type"), "{reason}");
}

#[test]
fn a_transformer_splits() {
    let mut event = testing::event("orders.batch", ["a", "b"].map(|id| Order { id: id.to_owned(), total: 1.0 }));
    event.subject = Some("batch-1".to_owned());
    let run = host().transform(transform, event);
    let drafts = run.success();
    assert_eq!(drafts.len(), 2);
    assert_eq!(drafts[1].data, br#"{"id":"b","total":1.0}"#);
    assert_eq!((drafts[1].kind.as_str(), drafts[1].subject.as_deref()), ("orders.batch", Some("batch-1")));
}

#[test]
fn time_and_randomness_repeat_and_differ_where_they_should() {
    fn draw(_: Event) -> Result<(), Failure> {
        state::set_bytes("random", &context::random(32), None)?;
        state::set("now", &context::current().now)?;
        Ok(())
    }
    let drawn = |host: &mut Host, event: Event| {
        host.handle(draw, event).success();
        (host.state_bytes("random"), host.state::<Timestamp>("now"))
    };
    let mut host = Host::new();
    let first = drawn(&mut host, order("a", 1.0));
    assert_eq!(drawn(&mut host, order("a", 1.0)), first);
    assert_ne!(drawn(&mut host.clone().at_attempt(2), order("a", 1.0)).0, first.0);
    let mut other = order("a", 1.0);
    other.id = "event-2".to_owned();
    assert_ne!(drawn(&mut host, other).0, first.0);
}

#[test]
fn all_keys_are_walked_page_by_page() {
    fn fill(_: Event) -> Result<(), Failure> {
        for n in 0..2_500 {
            state::set(&format!("k:{n:04}"), &n)?;
        }
        state::set("other", &0)?;
        Ok(())
    }
    fn count(_: Event) -> Result<(), Failure> {
        let keys = state::keys("k:").collect::<Result<Vec<_>, _>>()?;
        assert!(keys.is_sorted());
        state::set("keys", &keys.len())?;
        Ok(())
    }
    let mut host = Host::new();
    host.handle(fill, testing::event("a", ())).success();
    host.handle(count, testing::event("a", ())).success();
    assert_eq!(host.state::<usize>("keys"), Some(2_500));
}

#[test]
fn a_field_is_read_without_decoding_the_whole() {
    fn handle(_: Event) -> Result<(), Failure> {
        assert_eq!(context::field::<String>("/id")?.as_deref(), Some("a"));
        assert_eq!(context::field::<String>("/customer/name")?, None);
        context::field::<u8>("/id")?;
        Ok(())
    }
    let run = Host::new().handle(handle, order("a", 1.0));
    assert!(run.failure().reason.starts_with("`/id` in the event's data is not of the expected type"));
}
