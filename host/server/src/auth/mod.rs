//! Who calls.

pub mod text;
