//! Recordings: what is in them, what is not, and that a call re-executed from one is the same call.

use std::sync::Arc;

use bulkhead_domain::effect::Effect;
use bulkhead_domain::recording::Duty;
use bulkhead_domain::recording::Place;
use bulkhead_domain::recording::Read;
use bulkhead_domain::recording::Recording;
use bulkhead_sandbox::Call;
use bulkhead_sandbox::Plugin;
use bulkhead_sandbox::Record;
use bulkhead_sandbox::Rules;
use bulkhead_sandbox::Session;
use bulkhead_sandbox::Unfit;
use bytes::Bytes;

use crate::guest::Guest;
use crate::lab;
use crate::lab::Bench;
use crate::lab::Memory;
use crate::lab::SANDBOX;

const ROOM: usize = 256 << 10;
const FRESH: Record = Record { bytes: ROOM, fresh: true };

/// Adds 1 to a counter, keeps 8 random bytes, and fails if the counter is then `fails_at`.
fn counter(key: &str, fails_at: u8) -> Vec<u8> {
    Guest::handler(&format!(
        "(call $increment (i32.const 256) (i32.const 1) (i64.const 1) (i32.const 64))
         (call $random (i32.const 8) (i32.const 96))
         (call $set (i32.const 258) (i32.const 1) (i32.load (i32.const 96)) (i32.load (i32.const 100))
            (i32.const 0) (i64.const 0) (i32.const 128))
         (if (i64.eq (i64.load (i32.const 72)) (i64.const {fails_at})) (then unreachable))
         (i32.const 16)"
    ))
    .import("state", "increment", "(param i32 i32 i64 i32)")
    .import("context", "random", "(param i32 i32)")
    .import("state", "set", "(param i32 i32 i32 i32 i32 i64 i32)")
    .data(256, key)
    .data(258, "r")
    .component()
}

/// Keeps its secret in its state.
fn leak() -> Vec<u8> {
    Guest::handler(
        "(call $secret (i32.const 272) (i32.const 5) (i32.const 64))
         (call $set (i32.const 256) (i32.const 1) (i32.load (i32.const 68)) (i32.load (i32.const 72))
            (i32.const 0) (i64.const 0) (i32.const 128))
         (i32.const 16)",
    )
    .import("context", "secret", "(param i32 i32 i32)")
    .import("state", "set", "(param i32 i32 i32 i32 i32 i64 i32)")
    .data(256, "k")
    .data(272, "token")
    .component()
}

fn bench(count: &'static str) -> Bench {
    let memory = Memory::default();
    memory.0.lock().expect("because nobody panics here").insert("n".into(), Bytes::from_static(count.as_bytes()));
    Bench { state: Arc::new(memory), ..Bench::default() }
}

fn place() -> Place {
    Place { run: "run_1".into(), rule: "flag-orders".into(), step: 0, item: 0, settings: 1 }
}

/// One call, and its recording as it reads back from where it was stored.
fn recorded(session: &mut Session, bench: &Bench, record: Record, redact: &[String]) -> Recording {
    let call = Call { record, ..bench.call() };
    let attempt = session.handle(&call);
    let rules = Rules { redact, bytes: ROOM };
    let recording = session.record(&call, Duty::Handle, place(), &attempt, rules);
    assert_eq!(recording.ended.fuel, attempt.fuel);
    let text = serde_json::to_string(&recording).expect("because it is plain data");
    serde_json::from_str(&text).expect("because it was written so")
}

fn record(wasm: &[u8], bench: &Bench) -> (Plugin, Recording) {
    let recording = recorded(&mut lab::session(wasm, lab::setup()), bench, FRESH, &[]);
    (lab::load(wasm), recording)
}

#[test]
fn a_call_re_executed_from_its_recording_is_the_same_call() {
    for fails_at in [0, 5] {
        let (plugin, recording) = record(&counter("n", fails_at), &bench("4"));
        assert!(recording.fresh && !recording.cut && recording.redacted.is_empty());
        let [Read::State { key, held: Some(held) }] = &recording.reads[..] else { panic!("{:?}", recording.reads) };
        assert_eq!((key.as_str(), &held.value[..]), ("n", &b"4"[..]));
        let replayed = SANDBOX.replay(&plugin, &recording).expect("because it is whole");
        assert!(replayed.exact && replayed.difference.is_none(), "{:?}", replayed.difference);
        assert_eq!(replayed.ended, recording.ended);
        assert_eq!(recording.ended.effects.is_empty(), fails_at == 5, "a failure is recorded with its reads, too");
    }
}

