//! One place for set-up: `cargo xtask guest` finds or makes the compiler for plugins and builds the
//! example plugins.

mod guest;

use std::path::Path;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies inside the repository")?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.join(" ").as_str() {
        "guest" => {
            for example in guest::build_examples(root)? {
                println!("{}\t{}", example.name, example.wasm.display());
            }
        }
        // For a plugin of one's own: eval "$(cargo xtask guest env)", then cargo build as usual.
        "guest env" => {
            for (name, value) in guest::toolchain()?.environment() {
                println!("export {name}='{}'", value.display());
            }
        }
        other => bail!("`cargo xtask {other}` is not known; there are: guest, guest env"),
    }
    Ok(())
}
