//! The engine: wasmtime's settings, in one place, with the reasons beside them.
//!
//! Every knob was tried against hostile components and against ordinary ones: two settings that sound like hardening
//! break real plugins. Turning off multi-memory makes the compiler panic on composed components (its own adapter
//! modules use two memories), and turning off tail calls refuses a common JavaScript runtime. Both stay on; what they
//! could be abused for is held by the limits.

use std::num::NonZeroUsize;
use std::time::Duration;

use wasmtime::Config;
use wasmtime::Engine;
use wasmtime::InstanceAllocationStrategy;
use wasmtime::OptLevel;
use wasmtime::PoolingAllocationConfig;
use wasmtime::Strategy;
use wasmtime::WasmFeatures;

use crate::error::Error;
use crate::options::Pool;

/// The wasmtime that this was built with.
pub(crate) const VERSION: &str = env!("BULKHEAD_WASMTIME_VERSION");

/// The oldest patch without a known hole that these settings leave open. 48.0.7 and 48.0.8 close a miscompilation
/// that lets a guest out, and two ways to exhaust the host's memory with handles.
const VERSION_MIN: (u64, u64, u64) = (48, 0, 8);

/// How often a running guest is looked at. The wall-clock limit is kept to within this; a shorter tick costs more
/// than it gives, a longer one lets every overrun hold its thread longer.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Stack of a guest. The rest of a 2 MiB thread is the host functions': an overflow there ends the process.
const STACK: usize = 512 << 10;

/// Frames shown of a trap.
pub(crate) const FRAMES: usize = 16;

/// Address space that each linear memory may grow in without a bounds check; 32-bit memories cannot reach beyond.
const RESERVATION: u64 = 4 << 30;

/// Unmapped address space behind it, for accesses with an offset.
const GUARD: u64 = 32 << 20;

/// Core instances in one component; the largest ordinary one has 38.
pub(crate) const CORE_INSTANCES: u32 = 64;

/// Linear memories in one component; the largest ordinary one has 3.
pub(crate) const MEMORIES: u32 = 8;

/// Tables in one component.
const TABLES: u32 = 16;

/// Elements of one table; the largest ordinary one has 7,688.
pub(crate) const TABLE_ELEMENTS: usize = 20_000;

/// What decides over the machine code. The compile worker and the host must agree on every line of it, or the
/// artefact is refused.
fn config() -> Config {
    let mut config = Config::new();
    config.strategy(Strategy::Cranelift).cranelift_opt_level(OptLevel::Speed);
    // Fuel is the bill and the reproducible limit; epochs are the wall clock.
    config.consume_fuel(true).epoch_interruption(true);
    config.max_wasm_stack(STACK);
    for feature in [
        WasmFeatures::THREADS,
        WasmFeatures::MEMORY64,
        WasmFeatures::RELAXED_SIMD,
        WasmFeatures::GC,
        WasmFeatures::GC_TYPES,
        WasmFeatures::FUNCTION_REFERENCES,
        WasmFeatures::EXCEPTIONS,
        WasmFeatures::STACK_SWITCHING,
        WasmFeatures::CUSTOM_PAGE_SIZES,
    ] {
        config.wasm_features(feature, false);
    }
    config.concurrency_support(false);
    // The same NaN everywhere, so that a re-execution gives the same bytes.
    config.cranelift_nan_canonicalization(true);
    config.wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES));
    config.memory_reservation(RESERVATION).memory_guard_size(GUARD).guard_before_linear_memory(true);
    config.memory_init_cow(true);
    config
}

/// Instances, memories and tables in slots made once. Everything a guest touched is given back to the kernel when
/// its instance goes, so nothing is left for the next one to find, and an idle pool has no resident pages.
fn pooling(pool: &Pool) -> PoolingAllocationConfig {
    let mut pooling = PoolingAllocationConfig::new();
    pooling
        .total_component_instances(pool.instances)
        .total_core_instances(pool.instances.saturating_mul(16))
        .total_memories(pool.memories)
        .total_tables(pool.memories.saturating_mul(2))
        // Guests run on the caller's stack, and the proposal that needs a heap is off.
        .total_stacks(1)
        .total_gc_heaps(1)
        .max_component_instance_size(1 << 20)
        .max_core_instance_size(1 << 20)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_memories_per_module(1)
        .max_tables_per_module(4)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(pool.memory_max)
        .max_unused_warm_slots(64)
        .linear_memory_keep_resident(0)
        .table_keep_resident(0)
        .decommit_batch_size(1);
    pooling
}

/// The engine that runs guests, with its ticker.
pub(crate) fn open(pool: &Pool) -> Result<Engine, Error> {
    check_version(VERSION)?;
    let engine = if pool.enabled {
        let mut with_pool = config();
        with_pool.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(pool)));
        Engine::new(&with_pool).or_else(|error| {
            // Typical cause: an address-space limit (`ulimit -v`); the pool reserves about a tebibyte.
            tracing::warn!(
                error = format!("{error:#}"),
                "the instance pool cannot be reserved: instances are allocated on demand and start more slowly"
            );
            Engine::new(&config())
        })
    } else {
        Engine::new(&config())
    };
    let engine = engine.map_err(|error| Error::Engine { detail: format!("{error:#}") })?;
    start_ticker(&engine)?;
    Ok(engine)
}

/// An engine that only compiles: no pool, hence no reservation of address space.
pub(crate) fn open_compiler() -> Result<Engine, Error> {
    Engine::new(&config()).map_err(|error| Error::Engine { detail: format!("{error:#}") })
}

/// One thread for all guests. It holds the engine weakly and ends with it.
fn start_ticker(engine: &Engine) -> Result<(), Error> {
    let weak = engine.weak();
    std::thread::Builder::new()
        .name("sandbox-ticker".into())
        .spawn(move || {
            loop {
                std::thread::sleep(TICK);
                match weak.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
                }
            }
        })
        .map(drop)
        .map_err(|error| Error::Engine { detail: format!("the ticker thread cannot start: {error}") })
}

fn check_version(version: &str) -> Result<(), Error> {
    let mut parts = version.split('.').map(|part| part.parse::<u64>().unwrap_or_default());
    let found = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if found < VERSION_MIN {
        let (major, minor, patch) = VERSION_MIN;
        return Err(Error::Engine {
            detail: format!("wasmtime {version} has known holes; build with {major}.{minor}.{patch} or newer"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_with_known_holes_is_refused() {
        assert!(check_version(VERSION).is_ok());
        assert!(check_version("48.0.8").is_ok());
        assert!(check_version("49.0.0").is_ok());
        for old in ["48.0.7", "47.9.9", "nonsense", ""] {
            assert!(matches!(check_version(old), Err(Error::Engine { .. })), "{old}");
        }
    }

    #[test]
    fn the_worker_and_the_host_agree_on_the_settings() {
        use std::hash::BuildHasher;
        let hash = |engine: &Engine| {
            std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default()
                .hash_one(engine.precompile_compatibility_hash())
        };
        let host = open(&Pool { instances: 2, memories: 2, ..Pool::default() }).expect("because the pool is small");
        let worker = open_compiler().expect("because it only compiles");
        assert_eq!(hash(&host), hash(&worker));
    }

    #[test]
    fn the_ticker_ends_with_the_engine() {
        let engine = open(&Pool { enabled: false, ..Pool::default() }).expect("because nothing is reserved");
        let weak = engine.weak();
        drop(engine);
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while weak.upgrade().is_some() {
            assert!(std::time::Instant::now() < deadline, "the engine outlives its users");
            std::thread::sleep(TICK);
        }
    }
}
