//! What a call costs here, beside what it costs wasmtime alone.
//!
//! ```text
//! cargo run --release -p bulkhead-sandbox --example call_bench -- plugin.wasm [calls]
//! ```
//!
//! "reads kept" is a call of which everything that it reads is kept, should it fail; its figure is beside "warm".
//!
//! The guest is a component with a handler (the example plugin `bench-standard`). "raw" is wasmtime with the same
//! types, the same settings, fuel and epochs on, a store that is used for all calls, and host functions that answer
//! at once. Each line is the median of rounds that take turns, so that a busy machine harms both alike.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::EffectSeed;
use bulkhead_domain::event::Event;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::limits::InstancePolicy;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::policy::verdict::Outcome;
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

/// Rounds of each measurement; odd, for the median.
const ROUNDS: usize = 21;
/// Calls of one instance under the policy of batches.
const BATCH: usize = 100;
/// As dispatch asks for it: nobody knows yet whether the call will fail.
const KEPT: Record = Record { bytes: 256 << 10, fresh: false };

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().expect("because the guest is the first argument"));
    let calls: usize = arguments.next().map_or(2_000, |calls| calls.parse().expect("because it is a number"));
    let wasm = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let bench = Bench::new(&wasm);
    let raw = raw::Raw::new(&wasm);
    let event = event();

    let mut warm_session = bench.session(InstancePolicy::Warm);
    let mut raw_warm = raw.instance();
    let mut figures = [const { Vec::new() }; 6];
    let mut kept = Vec::new();
    for _ in 0..ROUNDS {
        figures[0].push(time(calls, || raw_warm.call(&event)));
        figures[1].push(time(calls, || bench.call(&mut warm_session, &event, Record::NOTHING)));
        kept.push(time(calls, || bench.call(&mut warm_session, &event, KEPT)));
        figures[2].push(time_batches(calls, || raw.instance(), |instance| instance.call(&event)));
        figures[3].push(time_batches(
            calls,
            || bench.session(InstancePolicy::Batch),
            |session| bench.call(session, &event, Record::NOTHING),
        ));
        figures[4].push(time(calls / 4, || raw.instance().call(&event)));
        let mut session = bench.session(InstancePolicy::Event);
        figures[5].push(time(calls / 4, || bench.call(&mut session, &event, Record::NOTHING)));
    }
    println!("{} bytes of data, {calls} calls a round, median of {ROUNDS} rounds, µs a call", event.data.len());
    println!("{:<22}{:>8}{:>8}{:>10}", "", "raw", "ours", "ours/raw");
    let names = ["warm", "fresh per batch of 100", "fresh per event"];
    for (name, pair) in names.iter().zip(figures.chunks_mut(2)) {
        let [raw, ours] = pair else { continue };
        let (raw, ours) = (median(raw), median(ours));
        println!("{name:<22}{raw:>8.2}{ours:>8.2}{:>9.0} %", 100.0 * raw / ours);
    }
    let (kept, warm) = (median(&mut kept), median(&mut figures[1]));
    println!("{:<22}{:>8}{kept:>8.2}{:>+9.1} %", "warm, reads kept", "", 100.0 * (kept - warm) / warm);
    println!("resident: {} MiB", resident_mib());
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[allow(clippy::cast_precision_loss, reason = "counts of calls are small")]
fn per_call(elapsed: Duration, calls: usize) -> f64 {
    elapsed.as_secs_f64() * 1e6 / calls as f64
}

fn time(calls: usize, mut call: impl FnMut()) -> f64 {
    let started = Instant::now();
    for _ in 0..calls {
        call();
    }
    per_call(started.elapsed(), calls)
}

fn time_batches<T>(calls: usize, mut make: impl FnMut() -> T, mut call: impl FnMut(&mut T)) -> f64 {
    let started = Instant::now();
    for _ in 0..calls / BATCH {
        let mut instance = make();
        for _ in 0..BATCH {
            call(&mut instance);
        }
    }
    per_call(started.elapsed(), calls / BATCH * BATCH)
}

fn resident_mib() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    (pages * 4_096) >> 20
}

