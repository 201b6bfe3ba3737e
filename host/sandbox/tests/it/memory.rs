//! Memory and other things that a guest can take: every budget is one for the whole store.

use bulkhead_domain::policy::limits::Limits;
use bulkhead_sandbox::Setup;

use crate::guest::Guest;
use crate::guest::OK;
use crate::lab;
use crate::lab::assert_ends;
use crate::lab::code;

fn small() -> Setup {
    Setup { limits: Limits { memory: 4 << 20, table_elements: 5_000, ..lab::setup().limits }, ..lab::setup() }
}

/// H20: growing until there is no more; the guest sees -1, and its trap then says why.
#[test]
fn memory_ends_at_the_limit() {
    let grow = "(loop $again
        (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then OVER))
        (br $again)) unreachable";
    let trap = Guest::handler(&grow.replace("OVER", "unreachable")).component();
    let attempt = lab::handle_with(&trap, small());
    assert_ends(&attempt, "limit:memory");
    assert!(attempt.memory <= 4 << 20 && attempt.memory > 3 << 20, "{}", attempt.memory);

    let graceful = Guest::handler(&grow.replace("OVER", "(return (i32.const 16))")).component();
    assert_eq!(code(&lab::handle_with(&graceful, small())), "done");
}

/// H21: all at once.
#[test]
fn a_huge_step_is_refused_and_nothing_is_charged() {
    let guest = Guest::handler(
        "(if (i32.ne (memory.grow (i32.const 65534)) (i32.const -1)) (then unreachable)) (i32.const 16)",
    );
    let attempt = lab::handle_with(&guest.component(), small());
    assert_eq!(code(&attempt), "done");
    assert_eq!(attempt.memory, 2 * 65_536);
}

/// A component that begins with more than its plan has.
#[test]
fn beginning_with_too_much_is_refused_at_the_first_call() {
    let guest = Guest { pages: 65, ..Guest::handler(OK) };
    assert_ends(&lab::handle_with(&guest.component(), small()), "limit:memory");
}

/// H23: tables, too.
#[test]
fn tables_end_at_the_limit() {
    let guest = Guest::handler(
        "(loop $again
            (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
         (if (i32.ne (table.size $t) (i32.const 5000)) (then unreachable))
         (i32.const 16)",
    )
    .with("(table $t 0 funcref)");
    assert_eq!(code(&lab::handle_with(&guest.component(), small())), "done");
}

/// H29: handles to the guest's own resources.
#[test]
fn handles_end_at_the_limit() {
    let mut guest = Guest::handler("(loop $again (drop (call $new (i32.const 1))) (br $again)) unreachable")
        .import_from("[export]test:guest/things", "[resource-new]thing", "new", "(param i32) (result i32)");
    guest.packages.clear();
    guest.world += "export things: interface { resource thing {} }";
    guest.imports = guest.imports.replace("[export]test:guest/things", "[export]things");
    assert_ends(&lab::handle(&guest.component()), "limit:handles");
}

/// A transformer's answer: `length` times the same list of drafts.
fn drafts(length: u32) -> Vec<u8> {
    // result: ok, pointer, length; the drafts' own memory may overlap, the host copies it.
    Guest {
        pages: 64,
        ..Guest::transformer(&format!(
            "(i32.store (i32.const 24) (i32.const 65536)) (i32.store (i32.const 28) (i32.const {length})) {OK}"
        ))
    }
    .component()
}

/// H30, H32: what a guest hands over is charged by its size on the host before it is taken.
#[test]
fn a_flood_of_empty_values_is_refused() {
    let bench = lab::Bench::default();
    let attempt = lab::session(&drafts(70_000), lab::setup()).transform(&bench.call());
    assert_ends(&attempt, "limit:bytes");
    assert!(attempt.duration.as_millis() < 300);
}

/// H31: a length that cannot be.
#[test]
fn a_length_beyond_memory_is_refused() {
    let bench = lab::Bench::default();
    for length in [0xffff_ffff, 0x0800_0000] {
        let attempt = lab::session(&drafts(length), lab::setup()).transform(&bench.call());
        assert_ends(&attempt, "trap:abi");
    }
}

/// H33: one line of 4 MiB.
#[test]
fn a_huge_log_line_is_refused() {
    let guest = Guest {
        pages: 80,
        ..Guest::handler(
            "(call $write (i32.const 2) (i32.const 8192) (i32.const 4194304) (i32.const 0) (i32.const 0))
             (i32.const 16)",
        )
        .import("log", "write", "(param i32 i32 i32 i32 i32)")
    };
    assert_ends(&lab::handle(&guest.component()), "limit:bytes");
}

/// H34: a flood of lines is dropped, counted, and harms nobody.
#[test]
fn a_log_flood_is_dropped() {
    let guest = Guest::handler(
        "(local $left i32)
         (local.set $left (i32.const 5000))
         (loop $again
            (call $write (i32.const 2) (i32.const 65536) (i32.const 8000) (i32.const 0) (i32.const 0))
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $again (local.get $left)))
         (i32.const 16)",
    )
    .import("log", "write", "(param i32 i32 i32 i32 i32)")
    .with("(func $fill (memory.fill (i32.const 65536) (i32.const 120) (i32.const 8000))) (start $fill)");
    let setup =
        Setup { limits: Limits { time: std::time::Duration::from_secs(10), ..Limits::default() }, ..lab::setup() };
    let attempt = lab::handle_with(&guest.component(), setup);
    assert_eq!(code(&attempt), "done");
    let kept: usize = attempt.logs.iter().map(|line| line.message.len()).sum();
    assert!(kept <= 64 << 10 && kept > 50 << 10, "{kept}");
    assert_eq!(attempt.logs.len() + attempt.logs_dropped as usize, 5_000);
}

/// H36: nothing of one instance is there for the next one.
#[test]
fn an_instance_finds_nothing_of_another() {
    // Fills its memory, table and stack with a mark.
    let marker = Guest {
        pages: 32,
        ..Guest::handler(
            "(memory.fill (i32.const 1024) (i32.const 0xab) (i32.const 2000000))
             (table.fill $t (i32.const 0) (ref.func $f) (i32.const 1000))
             (i32.const 16)",
        )
        .with("(table $t 1000 funcref) (elem declare func $f) (func $f)")
    }
    .component();
    // Looks for it, in memory of the same size without data of its own.
    let seeker = Guest {
        pages: 32,
        ..Guest::handler(
            "(local $at i32)
             (local.set $at (i32.const 65536))
             (loop $again
                (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 512)))
                (br_if $again (i32.lt_u (local.get $at) (i32.const 2000000))))
             (local.set $at (i32.const 0))
             (loop $again
                (if (i32.eqz (ref.is_null (table.get $t (local.get $at)))) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $at) (i32.const 1000))))
             (i32.const 16)",
        )
        .with("(table $t 1000 funcref)")
    }
    .component();
    let (marker, seeker) = (lab::load(&marker), lab::load(&seeker));
    let setup = std::sync::Arc::new(lab::setup());
    let bench = lab::Bench::default();
    for _ in 0..100 {
        let call = |plugin| lab::SANDBOX.session(plugin, std::sync::Arc::clone(&setup)).handle(&bench.call());
        assert_eq!(code(&call(&marker)), "done");
        let found = call(&seeker);
        assert_eq!(code(&found), "done", "{}", lab::reason(&found));
    }
}
