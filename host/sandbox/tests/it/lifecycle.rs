//! How long instances live, and that one that failed is never called again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use bulkhead_domain::effect::Effect;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::limits::InstancePolicy;
use bulkhead_sandbox::Compiler;
use bulkhead_sandbox::Held;
use bulkhead_sandbox::Options;
use bulkhead_sandbox::Pool;
use bulkhead_sandbox::Sandbox;
use bulkhead_sandbox::Setup;
use bulkhead_sandbox::StateError;
use bulkhead_sandbox::StateReader;
use bulkhead_sandbox::inspect::digest;
use bytes::Bytes;

use crate::guest::Guest;
use crate::lab;
use crate::lab::Bench;
use crate::lab::Memory;
use crate::lab::assert_ends;
use crate::lab::code;

/// Rejects with its call's number as the reason, `1` in a fresh instance; traps on the third call.
fn counter() -> Vec<u8> {
    Guest::handler(
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (if (i32.eq (global.get $calls) (i32.const 3)) (then unreachable))
         (i32.store8 (i32.const 256) (i32.add (i32.const 48) (global.get $calls)))
         (i32.store8 (i32.const 16) (i32.const 1))
         (i32.store8 (i32.const 24) (i32.const 1))
         (i32.store (i32.const 28) (i32.const 256))
         (i32.store (i32.const 32) (i32.const 1))
         (i32.const 16)",
    )
    .with("(global $calls (mut i32) (i32.const 0))")
    .component()
}

fn numbers(policy: InstancePolicy, calls: usize) -> Vec<(String, bool)> {
    let mut session = lab::session(&counter(), Setup { policy, ..lab::setup() });
    let bench = Bench::default();
    (0..calls)
        .map(|_| {
            let attempt = session.handle(&bench.call());
            let text = if code(&attempt).starts_with("trap") { "trap" } else { lab::reason(&attempt) };
            (text.to_owned(), attempt.instantiated)
        })
        .collect()
}

fn expected(list: &[(&str, bool)]) -> Vec<(String, bool)> {
    list.iter().map(|(text, instantiated)| ((*text).to_owned(), *instantiated)).collect()
}

/// Sessions go to worker threads, everything else is shared by them.
#[test]
fn sessions_can_be_sent() {
    fn send<T: Send>() {}
    fn share<T: Send + Sync + Clone>() {}
    send::<bulkhead_sandbox::Session>();
    share::<bulkhead_sandbox::Sandbox>();
    share::<bulkhead_sandbox::Plugin>();
    share::<bulkhead_sandbox::Error>();
    share::<bulkhead_sandbox::Refused>();
}

/// H57: after a trap there is a new instance.
#[test]
fn a_trapped_instance_is_never_called_again() {
    let seen = numbers(InstancePolicy::Batch, 5);
    assert_eq!(seen, expected(&[("1", true), ("2", false), ("trap", false), ("1", true), ("2", false)]));
}

#[test]
fn the_event_policy_makes_an_instance_for_each_call() {
    assert_eq!(numbers(InstancePolicy::Event, 4), expected(&[("1", true); 4]));
}

#[test]
fn a_warm_instance_is_worn_out_after_a_thousand_calls() {
    let wasm = Guest::handler("(i32.const 16)").component();
    let mut session = lab::session(&wasm, Setup { policy: InstancePolicy::Warm, ..lab::setup() });
    let bench = Bench::default();
    let made: Vec<usize> = (0..2_100).filter(|_| session.handle(&bench.call()).instantiated).collect();
    assert_eq!(made, [0, 1_000, 2_000]);
}

/// H38, and what F26 is about: a full pool is an outcome, and every slot comes back, whatever ended its instance.
#[test]
fn slots_come_back() {
    let dir = tempfile::tempdir().expect("because there is room");
    let pool = Pool { instances: 2, memories: 2, ..Pool::default() };
    let options = Options { compiler: Compiler::InProcess, pool, ..Options::new(dir.path(), [3; 32]) };
    let sandbox = Sandbox::open(options).expect("because the pool is small");
    let load = |wasm: Vec<u8>| {
        let wasm = Bytes::from(wasm);
        sandbox.load(&digest(&wasm), &|| Ok(wasm.clone())).expect("because it is fit")
    };
    let (counter, trap) = (load(counter()), load(Guest::handler("unreachable").component()));
    let setup = Arc::new(lab::setup());
    let session = |plugin| sandbox.session(plugin, Arc::clone(&setup));
    let bench = Bench::default();
    for _ in 0..20 {
        assert_eq!(code(&session(&trap).handle(&bench.call())), "trap:unreachable");
    }
    let (mut first, mut second, mut third) = (session(&counter), session(&counter), session(&counter));
    assert_eq!(code(&first.handle(&bench.call())), "plugin:reject");
    assert_eq!(code(&second.handle(&bench.call())), "plugin:reject");
    assert_ends(&third.handle(&bench.call()), "host:capacity");
    drop(first);
    assert_eq!(code(&third.handle(&bench.call())), "plugin:reject");
}

/// A store whose code fails.
struct Panicking;

impl StateReader for Panicking {
    fn get(&self, _: PluginId, key: &str) -> Result<Option<Held>, StateError> {
        panic!("injected at {key}, secret detail /etc/host")
    }

