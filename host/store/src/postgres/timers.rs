//! Timers: events that will be appended at a time. They are set and taken back by commits, see `commit`.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::assemble::Incoming;
use crate::assemble::lanes;
use crate::postgres::Postgres;
use crate::postgres::appends::bind_events;
use crate::postgres::session::ANSWER;
use crate::postgres::text::Args;
use crate::row::Columns;
use crate::row::fired;
use crate::row::timer_view;
use crate::timers::Fired;
use crate::timers::TimerView;
use crate::timers::Timers;

#[async_trait]
impl Timers for Postgres {
    async fn host_fire_timers(&self, now: Timestamp, limit: u32) -> Result<Fired> {
        // Most looks find nothing, and need no transaction.
        let next_due = self.next_timer(Timestamp(i64::MIN)).await?;
        if next_due.is_none_or(|due| due > now) {
            return Ok(Fired { next_due, ..Fired::default() });
        }
        let mut session = self.0.sessions.take(ANSWER).await?;
        session.begin().await?;
        let sql = "SELECT tenant, id, shard, hops, budget, source, kind, subject, time, key, correlation, causation,
                   content_type, attributes, data FROM take_timers($1, $2)";
        let mut args = Args::default();
        args.int(now.0).int(i64::from(limit));
        let rows = session.fetch(sql, args).await?;
        let events: Vec<Incoming> = rows.iter().map(|row| fired(row, now)).collect::<Result<_>>()?;
        let mut by_key = std::collections::HashSet::new();
        let once: Vec<&Incoming> = events.iter().filter(|event| by_key.insert((event.new.tenant, event.key))).collect();
        let mut args = Args::default();
        args.ints(once.iter().map(|event| event.new.tenant.0));
        bind_events(&once, &mut args);
        let sql =
            "SELECT 1 FROM append_fired($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                                              $18)";
        session.fetch(sql, args).await?;
        session.commit().await?;
        let woken = lanes(&events);
        // If there were fewer than it would take, all that is due is fired, here or by another node at this moment.
        let beyond = if events.len() < limit as usize { now } else { Timestamp(i64::MIN) };
        Ok(Fired { count: events.len() as u64, woken, next_due: self.next_timer(beyond).await? })
    }

    async fn timers(&self, tenant: TenantId, limit: u32) -> Result<Vec<TimerView>> {
        let sql = "SELECT id, name, due, kind FROM timers WHERE tenant = $1 ORDER BY due, id LIMIT $2";
        let rows = self.read(tenant, sql, |args| _ = args.int(tenant.0).int(i64::from(limit))).await?;
        rows.iter().map(timer_view).collect()
    }
}

impl Postgres {
    async fn next_timer(&self, beyond: Timestamp) -> Result<Option<Timestamp>> {
        let rows = self.call("SELECT next_timer($1)", |args| _ = args.int(beyond.0)).await?;
        rows.first().map_or(Ok(None), |row| Columns::new(row).time_opt())
    }
}
