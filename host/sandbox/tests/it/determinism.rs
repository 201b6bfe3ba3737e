//! The same call gives the same: effects, fuel, random bytes. That is what makes a re-execution safe.

use bulkhead_domain::effect::Effect;
use bulkhead_sandbox::Attempt;

use crate::guest::Guest;
use crate::lab;
use crate::lab::Bench;
use crate::lab::code;

/// Keeps 32 random bytes in its state, drawn in the call; draws some at its start, too, through WASI.
fn gambler() -> Vec<u8> {
    let mut guest = Guest::handler(
        "(call $random (i32.const 32) (i32.const 64))
         (call $set (i32.const 256) (i32.const 1) (i32.load (i32.const 64)) (i32.load (i32.const 68))
            (i32.const 0) (i64.const 0) (i32.const 64))
         (call $emit (i32.const 272) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 64))
         (i32.const 16)",
    )
    .import("context", "random", "(param i32 i32)")
    .import("state", "set", "(param i32 i32 i32 i32 i32 i64 i32)")
    .import("effects", "emit", &format!("(param {})", "i32 ".repeat(15)))
    .import_from("wasi:random/random@0.2.6", "get-random-u64", "wasi", "(result i64)")
    .with("(func $start (drop (call $wasi))) (start $start)")
    .data(256, "k")
    .data(272, "orders.x");
    guest.world += "import wasi:random/random@0.2.6;";
    guest.packages.push("package wasi:random@0.2.6; interface random { get-random-u64: func() -> u64; }".into());
    guest.component()
}

fn drawn(attempt: &Attempt) -> Vec<u8> {
    match attempt.effects.last() {
        Some(Effect::State(write)) => write.value.clone().unwrap_or_default().to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_re_execution_is_the_same_in_every_respect() {
    let wasm = gambler();
    let run = || lab::handle(&wasm);
    let (first, second) = (run(), run());
    assert_eq!(code(&first), "done", "{}", lab::reason(&first));
    assert_eq!(first.effects, second.effects);
    assert_eq!((first.fuel, first.host_calls, first.memory), (second.fuel, second.host_calls, second.memory));
    assert!(drawn(&first).iter().any(|byte| *byte != 0));
}

#[test]
fn a_warm_instance_draws_what_a_fresh_one_does() {
    let wasm = gambler();
    let mut session = lab::session(&wasm, lab::setup());
    let bench = Bench::default();
    let (fresh, warm) = (session.handle(&bench.call()), session.handle(&bench.call()));
    assert!(fresh.instantiated && !warm.instantiated);
    assert_eq!(fresh.effects, warm.effects);
}

#[test]
fn other_events_and_attempts_draw_other_bytes() {
    let wasm = gambler();
    let first = drawn(&lab::handle(&wasm));
    let mut session = lab::session(&wasm, lab::setup());
    let retry = Bench { attempt: 2, ..Bench::default() };
    assert_ne!(drawn(&session.handle(&retry.call())), first);
    let mut other = Bench::default();
    other.event.id = "e-2".into();
    assert_ne!(drawn(&session.handle(&other.call())), first);
}

/// 0.0 / 0.0 has the same bits everywhere.
#[test]
fn not_a_number_is_one_number() {
    let guest = Guest::handler(
        "(f64.store (i32.const 512) (f64.div (f64.const 0) (f64.const 0)))
         (call $set (i32.const 256) (i32.const 1) (i32.const 512) (i32.const 8) (i32.const 0) (i64.const 0) (i32.const 64))
         (i32.const 16)",
    )
    .import("state", "set", "(param i32 i32 i32 i32 i32 i64 i32)")
    .data(256, "k");
    let attempt = lab::handle(&guest.component());
    assert_eq!(drawn(&attempt), 0x7ff8_0000_0000_0000_u64.to_le_bytes());
}
