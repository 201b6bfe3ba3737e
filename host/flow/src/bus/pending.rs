//! Signals that wait, each once: to be sent, or to be acted upon.
//!
//! However many come and however slow the other side is, no more wait than fit: beyond that one signal stands for all.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::Notify;

use crate::bus::Signal;

/// Signals that wait: 45 kB on the wire, and fewer looks than looking at everything costs.
pub(super) const WAITING_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: Mutex<HashSet<Signal>>,
    added: Notify,
}

impl Pending {
    /// Adds a signal. Says whether it says something that those waiting do not.
    pub(super) fn add(&self, signal: Signal) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let stands_for_it = match signal {
            Signal::Events { tenant, bit: Some(_) } => Some(Signal::Events { tenant, bit: None }),
            _ => None,
        };
        let known = [Some(Signal::Missed), Some(signal), stands_for_it];
        if known.iter().flatten().any(|known| waiting.contains(known)) {
            return false;
        }
        let signal = if waiting.len() < WAITING_MAX { signal } else { Signal::Missed };
        if signal == Signal::Missed {
            waiting.clear();
        }
        waiting.insert(signal);
        drop(waiting);
        self.added.notify_one();
        true
    }

    /// All that wait, as soon as there is one. For one taker; nothing is lost if it stops waiting.
    pub(super) async fn take(&self) -> Vec<Signal> {
        loop {
            let added = self.added.notified();
            let taken = self.take_now();
            if !taken.is_empty() {
                return taken;
            }
            added.await;
        }
    }

    /// All that wait now.
    pub(super) fn take_now(&self) -> Vec<Signal> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_domain::id::TenantId;

    use super::*;

    fn events(tenant: i64) -> Signal {
        Signal::Events { tenant: TenantId(tenant), bit: None }
    }

    #[tokio::test]
    async fn one_that_waits_already_is_not_added_again() {
        let pending = Pending::default();
        assert!(pending.add(events(1)));
        assert!(!pending.add(events(1)));
        assert!(pending.add(events(2)));
        assert_eq!(pending.take().await.len(), 2);
        assert!(pending.add(events(1)), "it was taken, so it is news again");
        assert_eq!(pending.take().await, [events(1)]);
    }

    #[tokio::test]
    async fn events_of_any_type_stand_for_those_of_one() {
        let pending = Pending::default();
        let of_one = |tenant| Signal::Events { tenant: TenantId(tenant), bit: Some(7) };
        assert!(pending.add(of_one(1)));
        assert!(pending.add(events(2)));
        assert!(!pending.add(of_one(2)));
        assert_eq!(pending.take().await.len(), 2);
    }

    #[tokio::test]
    async fn too_many_become_one_that_stands_for_all() {
        let pending = Pending::default();
        for tenant in 0..=WAITING_MAX as i64 {
            assert!(pending.add(events(tenant)));
        }
        assert!(!pending.add(Signal::Keys), "looking at everything looks at the keys, too");
        assert_eq!(pending.take().await, [Signal::Missed]);
        assert!(pending.add(events(1)));
    }
}
