//! The suite that every backend passes, over SQLite.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

bulkhead_store::conformance!(common::OnDisk::new());
