//! wasmtime alone, with the settings that the sandbox has: what the benches put beside it.
//!
//! A copy of what `engine.rs` decides over machine code, because a bench that shared it would not notice a setting that
//! makes code slower. `many_bench` compares what both make, byte for byte in length.

use wasmtime::Config;
use wasmtime::OptLevel;
use wasmtime::Strategy;
use wasmtime::WasmFeatures;

/// Settings of a bare engine.
pub fn config() -> Config {
    let mut config = Config::new();
    config.strategy(Strategy::Cranelift).cranelift_opt_level(OptLevel::Speed);
    config.consume_fuel(true).epoch_interruption(true).max_wasm_stack(512 << 10);
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
    config.concurrency_support(false).cranelift_nan_canonicalization(true);
    config.memory_reservation(4 << 30).memory_guard_size(32 << 20).guard_before_linear_memory(true);
    config.memory_init_cow(true);
    config
}
