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
//! Reading order: `toolchain` (the decision), `debian` (the last resort), `examples` (the use).

mod debian;
mod examples;
mod toolchain;

pub use examples::build_examples;
pub use toolchain::toolchain;
