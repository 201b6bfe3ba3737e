//! Usage statements. They are added to by the writer, see `writer::history`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::row::Columns;
use crate::row::usage_line;
use crate::sqlite::Sqlite;
use crate::usage::Usage;
use crate::usage::UsageLine;

#[async_trait]
impl Usage for Sqlite {
    async fn usage(&self, tenant: TenantId, from: i64, to: i64) -> Result<Vec<UsageLine>> {
        let sql = "SELECT day, plugin, rule, events, attempts, done, failed, fuel, micros, emitted, deliveries
                   FROM usage WHERE tenant = ? AND day BETWEEN ? AND ? ORDER BY day, plugin, rule";
        let rows = self.read(sql, |args| _ = args.int(tenant.0).int(from).int(to)).await?;
        let mut lines = BTreeMap::new();
        for row in &rows {
            let line = usage_line(row)?;
            lines.insert((line.day, line.plugin.clone(), line.rule.clone()), line);
        }
        let sql = "SELECT day, plugin, rule, unit, amount FROM usage_units WHERE tenant = ? AND day BETWEEN ? AND ?";
        let rows = self.read(sql, |args| _ = args.int(tenant.0).int(from).int(to)).await?;
        for row in &rows {
            let mut columns = Columns::new(row);
            let key = (columns.int()?, columns.text()?, columns.text()?);
            let (unit, amount) = (columns.text()?, columns.real()?);
            // A line that was added between the two statements is left to the next statement.
            if let Some(line) = lines.get_mut(&key) {
                line.units.insert(unit, amount);
            }
        }
        Ok(lines.into_values().collect())
    }
}
