//! What an instance may grow to: one budget over all its memories, one over all its tables.
//!
//! wasmtime's ready-made limiter compares each memory by itself, so a component with eight memories has eight times
//! the limit. This one sums.

use bulkhead_domain::policy::limits::Limits;
use wasmtime::ResourceLimiter;

/// Core instances in a store; a component may have 64, and adapters count too.
const INSTANCES: usize = 128;
/// Linear memories in a store.
const MEMORIES: usize = 16;
/// Tables in a store.
const TABLES: usize = 32;

/// Handles to resources that a guest may hold at a time.
pub(crate) const HANDLES: usize = 1_024;

/// Room for the lists and strings around what crosses.
const AROUND: usize = 256 << 10;

/// Bytes that may cross from the guest to the host in one call, in whichever direction it is called; wasmtime counts
/// them by their size on the host. As much as the largest legal argument or answer, and what is around it.
pub(crate) fn crossing(limits: &Limits) -> usize {
    let largest = limits.effect_bytes.max(limits.effect_body).max(limits.state_value).max(limits.log_line);
    largest.saturating_add(AROUND)
}

/// The budget of one store.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory: usize,
    memory_max: usize,
    tables: usize,
    tables_max: usize,
    refused: bool,
}

impl Limiter {
    pub(crate) fn new(memory_max: usize, tables_max: usize) -> Self {
        Self { memory: 0, memory_max, tables: 0, tables_max, refused: false }
    }

    /// Bytes of all memories. They never shrink, so this is also the most they were.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// The limit on memory.
    pub(crate) fn memory_max(&self) -> usize {
        self.memory_max
    }

    /// Whether memory was asked for and not given since this was last asked.
    pub(crate) fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }
}

/// Adds what is asked for if it fits both the budget and the maximum of the one memory or table.
fn grow(used: &mut usize, limit: usize, current: usize, desired: usize, maximum: Option<usize>) -> bool {
    let Some(more) = desired.checked_sub(current) else { return true };
    match used.checked_add(more) {
        Some(total) if total <= limit && maximum.is_none_or(|maximum| desired <= maximum) => {
            *used = total;
            true
        }
        _ => false,
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let given = grow(&mut self.memory, self.memory_max, current, desired, maximum);
        self.refused |= !given;
        Ok(given)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(grow(&mut self.tables, self.tables_max, current, desired, maximum))
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }

    fn tables(&self) -> usize {
        TABLES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_one_over_all_memories() {
        let mut limiter = Limiter::new(100, 10);
        let mut ask = |current, desired, maximum| {
            limiter.memory_growing(current, desired, maximum).expect("because it never traps")
        };
        assert!(ask(0, 60, None));
        assert!(!ask(0, 60, None), "a second memory has no budget of its own");
        assert!(ask(0, 40, None));
        assert!(!ask(40, 41, None));
        assert_eq!(limiter.memory(), 100);
        assert!(limiter.take_refused());
        assert!(!limiter.take_refused());
    }

    #[test]
    fn what_exceeds_the_memory_s_own_maximum_is_not_counted() {
        let mut limiter = Limiter::new(100, 10);
        assert!(!limiter.memory_growing(0, 60, Some(50)).expect("because it never traps"));
        assert_eq!(limiter.memory(), 0);
        assert!(limiter.table_growing(0, 10, None).expect("because it never traps"));
        assert!(!limiter.table_growing(0, 1, None).expect("because it never traps"));
    }
}
