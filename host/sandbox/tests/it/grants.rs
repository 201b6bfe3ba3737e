//! Every effect without its grant is a refusal that the guest can handle, and leaves nothing.

use bulkhead_domain::effect::Effect;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_sandbox::Setup;

use crate::guest::Guest;
use crate::lab;
use crate::lab::code;
use crate::lab::reason;

/// The number of a refusal's case.
const DENIED: u32 = 0;
const INVALID: u32 = 2;
const NOT_FOUND: u32 = 3;

/// Calls an import that answers at 64, and traps unless the answer is this refusal; `value_at` is where a result's
/// value stands.
fn expecting(call: &str, refusal: u32) -> String {
    format!(
        "{call}
         (if (i32.ne (i32.load8_u (i32.const 64)) (i32.const 1)) (then unreachable))
         (if (i32.ne (i32.load8_u (i32.const 68)) (i32.const {refusal})) (then unreachable))
         (i32.const 16)"
    )
}

/// Texts that the calls use.
fn texts(guest: Guest) -> Guest {
    guest.data(256, "orders.flagged").data(288, "bulkhead.x").data(320, "crm").data(336, "token").data(352, "other")
}

const DRAFT: &str = "(i32.const 256) (i32.const 14) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
    (i32.const 0)";

fn emit(body: impl Fn(&str) -> String) -> Guest {
    let guest = Guest::handler(&body(&format!("(call $emit {DRAFT} (i32.const 64))")));
    texts(guest.import("effects", "emit", &format!("(param {})", "i32 ".repeat(15))))
}

fn deliver(body: impl Fn(&str) -> String) -> Guest {
    let call = "(call $deliver (i32.const 320) (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 256) (i32.const 14)
        (i32.const 0) (i32.const 0) (i32.const 64))";
    texts(Guest::handler(&body(call)).import("effects", "deliver", &format!("(param {})", "i32 ".repeat(9))))
}

fn schedule(body: impl Fn(&str) -> String) -> Guest {
    // The arguments are too many for the stack; they stand at 600: name, after-ms at 616, draft at 624.
    let call = "(i64.store (i32.const 616) (i64.const 5000))
        (i32.store (i32.const 624) (i32.const 256)) (i32.store (i32.const 628) (i32.const 14))
        (call $schedule (i32.const 600) (i32.const 64))";
    texts(Guest::handler(&body(call)).import("effects", "schedule", "(param i32 i32)"))
}

fn cancel(body: impl Fn(&str) -> String) -> Guest {
    let call = "(call $cancel (i32.const 352) (i32.const 5) (i32.const 64))";
    texts(Guest::handler(&body(call)).import("effects", "cancel", "(param i32 i32 i32)"))
}

fn secret(at: u32, body: impl Fn(&str) -> String) -> Guest {
    let call = format!("(call $secret (i32.const {at}) (i32.const 5) (i32.const 64))");
    texts(Guest::handler(&body(&call)).import("context", "secret", "(param i32 i32 i32)"))
}

fn without_grants() -> Setup {
    Setup { grants: Grants::default(), ..lab::setup() }
}

/// A guest that makes an effect, given what its body does with the call.
type Maker = fn(&dyn Fn(&str) -> String) -> Guest;

const EFFECTS: [(&str, Maker); 5] = [
    ("emit", |body| emit(body)),
    ("deliver", |body| deliver(body)),
    ("schedule", |body| schedule(body)),
    ("cancel", |body| cancel(body)),
    ("secret", |body| secret(336, body)),
];

/// H86 and the like: for every import that needs a grant.
#[test]
fn every_effect_is_denied_without_its_grant() {
    for (name, maker) in EFFECTS {
        let wasm = maker(&|call| expecting(call, DENIED)).component();
        let attempt = lab::handle_with(&wasm, without_grants());
        assert_eq!(code(&attempt), "done", "{name}: {}", reason(&attempt));
        assert!(attempt.effects.is_empty(), "{name}");
    }
}

