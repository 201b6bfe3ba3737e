//! Usage statements.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bulkhead_domain::id::TenantId;

use crate::Result;

/// One line of a statement: a day, a plugin, a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageLine {
    /// Days since the epoch.
    pub day: i64,
    /// The plugin's name; empty for what no plugin used.
    pub plugin: String,
    /// The rule.
    pub rule: String,
    /// Events accepted from outside; counted on the line without plugin and rule.
    pub events: u64,
    /// Attempts.
    pub attempts: u64,
    /// Runs done.
    pub done: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Fuel.
    pub fuel: u64,
    /// Microseconds in plugin steps.
    pub micros: u64,
    /// Events emitted.
    pub emitted: u64,
    /// Deliveries made.
    pub deliveries: u64,
    /// What plugins counted themselves, by unit.
    pub units: BTreeMap<String, f64>,
}

/// Reading usage. It is added to in [`crate::work::Work::commit`] and, for ingest, by the append.
#[async_trait]
pub trait Usage: Send + Sync {
    /// The lines of the days `from..=to`, oldest first.
    async fn usage(&self, tenant: TenantId, from: i64, to: i64) -> Result<Vec<UsageLine>>;
}
