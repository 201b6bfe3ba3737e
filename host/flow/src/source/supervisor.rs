//! The supervisor of sources: which run on this node, and that they do.
//!
//! Every source belongs to a shard by its name, and runs on the node that holds it: one at a time, so that what it reads
//! keeps its order, and somewhere as long as any node lives. A source that may run on all nodes at once does.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_store::Store;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::inbox::Inbox;
use crate::shards::Fences;
use crate::source::Backoff;
use crate::source::Reporter;
use crate::source::Status;
use crate::source::outbox;
use crate::source::outbox::OutboxSource;
use crate::source::redis;
use crate::source::redis::RedisSource;

/// Between two looks at whose turn it is.
const LOOK: Duration = Duration::from_millis(100);
/// A source that ran for so long was well; one that fails sooner is tried again more and more rarely.
const WELL: Duration = Duration::from_secs(10);

/// A source as it is to be.
#[derive(Debug, Clone)]
pub enum Spec {
    /// A stream of a Redis.
    RedisStream {
        /// Whose events they are, by name or id. Takes the place of the options' tenant, which is looked up at the start.
        tenant: String,
        /// How it is read.
        options: Box<redis::Options>,
        /// Whether all nodes read it at once: faster, and without any order.
        parallel: bool,
    },
    /// A table of an application.
    Outbox(Box<outbox::Options>),
}

impl Spec {
    /// Its name, unique among the sources.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::RedisStream { options, .. } => &options.name,
            Self::Outbox(options) => &options.name,
        }
    }

    fn runs_everywhere(&self) -> bool {
        matches!(self, Self::RedisStream { parallel: true, .. })
    }
}

/// A source that can run once, and what tells it to end.
struct Made {
    status: watch::Receiver<Status>,
    run: Pin<Box<dyn Future<Output = ()> + Send>>,
    leave: CancellationToken,
}

/// All sources of an installation, seen from this node. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    slots: Vec<Slot>,
    node: String,
    store: Store,
    inbox: Inbox,
    fences: Arc<Fences>,
}

struct Slot {
    spec: Spec,
    /// What is said of it while it does not run here.
    reporter: Reporter,
    /// What it says itself.
    running: Mutex<Option<watch::Receiver<Status>>>,
}

impl Slot {
    fn set_running(&self, status: Option<watch::Receiver<Status>>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

impl Supervisor {
    /// Nothing runs yet. `node` names this node among the readers of what all read.
    #[must_use]
    pub fn new(specs: Vec<Spec>, node: String, store: Store, inbox: Inbox, fences: Arc<Fences>) -> Self {
        let slot = |spec: Spec| Slot { reporter: Reporter::new(spec.name()), running: Mutex::default(), spec };
        let slots = specs.into_iter().map(slot).collect();
        Self { inner: Arc::new(Inner { slots, node, store, inbox, fences }) }
    }

    /// How every source is, on this node.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let status = |slot: &Slot| {
            let running = slot.running.lock().unwrap_or_else(PoisonError::into_inner);
            running
                .as_ref()
                .map_or_else(|| slot.reporter.subscribe().borrow().clone(), |status| status.borrow().clone())
        };
        self.inner.slots.iter().map(status).collect()
    }

    /// Runs what is this node's, until `stop`; what is being made durable then is ended and acknowledged.
    pub async fn run(self, stop: CancellationToken) {
        let mut sources = JoinSet::new();
        for number in 0..self.inner.slots.len() {
            let (inner, stop) = (Arc::clone(&self.inner), stop.clone());
            sources.spawn(async move { inner.keep(&inner.slots[number], &stop).await });
        }
        while let Some(ended) = sources.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a source ended by a fault of the host");
            }
        }
    }
}

impl Inner {
    fn is_here(&self, slot: &Slot) -> bool {
        let shards = self.store.host_shards();
        let shard = Shard::of(TenantId(0), slot.spec.name(), shards, shards);
        let held = self.fences.load();
        slot.spec.runs_everywhere() || (!held.has_run_out() && held.contains_key(&shard))
    }

    async fn keep(&self, slot: &Slot, stop: &CancellationToken) {
        let mut backoff = Backoff::new(format!("{}/{}", self.node, slot.spec.name()));
        while !stop.is_cancelled() {
            if !self.is_here(slot) {
                slot.reporter.elsewhere();
                stop.run_until_cancelled(tokio::time::sleep(LOOK)).await;
                continue;
            }
            match self.make(&slot.spec, stop).await {
                Ok(Made { status, run, leave }) => {
                    slot.set_running(Some(status));
                    let began = Instant::now();
                    // On a task of its own, so that a fault of it ends nothing else; it ends with this one.
                    let run = AbortOnDropHandle::new(tokio::spawn(run));
                    let left = async {
                        while self.is_here(slot) {
                            tokio::time::sleep(LOOK).await;
                        }
                        leave.cancel();
                        std::future::pending::<()>().await;
                    };
                    let ended = tokio::select! {
                        ended = run => ended,
                        () = left => Ok(()),
                    };
                    slot.set_running(None);
                    if !self.is_here(slot) {
                        forget(&slot.spec);
                    }
                    if began.elapsed() >= WELL {
                        backoff.reset();
                    }
                    if let Err(error) = ended {
                        slot.reporter.waiting(&format!("a fault of the host: {error}"));
                        stop.run_until_cancelled(tokio::time::sleep(backoff.next_wait())).await;
                    }
                }
                Err(reason) => {
                    slot.reporter.waiting(&reason);
                    stop.run_until_cancelled(tokio::time::sleep(backoff.next_wait())).await;
                }
            }
        }
        slot.reporter.stopped();
    }

    /// A source that begins where the last one to run ended.
    async fn make(&self, spec: &Spec, stop: &CancellationToken) -> Result<Made, String> {
        let (leave, store, inbox) = (stop.child_token(), Arc::clone(&self.store), self.inbox.clone());
        let until = leave.clone();
        match spec {
            Spec::RedisStream { tenant, options, parallel } => {
                let row = store.operator_tenant(tenant).await.map_err(|error| error.to_string())?;
                let row = row.ok_or_else(|| format!("there is no tenant `{tenant}`"))?;
                let mut options = redis::Options { tenant: row.id, ..(**options).clone() };
                if *parallel {
                    options.consumer.clone_from(&self.node);
                }
                let source = RedisSource::new(options, store, inbox).map_err(|error| error.to_string())?;
                Ok(Made { status: source.status(), run: Box::pin(source.run(until)), leave })
            }
            Spec::Outbox(options) => {
                let source = OutboxSource::new((**options).clone(), store, inbox).map_err(|error| error.to_string())?;
                Ok(Made { status: source.status(), run: Box::pin(source.run(until)), leave })
            }
        }
    }
}

/// What waits in a source is told by the node that reads it.
fn forget(spec: &Spec) {
    let own = match spec {
        Spec::RedisStream { .. } => "bulkhead_source_pending",
        Spec::Outbox(_) => "bulkhead_source_waiting_tenants",
    };
    for what in ["bulkhead_source_backlog", "bulkhead_source_oldest_seconds", own] {
        metrics::gauge!(what, "source" => spec.name().to_owned()).set(0.0);
    }
}
