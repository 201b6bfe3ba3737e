//! Guests: finds or makes a compiler for plugins, and builds the example plugins with it.
//!
//! A plugin is compiled for `wasm32-unknown-unknown` and linked by `wasm-component-ld`, so `cargo
//! build` writes a component that imports nothing but our own interfaces. Where the standard
//! library for that target comes from is decided in this order:
//!
//! ```text
//! the active toolchain has it ──▶ use it
//!   └─ rustup may add it (not where RUSTUP_AUTO_INSTALL=0 pins the toolchain) ──▶ use it
//!        └─ a private copy made earlier is in the cache folder ──▶ use it
//!             └─ Debian's rustc-web is unpacked there and its std is built from its own source
//! ```
//!
//! Nothing here installs anything system-wide, and a run that is killed leaves nothing half-made
//! behind.
//!
//! Plugins in JavaScript, TypeScript and Python are built by their SDKs, with tools from npm (`javascript`) and PyPI
//! (`python`); test fixtures by toolchains of others (`foreign`).
//!
//! Reading order: `toolchain` (the decision), `debian` (the last resort), `examples` (the use), `javascript`, `python`,
//! `foreign`; `shelf` is where what they make is kept, `inputs` tells whether it has to be made again.

mod debian;
mod examples;
mod foreign;
mod inputs;
mod javascript;
mod python;
mod shelf;
mod toolchain;

pub use examples::Example;
pub use examples::build_examples;
pub use foreign::build as build_foreign;
pub use javascript::test_sdk as test_js_sdk;
pub use python::build as build_python;
pub use python::test_sdk as test_python_sdk;
pub use toolchain::toolchain;
