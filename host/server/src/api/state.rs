//! What handlers may reach.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use bulkhead_domain::clock::Clock;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::TenantId;
use bulkhead_flow::bus::Bus;
use bulkhead_flow::bus::Signal;
use bulkhead_flow::deliver;
use bulkhead_flow::dispatch;
use bulkhead_flow::inbox::Inbox;
use bulkhead_flow::live::Live;
use bulkhead_flow::preview::Previewer;
use bulkhead_flow::quota::Limiter;
use bulkhead_flow::sink::Outlets;
use bulkhead_flow::source::Supervisor;
use bulkhead_flow::tenants::Directory;
use bulkhead_flow::vault::Vault;
use bulkhead_sandbox::Sandbox;
use bulkhead_store::Store;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::api::cursor::Cursors;
use crate::api::places::Places;
use crate::api::trials::Trials;
use crate::api::upload::Uploads;
use crate::auth::Keyring;
use crate::config::ApiLimits;
use crate::install::Installer;

/// Everything, behind one pointer.
#[derive(Clone)]
pub struct Api(Arc<State>);

impl std::ops::Deref for Api {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

/// What handlers may reach.
pub struct State {
    /// The store.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Keys.
    pub keyring: Keyring,
    /// Cursors.
    pub cursors: Cursors,
    /// Where events go in.
    pub inbox: Inbox,
    /// What keeps tenants to their quotas.
    pub limiter: Limiter,
    /// What works them off.
    pub dispatch: dispatch::Handle,
    /// What sends deliveries.
    pub deliver: deliver::Handle,
    /// What says that there are new events.
    pub live: Live,
    /// The cache of tenants' settings.
    pub directory: Arc<Directory>,
    /// Seals secrets.
    pub vault: Arc<Vault>,
    /// The ways out, to check sinks against.
    pub outlets: Outlets,
    /// The sandbox.
    pub sandbox: Sandbox,
    /// Takes plugins in.
    pub installer: Installer,
    /// Tries versions of plugins on past events.
    pub previewer: Previewer,
    /// Limits.
    pub limits: ApiLimits,
    /// What is measured.
    pub metrics: PrometheusHandle,
    /// Places for tenants' requests that are in work.
    pub places: Places,
    /// Where uploads arrive.
    pub uploads: Uploads,
    /// Places for trying rules and plugins on past events.
    pub trials: Trials,
    /// Live streams that are open, by tenant.
    pub streams: Streams,
    /// Set when the host ends: streams close, and it is not ready any more.
    pub ending: CancellationToken,
    /// The operator's switch over everything, as it was seen last on this node.
    pub paused: AtomicBool,
    /// Who looks at that switch or turns it: a look must not undo a turn that it did not see.
    pub switch: tokio::sync::Mutex<()>,
    /// Tells other nodes what happened.
    pub bus: Bus,
    /// Whether there may be other nodes.
    pub shared: bool,
    /// This node's name.
    pub node: String,
    /// Where events are taken from.
    pub sources: Supervisor,
}

impl Api {
    /// The state of a host.
    pub fn new(state: State) -> Self {
        Self(Arc::new(state))
    }
}

impl State {
    /// The present.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Something that dispatch and delivery read was changed: they look again at once.
    pub async fn changed(&self, tenant: TenantId) {
        self.directory.invalidate(tenant).await;
        self.dispatch.wake_tenant(tenant);
        self.deliver.wake();
        self.bus.publish(Signal::Settings { tenant });
    }

    /// Deliveries are to be looked at again, on whichever node makes them.
    pub fn deliveries_changed(&self, tenant: TenantId) {
        self.deliver.wake();
        self.bus.publish(Signal::Deliveries { tenant });
    }

    /// Turns the switch over everything, here and (by the store) at the next start.
    pub async fn set_paused(&self, paused: bool) -> bulkhead_store::Result<()> {
        let _turn = self.switch.lock().await;
        self.store.operator_set_paused(paused).await?;
        self.apply_paused(paused);
        self.bus.publish(Signal::Switch);
        Ok(())
    }

    /// Looks at the switch, which another node may have turned.
    pub async fn look_at_switch(&self) {
        let _turn = self.switch.lock().await;
        match self.store.operator_paused().await {
            Ok(paused) if paused != self.paused.load(Ordering::Acquire) => {
                tracing::info!(paused, "another node turned the operator's switch");
                self.apply_paused(paused);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "cannot look at the operator's switch"),
        }
    }

    /// Makes the switch count on this node.
    pub fn apply_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.dispatch.set_paused(paused);
        self.deliver.set_paused(paused);
    }
}

/// Counts open streams.
#[derive(Clone, Default)]
pub struct Streams {
    open: Arc<Mutex<HashMap<TenantId, usize>>>,
}

/// An open stream; dropping it closes it.
pub struct OpenStream {
    streams: Streams,
    tenant: TenantId,
}

impl Streams {
    /// One more stream of a tenant, unless it has `most` already.
    pub fn open(&self, tenant: TenantId, most: usize) -> Option<OpenStream> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(tenant).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(OpenStream { streams: self.clone(), tenant })
    }

    /// How many are open, over all tenants.
    pub fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_counted_per_tenant_and_given_back() {
        let streams = Streams::default();
        let one = streams.open(TenantId(1), 2).expect("because there is room");
        let two = streams.open(TenantId(1), 2).expect("because there is room");
        assert!(streams.open(TenantId(1), 2).is_none());
        assert!(streams.open(TenantId(2), 2).is_some());
        drop(one);
        assert!(streams.open(TenantId(1), 2).is_some());
        drop(two);
        assert_eq!(streams.count(), 0);
    }
}
