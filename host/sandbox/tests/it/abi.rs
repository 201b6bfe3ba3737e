//! Answers and arguments that break the rules of calls: always a trap with a code, never a panic.

use wit_component::StringEncoding;

use crate::guest::Guest;
use crate::guest::OK;
use crate::lab;
use crate::lab::Bench;
use crate::lab::assert_ends;
use crate::lab::code;
use crate::lab::reason;

/// A handler that fails with a reason at `pointer` of `length`.
fn failing(pointer: &str, length: &str) -> Guest {
    // result: err; failure: verdict at 24, reason at 28, after-ms at 40, attributes at 56.
    Guest::handler(&format!(
        "(i32.store8 (i32.const 16) (i32.const 1))
         (i32.store8 (i32.const 24) (i32.const 1))
         (i32.store (i32.const 28) (i32.const {pointer}))
         (i32.store (i32.const 32) (i32.const {length}))
         (i32.const 16)"
    ))
}

/// H50: where the answer should be.
#[test]
fn a_bad_answer_pointer_is_a_trap() {
    for pointer in ["17", "-4", "-8", "131064"] {
        let wasm = Guest::handler(&format!("(i32.const {pointer})")).component();
        assert_ends(&lab::handle(&wasm), "trap:abi");
    }
}

/// H51: a string that wraps around, or lies outside.
#[test]
fn a_string_outside_of_memory_is_a_trap() {
    for (pointer, length) in [("-8", "64"), ("131000", "1000"), ("0", "-1"), ("-1", "1")] {
        assert_ends(&lab::handle(&failing(pointer, length).component()), "trap:abi");
    }
}

/// H52: values that cannot be.
#[test]
fn values_that_cannot_be_are_traps() {
    let utf8 = failing("256", "2").data(256, "\\ff\\fe").component();
    assert_ends(&lab::handle(&utf8), "trap:abi");
    for (at, value) in [(16, 2), (16, 255), (24, 2), (24, 255), (40, 2)] {
        let mut guest = failing("256", "2").data(256, "ok");
        guest.body = guest.body.replace(OK, &format!("(i32.store8 (i32.const {at}) (i32.const {value})) {OK}"));
        assert_ends(&lab::handle(&guest.component()), "trap:abi");
    }
    // An argument, of an import.
    let level = Guest::handler(
        "(call $write (i32.const 77) (i32.const 256) (i32.const 1) (i32.const 0) (i32.const 0)) (i32.const 16)",
    )
    .import("log", "write", "(param i32 i32 i32 i32 i32)");
    assert_ends(&lab::handle(&level.component()), "trap:abi");
    let option = Guest::handler(
        "(call $set (i32.const 256) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 9) (i64.const 0) (i32.const 64))
         (i32.const 16)",
    )
    .import("state", "set", "(param i32 i32 i32 i32 i32 i64 i32)");
    assert_ends(&lab::handle(&option.component()), "trap:abi");
}

/// H53: the other encodings, with pointers and lengths that do not fit them.
#[test]
fn other_encodings_break_no_rule_either() {
    for encoding in [StringEncoding::UTF16, StringEncoding::CompactUTF16] {
        // "ok" in both encodings, then what does not work.
        let text = match encoding {
            StringEncoding::UTF16 => "o\\00k\\00",
            _ => "ok",
        };
        let fine = Guest { encoding, ..failing("256", "2").data(256, text) };
        let attempt = lab::handle(&fine.component());
        assert_eq!((code(&attempt), reason(&attempt)), ("plugin:reject", "ok"), "{encoding:?}");
        for (pointer, length) in [("131070", "8"), ("256", "0x7fffffff"), ("256", "-1"), ("256", "0x40000000")] {
            let guest = Guest { encoding, ..failing(pointer, length) };
            let attempt = lab::handle(&guest.component());
            assert!(["trap:abi", "limit:bytes"].contains(&code(&attempt)), "{} {}", code(&attempt), reason(&attempt));
        }
    }
    let odd = Guest { encoding: StringEncoding::UTF16, ..failing("257", "2") };
    assert_ends(&lab::handle(&odd.component()), "trap:abi");
    // A lone surrogate.
    let lone = Guest { encoding: StringEncoding::UTF16, ..failing("256", "1").data(256, "\\00\\d8") };
    assert_ends(&lab::handle(&lone.component()), "trap:abi");
}

/// H54: an allocator that lies.
#[test]
fn a_lying_allocator_is_a_trap() {
    for answer in ["0xfffffff0", "-1", "1", "131071"] {
        let guest = Guest { realloc: format!("(i32.const {answer})"), ..Guest::handler(OK) };
        assert_ends(&lab::handle(&guest.component()), "trap:abi");
    }
    // Overlapping or zero is the guest's own affair: it spoils its own memory.
    for answer in ["0", "16", "1024"] {
        let guest = Guest { realloc: format!("(i32.const {answer})"), ..Guest::handler("(i32.const 4096)") };
        let attempt = lab::handle(&guest.component());
        assert_eq!(code(&attempt), "done", "{}", reason(&attempt));
    }
}

