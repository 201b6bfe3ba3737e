//! Fails on purpose: a fixture for retries, parking, limits and the pages that show them.
//!
//! How it fails is the setting `mode`, or the field `fail` of one event. Each way ends at another wall of the
//! host: a verdict, a trap, the time limit, the memory limit, the stack.

use std::time::Duration;

use bulkhead_plugin::{Event, Failure, context, handler, log};
use serde::Deserialize;

/// What it tries to take with mode `memory`, 1 MiB at a time.
const MEMORY_MIB: usize = 4_096;

/// How to fail.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Says that another attempt would end the same.
    Reject,
    /// Asks for another attempt.
    Retry,
    /// Executes an unreachable instruction.
    Trap,
    /// Panics: a trap with a message in the log.
    Panic,
    /// Never ends by itself.
    Loop,
    /// Takes memory until it gets none, then traps.
    Memory,
    /// Calls itself until the stack ends.
    Stack,
    /// Succeeds after all.
    None,
}

#[handler]
fn handle(event: Event) -> Result<(), Failure> {
    let attempt = context::current().attempt;
    let succeed_at: u32 = context::config_or("succeed_at", 0)?;
    if succeed_at > 0 && attempt >= succeed_at {
        log::info!(attempt; "succeeds from attempt {succeed_at} on");
        return Ok(());
    }
    let asked: Option<Mode> = context::field("/fail")?;
    let mode = match asked {
        Some(mode) => mode,
        None => context::config_or("mode", Mode::Reject)?,
    };
    log::warn!(attempt; "fails on purpose: {mode:?}");
    match mode {
        Mode::Reject => Err(Failure::reject(format!("{} was rejected on purpose", event.kind))),
        Mode::Retry => Err(retry()?),
        Mode::Trap => trap(),
        Mode::Panic => panic!("a panic on purpose, over event {}", event.id),
        Mode::Loop => spin(),
        Mode::Memory => fill(),
        Mode::Stack => Err(Failure::reject(format!("the stack held {} calls", descend(0)))),
        Mode::None => Ok(()),
    }
}

fn retry() -> Result<Failure, Failure> {
    let failure = Failure::retry("a retry on purpose");
    Ok(match context::config_or("after_ms", 0)? {
        0 => failure,
        after => failure.after(Duration::from_millis(after)),
    })
}

fn trap() -> ! {
    #[cfg(target_family = "wasm")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_family = "wasm"))]
    panic!("natively a trap is a panic")
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        // Seen by nobody, but the optimiser must not know that.
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

fn fill() -> ! {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for _ in 0..MEMORY_MIB {
        // Written, since memory that is only reserved may cost nothing.
        taken.push(std::hint::black_box(vec![1; 1 << 20]));
    }
    panic!("the host gave {} MiB", taken.len())
}

fn descend(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if frame[0] == u64::MAX {
        return 0;
    }
    // The addition after the call keeps it from becoming a loop.
    descend(frame[0] + 1) + std::hint::black_box(frame[63])
}

#[cfg(test)]
mod tests {
    use bulkhead_plugin::testing::{self, Host};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_event_asks_before_the_setting() {
        let mut host = Host::new().with_config("mode", "reject").with_config("after_ms", 40);
        let run = host.handle(handle, testing::event("a", json!({"fail": "retry"})));
        assert_eq!(*run.failure(), Failure::retry("a retry on purpose").after(Duration::from_millis(40)));
        let run = host.handle(handle, testing::event("a.b", json!({})));
        assert_eq!(*run.failure(), Failure::reject("a.b was rejected on purpose"));
    }

    #[test]
    fn it_can_succeed_from_an_attempt_on() {
        let host = Host::new().with_config("succeed_at", 3);
        host.clone().at_attempt(2).handle(handle, testing::event("a", json!({}))).failure();
        host.clone().at_attempt(3).handle(handle, testing::event("a", json!({}))).success();
    }

    #[test]
    fn an_unknown_way_to_fail_is_named() {
        let run = Host::new().handle(handle, testing::event("a", json!({"fail": "politely"})));
        assert!(run.failure().reason.contains("unknown variant `politely`"), "{}", run.failure());
    }
}
