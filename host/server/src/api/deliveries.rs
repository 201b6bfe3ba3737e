//! Deliveries: what is on its way to sinks, what arrived, and what did not.

use axum::Json;
use axum::extract::State;
use bulkhead_domain::clock::Timestamp;
use bulkhead_store::deliveries::DeliveryQuery;
use bulkhead_store::deliveries::DeliveryState;
use bulkhead_store::deliveries::DeliveryView;
use serde::Deserialize;
use serde::Serialize;
use utoipa::IntoParams;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::code::Code;
use crate::api::extract::Admin;
use crate::api::extract::Body;
use crate::api::extract::Caller;
use crate::api::extract::Params;
use crate::api::extract::Read;
use crate::api::page;
use crate::api::page::Page;
use crate::api::problem::Document;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::Api;
use crate::api::time::rfc3339;

/// Deliveries that are read from the store at a time: each comes with its body.
const CHUNK: u32 = 100;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(redeliver)).routes(routes!(discard))
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = DeliveryState)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// On its way, or behind another of its key.
    Pending,
    /// Arrived.
    Delivered,
    /// Waits for a person.
    Parked,
    /// Given up by a person.
    Dropped,
}

impl From<DeliveryState> for Standing {
    fn from(state: DeliveryState) -> Self {
        match state {
            DeliveryState::Pending => Self::Pending,
            DeliveryState::Delivered => Self::Delivered,
            DeliveryState::Parked => Self::Parked,
            DeliveryState::Dropped => Self::Dropped,
        }
    }
}

impl From<Standing> for DeliveryState {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Pending => Self::Pending,
            Standing::Delivered => Self::Delivered,
            Standing::Parked => Self::Parked,
            Standing::Dropped => Self::Dropped,
        }
    }
}

/// A delivery.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Delivery {
    /// Its id; receivers see it as `webhook-id`.
    pub id: String,
    /// The sink.
    pub sink: String,
    /// Where it stands.
    pub state: Standing,
    /// The id of the event that caused it.
    pub event: String,
    /// The rule that caused it.
    pub rule: String,
    /// The ordering key.
    pub key: Option<String>,
    /// Attempts made; counted anew when it is asked for again.
    pub attempts: u32,
    /// When the next attempt is due, while it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// The last failure's code; empty if there was none.
    pub code: String,
    /// The last failure's reason, or what the receiver said.
    pub reason: String,
    /// The media type of what is sent.
    pub content_type: String,
    /// How many bytes are sent.
    pub bytes: usize,
    /// When it was made.
    pub created: String,
    /// When it last changed.
    pub updated: String,
}

impl From<&DeliveryView> for Delivery {
    fn from(view: &DeliveryView) -> Self {
        Self {
            id: view.delivery.id.clone(),
            sink: view.delivery.sink.clone(),
            state: view.state.into(),
            event: view.event_id.clone(),
            rule: view.rule.clone(),
            key: view.key.clone(),
            attempts: view.attempts,
            due: (view.state == DeliveryState::Pending).then(|| rfc3339(view.due)),
            code: view.code.clone(),
            reason: view.reason.clone(),
            content_type: view.delivery.content_type.clone(),
            bytes: view.delivery.body.len(),
            created: rfc3339(view.created),
            updated: rfc3339(view.updated),
        }
    }
}

/// Which deliveries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// To this sink.
    sink: Option<String>,
    /// Only those that stand so.
    #[param(inline)]
    state: Option<Standing>,
    /// Caused by the event with this id.
    event: Option<String>,
    /// Go on here: the `next` of the page before.
    after: Option<String>,
    /// At most this many items (default 50, at most 1000).
    limit: Option<u32>,
}

/// Deliveries, newest first.
#[utoipa::path(
    get,
    path = "/v1/deliveries",
    tag = "deliveries",
    summary = "Deliveries",
    params(Query),
    responses(
        (status = 200, description = "Deliveries", body = Page<Delivery>),
        (status = "4XX", description = "The query is not valid", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(api): State<Api>,
    caller: Caller<Read>,
    Params(query): Params<Query>,
) -> Result<Json<Page<Delivery>>> {
    const LIST: &str = "deliveries";
    let limit = page::limit(query.limit)? as usize;
    let after = query.after.as_deref();
    let before = after.map(|cursor| read_place(&api.cursors.read(caller.uid(), LIST, cursor)?)).transpose()?;
    let position = match &query.event {
        None => None,
        Some(id) => match api.store.events_by_id(caller.id(), id).await?.first() {
            Some(logged) => Some(logged.position),
            None => return Ok(Json(Page::whole(Vec::new()))),
        },
    };
    let state = query.state.map(DeliveryState::from);
    let mut wanted = DeliveryQuery { position, sink: query.sink, state, before, limit: CHUNK };
    let mut items: Vec<Delivery> = Vec::new();
    let mut next = None;
    'pages: loop {
        let found = api.store.deliveries(caller.id(), &wanted).await?;
        for view in &found {
            if items.len() == limit {
                next = wanted.before.as_ref().map(|place| api.cursors.write(caller.uid(), LIST, &write_place(place)));
                break 'pages;
            }
            items.push(view.into());
            wanted.before = Some((view.created, view.delivery.id.clone()));
        }
        if found.len() < CHUNK as usize {
            break;
        }
    }
    Ok(Json(Page { items, next }))
}

