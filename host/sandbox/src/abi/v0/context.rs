//! `context`.

use bulkhead_domain::recording::Read;

use super::answer;
use super::bindings::bulkhead::plugin::context::Host;
use super::bindings::bulkhead::plugin::context::Invocation;
use super::bindings::bulkhead::plugin::context::Refusal;
use crate::capability::Stop;
use crate::capability::context;
use crate::capability::random::REQUEST_MAX;
use crate::capability::run::Run;

impl Host for Run {
    fn current(&mut self) -> wasmtime::Result<Invocation> {
        self.enter()?;
        Ok(Invocation {
            plugin: self.setup.plugin_name.clone(),
            version: self.setup.version.clone(),
            rule: self.context.rule.clone(),
            attempt: self.context.attempt,
            now: self.clock.millis(),
        })
    }

    fn config(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.enter()?;
        Ok(self.setup.config.get(&name).cloned())
    }

    fn secret(&mut self, name: String) -> wasmtime::Result<Result<String, Refusal>> {
        self.enter()?;
        let secret = context::secret(&self.setup, &name);
        if secret.is_ok() {
            self.keep(|| Read::Secret { name });
        }
        answer(secret)
    }

    fn field(&mut self, pointer: String) -> wasmtime::Result<Option<String>> {
        self.enter()?;
        Ok(self.context.field(&pointer))
    }

    fn random(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        self.enter()?;
        if u64::from(length) > REQUEST_MAX {
            return Err(Stop::Bytes(format!("{length} random bytes at once; at most {REQUEST_MAX} are given")).into());
        }
        let mut bytes = vec![0; length as usize];
        self.random.fill(&mut bytes);
        Ok(bytes)
    }
}
