//! `log`.

use bulkhead_domain::effect;

use super::bindings::bulkhead::plugin::log::Host;
use super::bindings::bulkhead::plugin::log::Level;
use crate::capability::run::Run;

impl Host for Run {
    fn write(&mut self, level: Level, message: String, fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        self.enter()?;
        let level = match level {
            Level::Trace => effect::Level::Trace,
            Level::Debug => effect::Level::Debug,
            Level::Info => effect::Level::Info,
            Level::Warn => effect::Level::Warn,
            Level::Error => effect::Level::Error,
        };
        self.log.write(&self.setup.limits, &self.redactor, level, &message, &fields);
        Ok(())
    }
}
