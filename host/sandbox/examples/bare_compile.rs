//! What wasmtime alone takes to compile a component: the limit that "from upload to active" is measured against.
//!
//! ```text
//! bare_compile plugin.wasm        prints seconds, and bytes of machine code
//! ```
//!
//! One component a process, as the host does it; the start of the process and reading the file do not count.

mod bare;

use std::time::Instant;

fn main() {
    let path = std::env::args_os().nth(1).expect("because the component is the first argument");
    let wasm = std::fs::read(path).expect("because the file is there");
    let began = Instant::now();
    let engine = wasmtime::Engine::new(&bare::config()).expect("because the settings fit each other");
    let code = engine.precompile_component(&wasm).expect("because the guest is a component");
    println!("{} {}", began.elapsed().as_secs_f64(), code.len());
}
