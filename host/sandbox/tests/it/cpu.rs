//! Time: every way to run for ever ends, and ends by the limit that is meant for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::PluginId;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_sandbox::Held;
use bulkhead_sandbox::Setup;
use bulkhead_sandbox::StateError;
use bulkhead_sandbox::StateReader;

use crate::guest::Guest;
use crate::guest::OK;
use crate::lab;
use crate::lab::Bench;
use crate::lab::assert_ends;

const SPIN: &str = "(loop $again (br $again))";

/// So much fuel that the clock is what ends it.
fn by_the_clock() -> Setup {
    let limits = Limits { fuel: u64::MAX / 2, time: Duration::from_millis(150), ..Limits::default() };
    Setup { limits, ..lab::setup() }
}

#[track_caller]
fn assert_cut_by_the_clock(guest: &Guest) {
    let attempt = lab::handle_with(&guest.component(), by_the_clock());
    assert_ends(&attempt, "limit:wall");
    // A tick and what a busy machine adds.
    assert!(attempt.duration >= Duration::from_millis(150), "{:?}", attempt.duration);
    assert!(attempt.duration < Duration::from_millis(1_500), "{:?}", attempt.duration);
}

/// H01: in the handler.
#[test]
fn an_endless_loop_is_cut_by_the_clock() {
    assert_cut_by_the_clock(&Guest::handler(&format!("{SPIN} unreachable")));
}

/// H02: fuel is spent to the last drop, the same everywhere.
#[test]
fn an_endless_loop_is_cut_by_fuel() {
    let limits = Limits { fuel: 10_000_000, time: Duration::from_secs(20), ..Limits::default() };
    let wasm = Guest::handler(&format!("{SPIN} unreachable")).component();
    for _ in 0..2 {
        let attempt = lab::handle_with(&wasm, Setup { limits: limits.clone(), ..lab::setup() });
        assert_ends(&attempt, "limit:fuel");
        assert_eq!(attempt.fuel, 10_000_000);
    }
}

/// H03: before the first call, while the instance is made.
#[test]
fn an_endless_start_is_cut() {
    let guest = Guest::handler(OK).with(&format!("(func $start {SPIN}) (start $start)"));
    assert_cut_by_the_clock(&guest);
}

/// H04: while the host puts the arguments in.
#[test]
fn an_endless_realloc_is_cut() {
    let mut guest = Guest::handler(OK);
    guest.realloc = format!("{SPIN} unreachable");
    assert_cut_by_the_clock(&guest);
}

/// H05: after the answer was taken; it must not count.
#[test]
fn an_endless_post_return_is_cut_and_nothing_is_committed() {
    let mut guest = Guest::handler(
        "(call $emit (i32.const 256) (i32.const 14) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 64))
         (i32.const 16)",
    )
    .import("effects", "emit", &format!("(param {})", "i32 ".repeat(15)))
    .data(256, "orders.flagged");
    assert_eq!(lab::handle(&guest.component()).effects.len(), 1, "the guest does emit");
    guest.post = SPIN.into();
    assert_cut_by_the_clock(&guest);
}

/// H06: direct recursion.
#[test]
fn recursion_is_cut_by_the_stack() {
    let guest = Guest::handler("(call $down (i64.const 1) (i64.const 2) (i64.const 3)) (i32.const 16)").with(
        "(func $down (param i64 i64 i64)
            (call $down (local.get 0) (local.get 1) (local.get 2))
            (call $down (local.get 0) (local.get 1) (local.get 2)))",
    );
    assert_ends(&lab::handle(&guest.component()), "trap:stack");
}

/// H07: through a table.
#[test]
fn mutual_recursion_is_cut_by_the_stack() {
    let guest = Guest::handler("(call_indirect (type $f) (i32.const 0)) (i32.const 16)").with(
        "(type $f (func))
         (table funcref (elem $ping $pong))
         (func $ping (call_indirect (type $f) (i32.const 1)) (call_indirect (type $f) (i32.const 1)))
         (func $pong (call_indirect (type $f) (i32.const 0)) (call_indirect (type $f) (i32.const 0)))",
    );
    assert_ends(&lab::handle(&guest.component()), "trap:stack");
}

/// H08: instructions that work on many bytes are charged for many bytes.
#[test]
fn bulk_instructions_cost_what_they_do() {
    let limits = Limits { fuel: 100_000_000, time: Duration::from_secs(20), ..Limits::default() };
    for bulk in [
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 16000000))",
        "(memory.copy (i32.const 0) (i32.const 1) (i32.const 16000000))",
        "(table.fill $t (i32.const 0) (ref.null func) (i32.const 10000))",
    ] {
        let guest = Guest {
            pages: 256,
            ..Guest::handler(&format!("(loop $again {bulk} (br $again)) unreachable")).with("(table $t 10000 funcref)")
        };
        let attempt = lab::handle_with(&guest.component(), Setup { limits: limits.clone(), ..lab::setup() });
        assert_ends(&attempt, "limit:fuel");
        assert!(attempt.duration < Duration::from_secs(5), "{bulk}: {:?}", attempt.duration);
    }
}

/// A store that answers late.
struct Slow;

impl StateReader for Slow {
    fn get(&self, _: PluginId, _: &str) -> Result<Option<Held>, StateError> {
        std::thread::sleep(Duration::from_millis(200));
        Ok(None)
    }

    fn keys(&self, _: PluginId, _: &str, _: Option<&str>, _: usize) -> Result<Vec<String>, StateError> {
        Ok(Vec::new())
    }
}

/// H09: a host call that takes too long ends the attempt when it comes back.
#[test]
fn a_slow_host_call_is_cut_when_it_returns() {
    let guest = Guest::handler(
        "(loop $again (call $get (i32.const 256) (i32.const 1) (i32.const 64)) (br $again)) unreachable",
    )
    .import("state", "get", "(param i32 i32 i32)")
    .data(256, "k");
    let bench = Bench { state: Arc::new(Slow), ..Bench::default() };
    let attempt = lab::session(&guest.component(), by_the_clock()).handle(&bench.call());
    assert_ends(&attempt, "limit:wall");
    assert_eq!(attempt.host_calls, 1);
}

/// H10: cheap host calls are counted.
#[test]
fn too_many_host_calls_end_the_attempt() {
    let guest = Guest::handler("(loop $again (call $current (i32.const 64)) (br $again)) unreachable").import(
        "context",
        "current",
        "(param i32)",
    );
    // The answer's strings are put in place again and again.
    let guest = Guest { realloc: "(i32.const 1024)".into(), ..guest };
    let limits = Limits { host_calls: 10_000, time: Duration::from_secs(20), ..Limits::default() };
    let attempt = lab::handle_with(&guest.component(), Setup { limits, ..lab::setup() });
    assert_ends(&attempt, "limit:hostcalls");
    assert_eq!(attempt.host_calls, 10_000);
}

/// A batch that is not wanted any more (the shard's lease is lost) ends within a tick or two.
#[test]
fn a_cancelled_call_ends_soon() {
    let wasm = Guest::handler(&format!("{SPIN} unreachable")).component();
    let limits = Limits { fuel: u64::MAX / 2, time: Duration::from_secs(30), ..Limits::default() };
    let mut session = lab::session(&wasm, Setup { limits, ..lab::setup() });
    let bench = Bench::default();
    let started = Instant::now();
    let attempt = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            bench.cancelled.store(true, Ordering::Relaxed);
        });
        session.handle(&bench.call())
    });
    assert_ends(&attempt, "host:cancelled");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}
