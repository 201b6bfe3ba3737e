//! Nodes and their shards. Who takes over is decided here, by the database's clock and under one lock; a node that does
//! not know yet is refused by the fence.

use std::time::Duration;

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Shard;

use crate::Result;
use crate::leases::Leases;
use crate::postgres::Postgres;
use crate::row::Columns;

#[async_trait]
impl Leases for Postgres {
    fn host_shards(&self) -> u16 {
        self.0.shards
    }

    async fn host_acquire(&self, node: &str, ttl: Duration, at_most: u16) -> Result<Vec<(Shard, Fence)>> {
        let ttl = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        let sql = "SELECT * FROM acquire($1, $2, $3)";
        let rows = self.call(sql, |args| _ = args.text(node).int(ttl).int(i64::from(at_most))).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::new(row);
                Ok((columns.shard()?, Fence(columns.int()?)))
            })
            .collect()
    }

    async fn host_release(&self, node: &str) -> Result<()> {
        self.call("SELECT release($1, NULL)", |args| _ = args.text(node)).await?;
        Ok(())
    }

    async fn host_hand_over(&self, node: &str, shards: &[Shard]) -> Result<()> {
        let shards = shards.iter().map(|shard| i64::from(shard.0));
        self.call("SELECT release($1, $2)", |args| _ = args.text(node).ints(shards)).await?;
        Ok(())
    }

    async fn host_now(&self) -> Result<Timestamp> {
        let rows = self.call("SELECT micros()", |_| {}).await?;
        rows.first().map_or(Ok(Timestamp(0)), |row| Columns::new(row).int().map(Timestamp))
    }

    async fn host_nodes(&self) -> Result<Vec<String>> {
        let rows = self.call("SELECT name FROM nodes WHERE until > micros() ORDER BY name", |_| {}).await?;
        rows.iter().map(|row| Columns::new(row).text()).collect()
    }
}
