//! The part of a group that is about unfinished runs, and what keeps their chains in order.
//!
//! The unfinished runs of one (tenant, rule, key) are a chain in log order. Two things always hold after a transaction:
//! its first run is never blocked (it would wait for nobody, for ever), and only its first is due. So whatever ends,
//! puts or frees a run names the chains that it touched, and [`promote`] makes their first one due if it is blocked.
//! That also covers a run that was put behind one which a person let go a moment before.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::sqlite::fault;
use crate::sqlite::memory::LaneId;
use crate::sqlite::row::Columns;
use crate::sqlite::row::pins_text;
use crate::sqlite::row::waiting_number;
use crate::sqlite::text::Rows;
use crate::sqlite::writer::transaction::Transaction;
use crate::work::Commit;
use crate::work::Unfinished;
use crate::work::UnfinishedChange;
use crate::work::Waiting;

/// A rule's runs with one key.
pub(in crate::sqlite) type Chain = (TenantId, String, String);

static END: Rows = Rows::new(
    "DELETE FROM unfinished WHERE (tenant, pos, rule) IN (VALUES ",
    "(?,?,?)",
    ") RETURNING tenant, rule, key",
);

static PUT: Rows = Rows::new(
    "INSERT INTO unfinished (tenant, pos, rule, shard, key, event, waiting, due, attempts, code, reason, plugin, \
     hops, budget, rule_set, since, updated, pins) VALUES ",
    "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    " ON CONFLICT DO UPDATE SET shard = excluded.shard, key = excluded.key, waiting = excluded.waiting, \
     due = excluded.due, attempts = excluded.attempts, code = excluded.code, reason = excluded.reason, \
     plugin = excluded.plugin, hops = excluded.hops, budget = excluded.budget, rule_set = excluded.rule_set, \
     since = excluded.since, updated = excluded.updated, pins = excluded.pins",
);

static PROMOTE: Rows = Rows::new(
    "UPDATE unfinished SET waiting = 0, due = ?, updated = ? WHERE waiting = 1 AND (tenant, pos, rule) IN (
         WITH chain (tenant, rule, key) AS (VALUES ",
    "(?,?,?)",
    ") SELECT tenant, (SELECT min(u.pos) FROM unfinished u
                       WHERE u.tenant = chain.tenant AND u.rule = chain.rule AND u.key = chain.key), rule FROM chain
     ) RETURNING tenant, shard",
);

/// Makes the first run of each chain due if it is blocked; gives the lanes where that happened.
pub(in crate::sqlite) async fn promote(
    tx: &mut Transaction<'_>,
    chains: &BTreeSet<Chain>,
    now: Timestamp,
) -> Result<Vec<LaneId>> {
    let chains: Vec<&Chain> = chains.iter().collect();
    let rows = PROMOTE
        .fetch(
            tx.conn,
            &[now.0, now.0],
            &chains,
            |(tenant, rule, key), args| _ = args.int(tenant.0).text(rule).text(key),
            &[],
        )
        .await
        .map_err(fault::outward)?;
    let mut lanes = Vec::new();
    for row in &rows {
        let mut columns = Columns::new(row);
        lanes.push((TenantId(columns.int()?), columns.shard()?));
    }
    tx.changes.unfinished.extend(&lanes);
    Ok(lanes)
}

/// A run: an event's place, and a rule.
type Run<'a> = (TenantId, Position, &'a str);

/// Changes of a group, as the last one of each run leaves it.
#[derive(Default)]
pub(super) struct Chains<'a> {
    runs: BTreeMap<Run<'a>, Option<(&'a Unfinished, Shard)>>,
    touched: BTreeSet<Chain>,
    now: Option<Timestamp>,
}

impl<'a> Chains<'a> {
    pub(super) fn add(&mut self, commit: &'a Commit) {
        if !commit.unfinished.is_empty() {
            self.now = Some(self.now.map_or(commit.now, |now| now.min(commit.now)));
        }
        for change in &commit.unfinished {
            let before = match change {
                UnfinishedChange::Put(run) => {
                    if let (Waiting::Blocked, Some(key)) = (run.waiting, &run.key) {
                        self.touched.insert((commit.tenant, run.rule.clone(), key.clone()));
                    }
                    self.runs.insert((commit.tenant, run.position, &run.rule), Some((run, commit.shard)))
                }
                UnfinishedChange::End { position, rule } => self.runs.insert((commit.tenant, *position, rule), None),
            };
            if let Some(Some((before, _))) = before
                && let Some(key) = &before.key
            {
                self.touched.insert((commit.tenant, before.rule.clone(), key.clone()));
            }
        }
    }

    /// Writes them; gives the lanes where a run became due because another made room.
    pub(super) async fn flush(&mut self, tx: &mut Transaction<'_>) -> Result<Vec<LaneId>> {
        let ended: Vec<_> = self.runs.iter().filter(|(_, run)| run.is_none()).map(|(run, _)| *run).collect();
        let rows = END
            .fetch(
                tx.conn,
                &[],
                &ended,
                |(tenant, position, rule), args| _ = args.int(tenant.0).int(position.0).text(rule),
                &[],
            )
            .await
            .map_err(fault::outward)?;
        for row in &rows {
            let mut columns = Columns::new(row);
            let (tenant, rule) = (TenantId(columns.int()?), columns.text()?);
            if let Some(key) = columns.text_opt()? {
                self.touched.insert((tenant, rule, key));
            }
        }
        let put: Vec<_> = self.runs.iter().filter_map(|((tenant, _, _), run)| Some((*tenant, (*run)?))).collect();
        PUT.execute(tx.conn, &put, |(tenant, (run, shard)), args| bind(*tenant, run, *shard, args))
            .await
            .map_err(fault::outward)?;
        for (tenant, (run, shard)) in put {
            tx.changes.unfinished.push((tenant, shard));
            if run.key.is_some() {
                tx.changes.chained.push(tenant);
            }
        }
        promote(tx, &self.touched, Transaction::earliest(self.now.into_iter())).await
    }
}

fn bind(tenant: TenantId, run: &Unfinished, shard: Shard, args: &mut crate::sqlite::text::Args) {
    let (waiting, due) = waiting_number(run.waiting);
    args.int(tenant.0)
        .int(run.position.0)
        .text(&run.rule)
        .int(i64::from(shard.0))
        .text_opt(run.key.as_deref())
        .blob(&run.event.0)
        .int(waiting)
        .int_opt(due)
        .int(i64::from(run.attempts))
        .text(&run.code)
        .text(&run.reason)
        .text_opt(run.plugin.as_deref())
        .int(i64::from(run.lineage.hops))
        .int(i64::from(run.lineage.budget))
        .int(run.rule_set)
        .int(run.since.0)
        .int(run.updated.0)
        .text_opt(pins_text(&run.pins).as_deref());
}
