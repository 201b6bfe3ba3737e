//! Timers: events that will be appended at a time. They are set and taken back by commits, see `writer::outbox`.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::assemble::Incoming;
use crate::assemble::lanes;
use crate::row::fired;
use crate::row::timer_view;
use crate::sqlite::Sqlite;
use crate::sqlite::fault;
use crate::sqlite::row::Columns;
use crate::sqlite::text::Args;
use crate::sqlite::text::Rows;
use crate::sqlite::writer::append_within;
use crate::sqlite::writer::op::BoxFuture;
use crate::sqlite::writer::transaction::Transaction;
use crate::timers::Fired;
use crate::timers::TimerView;
use crate::timers::Timers;

#[async_trait]
impl Timers for Sqlite {
    async fn host_fire_timers(&self, now: Timestamp, limit: u32) -> Result<Fired> {
        // Most looks find nothing, and need not trouble the writer.
        let rows = self.read("SELECT min(due) FROM timers", |_| {}).await?;
        let next_due = rows.first().map(|row| Columns::new(row).time_opt()).transpose()?.flatten();
        if next_due.is_none_or(|due| due > now) {
            return Ok(Fired { next_due, ..Fired::default() });
        }
        self.change((now, limit), fire).await
    }

    async fn timers(&self, tenant: TenantId, limit: u32) -> Result<Vec<TimerView>> {
        let sql = "SELECT id, name, due, kind FROM timers WHERE tenant = ? ORDER BY due, id LIMIT ?";
        let rows = self.read(sql, |args| _ = args.int(tenant.0).int(i64::from(limit))).await?;
        rows.iter().map(timer_view).collect()
    }
}

fn fire<'a>(tx: &'a mut Transaction<'_>, (now, limit): &'a (Timestamp, u32)) -> BoxFuture<'a, Result<Fired>> {
    static GONE: Rows = Rows::new("DELETE FROM timers WHERE (tenant, id) IN (VALUES ", "(?,?)", ")");
    Box::pin(async move {
        let sql = "SELECT tenant, id, shard, hops, budget, source, kind, subject, time, key, correlation, causation,
                   content_type, attributes, data FROM timers WHERE due <= ? ORDER BY due, tenant, id LIMIT ?";
        let rows = tx.fetch(sql, |args| _ = args.int(now.0).int(i64::from(*limit))).await?;
        let events: Vec<Incoming> = rows.iter().map(|row| fired(row, *now)).collect::<Result<_>>()?;
        let bind = |event: &Incoming, args: &mut Args| _ = args.int(event.new.tenant.0).text(&event.new.event.id);
        GONE.execute(tx.conn, &events, bind).await.map_err(fault::outward)?;
        let rows = tx.fetch("SELECT min(due) FROM timers", |_| {}).await?;
        let next_due = rows.first().map(|row| Columns::new(row).time_opt()).transpose()?.flatten();
        let count = events.len() as u64;
        let woken = lanes(&events);
        append_within(tx, events).await?;
        Ok(Fired { count, woken, next_due })
    })
}
