//! WASI 0.2 without any power, for components whose language pulls it in.
//!
//! No files, no sockets, no environment, no arguments; standard output is the plugin's log, standard input is empty;
//! the clocks show the attempt's time and jump when the guest waits; random bytes come from the attempt's seed. It is
//! written here, on our own state, and not taken from wasmtime-wasi: that one reads the real clock, sleeps on an
//! asynchronous runtime, and brings files and sockets along to be switched off.
//!
//! Nothing here ever blocks, save for whoever looks at an exchange with another host (`wasi:http`).

mod cli;
mod clocks;
mod denied;
mod io;
mod random;

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

pub(crate) use self::denied::link as link_denied;
pub use self::io::Input;
pub use self::io::IoError;
pub use self::io::Output;
pub use self::io::Pollable;
pub(crate) use self::io::TOO_LARGE;
pub(crate) use self::io::Timers;
pub(crate) use self::io::always_ready;
pub(crate) use self::io::body_stream;
use super::host::Host;
use crate::capability::Stop;
use crate::capability::run::Run;

/// The version under which everything is linked; guests of any 0.2 find it.
const VERSION: &str = "0.2.12";

type Context<'a> = StoreContextMut<'a, Host>;

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    io::link(linker)?;
    cli::link(linker)?;
    clocks::link(linker)?;
    random::link(linker)
}

/// Counts the call, and gives what it may reach.
fn enter<'a>(context: &'a mut Context<'_>) -> Result<&'a mut Run, Stop> {
    let run = context.data_mut().run();
    run.enter()?;
    Ok(run)
}

fn name(interface: &str) -> String {
    format!("wasi:{interface}@{VERSION}")
}
