//! The sandbox against components that behave, and against those that do not.
//!
//! Guests are written here as text and made components on the spot, so that nothing but this crate is needed; only
//! those of other languages are built beforehand, for [`toolchains`]. The names in the comments (H01 …) are those of the
//! threat catalogue.

mod abi;
mod artefacts;
mod contract;
mod cpu;
mod determinism;
mod golden;
mod grants;
mod guest;
mod http;
mod js;
mod lab;
mod lifecycle;
mod memory;
mod portable;
mod recorder;
mod toolchains;
mod upload;
mod wasi;
