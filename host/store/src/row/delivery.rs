//! Rows of deliveries.

use bulkhead_domain::effect::Delivery;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;

use crate::Error;
use crate::Result;
use crate::deliveries::DeliveryState;
use crate::deliveries::DeliveryView;
use crate::deliveries::DueDelivery;
use crate::deliveries::Settled;
use crate::look::Candidate;
use crate::look::Place;
use crate::look::Queue;
use crate::row::AnyRow;
use crate::row::Columns;

pub(crate) const PENDING: i64 = 0;
pub(crate) const DELIVERED: i64 = 1;
pub(crate) const PARKED: i64 = 2;
pub(crate) const DROPPED: i64 = 3;

macro_rules! delivery_columns {
    () => {
        "d.id, d.sink, d.content_type, d.body, d.attributes, d.pos, d.rule, d.key, d.attempts, d.created"
    };
}
pub(crate) use delivery_columns;

fn delivery(columns: &mut Columns<'_>) -> Result<Delivery> {
    let (id, sink, content_type) = (columns.text()?, columns.text()?, columns.text()?);
    let body = Bytes::from(columns.blob()?);
    Ok(Delivery { id, sink, content_type, body, attributes: columns.list()? })
}

/// A row of the tenant and [`delivery_columns`].
pub(crate) fn due_delivery<'r>(row: impl Into<AnyRow<'r>>) -> Result<DueDelivery> {
    let mut columns = Columns::new(row);
    Ok(DueDelivery {
        tenant: TenantId(columns.int()?),
        delivery: delivery(&mut columns)?,
        position: columns.position()?,
        rule: columns.text()?,
        key: columns.text_opt()?,
        attempts: columns.narrow()?,
        created: columns.time()?,
    })
}

/// A row of what a step came by: shard, tenant, sink, whether the tenant is at work, when the first is due, and when the
/// next one will be.
pub(crate) fn queue<'r>(row: impl Into<AnyRow<'r>>) -> Result<Queue> {
    let mut columns = Columns::new(row);
    let place = Place { shard: columns.shard()?, tenant: TenantId(columns.int()?), sink: columns.text()? };
    Ok(Queue { place, active: columns.flag()?, oldest: columns.time()?, next: columns.time_opt()? })
}

/// A row of the narrow part of a delivery: when it is due, its place in order, tenant, sink and id.
pub(crate) fn candidate<'r>(row: impl Into<AnyRow<'r>>) -> Result<Candidate> {
    let mut columns = Columns::new(row);
    Ok(Candidate {
        due: columns.time()?,
        seq: columns.int()?,
        tenant: TenantId(columns.int()?),
        sink: columns.text()?,
        id: columns.text()?,
    })
}

/// How an attempt leaves its delivery, as numbers, and when it is due.
pub(crate) const fn settled_number(settled: Settled) -> (i64, Option<i64>) {
    match settled {
        Settled::Delivered => (DELIVERED, None),
        Settled::Retry(due) => (PENDING, Some(due.0)),
        Settled::Parked => (PARKED, None),
    }
}

pub(crate) const fn state_number(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Pending => PENDING,
        DeliveryState::Delivered => DELIVERED,
        DeliveryState::Parked => PARKED,
        DeliveryState::Dropped => DROPPED,
    }
}

/// A row of [`delivery_columns`], the event's id, and where it stands.
pub(crate) fn view<'r>(row: impl Into<AnyRow<'r>>) -> Result<DeliveryView> {
    let mut columns = Columns::new(row);
    let delivery = delivery(&mut columns)?;
    let (position, rule, key) = (columns.position()?, columns.text()?, columns.text_opt()?);
    let (attempts, created, event_id) = (columns.narrow()?, columns.time()?, columns.text()?);
    let state = match columns.int()? {
        PENDING => DeliveryState::Pending,
        DELIVERED => DeliveryState::Delivered,
        PARKED => DeliveryState::Parked,
        DROPPED => DeliveryState::Dropped,
        other => return Err(Error::Damaged(format!("a delivery is in state {other}"))),
    };
    Ok(DeliveryView {
        delivery,
        position,
        event_id,
        rule,
        key,
        state,
        attempts,
        due: columns.time()?,
        code: columns.text()?,
        reason: columns.text()?,
        created,
        updated: columns.time()?,
    })
}
