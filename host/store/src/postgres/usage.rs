//! Usage statements. Rows are added by commits, and by appends to a list of their own, and summed here.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::postgres::Postgres;
use crate::row::Columns;
use crate::row::usage_line;
use crate::usage::Usage;
use crate::usage::UsageLine;

#[async_trait]
impl Usage for Postgres {
    async fn usage(&self, tenant: TenantId, from: i64, to: i64) -> Result<Vec<UsageLine>> {
        let mut tx = self.begin(tenant).await?;
        let sql = "SELECT day, plugin, rule, sum(events)::BIGINT, sum(attempts)::BIGINT, sum(done)::BIGINT,
                   sum(failed)::BIGINT, least(sum(fuel), 9223372036854775807)::BIGINT, sum(micros)::BIGINT,
                   sum(emitted)::BIGINT, sum(deliveries)::BIGINT
                   FROM (SELECT day, plugin, rule, events, attempts, done, failed, fuel, micros, emitted, deliveries
                         FROM usage WHERE tenant = $1 UNION ALL
                         SELECT on_day, '', '', many, 0, 0, 0, 0, 0, 0, 0 FROM accepted_events()) used
                   WHERE day BETWEEN $2 AND $3 GROUP BY day, plugin, rule";
        let mut lines: BTreeMap<(i64, String, String), UsageLine> = BTreeMap::new();
        for row in &tx.fetch(sql, |args| _ = args.int(tenant.0).int(from).int(to)).await? {
            let line = usage_line(row)?;
            lines.insert((line.day, line.plugin.clone(), line.rule.clone()), line);
        }
        let sql = "SELECT day, plugin, rule, unit, sum(amount) FROM usage_units
                   WHERE tenant = $1 AND day BETWEEN $2 AND $3 GROUP BY day, plugin, rule, unit";
        for row in &tx.fetch(sql, |args| _ = args.int(tenant.0).int(from).int(to)).await? {
            let mut columns = Columns::new(row);
            let key = (columns.int()?, columns.text()?, columns.text()?);
            let (unit, amount) = (columns.text()?, columns.real()?);
            // A line that was added between the two statements is left to the next statement.
            if let Some(line) = lines.get_mut(&key) {
                line.units.insert(unit, amount);
            }
        }
        tx.end().await?;
        Ok(lines.into_values().collect())
    }
}
