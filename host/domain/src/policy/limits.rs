//! Limits of one invocation, and how long an instance lives.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

/// How long an instance of a plugin serves. Never across tenants, and never after a trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstancePolicy {
    /// A fresh one for each batch of one tenant.
    #[default]
    Batch,
    /// A fresh one for each event.
    Event,
    /// Kept over batches, at most 1,000 calls or 60 s.
    Warm,
}

/// What one invocation may use. Made from the operator's ceiling and what the manifest asks for: see [`Limits::within`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Instructions, as wasmtime counts them. The deterministic limit, and the bill.
    pub fuel: u64,
    /// Wall-clock time. The backstop.
    pub time: Duration,
    /// Bytes of all linear memories of the instance together.
    pub memory: usize,
    /// Elements of all tables together.
    pub table_elements: usize,
    /// Calls into the host.
    pub host_calls: u32,
    /// Bytes of log kept.
    pub log_bytes: usize,
    /// Lines of log kept.
    pub log_lines: usize,
    /// Bytes of one log line.
    pub log_line: usize,
    /// Events emitted and timers set, and deliveries: each.
    pub effects: usize,
    /// Bytes of all effects together (emits, deliveries, timers).
    pub effect_bytes: usize,
    /// Bytes of one effect's body.
    pub effect_body: usize,
    /// Writes to state.
    pub state_writes: usize,
    /// Bytes written to state.
    pub state_bytes: usize,
    /// Bytes of one state key.
    pub state_key: usize,
    /// Bytes of one state value.
    pub state_value: usize,
    /// Requests to other hosts.
    #[serde(default)]
    pub http: HttpLimits,
}

/// What the requests of one invocation to other hosts may use. Waiting for them is counted here and not in
/// [`Limits::time`], which is for computing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpLimits {
    /// Requests.
    pub requests: u32,
    /// Bytes of one request's body; its headers may have a sixteenth of that.
    pub request_bytes: usize,
    /// Bytes of one answer's body.
    pub response_bytes: usize,
    /// Time for one request, from its beginning to the end of its answer.
    pub time: Duration,
    /// Time that the invocation may wait for all its requests together.
    pub wait: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            requests: 16,
            request_bytes: 256 << 10,
            response_bytes: 1 << 20,
            time: Duration::from_secs(10),
            wait: Duration::from_secs(20),
        }
    }
}

impl Default for Limits {
    /// Starting values from measurements over 47 hostile and 8 ordinary components; the operator may move them.
    fn default() -> Self {
        Self {
            fuel: 1_000_000_000,
            time: Duration::from_secs(2),
            memory: 64 << 20,
            table_elements: 20_000,
            host_calls: 10_000,
            log_bytes: 64 << 10,
            log_lines: 1_000,
            log_line: 8 << 10,
            effects: 100,
            effect_bytes: 1 << 20,
            effect_body: 256 << 10,
            state_writes: 64,
            state_bytes: 1 << 20,
            state_key: 512,
            state_value: 256 << 10,
            http: HttpLimits::default(),
        }
    }
}

/// What a manifest asks for; each can only lower the operator's ceiling.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitRequest {
    /// Wall-clock time.
    pub time: Option<Duration>,
    /// Bytes of linear memory.
    pub memory: Option<usize>,
    /// Fuel.
    pub fuel: Option<u64>,
    /// How long an instance lives.
    pub instance: InstancePolicy,
}

impl Limits {
    /// These limits, lowered to what the manifest asks for.
    #[must_use]
    pub fn within(mut self, request: &LimitRequest) -> Self {
        self.time = request.time.map_or(self.time, |asked| asked.min(self.time));
        self.memory = request.memory.map_or(self.memory, |asked| asked.min(self.memory));
        self.fuel = request.fuel.map_or(self.fuel, |asked| asked.min(self.fuel));
        self
    }
}