#[test]
fn a_used_instance_is_recorded_as_such_and_its_results_are_compared() {
    let wasm = counter("n", 0);
    let mut session = lab::session(&wasm, lab::setup());
    let used = Record { fresh: false, ..FRESH };
    let first = recorded(&mut session, &bench("1"), used, &[]);
    let second = recorded(&mut session, &bench("1"), used, &[]);
    assert_eq!((first.fresh, second.fresh), (true, false));
    assert!(second.ended.fuel < first.ended.fuel, "nothing had to be made");
    let replayed = SANDBOX.replay(&lab::load(&wasm), &second).expect("because it is whole");
    assert!(!replayed.exact && replayed.difference.is_none(), "{:?}", replayed.difference);
    let third = recorded(&mut session, &bench("1"), FRESH, &[]);
    assert!(third.fresh);
    assert_eq!(third.ended, first.ended, "asked for, a fresh instance is made whatever the policy says");
}

#[test]
fn another_build_shows_what_it_does_otherwise() {
    let (_, recording) = record(&counter("n", 0), &bench("4"));
    let failing = SANDBOX.replay(&lab::load(&counter("n", 5)), &recording).expect("because it is whole");
    assert!(failing.difference.outcome.is_some());
    assert_eq!(failing.difference.effects.len(), recording.ended.effects.len(), "all of them are gone");
    let other = SANDBOX.replay(&lab::load(&counter("m", 0)), &recording).expect("because it is whole");
    assert_eq!(other.difference.unrecorded, ["state `m`"]);
    let writes: Vec<_> = other.difference.effects.iter().map(|change| (&change.before, &change.after)).collect();
    let [(Some(Effect::State(before)), Some(Effect::State(after)))] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!((before.value.as_deref(), after.value.as_deref()), (Some(&b"5"[..]), Some(&b"1"[..])));
}

#[test]
fn no_secret_is_in_a_recording_wherever_it_was_put() {
    let mut bench = Bench::default();
    let secret = "hunter2-hunter2";
    bench.event.data = format!(r#"{{"copied": "{secret}"}}"#).into();
    bench.event.subject = Some(secret.to_owned());
    let (plugin, recording) = record(&leak(), &bench);
    let text = serde_json::to_string(&recording).expect("because it is plain data");
    assert!(!text.contains(secret), "{text}");
    let named: Vec<&str> = recording.redacted.iter().map(String::as_str).collect();
    assert_eq!(named, ["effects", "event", "secret `token`"]);
    // The guest is given what stands in the secret's place, and does with it what it did with the secret.
    let replayed = SANDBOX.replay(&plugin, &recording).expect("because it is whole");
    assert!(!replayed.exact && replayed.difference.is_none(), "{:?}", replayed.difference);
}

#[test]
fn what_a_manifest_names_is_taken_out_of_the_event_and_from_where_it_was_copied_to() {
    let mut bench = bench("1");
    bench.event.data = Bytes::from_static(br#"{"customer": {"email": "ann@example.org", "age": 30}, "total": 5}"#);
    bench.event.subject = Some("mailto:ann@example.org".into());
    let mut session = lab::session(&counter("n", 0), lab::setup());
    let redact = ["/customer".to_owned(), "/not/there".to_owned()];
    let recording = recorded(&mut session, &bench, FRESH, &redact);
    assert_eq!(&recording.event.data[..], br#"{"customer":"[redacted]","total":5}"#);
    assert_eq!(recording.event.subject.as_deref(), Some("mailto:[redacted]"));
    assert_eq!(recording.redacted.len(), 1, "{:?}", recording.redacted);
    let recording = recorded(&mut session, &bench, FRESH, &["/not/there".to_owned()]);
    assert_eq!(recording.event, bench.event, "byte for byte, where nothing is to be taken out");
}

#[test]
fn a_recording_of_too_much_is_cut_and_not_re_executed() {
    let wasm = counter("n", 0);
    let bench = bench("1");
    let mut session = lab::session(&wasm, lab::setup());
    let cut = recorded(&mut session, &bench, Record { bytes: 10, fresh: true }, &[]);
    assert!(cut.cut && cut.reads.is_empty());
    assert_eq!(SANDBOX.replay(&lab::load(&wasm), &cut), Err(Unfit::Cut));
    // The event counts, too.
    let call = Call { record: FRESH, ..bench.call() };
    let attempt = session.handle(&call);
    let small = session.record(&call, Duty::Handle, place(), &attempt, Rules { redact: &[], bytes: 10 });
    assert!(small.cut && small.event.data.is_empty());
    let newer = Recording { format: 2, ..small };
    assert_eq!(SANDBOX.replay(&lab::load(&wasm), &newer), Err(Unfit::Format(2)));
}
