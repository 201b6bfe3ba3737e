//! Upkeep: what a store needs to have done now and then.

use async_trait::async_trait;

use crate::Result;

/// See the module's text.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Does what is due: makes room for events to come, and folds together what was only added. Any node may do it at any
    /// time; the keeper does every 20 seconds.
    async fn host_tidy(&self) -> Result<()>;
}
