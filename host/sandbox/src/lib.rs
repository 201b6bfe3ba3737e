//! The sandbox: tenants' WebAssembly components, run behind words of our own.
//!
//! Duty: check what is uploaded, compile it where it can do no harm, run it within limits, and hand back what it
//! wanted to happen. It applies no effect, shows no guest the real time, and knows no tenant: what a guest may reach
//! is in the [`Setup`] and the [`Call`] of one invocation and nowhere else.
//!
//! Guests are called synchronously on the caller's thread, which needs the usual 2 MiB of stack. Everything here
//! blocks; call it from threads that may.
//!
//! Reading order: [`port`] (what goes in and comes out), [`Sandbox`] and [`Session`], then the modules behind them:
//! `engine`, `artefact`, `inspect`, `limits`, `capability`, `abi`. This is the only crate that names wasmtime.

mod abi;
mod answers;
mod artefact;
mod capability;
mod engine;
pub mod error;
pub mod inspect;
mod limits;
pub mod options;
pub mod outbound;
mod plugin;
pub mod port;
pub mod priority;
pub mod recorder;
mod replay;
mod sandbox;
pub mod script;
mod session;

pub use secrecy::SecretString;

pub use crate::artefact::compile_worker_main;
pub use crate::error::Error;
pub use crate::inspect::Exports;
pub use crate::inspect::Inspection;
pub use crate::inspect::Metadata;
pub use crate::inspect::Refused;
pub use crate::options::Compiler;
pub use crate::options::Options;
pub use crate::options::Pool;
pub use crate::outbound::Exchange;
pub use crate::outbound::Outbound;
pub use crate::plugin::Plugin;
pub use crate::port::Attempt;
pub use crate::port::Call;
pub use crate::port::Held;
pub use crate::port::Reads;
pub use crate::port::Record;
pub use crate::port::Setup;
pub use crate::port::StateError;
pub use crate::port::StateReader;
pub use crate::recorder::Rules;
pub use crate::replay::Replayed;
pub use crate::replay::Unfit;
pub use crate::sandbox::Sandbox;
pub use crate::sandbox::Stats;
pub use crate::session::Session;
