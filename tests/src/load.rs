//! Steady load over several nodes: one lane per tenant, each with its books and its receiver.
//!
//! A lane offers a batch to one node after the other until it is acknowledged, as a publisher with a list of nodes does.
//! Lanes run until they are asked to end, and give their books back.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::host::Client;
use crate::ledger::Findings;
use crate::ledger::Ledger;
use crate::receiver::Receiver;

/// Keys of a lane, and events of each key in a batch.
const KEYS: usize = 5;
const EACH: u64 = 2;
/// Between the beginnings of two batches of a lane.
const PACE: Duration = Duration::from_millis(250);
/// A publisher that waits no longer for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before another node is asked.
const BETWEEN: Duration = Duration::from_millis(20);

/// One tenant's publisher, books and receiver.
pub struct Lane {
    /// With the tenant's key.
    pub client: Client,
    /// Where its deliveries arrive.
    pub receiver: Arc<Receiver>,
    /// The books.
    pub ledger: Ledger,
    /// Acknowledged so far; read while the lane is at work.
    pub acked: Arc<AtomicU64>,
    keys: Vec<String>,
    pending: Vec<serde_json::Value>,
}

/// What lanes share while they are at work.
#[derive(Clone, Default)]
pub struct Watch {
    /// Addresses that lanes try, in turn.
    urls: Arc<Mutex<Vec<String>>>,
    acks: Arc<Mutex<Vec<Instant>>>,
    refusals: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Over the nodes of a cluster, as they are now.
    #[must_use]
    pub fn over(cluster: &Cluster) -> Self {
        let watch = Self::default();
        watch.set(cluster);
        watch
    }

    /// The nodes have other addresses now.
    pub fn set(&self, cluster: &Cluster) {
        *lock(&self.urls) = cluster.nodes.iter().map(|node| node.host.url.clone()).collect();
    }

    /// The longest time without an acknowledgement since then, over all lanes together.
    #[must_use]
    pub fn longest_gap(&self, since: Instant) -> Duration {
        let mut acks: Vec<Instant> = lock(&self.acks).iter().copied().filter(|ack| *ack >= since).collect();
        acks.sort();
        let begins = std::iter::once(since).chain(acks.iter().copied());
        begins.zip(acks.iter()).map(|(begin, end)| end.duration_since(begin)).max().unwrap_or_default()
    }

    /// Answers that are no reason to try again: a publisher would have lost the event.
    #[must_use]
    pub fn refusals(&self) -> Vec<String> {
        lock(&self.refusals).clone()
    }
}

impl Lane {
    /// A tenant of its own, set up with the checker.
    pub async fn prepare(cluster: &Cluster, name: &str) -> Result<Self> {
        let client = cluster.tenant(name).await?.within(PATIENCE);
        let receiver = Receiver::start().await?;
        Ledger::prepare(&client.within(Duration::from_secs(60)), &receiver).await?;
        Ok(Self {
            client,
            receiver: Arc::new(receiver),
            ledger: Ledger::default(),
            acked: Arc::default(),
            keys: (0..KEYS).map(|key| format!("key-{key}")).collect(),
            pending: Vec::new(),
        })
    }

    /// Publishes until the watch says stop; what is under way then is offered until it is acknowledged.
    async fn run(mut self, number: usize, watch: Watch) -> Self {
        let mut turn = number;
        while !watch.stop.load(Ordering::Acquire) || !self.pending.is_empty() {
            let next = tokio::time::Instant::now() + PACE;
            if self.pending.is_empty() {
                self.pending = self.ledger.next(&self.keys, EACH);
            }
            let url = {
                let urls = lock(&watch.urls);
                urls[turn % urls.len()].clone()
            };
            if self.offer(&url, &watch).await {
                self.pending.clear();
                tokio::time::sleep_until(next).await;
            } else {
                turn += 1;
                tokio::time::sleep(BETWEEN).await;
            }
        }
        self
    }

    async fn offer(&mut self, url: &str, watch: &Watch) -> bool {
        let refused = |error: &anyhow::Error| {
            let text = format!("{error:#}");
            // 507 is the operator's to mend; a publisher comes back.
            let final_answer = text.starts_with("publish: 4") && !text.starts_with("publish: 429");
            final_answer.then_some(text)
        };
        match self.ledger.offer_once(&self.client.to(url), &self.pending).await {
            Ok(()) => {
                self.acked.store(self.ledger.acked.values().sum(), Ordering::Release);
                lock(&watch.acks).push(Instant::now());
                true
            }
            Err(error) => {
                lock(&watch.refusals).extend(refused(&error));
                false
            }
        }
    }

    /// Waits until all is worked off, and compares.
    pub async fn compare(&self, url: &str, limit: Duration) -> Result<Findings> {
        let client = self.client.to(url).within(Duration::from_secs(60));
        self.ledger.compare(&client, &self.receiver, limit).await
    }
}

/// Lanes at work.
pub struct Load {
    /// What can be seen of them meanwhile.
    pub watch: Watch,
    tasks: Vec<JoinHandle<Lane>>,
}

impl Load {
    /// Sets the lanes to work.
    #[must_use]
    pub fn start(lanes: Vec<Lane>, watch: Watch) -> Self {
        watch.stop.store(false, Ordering::Release);
        let tasks = lanes.into_iter().enumerate();
        let tasks = tasks.map(|(number, lane)| tokio::spawn(lane.run(number, watch.clone()))).collect();
        Self { watch, tasks }
    }

    /// Ends them; gives the books back.
    pub async fn stop(self) -> Result<Vec<Lane>> {
        self.watch.stop.store(true, Ordering::Release);
        let mut lanes = Vec::new();
        for task in self.tasks {
            lanes.push(task.await?);
        }
        Ok(lanes)
    }
}
