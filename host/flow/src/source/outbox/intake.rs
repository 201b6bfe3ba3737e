//! Reading, handing in, deleting.

use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::TenantId;
use bulkhead_store::catalogue::Tenant;
use bulkhead_store::outbox;
use bulkhead_store::outbox::Row;
use bulkhead_store::outbox::Share;
use tokio_util::sync::CancellationToken;

use crate::inbox;
use crate::source::Backoff;
use crate::source::outbox::OutboxSource;
use crate::source::outbox::batch::Outcome;
use crate::source::outbox::held::Held;

/// Bytes of rows that one look gives at most.
const LOOK_BYTES: u64 = 16 << 20;
/// What a row may have besides its payload: as many attributes as an event may have, and what JSON adds.
const ATTRIBUTES_BYTES: u64 = 512 << 10;
/// How often the floor is raised.
const RAISE: Duration = Duration::from_secs(1);

/// Why nothing goes on for anybody.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("outbox: {0}")]
    There(#[from] outbox::Error),
    #[error("{0}")]
    Here(String),
}

impl OutboxSource {
    /// Until `stop`.
    pub(super) async fn intake(&self, stop: &CancellationToken) {
        let mut backoff = Backoff::new(&self.options.name);
        while !stop.is_cancelled() {
            let Err(trouble) = self.drain(&mut backoff, stop).await else { return };
            self.reporter.waiting(&trouble.to_string());
            match trouble {
                Trouble::There(_) => {
                    self.outbox.begin_anew();
                    self.count("bulkhead_source_reconnects_total", 1);
                }
                Trouble::Here(_) => self.count("bulkhead_source_waits_total", 1),
            }
            if stop.run_until_cancelled(tokio::time::sleep(backoff.next_wait())).await.is_none() {
                return;
            }
        }
    }

    /// From a first look to a failure, or to `stop`.
    async fn drain(&self, backoff: &mut Backoff, stop: &CancellationToken) -> Result<(), Trouble> {
        let mut held = Held::default();
        let mut ahead = Vec::new();
        let mut raise_at = Instant::now() + RAISE;
        while !stop.is_cancelled() {
            if Instant::now() >= raise_at {
                self.outbox.raise_floor().await?;
                raise_at = Instant::now() + RAISE;
            }
            let rows = match std::mem::take(&mut ahead) {
                none if none.is_empty() => self.next(&held, &[]).await?,
                rows => rows,
            };
            self.reporter.reading();
            if rows.is_empty() {
                backoff.reset();
                let wait = held.soonest().map_or(self.options.poll, |soonest| soonest.min(self.options.poll));
                stop.run_until_cancelled(self.outbox.wait(wait)).await;
                continue;
            }
            self.count("bulkhead_source_entries_total", rows.len());
            let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
            let (outcome, following) = tokio::join!(self.take(rows), self.next(&held, &ids));
            self.let_go(&outcome).await?;
            if !outcome.done.is_empty() {
                backoff.reset();
            }
            let Outcome { taken, held: refused, trouble, .. } = outcome;
            if let Some(trouble) = trouble {
                return Err(Trouble::Here(trouble));
            }
            // What was read ahead of a tenant that must wait now could overtake what waits.
            let overtakes = !refused.is_empty();
            self.hold(&mut held, taken, refused);
            if !overtakes {
                ahead = following?;
            }
        }
        Ok(())
    }

    async fn next(&self, held: &Held, under_way: &[i64]) -> outbox::Result<Vec<Row>> {
        let limits = self.inbox.limits();
        // All of a batch is on its way into the store at the same time, and others want in too.
        let bytes = LOOK_BYTES.min(limits.under_way_bytes as u64 / 4);
        let share = Share { rows: self.options.batch, bytes, row_bytes: limits.event_bytes as u64 + ATTRIBUTES_BYTES };
        self.outbox.next(share, &held.names(), under_way).await
    }

    /// Deletes what is durable, and puts aside what can never be.
    async fn let_go(&self, outcome: &Outcome) -> outbox::Result<()> {
        self.count("bulkhead_source_duplicates_total", outcome.duplicates);
        if let Some(first) = outcome.refused.first() {
            self.outbox.reject(&outcome.refused).await?;
            self.count("bulkhead_source_rejected_total", outcome.refused.len());
            tracing::warn!(
                source = self.options.name,
                refused = outcome.refused.len(),
                first = first.id,
                code = first.code,
                to = format!("{}_rejected", self.options.table),
                "rows are no events that can be taken in"
            );
        }
        self.outbox.done(&outcome.done).await?;
        self.count("bulkhead_source_acked_total", outcome.done.len());
        Ok(())
    }

    fn hold(&self, held: &mut Held, taken: Vec<TenantId>, refused: Vec<(Tenant, inbox::Error)>) {
        for tenant in taken {
            if held.release(tenant) {
                tracing::info!(source = self.options.name, tenant = tenant.0, "the tenant's rows are taken in again");
            }
        }
        self.count("bulkhead_source_waits_total", refused.len());
        for (tenant, error) in refused {
            let after = match &error {
                inbox::Error::Quota(refused) => refused.retry_after,
                _ => Duration::ZERO,
            };
            if held.hold(&tenant, after) {
                tracing::warn!(source = self.options.name, tenant = tenant.id.0, %error, "the tenant's rows wait");
            }
        }
        self.gauge("bulkhead_source_waiting_tenants", held.len() as u64);
    }
}
