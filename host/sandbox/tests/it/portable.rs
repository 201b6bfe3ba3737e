//! Components written for other hosts: state, settings and log by WASI's names, under the same rules.

use std::sync::Arc;

use bulkhead_domain::effect::Effect;
use bulkhead_domain::effect::Level;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_sandbox::Attempt;
use bulkhead_sandbox::Setup;
use bulkhead_sandbox::inspect;

use crate::golden;
use crate::lab;
use crate::lab::Bench;
use crate::lab::Memory;
use crate::lab::code;
use crate::lab::reason;

fn portable() -> Vec<u8> {
    golden::component("portable/portable")
}

fn setup() -> Setup {
    Setup {
        config: [("currency".to_owned(), "\"EUR\"".to_owned()), ("depth".to_owned(), "5".to_owned())].into(),
        ..lab::setup()
    }
}

/// What the attempt writes, by key.
fn writes(attempt: &Attempt) -> Vec<(String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let write = |effect: &Effect| match effect {
        Effect::State(write) => Some((write.key.clone(), write.value.as_ref().map(|value| text(value)))),
        _ => None,
    };
    attempt.effects.iter().filter_map(write).collect()
}

fn bench(state: &[(&str, &str)], data: &'static str) -> Bench {
    let memory = Memory::default();
    let pairs = state.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec().into()));
    memory.0.lock().expect("because nobody panics here").extend(pairs);
    let mut bench = Bench { state: Arc::new(memory), ..Bench::default() };
    bench.event.data = data.as_bytes().into();
    bench
}

#[test]
fn it_runs_on_our_state_settings_and_log() {
    let bench = bench(&[("orders", "41"), ("largest", "9.5"), ("old", "x")], r#"{"total": 12.5, "forget": "old"}"#);
    let attempt = lab::session(&portable(), setup()).handle(&bench.call());
    assert_eq!(code(&attempt), "done", "{}", reason(&attempt));
    let some = |text: &str| Some(text.to_owned());
    let expected = [
        ("largest", some("12.5")),
        ("last:currency", some("EUR")),
        ("last:id", some("e-1")),
        ("old", None),
        ("orders", some("42")),
    ];
    assert_eq!(writes(&attempt), expected.map(|(key, value)| (key.to_owned(), value)), "one write for each key");
    let line = attempt.logs.first().expect("because it wrote one");
    assert_eq!(line.level, Level::Error, "critical is error");
    assert_eq!(line.fields, [("context".to_owned(), "orders".to_owned())]);
    let expected = "order 42 over 12.5 EUR; settings 2, keys largest last:currency last:id orders, missing 1, \
                    there true, elsewhere refused true";
    assert_eq!(line.message, expected);
}

/// A swap over what is larger already does not happen, and nothing else is lost by it.
#[test]
fn a_value_that_is_kept_is_not_written() {
    let bench = bench(&[("largest", "100")], r#"{"total": 12.5}"#);
    let attempt = lab::session(&portable(), setup()).handle(&bench.call());
    assert_eq!(code(&attempt), "done", "{}", reason(&attempt));
    assert!(writes(&attempt).iter().all(|(key, _)| key != "largest"));
}

#[test]
fn limits_are_the_state_s_own_and_a_failed_run_writes_nothing() {
    let limits = Limits { state_value: 2, ..lab::setup().limits };
    let bench = bench(&[], r#"{"total": 12.5}"#);
    let attempt = lab::session(&portable(), Setup { limits, ..setup() }).handle(&bench.call());
    assert_eq!(code(&attempt), "plugin:reject");
    assert!(reason(&attempt).contains("a value may have 2"), "{}", reason(&attempt));
    assert!(attempt.effects.is_empty());

    let limits = Limits { host_calls: 12, ..lab::setup().limits };
    let attempt = lab::session(&portable(), Setup { limits, ..setup() }).handle(&bench.call());
    lab::assert_ends(&attempt, "limit:hostcalls");
}

/// A number that is none is refused in words, as by `state.increment`.
#[test]
fn what_is_no_number_cannot_be_incremented() {
    let bench = bench(&[("orders", "many")], r#"{"total": 1}"#);
    let attempt = lab::session(&portable(), setup()).handle(&bench.call());
    assert!(matches!(&attempt.outcome, Outcome::Rejected(failure) if failure.reason.contains("not a number")));
}

#[test]
fn the_inspection_says_in_words_what_it_needs() {
    let inspection = lab::SANDBOX.inspect(&portable()).expect("because it is offered");
    let needs = inspect::needs(&inspection.imports);
    for need in ["its state, as wasi:keyvalue", "its settings, as wasi:config", "its log, as wasi:logging"] {
        assert!(needs.contains(&need), "{needs:?}");
    }
}