/// A place in the list: when a delivery was made, and its id.
fn write_place((created, id): &(Timestamp, String)) -> Vec<u8> {
    let mut bytes = created.0.to_be_bytes().to_vec();
    bytes.extend_from_slice(id.as_bytes());
    bytes
}

fn read_place(bytes: &[u8]) -> Result<(Timestamp, String)> {
    let place = bytes.split_first_chunk::<8>().and_then(|(created, id)| {
        let id = String::from_utf8(id.to_vec()).ok()?;
        Some((Timestamp(i64::from_be_bytes(*created)), id))
    });
    place.ok_or_else(|| Problem::new(Code::CursorInvalid, "the cursor is of another list"))
}

/// Which parked deliveries are meant: one by its id, or all of a sink.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = WhichDeliveries)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// This delivery.
    id: Option<String>,
    /// All that are parked of this sink.
    sink: Option<String>,
}

impl Which {
    fn checked(self) -> Result<Self> {
        if self.id.is_none() && self.sink.is_none() {
            let problem = Problem::new(Code::FieldInvalid, "neither `id` nor `sink` says which deliveries are meant");
            return Err(problem.hint("give the `id` of one, or a `sink` for all that are parked of it"));
        }
        Ok(self)
    }
}

/// How many are tried again.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Redelivered {
    /// Deliveries that are due again, attempts counted anew.
    redelivered: u64,
}

/// Makes parked deliveries due again, attempts counted anew.
#[utoipa::path(
    post,
    path = "/v1/deliveries/redeliver",
    tag = "deliveries",
    summary = "Try parked deliveries again",
    request_body = Which,
    responses(
        (status = 200, description = "How many", body = Redelivered),
        (status = "4XX", description = "It does not say which", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn redeliver(
    State(api): State<Api>,
    caller: Caller<Admin>,
    Body(which): Body<Which>,
) -> Result<Json<Redelivered>> {
    let which = which.checked()?;
    let (sink, id) = (which.sink.as_deref(), which.id.as_deref());
    let redelivered = api.store.redeliver(caller.id(), sink, id, api.now()).await?;
    if let Some(sink) = sink {
        // Whoever asks for them again believes that the receiver is well.
        api.deliver.reset(caller.id(), sink);
    }
    api.deliveries_changed(caller.id());
    tracing::info!(tenant = caller.tenant.name, key = caller.key, redelivered, "parked deliveries are tried again");
    Ok(Json(Redelivered { redelivered }))
}

/// How many were given up.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Dropped {
    /// Deliveries that are over; what waited behind them goes on.
    dropped: u64,
}

/// Gives parked deliveries up, for good; what waits behind them goes on.
#[utoipa::path(
    post,
    path = "/v1/deliveries/drop",
    tag = "deliveries",
    summary = "Give parked deliveries up",
    request_body = Which,
    responses(
        (status = 200, description = "How many", body = Dropped),
        (status = "4XX", description = "It does not say which", body = Document, content_type = "application/problem+json"),
    ),
)]
pub async fn discard(State(api): State<Api>, caller: Caller<Admin>, Body(which): Body<Which>) -> Result<Json<Dropped>> {
    let which = which.checked()?;
    let (sink, id) = (which.sink.as_deref(), which.id.as_deref());
    let dropped = api.store.drop_deliveries(caller.id(), sink, id, api.now()).await?;
    api.deliveries_changed(caller.id());
    tracing::info!(tenant = caller.tenant.name, key = caller.key, dropped, "parked deliveries were given up");
    Ok(Json(Dropped { dropped }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back() {
        let place = (Timestamp(1_700_000_000_000_000), "eff_0190".to_owned());
        assert_eq!(read_place(&write_place(&place)).expect("because it was written so"), place);
        assert_eq!(read_place(b"short").expect_err("because it is too short").code, Code::CursorInvalid);
    }

    #[test]
    fn something_must_be_meant() {
        let which = |text: &str| crate::api::extract::parse::<Which>(text.as_bytes()).and_then(Which::checked);
        assert!(which(r#"{"id":"eff_1"}"#).is_ok());
        assert!(which(r#"{"sink":"crm"}"#).is_ok());
        for wrong in ["{}", r#"{"ids":["x"]}"#] {
            assert_eq!(which(wrong).expect_err(wrong).code, Code::FieldInvalid, "{wrong}");
        }
    }
}
