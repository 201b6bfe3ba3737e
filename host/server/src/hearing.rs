//! What the other nodes of a store say, and what this one does about it.
//!
//! Signals come over the bus if there is a Redis, and may be lost. What nobody would notice otherwise is looked for
//! every second ([`watch_switch`]); the rest is looked for by those that it concerns.

use std::time::Duration;

use async_trait::async_trait;
use bulkhead_flow::bus::Handler;
use bulkhead_flow::bus::Signal;
use bulkhead_flow::live::Kinds;
use tokio_util::sync::CancellationToken;

use crate::api::state::Api;

/// Between two looks at the operator's switch.
const LOOK: Duration = Duration::from_secs(1);

/// Does what signals ask for.
pub struct Hearing {
    api: Api,
}

impl Hearing {
    /// For a host.
    pub fn new(api: Api) -> Self {
        Self { api }
    }
}

#[async_trait]
impl Handler for Hearing {
    async fn heard(&self, signal: Signal) {
        let api = &self.api;
        match signal {
            Signal::Work { tenant, shard } => _ = api.dispatch.heard(tenant, shard),
            Signal::Events { tenant, bit } => api.live.heard(tenant, Kinds::told(bit)),
            Signal::Settings { tenant } => {
                api.directory.invalidate(tenant).await;
                api.dispatch.heard_tenant(tenant);
                api.deliver.heard(tenant);
            }
            Signal::Deliveries { tenant } => api.deliver.heard(tenant),
            Signal::Keys => api.keyring.heard(),
            Signal::Switch => api.look_at_switch().await,
            Signal::Missed => {
                api.keyring.heard();
                api.look_at_switch().await;
                api.dispatch.look_again();
                api.deliver.wake();
                api.live.heard_all();
            }
        }
    }
}

/// Looks at the operator's switch, which another node may have turned, until `stop`.
pub async fn watch_switch(api: Api, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        api.look_at_switch().await;
    }
}