/// An order of about 1 KiB.
fn event() -> Event {
    let items: Vec<String> = (0..12)
        .map(|at| format!(r#"{{"sku":"item-{at:04}","quantity":{},"price":12.5,"tags":["a","b"]}}"#, at + 1))
        .collect();
    let data =
        format!(r#"{{"id":"A-1","total":1250.5,"channel":"web","customer":"c-17","items":[{}]}}"#, items.join(","));
    let text = |text: &str| text.to_owned();
    Event {
        id: text("01926f3e-6f5c-7c3e-8e7e-3f1f2a9b4c5d"),
        source: text("/shop/orders"),
        kind: text("orders.created"),
        subject: Some(text("order-A-1")),
        time: Timestamp(1_795_176_000_000_000),
        key: Some(text("customer-17")),
        correlation: text("01926f3e-6f5c-7c3e-8e7e-3f1f2a9b4c5d"),
        causation: None,
        content_type: text("application/json"),
        data: Bytes::from(data),
        attributes: vec![(text("dataversion"), text("1"))],
    }
}

/// Nothing is stored.
struct Empty;

impl StateReader for Empty {
    fn get(&self, _: PluginId, _: &str) -> Result<Option<Held>, StateError> {
        Ok(None)
    }

    fn keys(&self, _: PluginId, _: &str, _: Option<&str>, _: usize) -> Result<Vec<String>, StateError> {
        Ok(Vec::new())
    }
}

/// Our side.
struct Bench {
    sandbox: Sandbox,
    plugin: Plugin,
    state: Arc<dyn StateReader>,
    cancelled: Arc<AtomicBool>,
    _cache: tempfile::TempDir,
}

impl Bench {
    fn new(wasm: &[u8]) -> Self {
        let cache = tempfile::tempdir().expect("because there is room");
        let options = Options { compiler: Compiler::InProcess, ..Options::new(cache.path(), [7; 32]) };
        let sandbox = Sandbox::open(options).expect("because the pool fits");
        let found = sandbox.inspect(wasm).unwrap_or_else(|refused| panic!("{refused}"));
        let plugin =
            sandbox.load(&found.digest, &|| Ok(Bytes::copy_from_slice(wasm))).unwrap_or_else(|error| panic!("{error}"));
        let (state, cancelled) = (Arc::new(Empty), Arc::new(AtomicBool::new(false)));
        Self { sandbox, plugin, state, cancelled, _cache: cache }
    }

    fn session(&self, policy: InstancePolicy) -> Session {
        let setup = Setup {
            plugin: PluginId(1),
            plugin_name: "bench".into(),
            version: "1".into(),
            grants: Grants::default(),
            limits: Limits::default(),
            policy,
            config: std::collections::BTreeMap::new(),
            secrets: std::collections::BTreeMap::new(),
            sinks: std::collections::BTreeSet::new(),
        };
        self.sandbox.session(&self.plugin, Arc::new(setup))
    }

    fn call(&self, session: &mut Session, event: &Event, record: Record) {
        let attempt = session.handle(&Call {
            event,
            rule: "bench",
            attempt: 1,
            now: Timestamp(1_795_176_000_000_000),
            seed: EffectSeed::new(&[9; 32], "ten_a", bulkhead_domain::id::EventKey([7; 16]), "bench", 0, 0),
            first_ordinal: 0,
            state: &self.state,
            cancelled: &self.cancelled,
            record,
        });
        assert_eq!(attempt.outcome, Outcome::Done);
    }
}

/// Their side.
mod raw {
    use bulkhead_domain::event::Event;
    use wasmtime::Config;
    use wasmtime::Engine;
    use wasmtime::InstanceAllocationStrategy;
    use wasmtime::OptLevel;
    use wasmtime::PoolingAllocationConfig;
    use wasmtime::Store;
    use wasmtime::UpdateDeadline;
    use wasmtime::WasmFeatures;
    use wasmtime::component::Component;
    use wasmtime::component::HasSelf;
    use wasmtime::component::InstancePre;
    use wasmtime::component::Linker;

    #[allow(missing_docs, reason = "generated")]
    mod bindings {
        wasmtime::component::bindgen!({
            path: "../../wit",
            world: "bulkhead:plugin/handler-plugin",
            ownership: Borrowing { duplicate_if_necessary: true },
        });
    }

    use bindings::bulkhead::plugin::context;
    use bindings::bulkhead::plugin::effects;
    use bindings::bulkhead::plugin::log;
    use bindings::bulkhead::plugin::state;
    use bindings::bulkhead::plugin::types;
    use bindings::bulkhead::plugin::usage;
    use bindings::exports::bulkhead::plugin::handler::Guest;
    use bindings::exports::bulkhead::plugin::handler::GuestIndices;

    /// Answers every call at once.
    struct Nothing;

    impl types::Host for Nothing {}

    impl context::Host for Nothing {
        fn current(&mut self) -> context::Invocation {
            context::Invocation {
                plugin: String::new(),
                version: String::new(),
                rule: String::new(),
                attempt: 1,
                now: 0,
            }
        }
        fn config(&mut self, _: String) -> Option<String> {
            None
        }
        fn secret(&mut self, _: String) -> Result<String, types::Refusal> {
            Ok(String::new())
        }
        fn field(&mut self, _: String) -> Option<String> {
            None
        }
        fn random(&mut self, length: u32) -> Vec<u8> {
            vec![0; length as usize]
        }
    }

    impl effects::Host for Nothing {
        fn emit(&mut self, _: types::Draft) -> Result<String, types::Refusal> {
            Ok(String::new())
        }
        fn deliver(
            &mut self,
            _: String,
            _: String,
            _: Vec<u8>,
            _: Vec<(String, String)>,
        ) -> Result<String, types::Refusal> {
            Ok(String::new())
        }
        fn schedule(&mut self, _: Option<String>, _: u64, _: types::Draft) -> Result<String, types::Refusal> {
            Ok(String::new())
        }
        fn cancel(&mut self, _: String) -> Result<(), types::Refusal> {
            Ok(())
        }
    }

    impl state::Host for Nothing {
        fn get(&mut self, _: String) -> Result<Option<Vec<u8>>, types::Refusal> {
            Ok(None)
        }
        fn set(&mut self, _: String, _: Vec<u8>, _: Option<u64>) -> Result<(), types::Refusal> {
            Ok(())
        }
        fn delete(&mut self, _: String) -> Result<(), types::Refusal> {
            Ok(())
        }
        fn increment(&mut self, _: String, by: i64) -> Result<i64, types::Refusal> {
            Ok(by)
        }
        fn keys(&mut self, _: String, _: Option<String>, _: u32) -> Result<state::Page, types::Refusal> {
            Ok(state::Page { keys: Vec::new(), next: None })
        }
    }

    impl log::Host for Nothing {
        fn write(&mut self, _: log::Level, _: String, _: Vec<(String, String)>) {}
    }

    impl usage::Host for Nothing {
        fn count(&mut self, _: String, _: f64) -> Result<(), types::Refusal> {
            Ok(())
        }
    }

    pub struct Raw {
        engine: Engine,
        instance: InstancePre<Nothing>,
        guest: GuestIndices,
    }

    pub struct Instance {
        store: Store<Nothing>,
        guest: Guest,
    }

    impl Raw {
        pub fn new(wasm: &[u8]) -> Self {
            let mut config = Config::new();
            config.cranelift_opt_level(OptLevel::Speed).consume_fuel(true).epoch_interruption(true);
            config.cranelift_nan_canonicalization(true).concurrency_support(false).max_wasm_stack(512 << 10);
            for feature in [WasmFeatures::GC, WasmFeatures::GC_TYPES, WasmFeatures::EXCEPTIONS] {
                config.wasm_features(feature, false);
            }
            config.wasm_features(WasmFeatures::FUNCTION_REFERENCES, false);
            let mut pool = PoolingAllocationConfig::new();
            pool.total_memories(16).total_tables(64).total_core_instances(64).max_memory_size(64 << 20);
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
            let engine = Engine::new(&config).expect("because the pool fits");
            let ticked = engine.weak();
            std::thread::spawn(move || {
                while let Some(engine) = ticked.upgrade() {
                    engine.increment_epoch();
                    drop(engine);
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            });
            let mut linker = Linker::new(&engine);
            bindings::HandlerPlugin::add_to_linker::<_, HasSelf<Nothing>>(&mut linker, |nothing| nothing)
                .expect("because nothing is there twice");
            let component = Component::from_binary(&engine, wasm).expect("because it is a component");
            let instance = linker.instantiate_pre(&component).expect("because it needs nothing else");
            let guest = GuestIndices::new(&instance).expect("because it has a handler");
            Self { engine, instance, guest }
        }

        pub fn instance(&self) -> Instance {
            let mut store = Store::new(&self.engine, Nothing);
            store.set_fuel(u64::MAX / 2).expect("because fuel is on");
            store.set_epoch_deadline(1);
            store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Continue(1)));
            let instance = self.instance.instantiate(&mut store).expect("because it starts");
            let guest = self.guest.load(&mut store, &instance).expect("because it has a handler");
            Instance { store, guest }
        }
    }

    impl Instance {
        pub fn call(&mut self, event: &Event) {
            let attributes: Vec<(&str, &str)> =
                event.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let event = types::Event {
                id: &event.id,
                source: &event.source,
                type_: &event.kind,
                subject: event.subject.as_deref(),
                time: event.time.millis(),
                key: event.key.as_deref(),
                correlation_id: &event.correlation,
                causation_id: event.causation.as_deref(),
                content_type: &event.content_type,
                data: &event.data,
                attributes: &attributes,
            };
            self.guest.call_handle(&mut self.store, event).expect("because it returns").expect("because it is done");
        }
    }
}
