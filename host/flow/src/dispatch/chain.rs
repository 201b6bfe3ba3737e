//! Says in words how an event came about, for the reason of a run that the causation budget stopped.

use bulkhead_domain::event::Logged;
use bulkhead_domain::id::TenantId;
use bulkhead_store::Store;

/// Ancestors shown; the ones before are counted by the hops that the reason names anyway.
const SHOWN_MAX: usize = 16;

/// The types of the event and its ancestors, oldest first: `a.created → b.seen → a.created`.
pub async fn describe(store: &Store, tenant: TenantId, event: &Logged) -> String {
    let mut kinds = vec![event.event.kind.clone()];
    let mut parent = event.event.causation.clone();
    while let Some(id) = parent.take() {
        if kinds.len() >= SHOWN_MAX {
            kinds.push("…".to_owned());
            break;
        }
        match store.events_by_id(tenant, &id).await {
            Ok(found) => match found.into_iter().next() {
                Some(found) => {
                    kinds.push(found.event.kind);
                    parent = found.event.causation;
                }
                None => break,
            },
            Err(error) => {
                tracing::warn!(%error, "cannot read an ancestor");
                break;
            }
        }
    }
    kinds.reverse();
    kinds.join(" → ")
}
