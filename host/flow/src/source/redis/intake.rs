//! Reading, handing in, letting go.

use std::time::Duration;
use std::time::Instant;

use bulkhead_store::catalogue::Tenant;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::inbox;
use crate::inbox::Receipt;
use crate::inbox::Rejected;
use crate::source::Backoff;
use crate::source::redis::RedisSource;
use crate::source::redis::entry::Entry;
use crate::source::redis::stream;
use crate::source::redis::stream::Refused;

/// Bytes that a read should give at most, as far as the entries before tell: large entries are read in smaller numbers.
const READ_BYTES: usize = 16 << 20;
/// How much longer than a read waits its answer may take.
const BLOCK_MARGIN: Duration = Duration::from_secs(5);
/// A connection that worked for so long was well, even if nothing came over it.
const WELL: Duration = Duration::from_secs(10);

/// The first id there can be.
const BEGINNING: &str = "0-0";

/// Why an entry cannot be taken in now.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Inbox(#[from] inbox::Error),
    #[error("{0}")]
    Store(#[from] bulkhead_store::Error),
    #[error("its tenant does not exist")]
    NoTenant,
}

/// What is done with.
enum Settled {
    /// Durable, or refused.
    Taken(Vec<Entry>, Vec<Rejected>),
    /// Trimmed away before they were taken in.
    Gone(Vec<Entry>),
}

impl RedisSource {
    /// Until `stop`.
    pub(super) async fn intake(&self, stop: &CancellationToken) {
        let mut backoff = Backoff::new(format!("{}/{}", self.options.consumer, self.options.name));
        while !stop.is_cancelled() {
            let began = Instant::now();
            let mut worked = false;
            let Err(error) = self.serve(&mut worked, stop).await else { return };
            if worked || began.elapsed() >= WELL {
                backoff.reset();
            }
            self.reporter.waiting(&format!("Redis: {error}"));
            self.count("bulkhead_source_reconnects_total", 1);
            if stop.run_until_cancelled(tokio::time::sleep(backoff.next_wait())).await.is_none() {
                return;
            }
        }
    }

    /// From a connection to its end, or to `stop`. `worked` is set when a batch was acknowledged.
    async fn serve(&self, worked: &mut bool, stop: &CancellationToken) -> RedisResult<()> {
        let mut reader = stream::connect(&self.client, self.options.block + BLOCK_MARGIN).await?;
        let mut commands = stream::connect(&self.client, stream::ANSWER_LIMIT).await?;
        if self.past.group(self.stream.ensure_group(&mut commands).await?) {
            self.set_back();
        }
        self.look(&mut commands).await?;
        self.reporter.reading();
        // Three things go on at a time: a batch is read, the one before is made durable, the one before that let go of.
        let (hand, batches) = mpsc::channel(1);
        let (settle, settled) = mpsc::channel(1);
        let reading = async {
            match stop.run_until_cancelled(self.read(&mut reader, hand)).await {
                Some(ended) => ended,
                None => Ok(()),
            }
        };
        let taking = async {
            self.take(batches, settle, stop).await;
            Ok(())
        };
        let settling = self.settle(&mut commands, settled, worked);
        tokio::try_join!(reading, taking, settling).map(|_| ())
    }

    /// Reads for ever: first what this consumer has pending, then what dead ones have, then what comes.
    async fn read(&self, reader: &mut MultiplexedConnection, hand: mpsc::Sender<Vec<Entry>>) -> RedisResult<()> {
        // Until the first are seen, they may all be as large as events can be.
        let mut count = self.fitting(self.inbox.limits().event_bytes);
        let mut after = BEGINNING.to_owned();
        // A batch is read only when there is a place for it.
        while let Ok(place) = hand.reserve().await {
            let entries = self.stream.read_own(reader, &after, count).await?;
            let Some(last) = entries.last() else { break };
            after.clone_from(&last.id);
            count = self.fitting(mean(&entries));
            place.send(entries);
        }
        let mut claim_at = Instant::now();
        while let Ok(place) = hand.reserve().await {
            if Instant::now() >= claim_at {
                drop(place);
                self.claim(reader, &hand, count).await?;
                claim_at = Instant::now() + self.options.claim_idle / 2;
                continue;
            }
            let entries = self.stream.read_new(reader, count, self.options.block).await?;
            if !entries.is_empty() {
                count = self.fitting(mean(&entries));
                place.send(entries);
            }
        }
        Ok(())
    }

    /// Takes over all that dead consumers left.
    async fn claim(
        &self,
        reader: &mut MultiplexedConnection,
        hand: &mpsc::Sender<Vec<Entry>>,
        count: u32,
    ) -> RedisResult<()> {
        let mut start = BEGINNING.to_owned();
        while let Ok(place) = hand.reserve().await {
            let claimed = self.stream.claim(reader, &start, count, self.options.claim_idle).await?;
            self.count("bulkhead_source_claimed_total", claimed.entries.len());
            self.trimmed(claimed.gone);
            if !claimed.entries.is_empty() {
                place.send(claimed.entries);
            }
            if claimed.next == BEGINNING {
                break;
            }
            start = claimed.next;
        }
        Ok(())
    }

