//! `effects`.

use super::answer;
use super::bindings::bulkhead::plugin::effects::Draft;
use super::bindings::bulkhead::plugin::effects::Host;
use super::bindings::bulkhead::plugin::effects::Refusal;
use crate::capability::run::Run;

impl Host for Run {
    fn emit(&mut self, event: Draft) -> wasmtime::Result<Result<String, Refusal>> {
        self.enter()?;
        answer(self.effects.emit(&self.setup, event.into()))
    }

    fn deliver(
        &mut self,
        sink: String,
        content_type: String,
        body: Vec<u8>,
        attributes: Vec<(String, String)>,
    ) -> wasmtime::Result<Result<String, Refusal>> {
        self.enter()?;
        answer(self.effects.deliver(&self.setup, sink, content_type, body, attributes))
    }

    fn schedule(
        &mut self,
        name: Option<String>,
        after_ms: u64,
        event: Draft,
    ) -> wasmtime::Result<Result<String, Refusal>> {
        self.enter()?;
        answer(self.effects.schedule(&self.setup, name, after_ms, event.into()))
    }

    fn cancel(&mut self, timer: String) -> wasmtime::Result<Result<(), Refusal>> {
        self.enter()?;
        answer(self.effects.cancel(&self.setup, timer))
    }
}
