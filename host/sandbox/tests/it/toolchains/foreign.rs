//! Components that other toolchains built, as their own documentation says: nothing of ours is in them, and they bring
//! all of WASI that their language has.

use std::time::Duration;

use bulkhead_domain::effect::Effect;
use bulkhead_domain::effect::Level;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_sandbox::Attempt;
use bulkhead_sandbox::Setup;
use serde_json::Value;

use super::asks;
use super::inspect;
use super::session;
use super::setup;
use crate::lab::NOW;
use crate::lab::assert_ends;
use crate::lab::code;
use crate::lab::reason;

const PYTHON: &str = "foreign-python";
const STARLING: &str = "foreign-starling";
const C: &str = "foreign-c";

#[track_caller]
fn works(attempt: &Attempt) -> Value {
    assert_eq!(code(attempt), "done", "{}\n{:#?}", reason(attempt), attempt.logs);
    assert_eq!((attempt.logs[0].level, attempt.logs[0].message.as_str()), (Level::Info, "works"));
    let Some(Effect::State(write)) = attempt.effects.last() else { panic!("{:?}", attempt.effects) };
    assert_eq!((write.key.as_str(), write.value.as_deref()), ("count", Some(&b"1"[..])));
    let Effect::Emit { draft, .. } = &attempt.effects[0] else { panic!("{:?}", attempt.effects) };
    assert_eq!(draft.kind, "orders.foreign");
    serde_json::from_slice(&draft.data).expect("because it publishes JSON")
}

/// Its language's own clock shows the attempt's time, to the millisecond.
fn assert_shows_now(found: &Value) {
    let seconds = found["now"].as_f64().expect("because it publishes the time");
    let expected = (NOW.0 / 1_000) as f64 / 1_000.0;
    assert!((seconds - expected).abs() < 0.000_5, "{seconds} is not {expected}");
}

/// A failure of its own, an error of its language, a loop and unbounded allocation; and the session lives on.
fn assert_held(name: &str) {
    let limits = Limits { fuel: u64::MAX / 2, time: Duration::from_millis(500), ..setup().limits };
    let mut timed = session(name, Setup { limits, ..setup() });
    let rejected = asks(&mut timed, "rejects");
    assert_ends(&rejected, "plugin:reject");
    assert_eq!(reason(&rejected), "rejected");
    let thrown = asks(&mut timed, "throws");
    assert!(code(&thrown).starts_with("trap:"), "{name}: {}", code(&thrown));
    let looped = asks(&mut timed, "loops");
    assert_ends(&looped, "limit:wall");
    assert!(looped.duration < Duration::from_secs(10), "{name}: {:?}", looped.duration);

    let mut session = session(name, setup());
    assert_ends(&asks(&mut session, "loops"), "limit:fuel");
    let filled = asks(&mut session, "allocates");
    assert!(["limit:memory", "trap:unreachable"].contains(&code(&filled)), "{name}: {}", code(&filled));
    assert!(filled.memory <= setup().limits.memory, "{name}: {}", filled.memory);
    works(&asks(&mut session, "works"));
}

fn wasi(name: &str) -> Vec<String> {
    inspect(name).imports.into_iter().filter(|import| import.starts_with("wasi:")).collect()
}

/// componentize-py's defaults: 25 interfaces of WASI, sockets among them.
#[test]
fn a_default_build_of_componentize_py_runs_on_an_empty_wasi() {
    let wasi = wasi(PYTHON);
    assert_eq!(wasi.len(), 25, "{wasi:?}");
    assert_eq!(wasi.iter().filter(|name| name.starts_with("wasi:sockets/")).count(), 7, "{wasi:?}");

    let attempt = asks(&mut session(PYTHON, setup()), "works");
    let found = works(&attempt);
    assert_eq!(found["threshold"], 5);
    assert_shows_now(&found);
    assert_eq!(found["environment"], serde_json::json!({}));
    assert_eq!(found["files"], "FileNotFoundError");
    assert!(
        ["PermissionError", "OSError", "gaierror"].contains(&found["network"].as_str().unwrap_or_default()),
        "{found}"
    );
    let lines: Vec<_> = attempt.logs[1..].iter().map(|line| (line.level, line.message.as_str())).collect();
    assert_eq!(lines, [(Level::Info, "printed"), (Level::Warn, "complained")]);
}

#[test]
fn a_default_build_of_componentize_py_is_held_at_its_limits() {
    assert_held(PYTHON);
}

#[test]
fn its_random_numbers_repeat_on_a_re_execution() {
    let draw = || works(&asks(&mut session(PYTHON, setup()), "works"))["random"].clone();
    assert_eq!(draw(), draw());
}

/// jco's defaults, with StarlingMonkey: 18 interfaces, a client of HTTP among them.
#[test]
fn a_build_of_starlingmonkey_runs_on_an_empty_wasi() {
    let wasi = wasi(STARLING);
    assert_eq!(wasi.len(), 18, "{wasi:?}");
    assert_eq!(wasi.iter().filter(|name| name.starts_with("wasi:http/")).count(), 2, "{wasi:?}");
    let attempt = asks(&mut session(STARLING, setup()), "works");
    let found = works(&attempt);
    assert_eq!(found["threshold"], 5);
    assert_shows_now(&found);
    assert_eq!(attempt.logs[1].message, "printed");
    let again = works(&asks(&mut session(STARLING, setup()), "works"));
    assert_eq!(again["random"], found["random"]);
}

#[test]
fn a_build_of_starlingmonkey_is_held_at_its_limits() {
    assert_held(STARLING);
}

/// wit-bindgen and clang: no WASI at all.
#[test]
fn a_component_in_c_runs() {
    assert_eq!(wasi(C), [""; 0]);
    let attempt = asks(&mut session(C, setup()), "works");
    assert_eq!(works(&attempt), 5);
    assert!(attempt.memory <= 1 << 20, "{}", attempt.memory);
}

#[test]
fn a_component_in_c_is_held_at_its_limits() {
    assert_held(C);
}
