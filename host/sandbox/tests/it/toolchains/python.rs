//! Plugins of the Python SDK: what it promises to their authors, and that the sandbox holds an interpreter as it holds
//! anything else.

use std::time::Duration;

use bulkhead_domain::effect::Effect;
use bulkhead_domain::effect::Level;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_sandbox::Attempt;
use bulkhead_sandbox::Session;
use bulkhead_sandbox::Setup;
use serde_json::Value;
use serde_json::json;

use super::asks;
use super::event;
use super::inspect;
use super::session;
use super::setup;
use crate::lab::Bench;
use crate::lab::assert_ends;
use crate::lab::code;
use crate::lab::reason;

/// One call of `checker-py` in a fresh instance.
fn checked(what: &str) -> Attempt {
    asks(&mut session("checker-py", setup()), what)
}

#[track_caller]
fn assert_done(attempt: &Attempt) {
    assert_eq!(code(attempt), "done", "{}\n{:#?}", reason(attempt), attempt.logs);
}

fn lines(attempt: &Attempt) -> Vec<(Level, &str)> {
    attempt.logs.iter().map(|line| (line.level, line.message.as_str())).collect()
}

/// The JSON value written under a key.
fn written(attempt: &Attempt, key: &str) -> Option<Value> {
    attempt.effects.iter().find_map(|effect| match effect {
        Effect::State(write) if write.key == key => serde_json::from_slice(write.value.as_deref()?).ok(),
        _ => None,
    })
}

/// Nothing of WASI is left in what the SDK's build makes.
#[test]
fn it_imports_the_contract_and_nothing_else() {
    let contract = ["context", "effects", "log", "state", "types", "usage"];
    let imports: Vec<String> = contract.iter().map(|name| format!("bulkhead:plugin/{name}@0.1.0")).collect();
    for (plugin, transformer) in [("sentiment-py", false), ("checker-py", true)] {
        let found = inspect(plugin);
        assert_eq!(found.imports, imports, "{plugin}");
        assert!(found.exports.handler, "{plugin}");
        assert_eq!(found.exports.transformer, transformer, "{plugin}");
    }
}

