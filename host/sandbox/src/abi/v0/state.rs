//! `state`. Reads may block on the store, so the watch is asked again after them.

use super::answer;
use super::bindings::bulkhead::plugin::state::Host;
use super::bindings::bulkhead::plugin::state::Page;
use super::bindings::bulkhead::plugin::state::Refusal;
use crate::capability::run::Run;

impl Host for Run {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Refusal>> {
        self.enter()?;
        let found = self.state.get(&self.setup.limits, &key);
        self.watch.check()?;
        answer(found.map(|value| value.map(Vec::from)))
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> wasmtime::Result<Result<(), Refusal>> {
        self.enter()?;
        answer(self.state.set(&self.setup.limits, key, value, ttl_ms))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), Refusal>> {
        self.enter()?;
        answer(self.state.delete(&self.setup.limits, key))
    }

    fn increment(&mut self, key: String, by: i64) -> wasmtime::Result<Result<i64, Refusal>> {
        self.enter()?;
        let sum = self.state.increment(&self.setup.limits, key, by);
        self.watch.check()?;
        answer(sum)
    }

    fn keys(&mut self, prefix: String, after: Option<String>, limit: u32) -> wasmtime::Result<Result<Page, Refusal>> {
        self.enter()?;
        let page = self.state.keys(&self.setup.limits, &prefix, after.as_deref(), limit);
        self.watch.check()?;
        answer(page.map(|page| Page { keys: page.keys, next: page.next }))
    }
}
