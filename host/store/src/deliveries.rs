//! Deliveries on their way out: the outbox.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::Delivery;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use crate::Result;

/// A delivery that is due.
#[derive(Debug, Clone)]
pub struct DueDelivery {
    /// Whose.
    pub tenant: TenantId,
    /// What and where to.
    pub delivery: Delivery,
    /// The event that caused it.
    pub position: Position,
    /// The rule that caused it.
    pub rule: String,
    /// The ordering key.
    pub key: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// When it was made.
    pub created: Timestamp,
}

/// What is to become of a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It arrived.
    Delivered,
    /// Again, at this time.
    Retry(Timestamp),
    /// It waits for a person; it holds its key.
    Parked,
}

/// The end of one attempt to deliver.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Whose.
    pub tenant: TenantId,
    /// The delivery's id.
    pub id: String,
    /// What is to become of it.
    pub settled: Settled,
    /// Attempts made, this one included.
    pub attempts: u32,
    /// The failure's code; empty if it arrived.
    pub code: String,
    /// The failure's reason, or what the receiver said.
    pub reason: String,
    /// When the attempt ended.
    pub at: Timestamp,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// On its way (also: behind another of its key).
    Pending,
    /// Arrived.
    Delivered,
    /// Waits for a person.
    Parked,
    /// Given up by a person.
    Dropped,
}

/// A delivery as people see it.
#[derive(Debug, Clone)]
pub struct DeliveryView {
    /// What and where to.
    pub delivery: Delivery,
    /// The event that caused it.
    pub position: Position,
    /// That event's id.
    pub event_id: String,
    /// The rule that caused it.
    pub rule: String,
    /// The ordering key.
    pub key: Option<String>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts made.
    pub attempts: u32,
    /// When the next attempt is due, while it is pending.
    pub due: Timestamp,
    /// The last failure's code.
    pub code: String,
    /// The last failure's reason.
    pub reason: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

/// Which deliveries are wanted, newest first.
#[derive(Debug, Clone, Default)]
pub struct DeliveryQuery {
    /// Caused by this event.
    pub position: Option<Position>,
    /// To this sink.
    pub sink: Option<String>,
    /// Standing so.
    pub state: Option<DeliveryState>,
    /// Beyond this opaque cursor ([`DeliveryView::delivery`]'s id and time of making).
    pub before: Option<(Timestamp, String)>,
    /// At most this many.
    pub limit: u32,
}

/// The outbox.
#[async_trait]
pub trait Deliveries: Send + Sync {
    /// Pending deliveries that are due, of tenants that are active; of those with a key only the first of its (sink, key).
    /// Tenants share the answer evenly, and so do the sinks of each, as far as they have any; it is in the order in which
    /// they became due. Where there are more sinks than `limit`, the next look goes on behind this one.
    ///
    /// A tenant's deliveries are sent by the node that has its home shard, so only those of tenants at home in `shards`
    /// come. Leaves out the sinks and the deliveries named; however much waits behind a sink that is left out, it costs
    /// nothing. Also says when the next one after that is due, of those that this look came by and might have taken.
    async fn host_due_deliveries(
        &self,
        now: Timestamp,
        limit: u32,
        shards: &[Shard],
        without_sinks: &[(TenantId, String)],
        in_flight: &[(TenantId, String)],
    ) -> Result<(Vec<DueDelivery>, Option<Timestamp>)>;

    /// Records the ends of attempts, in one transaction.
    async fn host_settle(&self, settlements: Vec<Settlement>) -> Result<()>;

    /// Deliveries by query.
    async fn deliveries(&self, tenant: TenantId, query: &DeliveryQuery) -> Result<Vec<DeliveryView>>;

    /// Makes parked deliveries due again (all of a sink, or one by id), attempts counted anew; says how many.
    async fn redeliver(&self, tenant: TenantId, sink: Option<&str>, id: Option<&str>, now: Timestamp) -> Result<u64>;

    /// Gives parked deliveries up; says how many.
    async fn drop_deliveries(
        &self,
        tenant: TenantId,
        sink: Option<&str>,
        id: Option<&str>,
        now: Timestamp,
    ) -> Result<u64>;

    /// How many are pending and parked, per tenant and sink.
    async fn host_delivery_depths(&self) -> Result<Vec<(TenantId, String, u64, u64)>>;
}
