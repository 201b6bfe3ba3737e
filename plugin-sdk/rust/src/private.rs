//! What the attributes expand to. Not for plugins: it changes without notice.

#[cfg(target_family = "wasm")]
pub use crate::port::wasm::{
    export_handler, export_transformer, handler, handler_world, run_handler, run_transformer, transformer,
    transformer_world, wit,
};