#[test]
fn the_example_scores_reviews_and_raises_an_alarm() {
    let mut session = session(
        "sentiment-py",
        Setup {
            grants: Grants { emit: ["reviews.*".to_owned()].into(), ..Grants::default() },
            config: [("bad".to_owned(), "-0.2".to_owned()), ("alarm".to_owned(), "1".to_owned())].into(),
            ..setup()
        },
    );
    let mut reviewed = |id: &str, text: Option<&str>| {
        let data = json!({"product": "kettle", "text": text}).to_string();
        session.handle(&Bench { event: event(id, &data), ..Bench::default() }.call())
    };
    let good = reviewed("r-1", Some("Great, I love it! Not bad at all."));
    assert_done(&good);
    assert_eq!(written(&good, "scored:kettle"), Some(json!(1)));
    assert_eq!(good.effects.len(), 1, "{:?}", good.effects);
    assert_eq!(good.logs[0].fields[1], ("score".to_owned(), "0.77".to_owned()));
    let bad = reviewed("r-2", Some("Broken after a week, and the refund was slow."));
    assert_done(&bad);
    let Effect::Emit { draft, .. } = &bad.effects[0] else { panic!("{:?}", bad.effects) };
    assert_eq!((draft.kind.as_str(), draft.subject.as_deref()), ("reviews.alarm", Some("kettle")));
    assert_eq!(*draft.data, *br#"{"product":"kettle","bad":1}"#);
    let none = reviewed("r-3", None);
    assert_eq!((code(&none), reason(&none)), ("plugin:reject", "a review has a product and a text"));
}

#[test]
fn every_function_of_the_contract_is_there() {
    let attempt = checked("everything");
    assert_done(&attempt);
    let Effect::Emit { draft, .. } = &attempt.effects[0] else { panic!("{:?}", attempt.effects) };
    assert_eq!(*draft.data, *"{\"ü\":[1,null]}".as_bytes());
    assert_eq!(draft.content_type, "application/json");
    assert_eq!((draft.subject.as_deref(), draft.key.as_deref()), (Some("s"), Some("k")));
    assert_eq!(draft.attributes, [("severity".to_owned(), "3".to_owned())]);
    let Effect::Emit { draft, .. } = &attempt.effects[1] else { panic!("{:?}", attempt.effects) };
    assert_eq!((draft.content_type.as_str(), &*draft.data), ("application/octet-stream", &b"\x00\xff"[..]));
    let Effect::Deliver(delivery) = &attempt.effects[2] else { panic!("{:?}", attempt.effects) };
    assert_eq!((delivery.content_type.as_str(), &*delivery.body), ("text/plain; charset=utf-8", &b"text"[..]));
    let Effect::Schedule { id, name, .. } = &attempt.effects[3] else { panic!("{:?}", attempt.effects) };
    assert_eq!(name.as_deref(), Some("late"));
    assert!(matches!(&attempt.effects[4], Effect::Cancel { timer, .. } if timer == id), "{:?}", attempt.effects);
    assert!(matches!(&attempt.effects[5], Effect::Schedule { name: None, .. }), "{:?}", attempt.effects);
    assert_eq!(written(&attempt, "n"), Some(json!(3)));
    assert_eq!(attempt.usage.get("pages"), Some(&3.0));
}

#[test]
fn transformers_drop_map_split_and_pass_on() {
    let mut session = session("checker-py", setup());
    let mut transform = |what: &str| {
        let data = format!(r#"{{"do": "{what}"}}"#);
        session.transform(&Bench { event: event("e-1", &data), ..Bench::default() }.call())
    };
    assert_eq!(transform("drop").drafts, []);
    let mapped = transform("map");
    assert_eq!(*mapped.drafts[0].data, *br#"{"mapped":true}"#);
    assert_eq!(mapped.drafts[0].subject.as_deref(), Some("order-1"));
    assert_eq!(mapped.drafts[0].attributes, [("dataversion".to_owned(), "1".to_owned())]);
    assert_eq!(transform("split").drafts.len(), 3);
    let passed = transform("pass");
    assert_eq!(
        (&*passed.drafts[0].data, passed.drafts[0].kind.as_str()),
        (&br#"{"do": "pass"}"#[..], "orders.created")
    );
    assert_eq!(reason(&transform("wrong")), "TypeError: 'int' object is not iterable");
    assert_eq!(code(&transform("")), "plugin:reject");
}

#[test]
fn print_stderr_and_logging_lead_to_the_log() {
    let attempt = checked("logs");
    assert_done(&attempt);
    let seen = lines(&attempt);
    let expected = [
        (Level::Info, "printed 1"),
        (Level::Info, "one"),
        (Level::Warn, "to stderr"),
        (Level::Debug, "by log"),
        (Level::Warn, "by logging"),
    ];
    assert_eq!(seen[..5], expected);
    assert_eq!(attempt.logs[3].fields, [("score".to_owned(), "0.5".to_owned())]);
    let fields = [("order".to_owned(), "7".to_owned()), ("logger".to_owned(), "shop".to_owned())];
    assert_eq!(attempt.logs[4].fields, fields);
    assert_eq!(seen[5], (Level::Error, "caught"));
    assert_eq!(seen[6], (Level::Error, "Traceback (most recent call last):"));
    // A line that was not ended comes when the call ends.
    let [.., before, last] = seen[..] else { panic!("{seen:?}") };
    assert_eq!((before, last), ((Level::Error, "ZeroDivisionError: division by zero"), (Level::Info, "two")));
}

/// `time` and `datetime` show the attempt's time; `sleep` says what to do instead.
#[test]
fn the_clock_is_the_attempt_s() {
    let attempt = checked("clock");
    assert_done(&attempt);
    assert!(attempt.logs[0].message.contains("Retry(…, after=…)"), "{:?}", attempt.logs);
}

#[test]
fn random_numbers_differ_between_events_and_repeat_on_a_re_execution() {
    let mut session = session("checker-py", setup());
    let mut drawn = |id: &str, attempt: u32| {
        let event = event(id, r#"{"do": "draws"}"#);
        let attempt = session.handle(&Bench { event, attempt, ..Bench::default() }.call());
        assert_done(&attempt);
        let numbers = written(&attempt, "drawn").expect("because it writes them");
        numbers.as_array().expect("because it writes a list").clone()
    };
    let first = drawn("e-1", 1);
    let other = drawn("e-2", 1);
    let again = drawn("e-1", 1);
    let retried = drawn("e-1", 2);
    for (at, number) in first.iter().enumerate() {
        assert_eq!(again[at], *number, "a re-execution draws another number {at}");
        assert_ne!(other[at], *number, "another event draws the same number {at}");
        assert_ne!(retried[at], *number, "another attempt draws the same number {at}");
    }
    let fresh = checked("draws");
    assert_eq!(written(&fresh, "drawn"), Some(Value::from(first)), "a fresh instance draws what a warm one does");
}

#[test]
fn an_exception_is_a_retry_with_its_traceback_in_the_log() {
    let attempt = checked("raises");
    assert_ends(&attempt, "plugin:retry");
    assert_eq!(reason(&attempt), "KeyError: 'missing'");
    let trace: Vec<&str> = lines(&attempt).into_iter().map(|(_, line)| line).collect();
    assert_eq!(trace[0], "Traceback (most recent call last):");
    let [.., place, line, last] = trace[..] else { panic!("{trace:?}") };
    assert!(place.contains("app.py") && place.ends_with("in raises"), "{place}");
    assert_eq!((line, last), ("    total = amounts[\"missing\"]", "KeyError: 'missing'"));
    let left = checked("exits");
    assert_ends(&left, "plugin:retry");
    assert_eq!(reason(&left), "SystemExit: 3");
}

#[test]
fn retry_and_reject_are_the_verdicts_of_the_contract() {
    let retried = checked("retries");
    assert_ends(&retried, "plugin:retry");
    let Outcome::Failed(failure) = &retried.outcome else { panic!("{:?}", retried.outcome) };
    assert_eq!(failure.reason, "the price list is not here yet");
    assert_eq!(failure.after, Some(Duration::from_secs(30)));
    assert_eq!(retried.logs[0].fields, [("list".to_owned(), "eur".to_owned())]);
    let rejected = checked("rejects");
    assert_ends(&rejected, "plugin:reject");
    assert_eq!(reason(&rejected), "an order without a customer");
    let no_json = checked("no_json");
    assert_ends(&no_json, "plugin:reject");
    assert!(reason(&no_json).starts_with("the data of this `orders.created` (application/json, 1 bytes) is no JSON"));
}

#[test]
fn a_refusal_can_be_caught_and_is_a_verdict_otherwise() {
    let caught = checked("refused");
    assert_done(&caught);
    let kinds: Vec<_> = lines(&caught).iter().filter_map(|(_, line)| Some(line.split_once(": ")?.0)).collect();
    assert_eq!(kinds, ["Denied", "Invalid", "Denied"], "{:?}", caught.logs);
    let denied = checked("denied");
    assert_ends(&denied, "plugin:reject");
    assert!(reason(&denied).contains("Denied: "), "{}", reason(&denied));
}

/// There are no files behind the interpreter: it says so in words.
#[test]
fn what_needs_a_file_is_an_exception_that_says_why() {
    let late = checked("imports_late");
    assert_ends(&late, "plugin:retry");
    assert!(reason(&late).contains("import it at the top of a file"), "{}", reason(&late));
    let attempt = checked("opens");
    assert_done(&attempt);
    let said: Vec<bool> = lines(&attempt).iter().map(|(_, line)| line.contains("a plugin has no files")).collect();
    assert_eq!(said, [true, true, true, true, false, false, false], "{:?}", attempt.logs);
    for (_, line) in &lines(&attempt)[4..] {
        assert!(line.contains("a plugin has no sockets"), "{line}");
    }
}

#[test]
fn an_endless_loop_is_stopped() {
    let limits = Limits { fuel: u64::MAX / 2, time: Duration::from_millis(500), ..setup().limits };
    let mut session = session("checker-py", Setup { limits, ..setup() });
    let attempt = asks(&mut session, "loops");
    assert_ends(&attempt, "limit:wall");
    assert!(attempt.duration < Duration::from_secs(5), "{:?}", attempt.duration);
    let fuel = checked("loops");
    assert_ends(&fuel, "limit:fuel");
    assert_eq!(fuel.fuel, setup().limits.fuel);
    assert_done(&asks(&mut session, "logs"));
}

#[test]
fn taking_memory_without_end_is_stopped() {
    let attempt = checked("allocates");
    assert!(["limit:memory", "plugin:retry"].contains(&code(&attempt)), "{}", code(&attempt));
    assert!(attempt.memory <= setup().limits.memory, "{}", attempt.memory);
    if code(&attempt) == "plugin:retry" {
        assert_eq!(reason(&attempt), "MemoryError");
    }
}

#[test]
fn endless_recursion_is_an_exception() {
    let mut session = session("checker-py", setup());
    let attempt = asks(&mut session, "recurses");
    assert_ends(&attempt, "plugin:retry");
    assert!(reason(&attempt).starts_with("RecursionError: "), "{}", reason(&attempt));
    assert_done(&asks(&mut session, "logs"));
    let evaluated = asks(&mut session, "evaluates");
    assert_done(&evaluated);
    assert_eq!(lines(&evaluated), [(Level::Info, "invalid syntax"), (Level::Info, "invalid syntax")]);
}

/// The smallest memory that the documentation names is enough; the interpreter does not start with less.
#[test]
fn it_runs_in_the_memory_that_the_documentation_names() {
    let within = |memory: usize| {
        let limits = Limits { memory, ..setup().limits };
        asks(&mut session("checker-py", Setup { limits, ..setup() }), "everything")
    };
    assert_done(&within(16 << 20));
    assert_ends(&within(8 << 20), "limit:memory");
}

/// A warm instance keeps its globals, also over a run that fails by itself; one that is stopped takes them with it.
#[test]
fn a_warm_instance_serves_on_until_a_call_is_stopped() {
    let mut session = session("checker-py", setup());
    let counted = |session: &mut Session| {
        let attempt = asks(session, "counts_in_a_global");
        assert_done(&attempt);
        (attempt.instantiated, attempt.logs[0].message.clone())
    };
    assert_eq!(counted(&mut session), (true, "1".to_owned()));
    assert_eq!(counted(&mut session), (false, "2".to_owned()));
    assert_ends(&asks(&mut session, "raises"), "plugin:retry");
    assert_eq!(counted(&mut session), (false, "3".to_owned()));
    assert_ends(&asks(&mut session, "loops"), "limit:fuel");
    assert_eq!(counted(&mut session), (true, "1".to_owned()));
}
