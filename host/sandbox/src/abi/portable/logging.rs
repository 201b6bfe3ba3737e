//! `wasi:logging@0.1.0-draft` on the plugin's log.

use bulkhead_domain::effect;

use super::bindings::wasi::logging::logging;
use super::bindings::wasi::logging::logging::Level;
use crate::abi::host::Host;

impl logging::Host for Host {
    fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        let run = self.run();
        run.enter()?;
        let level = match level {
            Level::Trace => effect::Level::Trace,
            Level::Debug => effect::Level::Debug,
            Level::Info => effect::Level::Info,
            Level::Warn => effect::Level::Warn,
            Level::Error | Level::Critical => effect::Level::Error,
        };
        let fields = if context.is_empty() { Vec::new() } else { vec![("context".to_owned(), context)] };
        run.log.write(&run.setup.limits, &run.redactor, level, &message, &fields);
        Ok(())
    }
}
