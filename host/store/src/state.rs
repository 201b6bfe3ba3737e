//! Plugins' keys and values, as committed.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;

use crate::Result;

/// A value and the version it has. Versions of one key only grow, also over deletion and re-creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// Its version, never 0.
    pub version: i64,
    /// When it ceases to be.
    pub expires: Option<Timestamp>,
}

/// Reading state. Writing happens in [`crate::work::Work::commit`] alone.
#[async_trait]
pub trait State: Send + Sync {
    /// The value under a key; expired values are returned too, the caller compares `expires` with its own time.
    async fn state(&self, tenant: TenantId, plugin: PluginId, key: &str) -> Result<Option<Versioned>>;

    /// Keys with a prefix, in byte order, beyond `after`.
    async fn state_keys(
        &self,
        tenant: TenantId,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>>;

    /// Bytes of all keys and values of a tenant, expired ones that are still there included. Reads through all of them.
    async fn state_bytes(&self, tenant: TenantId) -> Result<u64>;

    /// Deletes expired values of all tenants, at most `limit`; says how many.
    async fn host_expire_state(&self, now: Timestamp, limit: u32) -> Result<u64>;
}
