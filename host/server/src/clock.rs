//! The clock of nodes that share a store: the store's own.
//!
//! A retry that one node puts off is due on another, so all must mean the same time by it. Each node asks the store every
//! second and counts on by its monotonic clock, so a clock that is wrong, or jumps, on one machine changes nothing.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use bulkhead_domain::clock::Clock;
use bulkhead_domain::clock::SystemClock;
use bulkhead_domain::clock::Timestamp;
use bulkhead_store::Store;
use tokio_util::sync::CancellationToken;

/// Between two questions.
const ASK: Duration = Duration::from_secs(1);
/// An answer that took longer says too little about now: half of it is how wrong it may be.
const ANSWER_MAX: Duration = Duration::from_millis(250);
/// A machine's clock that differs by more is worth a word: logs and certificates go by it.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// What the store said, and when.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    time: Timestamp,
}

/// The clock.
pub struct StoreClock {
    store: Store,
    mark: ArcSwap<Mark>,
}

impl StoreClock {
    /// Asks for the first time.
    pub async fn new(store: Store) -> bulkhead_store::Result<Self> {
        let (mark, _) = ask(&store).await?;
        let (ours, theirs) = (SystemClock.now(), mark.time);
        let skew = ours.since(theirs).max(theirs.since(ours));
        if skew > SKEW_MAX {
            tracing::warn!(?skew, "this machine's clock is not the store's; the store's counts");
        }
        Ok(Self { store, mark: ArcSwap::from_pointee(mark) })
    }

    /// Asks again and again until `stop`. Without answers the clock goes on by itself.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(ASK)).await.is_some() {
            match stop.run_until_cancelled(ask(&self.store)).await {
                Some(Ok((mark, took))) if took <= ANSWER_MAX => self.mark.store(Arc::new(mark)),
                _ => {}
            }
        }
    }
}

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        let mark = self.mark.load();
        mark.time.after(mark.at.elapsed())
    }
}

/// The store's time in the middle of the question, and how long the question took.
async fn ask(store: &Store) -> bulkhead_store::Result<(Mark, Duration)> {
    let began = Instant::now();
    let time = store.host_now().await?;
    let took = began.elapsed();
    Ok((Mark { at: began + took / 2, time }, took))
}
