//! A batch: rows of many tenants, divided among them and handed in all at once.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;

use bulkhead_domain::id::TenantId;
use bulkhead_store::catalogue::Tenant;
use bulkhead_store::outbox::Refusal;
use bulkhead_store::outbox::Row;
use tokio::task::JoinSet;

use crate::inbox;
use crate::inbox::Inbox;
use crate::inbox::Rejected;
use crate::inbox::envelope::short;
use crate::source::outbox::OutboxSource;
use crate::source::outbox::row::envelope;

/// What became of a batch. Rows that are neither done nor refused stay where they are.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Rows that are durable.
    pub done: Vec<i64>,
    /// Those among them that were there before.
    pub duplicates: usize,
    /// Rows that can never be taken in.
    pub refused: Vec<Refusal>,
    /// Tenants of which something was taken in, and nothing had to wait.
    pub taken: Vec<TenantId>,
    /// Tenants whose rows must wait, and why.
    pub held: Vec<(Tenant, inbox::Error)>,
    /// Why everybody's rows must wait.
    pub trouble: Option<String>,
}

impl OutboxSource {
    /// Hands in a batch.
    pub(super) async fn take(&self, rows: Vec<Row>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut groups = BTreeMap::<TenantId, (Tenant, Vec<Row>)>::new();
        for row in rows {
            match self.tenant(&row.tenant).await {
                Ok(Some(tenant)) => groups.entry(tenant.id).or_insert_with(|| (tenant, Vec::new())).1.push(row),
                Ok(None) => {
                    let reason = format!("there is no tenant with the name or id `{}`", short(&row.tenant));
                    outcome.refused.push(Refusal { id: row.id, code: "event:tenant", reason });
                }
                Err(error) => {
                    outcome.trouble = Some(error.to_string());
                    return outcome;
                }
            }
        }
        let mut handing = JoinSet::new();
        for (tenant, rows) in groups.into_values() {
            handing.spawn(hand_in(self.inbox.clone(), tenant, rows, self.origin.clone()));
        }
        while let Some(ended) = handing.join_next().await {
            match ended {
                Ok((tenant, part)) => outcome.add(tenant, part),
                Err(error) => outcome.trouble = Some(format!("handing in ended: {error}")),
            }
        }
        outcome
    }

    async fn tenant(&self, name: &str) -> Result<Option<Tenant>, Arc<bulkhead_store::Error>> {
        if let Some(tenant) = self.tenants.get(name).await {
            return Ok(Some(tenant));
        }
        let tenant = self.store.operator_tenant(name).await?;
        if let Some(tenant) = &tenant {
            self.tenants.insert(name.to_owned(), tenant.clone()).await;
        }
        Ok(tenant)
    }
}

/// What became of one tenant's rows.
#[derive(Default)]
struct Part {
    done: Vec<i64>,
    duplicates: usize,
    refused: Vec<Refusal>,
    ended_by: Option<inbox::Error>,
}

impl Outcome {
    fn add(&mut self, tenant: Tenant, part: Part) {
        self.done.extend(part.done);
        self.duplicates += part.duplicates;
        self.refused.extend(part.refused);
        match part.ended_by {
            None => self.taken.push(tenant.id),
            Some(error @ (inbox::Error::Busy(_) | inbox::Error::Unavailable(_) | inbox::Error::Full)) => {
                self.trouble = Some(error.to_string());
            }
            // Whatever else the inbox has against it is this tenant's alone.
            Some(error) => self.held.push((tenant, error)),
        }
    }
}

/// Hands in one tenant's rows in their order, until one call is refused.
async fn hand_in(inbox: Inbox, tenant: Tenant, rows: Vec<Row>, origin: String) -> (Tenant, Part) {
    let mut part = Part::default();
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let (mut ids, mut items, mut bytes) = (Vec::new(), Vec::new(), 0);
        while items.len() < inbox.limits().batch_events {
            let fits = |row: &Row| items.is_empty() || bytes + row.bytes <= inbox.limits().batch_bytes as u64;
            let Some(row) = rows.next_if(fits) else { break };
            bytes += row.bytes;
            ids.push(row.id);
            items.push(envelope(row, &origin));
        }
        let receipt = match inbox.accept(&tenant, items).await {
            Ok(receipt) => receipt,
            Err(error) => {
                part.ended_by = Some(error);
                break;
            }
        };
        let refused: HashSet<u32> = receipt.rejected.iter().map(|rejected| rejected.index).collect();
        part.done.extend((0_u32..).zip(&ids).filter(|(index, _)| !refused.contains(index)).map(|(_, id)| *id));
        part.duplicates += receipt.duplicates as usize;
        let refusals = receipt.rejected.into_iter().filter_map(|Rejected { index, code, detail }| {
            Some(Refusal { id: *ids.get(index as usize)?, code, reason: detail })
        });
        part.refused.extend(refusals);
    }
    (tenant, part)
}