/// H55: each kind of trap has its code, and the guest's own functions in its reason.
#[test]
fn traps_are_told_apart() {
    for (body, expected) in [
        ("unreachable", "trap:unreachable"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0))) unreachable", "trap:arithmetic"),
        ("(drop (i32.trunc_f64_s (f64.const nan))) unreachable", "trap:arithmetic"),
        ("(drop (i32.load (i32.const -4))) unreachable", "trap:memory"),
        ("(memory.fill (i32.const -4) (i32.const 0) (i32.const 8)) unreachable", "trap:memory"),
        ("(call_indirect (type $other) (i32.const 0)) unreachable", "trap:call"),
        ("(call_indirect (type $other) (i32.const 1)) unreachable", "trap:call"),
        ("(call_indirect (type $other) (i32.const 9)) unreachable", "trap:call"),
    ] {
        let guest = Guest::handler("(call $inner) (i32.const 16)").with(&format!(
            "(type $other (func (param i64)))
             (table 2 funcref) (elem (i32.const 0) func $f) (func $f)
             (func $inner {})",
            body.replace("(call_indirect (type $other) ", "(call_indirect (type $other) (i64.const 0) ")
        ));
        let attempt = lab::handle(&guest.component());
        assert_ends(&attempt, expected);
        assert!(reason(&attempt).contains("\n  at inner\n  at "), "{}", reason(&attempt));
    }
}

/// H55: names are demangled, cut, and bounded in number.
#[test]
fn traces_are_readable_and_bounded() {
    let mangled = "$_ZN11fraud_score5score17h0123456789abcdefE";
    let esc = "$\"a\\1b[31mb\"";
    let guest = Guest::handler(&format!("(call {mangled}) (i32.const 16)"))
        .with(&format!("(func {mangled} (call {esc})) (func {esc} (call $deep (i32.const 3)))"))
        .with(
            "(func $deep (param i32)
                (if (i32.eqz (local.get 0)) (then unreachable))
                (call $deep (i32.sub (local.get 0) (i32.const 1))))",
        );
    let attempt = lab::handle(&guest.component());
    assert_ends(&attempt, "trap:unreachable");
    let text = reason(&attempt);
    assert!(text.contains("\n  at fraud_score::score\n"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");

    let deep = Guest::handler("(call $deep (i32.const 1000)) (i32.const 16)").with(
        "(func $deep (param i32)
            (if (i32.eqz (local.get 0)) (then unreachable))
            (call $deep (i32.sub (local.get 0) (i32.const 1))))",
    );
    let attempt = lab::handle(&deep.component());
    assert_eq!(reason(&attempt).matches("\n  at ").count(), 16);
}

/// The guest's last words are in the reason: a panic message is worth more than `unreachable`.
#[test]
fn a_panic_message_is_in_the_reason() {
    let guest = Guest::handler(
        "(call $write (i32.const 4) (i32.const 256) (i32.const 47) (i32.const 0) (i32.const 0)) unreachable",
    )
    .import("log", "write", "(param i32 i32 i32 i32 i32)")
    .data(256, "panicked at src/lib.rs:7: token hunter2-hunter2");
    let attempt = lab::handle(&guest.component());
    assert_eq!(code(&attempt), "trap:unreachable");
    assert!(reason(&attempt).contains("panicked at src/lib.rs:7: token [redacted]\n"), "{}", reason(&attempt));
}

/// A guest's own verdicts arrive, without secrets and control characters.
#[test]
fn verdicts_arrive() {
    let attempt = lab::handle(&failing("256", "25").data(256, "no: hunter2-hunter2 \\1b[31m\\0a").component());
    assert_eq!((code(&attempt), reason(&attempt)), ("plugin:reject", "no: [redacted] \\u{1b}[31m"));
    assert!(matches!(attempt.outcome, bulkhead_domain::policy::verdict::Outcome::Rejected(_)));

    let mut retry = failing("256", "4").data(256, "busy");
    retry.body = retry.body.replace("(i32.store8 (i32.const 24) (i32.const 1))", "").replace(
        OK,
        "(i32.store8 (i32.const 40) (i32.const 1)) (i64.store (i32.const 48) (i64.const 1500)) (i32.const 16)",
    );
    let attempt = lab::handle(&retry.component());
    let bulkhead_domain::policy::verdict::Outcome::Failed(failure) = &attempt.outcome else {
        panic!("{:?}", attempt.outcome)
    };
    assert_eq!((failure.code.as_str(), failure.reason.as_str()), ("plugin:retry", "busy"));
    assert_eq!(failure.after, Some(std::time::Duration::from_millis(1_500)));
}

/// A transformer's drafts arrive, or are refused as a whole.
#[test]
fn a_transformer_s_drafts_are_checked() {
    // One draft at 512: type at 512, content type at 544, data at 552.
    let guest = |kind: &str| {
        Guest::transformer(&format!(
            "(i32.store (i32.const 512) (i32.const 256)) (i32.store (i32.const 516) (i32.const {}))
             (i32.store (i32.const 552) (i32.const 300)) (i32.store (i32.const 556) (i32.const 2))
             (i32.store (i32.const 24) (i32.const 512)) (i32.store (i32.const 28) (i32.const 1))
             (i32.const 16)",
            kind.len()
        ))
        .data(256, kind)
        .data(300, "{}")
        .component()
    };
    let bench = Bench::default();
    let transform = |kind: &str| lab::session(&guest(kind), lab::setup()).transform(&bench.call());
    let attempt = transform("orders.enriched");
    assert_eq!(code(&attempt), "done", "{}", reason(&attempt));
    assert_eq!((attempt.drafts.len(), attempt.drafts[0].kind.as_str()), (1, "orders.enriched"));
    assert_eq!(&attempt.drafts[0].data[..], b"{}");
    for bad in ["bulkhead.x", "a..b", "a b"] {
        assert_ends(&transform(bad), "plugin:draft");
    }
    // Asked for what it does not have.
    assert_ends(&lab::session(&guest("a"), lab::setup()).handle(&bench.call()), "plugin:reject");
}
