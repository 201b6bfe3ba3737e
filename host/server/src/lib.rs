//! The host: its HTTP API, its configuration, its command line, and the root that puts all parts together.
//!
//! Reading order: [`config`] (what the operator says), [`app`] (how a host starts and ends), [`cli`] (how people reach it).

mod api;
pub mod app;
mod auth;
pub mod cli;
mod clock;
pub mod config;
pub mod demo;
mod drain;
mod fixture;
mod hearing;
mod http;
mod install;
mod manifest;
mod measure;
mod needs;
mod node;
mod secret_file;
mod signature;
mod spool;
mod store;
mod telemetry;
mod toml_text;
mod watch;
