//! What a loaded plugin costs in memory here, beside what it costs wasmtime alone; and how long it takes to load them all
//! again after a restart.
//!
//! ```text
//! cargo run --release -p bulkhead-sandbox --example many_bench -- plugin.wasm [plugins]
//! ```
//!
//! The plugins are the same component with other bytes at the end, so each has a digest, an artefact and machine code of
//! its own. "bare" deserializes as many artefacts with wasmtime and links each of them once, with nothing around it. Each
//! measurement is a process of its own, because memory that was given back is not seen to be.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use bulkhead_sandbox::Compiler;
use bulkhead_sandbox::Options;
use bulkhead_sandbox::Plugin;
use bulkhead_sandbox::Sandbox;
use bytes::Bytes;
use wasmtime::WasmFeatures;

/// What the design asks for.
const RATIO_MAX: f64 = 1.5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = PathBuf::from(arguments.first().expect("because the guest is the first argument"));
    let plugins: u32 = arguments.get(1).map_or(2_000, |count| count.parse().expect("because it is a number"));
    let wasm = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    match arguments.get(2).map(String::as_str) {
        None => measure(&path, &wasm, plugins),
        Some("bare") => report(|| bare(&wasm, plugins)),
        Some(cache) => report(|| ours(&wasm, plugins, Path::new(cache))),
    }
}

fn measure(path: &Path, wasm: &[u8], plugins: u32) {
    let cache = tempfile::tempdir().expect("because there is room");
    let began = Instant::now();
    drop(ours(wasm, plugins, cache.path()));
    println!("{plugins} plugins of {} KiB compiled in {:.1} s", wasm.len() >> 10, began.elapsed().as_secs_f64());
    let child = |mode: &str| -> [f64; 2] {
        let me = std::env::current_exe().expect("because it runs");
        let output = Command::new(me).arg(path).arg(plugins.to_string()).arg(mode).output();
        let output = output.expect("because the program is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("because it prints numbers");
        let mut numbers = text.split_whitespace().map(|number| number.parse().expect("because it prints numbers"));
        std::array::from_fn(|_| numbers.next().expect("because there are two"))
    };
    let mode = cache.path().to_str().expect("because it is a plain name").to_owned();
    let (bare, ours) = (child("bare"), child(&mode));
    let each = |bytes: f64| bytes / f64::from(plugins) / 1024.0;
    let ratio = ours[0] / bare[0];
    println!("{:<8}{:>16}{:>18}", "", "KiB a plugin", "all loaded in s");
    println!("{:<8}{:>16.1}{:>18.2}", "bare", each(bare[0]), bare[1]);
    println!("{:<8}{:>16.1}{:>18.2}", "ours", each(ours[0]), ours[1]);
    println!("memory ours/bare {ratio:.2} (at most {RATIO_MAX})");
    if ratio > RATIO_MAX {
        std::process::exit(1);
    }
}

/// Prints the memory that what `load` returns takes, and how long it took.
fn report<T>(load: impl FnOnce() -> T) {
    let (before, began) = (resident(), Instant::now());
    let loaded = load();
    println!("{} {}", resident() - before, began.elapsed().as_secs_f64());
    drop(loaded);
}

/// Bytes of memory that this process has for itself.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("because this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("because Linux says so");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("because it is a number") << 10
}

fn ours(wasm: &[u8], plugins: u32, cache: &Path) -> (Sandbox, Vec<Plugin>) {
    let options = Options {
        compiler: Compiler::InProcess,
        cache_bytes: u64::MAX,
        disk_bytes: u64::MAX,
        ..Options::new(cache, [7; 32])
    };
    let sandbox = Sandbox::open(options).expect("because the pool fits");
    let load = |mark| {
        let wasm = marked(wasm, mark);
        let digest = digest(&wasm);
        let fetch = || Ok(Bytes::from(wasm.clone()));
        sandbox.load(&digest, &fetch).unwrap_or_else(|error| panic!("{error}"))
    };
    let loaded = (0..plugins).map(load).collect();
    (sandbox, loaded)
}

#[allow(unsafe_code, reason = "the machine code was made a moment ago, in this process")]
fn bare(wasm: &[u8], plugins: u32) -> (wasmtime::Engine, Vec<wasmtime::component::InstancePre<()>>) {
    let mut config = wasmtime::Config::new();
    config.consume_fuel(true).epoch_interruption(true).concurrency_support(false);
    // As the sandbox has them; none of them changes what ordinary code weighs.
    for feature in
        [WasmFeatures::GC, WasmFeatures::GC_TYPES, WasmFeatures::FUNCTION_REFERENCES, WasmFeatures::EXCEPTIONS]
    {
        config.wasm_features(feature, false);
    }
    let engine = wasmtime::Engine::new(&config).expect("because the settings fit each other");
    let code = engine.precompile_component(wasm).expect("because the guest is a component");
    let load = |_| {
        // SAFETY: the bytes are what the engine above has just made.
        let component = unsafe { wasmtime::component::Component::deserialize(&engine, &code) };
        let component = component.expect("because the engine made it");
        let mut linker = wasmtime::component::Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&component).expect("because nothing is defined");
        linker.instantiate_pre(&component).expect("because every import is defined")
    };
    let loaded = (0..plugins).map(load).collect();
    (engine, loaded)
}

/// The same component with other bytes: a custom section at the end, which nobody looks at.
fn marked(wasm: &[u8], mark: u32) -> Vec<u8> {
    let name = format!("mark-{mark}");
    let length = u8::try_from(name.len()).expect("because it is short");
    let mut marked = wasm.to_vec();
    marked.extend([0, 1 + length, length]);
    marked.extend(name.as_bytes());
    marked
}

fn digest(wasm: &[u8]) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(wasm);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
