//! What tests call guests with.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::EffectSeed;
use bulkhead_domain::event::Event;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::limits::InstancePolicy;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_sandbox::Attempt;
use bulkhead_sandbox::Call;
use bulkhead_sandbox::Compiler;
use bulkhead_sandbox::Held;
use bulkhead_sandbox::Options;
use bulkhead_sandbox::Plugin;
use bulkhead_sandbox::Record;
use bulkhead_sandbox::Sandbox;
use bulkhead_sandbox::Session;
use bulkhead_sandbox::Setup;
use bulkhead_sandbox::StateError;
use bulkhead_sandbox::StateReader;
use bytes::Bytes;

/// The time that guests see: 2026-11-20 12:00:00.123 UTC.
pub const NOW: Timestamp = Timestamp(1_795_176_000_123_456);

/// One sandbox for all tests, as a host has one.
pub static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    // Kept for as long as the process lives.
    let dir = tempfile::tempdir().expect("because there is room").keep();
    let options = Options { compiler: Compiler::InProcess, ..Options::new(dir, [1; 32]) };
    Sandbox::open(options).expect("because the pool fits")
});

/// Loads a component.
pub fn load(wasm: &[u8]) -> Plugin {
    let bytes = Bytes::copy_from_slice(wasm);
    SANDBOX
        .load(&bulkhead_sandbox::inspect::digest(wasm), &|| Ok(bytes.clone()))
        .unwrap_or_else(|error| panic!("the guest is refused: {error:?}"))
}

/// A setup with limits for tests: short, and everything granted that a test may ask for.
pub fn setup() -> Setup {
    Setup {
        plugin: PluginId(1),
        plugin_name: "guest".into(),
        version: "3".into(),
        grants: Grants {
            emit: BTreeSet::from(["orders.*".to_owned()]),
            deliver: BTreeSet::from(["crm".to_owned()]),
            secrets: BTreeSet::from(["token".to_owned()]),
            schedule: true,
            ..Grants::default()
        },
        limits: Limits { time: Duration::from_millis(300), ..Limits::default() },
        policy: InstancePolicy::Batch,
        config: BTreeMap::from([("threshold".to_owned(), "5".to_owned())]),
        secrets: BTreeMap::from([("token".to_owned(), "hunter2-hunter2".to_owned().into())]),
        sinks: BTreeSet::from(["crm".to_owned()]),
    }
}

/// An event.
pub fn event() -> Event {
    Event {
        id: "e-1".into(),
        source: "/shop".into(),
        kind: "orders.created".into(),
        subject: Some("order-1".into()),
        time: NOW,
        key: None,
        correlation: "e-1".into(),
        causation: None,
        content_type: "application/json".into(),
        data: Bytes::from_static(br#"{"total": 12.5, "customer": {"country": "DE"}}"#),
        attributes: vec![("dataversion".into(), "1".into())],
    }
}

/// State in a map.
#[derive(Default)]
pub struct Memory(pub Mutex<BTreeMap<String, Bytes>>);

impl StateReader for Memory {
    fn get(&self, _: PluginId, key: &str) -> Result<Option<Held>, StateError> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(map.get(key).map(|value| Held { value: value.clone(), expires: None }))
    }

    fn keys(&self, _: PluginId, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateError> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let after = after.unwrap_or_default();
        Ok(map.keys().filter(|key| key.starts_with(prefix) && key.as_str() > after).take(limit).cloned().collect())
    }
}

/// The seed of a run over the event with this id.
pub fn seed(event: &Event) -> EffectSeed {
    EffectSeed::new(&[9; 32], "ten_a", event.event_key(), "rule", 0, 0)
}

/// Everything that one call needs.
pub struct Bench {
    pub event: Event,
    pub attempt: u32,
    pub state: Arc<dyn StateReader>,
    pub cancelled: Arc<AtomicBool>,
}

impl Default for Bench {
    fn default() -> Self {
        Self {
            event: event(),
            attempt: 1,
            state: Arc::new(Memory::default()),
            cancelled: Arc::new(AtomicBool::new(false)),
        }
    }
}

impl Bench {
    pub fn call(&self) -> Call<'_> {
        Call {
            event: &self.event,
            rule: "flag-orders",
            attempt: self.attempt,
            now: NOW,
            seed: seed(&self.event),
            first_ordinal: 0,
            state: &self.state,
            cancelled: &self.cancelled,
            record: Record::NOTHING,
        }
    }
}

/// A session over a component.
pub fn session(wasm: &[u8], setup: Setup) -> Session {
    SANDBOX.session(&load(wasm), Arc::new(setup))
}

/// One call of a handler, with the default setup.
pub fn handle(wasm: &[u8]) -> Attempt {
    handle_with(wasm, setup())
}

/// One call of a handler.
pub fn handle_with(wasm: &[u8], setup: Setup) -> Attempt {
    session(wasm, setup).handle(&Bench::default().call())
}

/// The code of an attempt that failed; `done` of one that did not.
pub fn code(attempt: &Attempt) -> &str {
    match &attempt.outcome {
        Outcome::Done => "done",
        Outcome::Failed(failure) | Outcome::Rejected(failure) => &failure.code,
    }
}

/// The reason of an attempt that failed.
pub fn reason(attempt: &Attempt) -> &str {
    match &attempt.outcome {
        Outcome::Done => "",
        Outcome::Failed(failure) | Outcome::Rejected(failure) => &failure.reason,
    }
}

/// Checks what every hostile case shares: the code, no effects, and nothing of the host in the reason.
#[track_caller]
pub fn assert_ends(attempt: &Attempt, expected: &str) {
    assert_eq!(code(attempt), expected, "{}", reason(attempt));
    assert!(attempt.effects.is_empty() && attempt.drafts.is_empty(), "a failed attempt has effects");
    let reason = reason(attempt);
    for host in ["/root", "/home", "/usr", ".rs", "wasmtime", ".cargo"] {
        assert!(!reason.contains(host), "{reason}");
    }
}
