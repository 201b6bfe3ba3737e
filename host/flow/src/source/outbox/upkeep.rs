//! Beside the reading: what waits in the table.

use std::time::Duration;

use bulkhead_store::outbox::Waiting;

use crate::source::Backlog;
use crate::source::outbox::OutboxSource;

/// How often the backlog is looked at.
const LOOK: Duration = Duration::from_secs(5);

impl OutboxSource {
    /// Never ends. Its failures are the intake's too, which tells them.
    pub(super) async fn upkeep(&self) {
        loop {
            match self.outbox.waiting().await {
                Ok(Waiting { rows, oldest_seconds }) => {
                    // Nobody but the reader knows which of them are under way.
                    self.reporter.backlog(Backlog { unread: rows, pending: 0, oldest_seconds });
                    self.gauge("bulkhead_source_backlog", rows);
                    self.gauge("bulkhead_source_oldest_seconds", oldest_seconds.unwrap_or_default());
                }
                Err(error) => tracing::debug!(source = self.options.name, %error, "cannot look at the outbox"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