    /// How many entries of so many bytes a read may give.
    fn fitting(&self, bytes: usize) -> u32 {
        let fitting = READ_BYTES / bytes.max(1);
        u32::try_from(fitting).unwrap_or(u32::MAX).clamp(1, self.options.batch.max(1))
    }

    /// Takes in batches in their order until `stop`, or until nothing reads any more.
    async fn take(
        &self,
        mut batches: mpsc::Receiver<Vec<Entry>>,
        settle: mpsc::Sender<Settled>,
        stop: &CancellationToken,
    ) {
        while let Some(Some(entries)) = stop.run_until_cancelled(batches.recv()).await {
            self.count("bulkhead_source_entries_total", entries.len());
            let (mut entries, gone): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.fields.is_some());
            if !gone.is_empty() && settle.send(Settled::Gone(gone)).await.is_err() {
                return;
            }
            while !entries.is_empty() {
                let after = entries.split_off(self.piece(&entries));
                let Some(receipt) = self.hand_in(&entries, stop).await else { return };
                self.count("bulkhead_source_duplicates_total", receipt.duplicates as usize);
                if settle.send(Settled::Taken(entries, receipt.rejected)).await.is_err() {
                    return;
                }
                entries = after;
            }
        }
    }

    /// Lets go of what is done with, until nothing is taken in any more.
    async fn settle(
        &self,
        commands: &mut MultiplexedConnection,
        mut settled: mpsc::Receiver<Settled>,
        worked: &mut bool,
    ) -> RedisResult<()> {
        while let Some(settled) = settled.recv().await {
            match settled {
                Settled::Taken(entries, rejected) => {
                    self.put_aside(commands, &entries, rejected).await?;
                    let acknowledged = self.stream.acknowledge(commands, &entries).await?;
                    self.count("bulkhead_source_acked_total", acknowledged);
                }
                // A claim may have found the same; whoever lets go of them counts them.
                Settled::Gone(entries) => self.trimmed(self.stream.acknowledge(commands, &entries).await?),
            }
            *worked = true;
        }
        Ok(())
    }

    /// How many of these entries go into one call of the inbox: all of them, unless they are very large.
    fn piece(&self, entries: &[Entry]) -> usize {
        let limits = self.inbox.limits();
        let mut bytes = 0;
        let fitting = entries.iter().take(limits.batch_events).take_while(|entry| {
            bytes += entry.bytes();
            bytes <= limits.batch_bytes
        });
        fitting.count().max(1)
    }

    /// Hands in, and again, until it is durable; none if `stop` came before.
    async fn hand_in(&self, entries: &[Entry], stop: &CancellationToken) -> Option<Receipt> {
        let mut backoff = Backoff::new(format!("{}/{}", self.options.consumer, self.options.name));
        let mut waited = false;
        loop {
            let refusal = match self.accept(entries).await {
                Ok(receipt) => {
                    if waited {
                        self.reporter.reading();
                    }
                    return Some(receipt);
                }
                Err(refusal) => refusal,
            };
            waited = true;
            self.reporter.waiting(&refusal.to_string());
            self.count("bulkhead_source_waits_total", 1);
            stop.run_until_cancelled(tokio::time::sleep(backoff.next_wait())).await?;
        }
    }

    async fn accept(&self, entries: &[Entry]) -> Result<Receipt, Refusal> {
        // Whether it may publish is the tenant's state now, not at the start.
        let tenant: Tenant = self.store.tenant(self.options.tenant).await?.ok_or(Refusal::NoTenant)?;
        let items = entries.iter().map(|entry| entry.envelope(self.options.format, &self.origin)).collect();
        Ok(self.inbox.accept(&tenant, items).await?)
    }

    /// Puts refused entries where they can be seen.
    async fn put_aside(
        &self,
        commands: &mut MultiplexedConnection,
        entries: &[Entry],
        rejected: Vec<Rejected>,
    ) -> RedisResult<()> {
        let refused: Vec<Refused<'_>> = rejected
            .into_iter()
            .filter_map(|Rejected { index, code, detail }| {
                let entry = entries.get(index as usize)?;
                Some(Refused { entry, code, reason: detail })
            })
            .collect();
        let Some(first) = refused.first() else { return Ok(()) };
        self.stream.reject(commands, &refused).await?;
        self.count("bulkhead_source_rejected_total", refused.len());
        tracing::warn!(
            source = self.options.name,
            refused = refused.len(),
            first = first.entry.id,
            code = first.code,
            to = self.stream.rejected,
            "entries are no events that can be taken in"
        );
        Ok(())
    }

    /// So many entries were gone when their turn came.
    fn trimmed(&self, trimmed: usize) {
        if trimmed > 0 {
            self.count("bulkhead_source_trimmed_total", trimmed);
            let source = &self.options.name;
            tracing::warn!(source, trimmed, "entries were trimmed from the stream before they were taken in");
        }
    }
}

/// Bytes of an entry, on the average.
fn mean(entries: &[Entry]) -> usize {
    entries.iter().map(Entry::bytes).sum::<usize>() / entries.len().max(1)
}
