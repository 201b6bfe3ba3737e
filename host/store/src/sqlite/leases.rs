//! Shard leases. Only one process has the file open, so these are a formality that keeps the host the same over a
//! database of many nodes: the rows, the fences and the clock of the database are real all the same.

use std::time::Duration;

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Shard;

use crate::Result;
use crate::leases::Leases;
use crate::sqlite::Sqlite;
use crate::sqlite::open::fences;
use crate::sqlite::row::Columns;
use crate::sqlite::writer::op::BoxFuture;
use crate::sqlite::writer::transaction::Transaction;

#[async_trait]
impl Leases for Sqlite {
    fn host_shards(&self) -> u16 {
        self.core().shards
    }

    async fn host_acquire(&self, node: &str, ttl: Duration, at_most: u16) -> Result<Vec<(Shard, Fence)>> {
        self.change((node.to_owned(), ttl, at_most), acquire).await
    }

    async fn host_release(&self, node: &str) -> Result<()> {
        self.change((node.to_owned(), (0..self.core().shards).map(Shard).collect()), release).await
    }

    async fn host_hand_over(&self, node: &str, shards: &[Shard]) -> Result<()> {
        self.change((node.to_owned(), shards.to_vec()), release).await
    }

    async fn host_now(&self) -> Result<Timestamp> {
        let rows = self.read("SELECT cast(unixepoch('subsec') * 1000000 AS INTEGER)", |_| {}).await?;
        rows.first().map_or(Ok(Timestamp(0)), |row| Columns::new(row).int().map(Timestamp))
    }

    async fn host_nodes(&self) -> Result<Vec<String>> {
        let sql = "SELECT DISTINCT owner FROM leases
                   WHERE owner IS NOT NULL AND until > cast(unixepoch('subsec') * 1000000 AS INTEGER) ORDER BY owner";
        let rows = self.read(sql, |_| {}).await?;
        rows.iter().map(|row| Columns::new(row).text()).collect()
    }
}

fn acquire<'a>(
    tx: &'a mut Transaction<'_>,
    (node, ttl, at_most): &'a (String, Duration, u16),
) -> BoxFuture<'a, Result<Vec<(Shard, Fence)>>> {
    Box::pin(async move {
        // Its own first: what a node works on it keeps.
        let sql = "WITH present (time) AS (SELECT cast(unixepoch('subsec') * 1000000 AS INTEGER)),
                   free (shard) AS (
                       SELECT shard FROM leases, present
                       WHERE owner IS NULL OR owner = ?1 OR until <= present.time
                       ORDER BY owner IS ?1 DESC, shard LIMIT ?3
                   )
                   UPDATE leases SET fence = fence + iif(owner IS ?1, 0, 1), owner = ?1, until = present.time + ?2
                   FROM free, present WHERE leases.shard = free.shard
                   RETURNING leases.shard, leases.fence";
        let ttl = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX / 4);
        let rows = tx.fetch(sql, |args| _ = args.text(node).int(ttl).int(i64::from(*at_most))).await?;
        let mut held = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut columns = Columns::new(row);
            held.push((columns.shard()?, Fence(columns.int()?)));
        }
        held.sort_unstable();
        tx.changes.fences = Some(fences(tx.conn).await?);
        Ok(held)
    })
}

/// A node's name, and shards of its.
type Given = (String, Vec<Shard>);

fn release<'a>(tx: &'a mut Transaction<'_>, (node, shards): &'a Given) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        for shard in shards {
            let sql = "UPDATE leases SET owner = NULL, until = 0 WHERE owner = ? AND shard = ?";
            tx.execute(sql, |args| _ = args.text(node).int(i64::from(shard.0))).await?;
        }
        tx.changes.fences = Some(fences(tx.conn).await?);
        Ok(())
    })
}
