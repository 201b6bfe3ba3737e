//! Live: tells readers of a tenant's log that something was appended. They read it from the store themselves.
//!
//! A tick carries no data, so nothing can cross tenants here, and a slow reader holds nothing up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use bulkhead_domain::id::TenantId;
use tokio::sync::watch;

use crate::bus::Bus;
use crate::bus::Signal;

/// A cheap handle; all clones share the same channels.
#[derive(Debug, Clone, Default)]
pub struct Live {
    channels: Arc<Mutex<HashMap<TenantId, watch::Sender<u64>>>>,
    bus: Bus,
}

impl Live {
    /// Channels of this node, whose ticks other nodes hear of over the bus.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        Self { channels: Arc::default(), bus }
    }

    /// A receiver that changes whenever events of the tenant were appended.
    #[must_use]
    pub fn subscribe(&self, tenant: TenantId) -> watch::Receiver<u64> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.entry(tenant).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Events of the tenant were appended on this node.
    pub fn tick(&self, tenant: TenantId) {
        self.heard(tenant);
        self.bus.publish(Signal::Events { tenant });
    }

    /// Events of the tenant were appended on another node. Channels that nobody listens to are forgotten, so the map is
    /// bounded by the number of open streams.
    pub fn heard(&self, tenant: TenantId) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = channels.get(&tenant) {
            if sender.receiver_count() == 0 {
                channels.remove(&tenant);
            } else {
                sender.send_modify(|ticks| *ticks += 1);
            }
        }
    }

    /// Events of any tenant may have been appended.
    pub fn heard_all(&self) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|_, sender| sender.receiver_count() > 0);
        channels.values().for_each(|sender| sender.send_modify(|ticks| *ticks += 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_reaches_its_tenant_alone_and_unheard_channels_go() {
        let live = Live::default();
        let (mut a, b) = (live.subscribe(TenantId(1)), live.subscribe(TenantId(2)));
        live.tick(TenantId(1));
        assert!(a.has_changed().expect("because the sender lives"));
        assert!(!b.has_changed().expect("because the sender lives"));
        a.mark_unchanged();
        drop((a, b));
        live.tick(TenantId(1));
        live.tick(TenantId(2));
        assert!(live.channels.lock().expect("because nobody panicked").is_empty());
    }
}
