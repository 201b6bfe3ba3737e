//! The `bulkhead` binary. Everything is in the library, so that tests can start a host in their own process.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead::cli::main()
}
