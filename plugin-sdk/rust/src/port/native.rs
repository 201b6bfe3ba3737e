//! The test host: every call goes to the attempt that `testing::Host` has begun on this thread.

use std::time::Duration;

use super::Page;
use crate::context::Invocation;
use crate::draft::{Body, Draft};
use crate::log::Level;
use crate::refusal::Refusal;
use crate::testing::attempt::{with_attempt, with_attempt_or};
use crate::testing::{Call, Delivered, LogLine, Scheduled};

/// What the real host gives at most in one call.
const RANDOM_BYTES_MAX: u32 = 64 * 1_024;
const PAGE_KEYS_MAX: usize = 1_000;

pub fn current() -> Invocation {
    with_attempt(|attempt| attempt.invocation())
}

pub fn config(name: &str) -> Option<String> {
    with_attempt(|attempt| attempt.settings.config.get(name).map(ToString::to_string))
}

pub fn secret(name: &str) -> Result<String, Refusal> {
    with_attempt(|attempt| {
        attempt.permit(Call::Secret)?;
        attempt.settings.secrets.get(name).cloned().ok_or_else(|| Refusal::NotFound(format!("secret `{name}`")))
    })
}

pub fn field(pointer: &str) -> Option<String> {
    with_attempt(|attempt| {
        let document: serde_json::Value = serde_json::from_slice(&attempt.data).ok()?;
        document.pointer(pointer).map(ToString::to_string)
    })
}

pub fn random(length: u32) -> Vec<u8> {
    with_attempt(|attempt| (0..length.min(RANDOM_BYTES_MAX)).map(|_| attempt.random_byte()).collect())
}

pub fn emit(draft: Draft) -> Result<String, Refusal> {
    with_attempt(|attempt| {
        attempt.permit(Call::Emit)?;
        attempt.record.emitted.push(draft);
        Ok(attempt.next_id())
    })
}

pub fn deliver(sink: &str, body: Body) -> Result<String, Refusal> {
    with_attempt(|attempt| {
        attempt.permit(Call::Deliver)?;
        if attempt.settings.sinks.as_ref().is_some_and(|sinks| !sinks.contains(sink)) {
            return Err(Refusal::NotFound(format!("sink `{sink}`")));
        }
        attempt.record.delivered.push(Delivered { sink: sink.to_owned(), body });
        Ok(attempt.next_id())
    })
}

pub fn schedule(name: Option<&str>, after: Duration, draft: Draft) -> Result<String, Refusal> {
    with_attempt(|attempt| {
        attempt.permit(Call::Schedule)?;
        let id = attempt.next_id();
        if name.is_some() {
            attempt.record.scheduled.retain(|timer| timer.name.as_deref() != name);
        }
        let name = name.map(str::to_owned);
        attempt.record.scheduled.push(Scheduled { id: id.clone(), name, after, draft });
        Ok(id)
    })
}

pub fn cancel(timer: &str) -> Result<(), Refusal> {
    with_attempt(|attempt| {
        attempt.permit(Call::Schedule)?;
        // A timer of an earlier run is not known here; one of this run is simply gone.
        attempt.record.scheduled.retain(|this| this.id != timer && this.name.as_deref() != Some(timer));
        attempt.record.cancelled.push(timer.to_owned());
        Ok(())
    })
}

pub fn get(key: &str) -> Result<Option<Vec<u8>>, Refusal> {
    with_attempt(|attempt| {
        attempt.permit(Call::ReadState)?;
        Ok(attempt.state.get(key, attempt.now))
    })
}

pub fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), Refusal> {
    with_attempt(|attempt| {
        attempt.permit(Call::WriteState)?;
        attempt.state.set(key, value.to_vec(), ttl.map(|ttl| attempt.now + ttl));
        Ok(())
    })
}

pub fn delete(key: &str) -> Result<(), Refusal> {
    with_attempt(|attempt| {
        attempt.permit(Call::WriteState)?;
        attempt.state.delete(key);
        Ok(())
    })
}

pub fn increment(key: &str, by: i64) -> Result<i64, Refusal> {
    with_attempt(|attempt| {
        attempt.permit(Call::WriteState)?;
        attempt.state.increment(key, by, attempt.now)
    })
}

pub fn keys(prefix: &str, after: Option<&str>, limit: u32) -> Result<Page, Refusal> {
    with_attempt(|attempt| {
        attempt.permit(Call::ReadState)?;
        let limit = usize::try_from(limit).unwrap_or(PAGE_KEYS_MAX).min(PAGE_KEYS_MAX);
        let mut keys = attempt.state.keys(prefix, after, attempt.now);
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next = more.then(|| keys.last().cloned()).flatten();
        Ok(Page { keys, next })
    })
}

pub fn log(level: Level, message: &str, fields: &[(String, String)]) {
    let line = LogLine { level, message: message.to_owned(), fields: fields.to_vec() };
    // A helper that logs can be tested without a run around it.
    with_attempt_or(line, |attempt, line| attempt.record.logs.push(line), |line| eprintln!("{line}"));
}

pub fn count(unit: &str, amount: f64) -> Result<(), Refusal> {
    with_attempt(|attempt| {
        attempt.permit(Call::CountUsage)?;
        attempt.record.usage.push((unit.to_owned(), amount));
        Ok(())
    })
}
