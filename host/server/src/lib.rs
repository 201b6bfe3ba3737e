//! The host: its HTTP API, its configuration, its command line, and the root that puts all parts together.
//!
//! Reading order: [`config`] (what the operator says), [`app`] (how a host starts and ends), [`cli`] (how people reach it).

pub mod app;
mod auth;
pub mod cli;
pub mod config;
pub mod demo;
mod measure;
mod toml_text;