/// The list above is complete: an import that is neither here nor free of grants makes this fail.
#[test]
fn every_import_is_known_to_this_suite() {
    let free = ["current", "config", "field", "random", "get", "set", "delete", "increment", "keys", "write", "count"];
    let contract = include_str!("../../../../wit/plugin.wit");
    for line in contract.lines().map(str::trim) {
        let Some((name, _)) = line.split_once(": func(") else { continue };
        let known = free.contains(&name)
            || ["handle", "transform"].contains(&name)
            || EFFECTS.iter().any(|(effect, _)| *effect == name);
        assert!(known, "`{name}` is new: add it to EFFECTS with its denied test, or to the free ones");
    }
}

/// With the grants, the same calls make effects, with ids in order.
#[test]
fn with_grants_effects_are_made() {
    let body = |call: &str| format!("{call} (if (i32.load8_u (i32.const 64)) (then unreachable)) (i32.const 16)");
    for (name, maker) in EFFECTS {
        let attempt = lab::handle_with(&maker(&body).component(), lab::setup());
        assert_eq!(code(&attempt), "done", "{name}: {}", reason(&attempt));
        match (name, attempt.effects.first()) {
            ("secret", None) => {}
            ("cancel", Some(Effect::Cancel { timer, .. })) => assert_eq!(timer, "other"),
            ("emit", Some(Effect::Emit { id, draft })) => {
                assert_eq!((id, draft.kind.as_str()), (&lab::seed(&lab::event()).id(0), "orders.flagged"));
            }
            ("deliver", Some(Effect::Deliver(delivery))) => {
                assert_eq!((delivery.sink.as_str(), &delivery.body[..]), ("crm", &b"orders.flagged"[..]));
            }
            ("schedule", Some(Effect::Schedule { due, name: None, .. })) => {
                assert_eq!(*due, lab::NOW.after(std::time::Duration::from_secs(5)));
            }
            (_, other) => panic!("{name}: {other:?}"),
        }
        assert_eq!(attempt.ordinals, usize::from(!["secret", "cancel"].contains(&name)));
    }
}

/// H85: the host's own types, whatever is granted; and things that do not exist.
#[test]
fn what_is_reserved_or_missing_is_refused() {
    let mut all = lab::setup();
    all.grants.emit.insert("**".into());
    all.grants.deliver.insert("*".into());
    all.grants.secrets.insert("other".into());
    let reserved = |maker: Maker| {
        maker(&|call: &str| {
            expecting(&call.replace("(i32.const 256) (i32.const 14)", "(i32.const 288) (i32.const 10)"), DENIED)
        })
    };
    let attempt = lab::handle_with(&reserved(|body| emit(body)).component(), all.clone());
    assert_eq!(code(&attempt), "done", "{}", reason(&attempt));

    let nowhere = deliver(|call| {
        expecting(&call.replace("(i32.const 320) (i32.const 3)", "(i32.const 352) (i32.const 5)"), NOT_FOUND)
    });
    assert_eq!(code(&lab::handle_with(&nowhere.component(), all.clone())), "done");
    let missing = secret(352, |call| expecting(call, NOT_FOUND));
    assert_eq!(code(&lab::handle_with(&missing.component(), all.clone())), "done");
    let malformed = emit(|call| {
        expecting(&call.replace("(i32.const 256) (i32.const 14)", "(i32.const 256) (i32.const 0)"), INVALID)
    });
    assert_eq!(code(&lab::handle_with(&malformed.component(), all)), "done");
}

/// H41, H39: what the plugin may do without grants has limits, and those are refusals, too.
#[test]
fn state_writes_beyond_the_limit_are_refused() {
    let guest = Guest::handler(
        "(local $left i32)
         (local.set $left (i32.const 100))
         (loop $again
            (call $set (i32.const 256) (i32.const 1) (i32.const 256) (i32.const 1) (i32.const 0) (i64.const 0) (i32.const 64))
            (if (i32.load8_u (i32.const 64)) (then
                (if (i32.ne (i32.load8_u (i32.const 68)) (i32.const 1)) (then unreachable))
                (if (i32.ne (local.get $left) (i32.const 36)) (then unreachable))
                (return (i32.const 16))))
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $again (local.get $left)))
         unreachable",
    )
    .import("state", "set", "(param i32 i32 i32 i32 i32 i64 i32)")
    .data(256, "k");
    let attempt = lab::handle(&guest.component());
    assert_eq!(code(&attempt), "done", "{}", reason(&attempt));
    assert_eq!(attempt.effects.len(), 1, "one write for the one key");
}
