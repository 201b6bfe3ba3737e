//! `cargo xtask demo`: builds what is missing and becomes `bulkhead demo`.

use std::path::Path;
use std::process::Command;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;

use crate::cargo;

#[derive(clap::Args)]
pub struct Arguments {
    /// End after the summary instead of staying up until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Where to listen
    #[arg(long)]
    listen: Option<String>,
}

pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    let plugins = cargo::lay_out_plugins(root)?;
    let host = cargo::build_host(root, false)?;
    let mut command = Command::new(host);
    command.arg("demo").arg("--plugins").arg(plugins).arg("--data").arg(root.join("tests/data"));
    if arguments.once {
        command.arg("--once");
    }
    if let Some(listen) = &arguments.listen {
        command.args(["--listen", listen]);
    }
    let status = command.status().context("the host could not be started")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
