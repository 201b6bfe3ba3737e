//! The checker of invariants: a publisher that numbers its events per key, and the comparison at the end, from outside.
//!
//! Events of a key are published in order, each request again until it is acknowledged. The plugin `checker` counts them
//! in its state, emits a follow-up for each and delivers each. Afterwards:
//!
//! ```text
//! lost        = acknowledged, but not counted                     must be 0
//! twice       = counted, followed up or named more than once      must be 0
//! disorder    = counted out of the order of its key               must be 0
//! repeats     = arrived again at the receiver under the same id   may be any number
//! ```

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use anyhow::bail;
use serde_json::Value;
use serde_json::json;

use crate::eventually;
use crate::host::Client;
use crate::receiver::Receiver;

/// What the publisher knows.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The last number acknowledged, by key.
    pub acked: BTreeMap<String, u64>,
    /// Events in requests, repeats included.
    pub offered: u64,
    /// Events reported as duplicates.
    pub duplicates: u64,
    /// Requests that failed or whose outcome is unknown.
    pub failed_requests: u64,
}

/// What the comparison found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Acknowledged events.
    pub acked: u64,
    /// Events counted by the plugin.
    pub counted: u64,
    /// Follow-up events in the log.
    pub followed: u64,
    /// Distinct deliveries that arrived.
    pub arrived: u64,
    /// Deliveries that arrived again.
    pub repeats: u64,
    /// What must not be, in words.
    pub violations: Vec<String>,
}

impl Ledger {
    /// Sets a tenant up: plugin, sink and a rule that asks for order.
    pub async fn prepare(client: &Client, receiver: &Receiver) -> Result<()> {
        client.sink("arrivals", json!({"kind": "webhook", "url": receiver.url})).await?;
        client.push("checker").await?;
        client.configure("checker", json!({"deliver": true})).await?;
        client.rule(Self::rule()).await?;
        Ok(())
    }

    /// The rule that counts, in order of each key.
    #[must_use]
    pub fn rule() -> Value {
        json!({
            "name": "check", "on": "steps", "order": "key",
            "steps": [{"handle": "checker"}],
            "retry": {"attempts": 20, "first": "50ms", "factor": 2, "max": "1s"},
        })
    }

    /// The next `each` events of every key, as one batch. Not yet acknowledged.
    #[must_use]
    pub fn next(&self, keys: &[String], each: u64) -> Vec<Value> {
        let mut batch = Vec::new();
        for step in 1..=each {
            for key in keys {
                let seq = self.acked.get(key).copied().unwrap_or(0) + step;
                batch.push(json!({
                    "specversion": "1.0", "id": format!("{key}-{seq}"), "source": "/tests", "type": "steps",
                    "partitionkey": key, "data": {"key": key, "seq": seq},
                }));
            }
        }
        batch
    }

    /// Sends a batch once. True if it was acknowledged, and then it is in the books.
    pub async fn offer(&mut self, client: &Client, batch: &[Value]) -> bool {
        self.offer_once(client, batch).await.is_ok()
    }

    /// Sends a batch once; says why if it was not acknowledged. If it was, it is in the books.
    pub async fn offer_once(&mut self, client: &Client, batch: &[Value]) -> Result<()> {
        self.offered += batch.len() as u64;
        let receipt = client.publish(batch).await.and_then(|receipt| {
            if receipt["rejected"].as_array().is_some_and(Vec::is_empty) { Ok(receipt) } else { bail!("{receipt}") }
        });
        let receipt = receipt.inspect_err(|_| self.failed_requests += 1)?;
        self.duplicates += receipt["duplicates"].as_u64().unwrap_or_default();
        for event in batch {
            if let (Some(key), Some(seq)) = (event["data"]["key"].as_str(), event["data"]["seq"].as_u64()) {
                self.acked.insert(key.to_owned(), seq);
            }
        }
        Ok(())
    }

    /// Waits until everything acknowledged is worked off and delivered, then compares.
    pub async fn compare(&self, client: &Client, receiver: &Receiver, limit: Duration) -> Result<Findings> {
        let acked: u64 = self.acked.values().sum();
        let settled = eventually("everything acknowledged to be counted and delivered", limit, async || {
            let arrived = receiver.distinct() as u64;
            if arrived < acked {
                bail!("acknowledged {acked}, arrived {arrived}");
            }
            let mut counted = 0;
            for key in self.acked.keys() {
                counted += client.number("checker", &format!("count:{key}")).await?;
            }
            if counted < acked {
                bail!("acknowledged {acked}, counted {counted}");
            }
            Ok(Some(()))
        });
        let mut findings = Findings { acked, ..Findings::default() };
        if let Err(error) = settled.await {
            findings.violations.push(format!("{error:#}"));
        }
        for (key, sent) in &self.acked {
            let counted = client.number("checker", &format!("count:{key}")).await?;
            findings.counted += counted;
            if counted != *sent {
                findings.violations.push(format!("{key}: acknowledged {sent}, counted {counted}"));
            }
            let disorder = client.number("checker", &format!("disorder:{key}")).await?;
            if disorder != 0 {
                findings.violations.push(format!("{key}: {disorder} out of order"));
            }
        }
        self.follow_ups(client, &mut findings).await?;
        self.arrivals(receiver, &mut findings);
        Ok(findings)
    }

    async fn follow_ups(&self, client: &Client, findings: &mut Findings) -> Result<()> {
        let mut seen: HashMap<String, u64> = HashMap::new();
        for event in client.list("/v1/events?type=checked&order=asc").await? {
            *seen.entry(event["data"].to_string()).or_default() += 1;
        }
        findings.followed = seen.values().sum();
        for (data, times) in &seen {
            if *times != 1 {
                findings.violations.push(format!("{data} was followed up {times} times"));
            }
        }
        if seen.len() as u64 != findings.acked {
            findings.violations.push(format!("{} follow-ups of {} events", seen.len(), findings.acked));
        }
        Ok(())
    }

    fn arrivals(&self, receiver: &Receiver, findings: &mut Findings) {
        let (mut bodies, mut names): (HashMap<String, Vec<u8>>, HashMap<Vec<u8>, String>) = Default::default();
        for arrival in receiver.arrivals() {
            match bodies.get(&arrival.id) {
                Some(body) if *body == arrival.body => findings.repeats += 1,
                Some(_) => findings.violations.push(format!("{} names two bodies", arrival.id)),
                None => {
                    if let Some(other) = names.insert(arrival.body.clone(), arrival.id.clone()) {
                        findings.violations.push(format!("{} and {other} carry the same body", arrival.id));
                    }
                    bodies.insert(arrival.id, arrival.body);
                }
            }
        }
        findings.arrived = bodies.len() as u64;
    }
}
