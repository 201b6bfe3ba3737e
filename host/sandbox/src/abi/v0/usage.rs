//! `usage`.

use super::answer;
use super::bindings::bulkhead::plugin::usage::Host;
use super::bindings::bulkhead::plugin::usage::Refusal;
use crate::capability::run::Run;

impl Host for Run {
    fn count(&mut self, unit: String, amount: f64) -> wasmtime::Result<Result<(), Refusal>> {
        self.enter()?;
        answer(self.usage.count(unit, amount))
    }
}
