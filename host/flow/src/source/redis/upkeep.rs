//! Beside the reading: what waits in the stream, and consumers that are gone.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

use crate::source::Backlog;
use crate::source::redis::RedisSource;
use crate::source::redis::stream;
use crate::source::redis::stream::EntryId;
use crate::source::redis::stream::Look;

/// How often the backlog is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Looks between two removals of consumers.
const LOOKS_PER_REMOVAL: u32 = 12;
/// Smaller numbers are no times of entries, but a publisher's own numbering.
const MILLIS_MIN: u64 = 1_000_000_000_000;

impl RedisSource {
    /// Never ends. Its failures are the intake's too, which tells them.
    pub(super) async fn upkeep(&self) {
        let mut connection = None;
        for turn in 1_u32.. {
            tokio::time::sleep(LOOK).await;
            let kept = self.keep(&mut connection, turn.is_multiple_of(LOOKS_PER_REMOVAL)).await;
            if let Err(error) = kept {
                tracing::debug!(source = self.options.name, %error, "cannot look at the stream");
                connection = None;
            }
        }
    }

    async fn keep(&self, connection: &mut Option<MultiplexedConnection>, remove: bool) -> RedisResult<()> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(stream::connect(&self.client, stream::ANSWER_LIMIT).await?),
        };
        self.look(connection).await?;
        if remove {
            let gone = self.stream.remove_gone(connection, self.options.gone_after).await?;
            if gone > 0 {
                tracing::info!(source = self.options.name, gone, "consumers that were gone are removed");
            }
        }
        Ok(())
    }

    /// Looks at the stream and tells what there is.
    pub(super) async fn look(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let look = self.stream.look(connection).await?;
        if self.past.look(&look) {
            self.set_back();
        }
        let Look { unread, pending, oldest, .. } = look;
        let oldest_seconds = oldest.and_then(age);
        self.reporter.backlog(Backlog { unread, pending, oldest_seconds });
        let gauge = |what: &'static str, value: u64| {
            metrics::gauge!(what, "source" => self.options.name.clone()).set(value as f64);
        };
        gauge("bulkhead_source_backlog", unread + pending);
        gauge("bulkhead_source_pending", pending);
        gauge("bulkhead_source_oldest_seconds", oldest_seconds.unwrap_or_default());
        Ok(())
    }

    /// The stream has not the past any more that it had.
    pub(super) fn set_back(&self) {
        self.count("bulkhead_source_set_back_total", 1);
        tracing::warn!(
            source = self.options.name,
            stream = self.options.stream,
            "the stream or its group was set back, as by a flush or a server that came back without its last writes; \
             entries that were not read may be lost"
        );
    }
}

/// In whole seconds; none if the id is no time.
fn age(id: EntryId) -> Option<u64> {
    if id.millis < MILLIS_MIN {
        return None;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(now.saturating_sub(Duration::from_millis(id.millis)).as_secs())
}