    fn keys(&self, _: PluginId, _: &str, _: Option<&str>, _: usize) -> Result<Vec<String>, StateError> {
        Err(StateError("password=hunter3 at 10.0.0.1".into()))
    }
}

fn reading(function: &str, call: &str, core: &str) -> Vec<u8> {
    Guest::handler(&format!("{call} (i32.const 16)")).import("state", function, core).data(256, "k").component()
}

/// H59: a host function that panics fails the attempt, not the process; H90: nothing of it reaches the tenant.
#[test]
fn a_host_panic_is_an_outcome() {
    let get = reading("get", "(call $get (i32.const 256) (i32.const 1) (i32.const 64))", "(param i32 i32 i32)");
    let bench = Bench { state: Arc::new(Panicking), ..Bench::default() };
    let mut session = lab::session(&get, lab::setup());
    for _ in 0..2 {
        let attempt = session.handle(&bench.call());
        assert_ends(&attempt, "host:panic");
        assert!(attempt.instantiated, "the store was dropped");
        assert!(!lab::reason(&attempt).contains("detail"));
    }
    let after = session.handle(&Bench::default().call());
    assert_eq!(code(&after), "done");
}

#[test]
fn a_store_that_fails_is_the_host_s_fault_and_says_nothing() {
    let keys = reading(
        "keys",
        "(call $keys (i32.const 256) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 64))",
        "(param i32 i32 i32 i32 i32 i32 i32)",
    );
    let bench = Bench { state: Arc::new(Panicking), ..Bench::default() };
    let attempt = lab::session(&keys, lab::setup()).handle(&bench.call());
    assert_ends(&attempt, "host:state");
    assert!(!lab::reason(&attempt).contains("hunter3") && !lab::reason(&attempt).contains("10.0.0.1"));
}

/// A guest sees its settings, the event's fields and the time; its state through the reader.
#[test]
fn what_a_guest_is_told() {
    // Adds 1 to the counter under "total" and keeps the field at /customer/country.
    let guest = Guest::handler(
        "(call $increment (i32.const 256) (i32.const 5) (i64.const 1) (i32.const 64))
         (if (i32.load8_u (i32.const 64)) (then unreachable))
         (if (i64.ne (i64.load (i32.const 72)) (i64.const 42)) (then unreachable))
         (call $field (i32.const 270) (i32.const 17) (i32.const 64))
         (if (i32.eqz (i32.load8_u (i32.const 64))) (then unreachable))
         (call $set (i32.const 288) (i32.const 7) (i32.load (i32.const 68)) (i32.load (i32.const 72))
            (i32.const 0) (i64.const 0) (i32.const 64))
         (call $config (i32.const 296) (i32.const 9) (i32.const 64))
         (if (i32.eqz (i32.load8_u (i32.const 64))) (then unreachable))
         (if (i32.ne (i32.load8_u (i32.load (i32.const 68))) (i32.const 53)) (then unreachable))
         (call $current (i32.const 128))
         (if (i64.ne (i64.load (i32.const 160)) (i64.const 1795176000123)) (then unreachable))
         (call $count (i32.const 256) (i32.const 5) (f64.const 2.5) (i32.const 64))
         (i32.const 16)",
    )
    .import("state", "increment", "(param i32 i32 i64 i32)")
    .import("state", "set", "(param i32 i32 i32 i32 i32 i64 i32)")
    .import("context", "field", "(param i32 i32 i32)")
    .import("context", "config", "(param i32 i32 i32)")
    .import("context", "current", "(param i32)")
    .import("usage", "count", "(param i32 i32 f64 i32)")
    .data(256, "total")
    .data(270, "/customer/country")
    .data(288, "country")
    .data(296, "threshold");
    let state = Memory(Mutex::new(BTreeMap::from([("total".to_owned(), Bytes::from_static(b"41"))])));
    let bench = Bench { state: Arc::new(state), ..Bench::default() };
    let setup = Setup { grants: Grants::default(), ..lab::setup() };
    let attempt = lab::session(&guest.component(), setup).handle(&bench.call());
    assert_eq!(code(&attempt), "done", "{}", lab::reason(&attempt));
    let writes: Vec<_> = attempt
        .effects
        .iter()
        .map(|effect| match effect {
            Effect::State(write) => (write.key.as_str(), write.value.clone().unwrap_or_default()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(writes, [("country", Bytes::from_static(b"\"DE\"")), ("total", Bytes::from_static(b"42"))]);
    assert_eq!(attempt.usage, BTreeMap::from([("total".to_owned(), 2.5)]));
    assert_eq!(attempt.host_calls, 6);
}

/// Where address space is limited, the pool gives way to memory on demand, and everything works as before.
#[test]
fn without_room_for_the_pool_instances_are_made_on_demand() {
    let output = std::process::Command::new("/bin/sh")
        .arg("-c")
        .arg("ulimit -v 20000000 && exec \"$0\" \"$@\"")
        .arg(std::env::current_exe().expect("because this runs"))
        .args(["--exact", "lifecycle::a_trapped_instance_is_never_called_again", "--test-threads=1"])
        .output()
        .expect("because there is a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
