//! One attempt, from a due delivery to what is to become of it.

use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::policy::verdict::Failure;
use bulkhead_domain::policy::verdict::OnFailure;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_domain::policy::verdict::Verdict;
use bulkhead_domain::policy::verdict::verdict;
use bulkhead_store::deliveries::DueDelivery;
use bulkhead_store::deliveries::Settled;
use bulkhead_store::deliveries::Settlement;

use crate::deliver::handle::Shared;
use crate::sink::Attempt;
use crate::sink::Outlets;
use crate::sink::ResolvedSink;

/// Sinks bound their own time; this is the wall behind them.
const ATTEMPT_MAX: Duration = Duration::from_secs(65);
/// What people get to read of a failure.
const REASON_CHARS_MAX: usize = 500;

/// What an attempt says about its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It was there.
    Answered,
    /// It was not, or not well.
    Failed,
    /// Nothing was asked of it.
    Unknown,
}

/// How it ended.
pub(super) enum End {
    /// No attempt was made, and it is nobody's fault who could be told: it is due again by itself.
    PutOff,
    /// It is to be settled.
    Settle {
        settlement: Settlement,
        health: Health,
        /// Attempts that may be under way to this sink.
        concurrency: usize,
    },
}

/// Makes an attempt that ends.
pub(super) async fn bounded(sink: &ResolvedSink, outlets: &Outlets, due: &DueDelivery, now: Timestamp) -> Attempt {
    let attempt = tokio::time::timeout(ATTEMPT_MAX, sink.deliver(outlets, due, now)).await;
    attempt.unwrap_or_else(|_| Attempt::failed(Failure::new("sink:timeout", "the attempt did not end")))
}

/// Finds the sink, makes the attempt, decides.
pub(super) async fn run(shared: &Shared, due: &DueDelivery) -> End {
    let sink = match shared.directory.sink(due.tenant, &due.delivery.sink).await {
        Ok(Some(sink)) => sink,
        Ok(None) => {
            let reason = format!("there is no sink `{}` any more", due.delivery.sink);
            let settlement = Settlement {
                tenant: due.tenant,
                id: due.delivery.id.clone(),
                settled: Settled::Parked,
                attempts: due.attempts,
                code: "sink:missing".to_owned(),
                reason,
                at: shared.clock.now(),
            };
            return End::Settle { settlement, health: Health::Unknown, concurrency: 1 };
        }
        Err(error) => {
            tracing::warn!(%error, delivery = due.delivery.id, "cannot look a sink up; its deliveries wait");
            return End::PutOff;
        }
    };
    if sink.held {
        return End::PutOff;
    }
    let attempt = bounded(&sink, &shared.outlets, due, shared.clock.now()).await;
    let health = match (&attempt.outcome, attempt.reached_out) {
        (_, false) => Health::Unknown,
        (Outcome::Failed(_), true) => Health::Failed,
        (Outcome::Done | Outcome::Rejected(_), true) => Health::Answered,
    };
    let settlement = settle(attempt, due, &sink, shared.clock.now());
    tracing::debug!(
        tenant = sink.tenant_uid,
        sink = due.delivery.sink,
        delivery = due.delivery.id,
        rule = due.rule,
        attempt = settlement.attempts,
        outcome = outcome_name(settlement.settled),
        code = settlement.code,
        "attempt"
    );
    End::Settle { settlement, health, concurrency: sink.spec.concurrency() }
}

fn settle(attempt: Attempt, due: &DueDelivery, sink: &ResolvedSink, now: Timestamp) -> Settlement {
    let made = due.attempts.saturating_add(1);
    let decided = verdict(&attempt.outcome, made, &sink.spec.retry(), OnFailure::Park, due.delivery.id.as_bytes());
    let settled = match decided {
        Verdict::Commit => Settled::Delivered,
        Verdict::Retry(wait) => Settled::Retry(now.after(wait)),
        Verdict::Park | Verdict::Drop => Settled::Parked,
    };
    let (code, reason) = match attempt.outcome {
        Outcome::Done => (String::new(), attempt.said),
        Outcome::Failed(failure) | Outcome::Rejected(failure) => (failure.code, failure.reason),
    };
    Settlement {
        tenant: due.tenant,
        id: due.delivery.id.clone(),
        settled,
        attempts: made,
        code,
        reason: reason.chars().take(REASON_CHARS_MAX).collect(),
        at: now,
    }
}

/// After a panic of ours: as if the attempt had failed, so that it neither is lost nor loops.
pub(super) fn panicked(due: &DueDelivery, now: Timestamp) -> Settlement {
    let retry = bulkhead_domain::policy::retry::Retry::of_deliveries();
    let made = due.attempts.saturating_add(1);
    let settled = match retry.wait(made, due.delivery.id.as_bytes()) {
        Some(wait) => Settled::Retry(now.after(wait)),
        None => Settled::Parked,
    };
    Settlement {
        tenant: due.tenant,
        id: due.delivery.id.clone(),
        settled,
        attempts: made,
        code: "host:panic".to_owned(),
        reason: "the host failed in this attempt".to_owned(),
        at: now,
    }
}

/// The outcome as metrics and logs call it.
pub(super) const fn outcome_name(settled: Settled) -> &'static str {
    match settled {
        Settled::Delivered => "delivered",
        Settled::Retry(_) => "retry",
        Settled::Parked => "parked",
    }
}
