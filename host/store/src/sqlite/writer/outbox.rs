//! The part of a group that is on its way out: deliveries and timers.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::log::NewEvent;
use crate::sqlite::fault;
use crate::sqlite::row::list_text;
use crate::sqlite::text::Args;
use crate::sqlite::text::Rows;
use crate::sqlite::writer::transaction::Transaction;
use crate::work::Commit;
use crate::work::NewDelivery;
use crate::work::TimerChange;

/// A sink's deliveries with one key.
pub(in crate::sqlite) type Line = (TenantId, String, String);

static ADD_DELIVERIES: Rows = Rows::new(
    "INSERT INTO deliveries (seq, tenant, id, sink, key, pos, rule, state, due, attempts, code, reason, created, \
     updated, content_type, attributes, body) VALUES ",
    "(?,?,?,?,?,?,?,0,?,0,'','',?,?,?,?,?)",
    " ON CONFLICT (tenant, id) DO NOTHING",
);

static ADVANCE: Rows = Rows::new(
    "UPDATE deliveries SET due = created WHERE state = 0 AND due IS NULL AND seq IN (
         WITH line (tenant, sink, key) AS (VALUES ",
    "(?,?,?)",
    ") SELECT (SELECT min(d.seq) FROM deliveries d
               WHERE d.tenant = line.tenant AND d.sink = line.sink AND d.key = line.key AND d.state IN (0, 2)) FROM line
     )",
);

static CANCEL: Rows = Rows::new(
    "WITH gone (tenant, plugin, timer) AS (VALUES ",
    "(?,?,?)",
    ") DELETE FROM timers WHERE (tenant, id) IN (
         SELECT t.tenant, t.id FROM gone CROSS JOIN timers t
         WHERE t.tenant = gone.tenant AND t.plugin = gone.plugin AND t.name = gone.timer
         UNION ALL
         SELECT t.tenant, t.id FROM gone CROSS JOIN timers t
         WHERE t.tenant = gone.tenant AND t.id = gone.timer AND t.plugin = gone.plugin
     )",
);

static SET: Rows = Rows::new(
    "INSERT OR REPLACE INTO timers (tenant, id, plugin, name, due, shard, hops, budget, source, kind, subject, time, \
     key, correlation, causation, content_type, attributes, data) VALUES ",
    "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    "",
);

/// Makes the first unsettled delivery of each line due, if it is pending: a parked one holds its line.
pub(in crate::sqlite) async fn advance(tx: &mut Transaction<'_>, lines: &BTreeSet<Line>) -> Result<()> {
    let lines: Vec<&Line> = lines.iter().collect();
    let bind = |(tenant, sink, key): &&Line, args: &mut Args| _ = args.int(tenant.0).text(sink).text(key);
    ADVANCE.execute(tx.conn, &lines, bind).await.map_err(fault::outward)?;
    Ok(())
}

#[derive(Clone, Copy)]
struct Timer<'a> {
    plugin: PluginId,
    name: Option<&'a str>,
    due: Timestamp,
    event: &'a NewEvent,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Outbox<'a> {
    deliveries: Vec<(TenantId, i64, &'a NewDelivery)>,
    /// Timers taken back or replaced, by name or id.
    gone: Vec<(TenantId, PluginId, &'a str)>,
    /// Timers set and not taken back again, by their ids.
    timers: BTreeMap<(TenantId, &'a str), Timer<'a>>,
}

impl<'a> Outbox<'a> {
    pub(super) fn add(&mut self, commit: &'a Commit, tx: &mut Transaction<'_>) {
        for delivery in &commit.deliveries {
            self.deliveries.push((commit.tenant, tx.number(), delivery));
        }
        for change in &commit.timers {
            match change {
                TimerChange::Cancel { plugin, timer } => self.cancel(commit.tenant, *plugin, timer),
                TimerChange::Set { plugin, name, due, event } => {
                    if let Some(name) = name {
                        self.cancel(commit.tenant, *plugin, name);
                    }
                    let timer = Timer { plugin: *plugin, name: name.as_deref(), due: *due, event };
                    self.timers.insert((commit.tenant, &event.event.id), timer);
                }
            }
        }
    }

    fn cancel(&mut self, tenant: TenantId, plugin: PluginId, timer: &'a str) {
        self.gone.push((tenant, plugin, timer));
        self.timers
            .retain(|(of, id), set| (*of, set.plugin) != (tenant, plugin) || (set.name != Some(timer) && *id != timer));
    }

    pub(super) async fn flush(&self, tx: &mut Transaction<'_>) -> Result<()> {
        ADD_DELIVERIES
            .execute(tx.conn, &self.deliveries, |(tenant, seq, new), args| bind_delivery(*tenant, *seq, new, args))
            .await
            .map_err(fault::outward)?;
        let lines: BTreeSet<Line> = self
            .deliveries
            .iter()
            .filter_map(|(tenant, _, new)| Some((*tenant, new.delivery.sink.clone(), new.key.clone()?)))
            .collect();
        advance(tx, &lines).await?;
        let gone = |(tenant, plugin, timer): &(TenantId, PluginId, &str), args: &mut Args| {
            args.int(tenant.0).int(plugin.0).text(timer);
        };
        CANCEL.execute(tx.conn, &self.gone, gone).await.map_err(fault::outward)?;
        let timers: Vec<_> = self.timers.iter().collect();
        SET.execute(tx.conn, &timers, |((tenant, id), timer), args| bind_timer(*tenant, id, timer, args))
            .await
            .map_err(fault::outward)?;
        Ok(())
    }
}

fn bind_delivery(tenant: TenantId, seq: i64, new: &NewDelivery, args: &mut Args) {
    let delivery = &new.delivery;
    args.int(seq)
        .int(tenant.0)
        .text(&delivery.id)
        .text(&delivery.sink)
        .text_opt(new.key.as_deref())
        .int(new.position.0)
        .text(&new.rule)
        .int_opt(new.key.is_none().then_some(new.created.0))
        .int(new.created.0)
        .int(new.created.0)
        .text(&delivery.content_type)
        .text_opt(list_text(&delivery.attributes).as_deref())
        .blob(&delivery.body);
}

fn bind_timer(tenant: TenantId, id: &str, timer: &Timer<'_>, args: &mut Args) {
    let (new, event) = (timer.event, &timer.event.event);
    args.int(tenant.0)
        .text(id)
        .int(timer.plugin.0)
        .text_opt(timer.name)
        .int(timer.due.0)
        .int(i64::from(new.shard.0))
        .int(i64::from(new.lineage.hops))
        .int(i64::from(new.lineage.budget))
        .text(&event.source)
        .text(&event.kind)
        .text_opt(event.subject.as_deref())
        .int(event.time.0)
        .text_opt(event.key.as_deref())
        .text(&event.correlation)
        .text_opt(event.causation.as_deref())
        .text(&event.content_type)
        .text_opt(list_text(&event.attributes).as_deref())
        .blob(&event.data);
}
