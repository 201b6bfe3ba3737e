//! Upkeep: segments for the events to come, one row of usage a line, and what is too old.
//!
//! Events and runs are dropped by segments, in the moment in which nobody is at them; their keys and deliveries are then
//! swept out of their tables, some blocks at a time.

use async_trait::async_trait;
use bulkhead_domain::clock::Timestamp;

use crate::Result;
use crate::postgres::Postgres;
use crate::postgres::session::PATIENT;
use crate::postgres::text::Args;
use crate::row::Columns;
use crate::upkeep::EXPIRED;
use crate::upkeep::Expiry;
use crate::upkeep::Mark;
use crate::upkeep::Retired;
use crate::upkeep::Upkeep;

/// Deliveries, and lines of usage, of a slice.
const ROWS: i64 = 1_000;
/// Blocks of a table swept in a slice: 2 MiB, about 25,000 keys.
const BLOCKS: i64 = 256;

#[async_trait]
impl Upkeep for Postgres {
    async fn host_tidy(&self) -> Result<()> {
        let mut session = self.0.sessions.take(PATIENT).await?;
        session.fetch("SELECT grow()", Args::default()).await?;
        session.fetch("SELECT fold_accepted()", Args::default()).await?;
        session.fetch("SELECT fold_usage()", Args::default()).await?;
        Ok(())
    }

    async fn host_retire(&self, expiry: &Expiry, mark: Mark) -> Result<(Retired, Option<Mark>)> {
        let (mut retired, now) = (Retired::default(), expiry.now);
        let next = match mark {
            Mark::Runs => {
                if let Some(before) = expiry.parked {
                    (retired.expired_runs, retired.woken) = self.expire_parked(before, now).await?;
                }
                if retired.expired_runs > 0 { mark } else { Mark::Deliveries }
            }
            Mark::Deliveries => {
                if let Some(before) = expiry.parked {
                    let sql = "SELECT expire_deliveries($1, $2, $3, $4)";
                    let bind = |args: &mut Args| _ = args.int(before.0).int(now.0).text(EXPIRED).int(ROWS);
                    retired.expired_deliveries = self.count(sql, bind).await?;
                }
                if retired.expired_deliveries > 0 { mark } else { Mark::Events(-1) }
            }
            Mark::Events(beyond) => match expiry.events {
                Some(before) => self.drop_segment(before, beyond, &mut retired).await?,
                None => Mark::Usage,
            },
            Mark::Keys(block) => match self.sweep(0, block, &mut retired.keys).await? {
                Some(next) => Mark::Keys(next),
                None => Mark::Leftovers(0),
            },
            Mark::Leftovers(block) => match self.sweep(1, block, &mut retired.deliveries).await? {
                Some(next) => Mark::Leftovers(next),
                None => Mark::Usage,
            },
            Mark::Usage => {
                if let Some(before) = expiry.usage {
                    // What is not folded yet may be of an old day, too.
                    self.count("SELECT fold_accepted()", |_| {}).await?;
                    let sql = "SELECT retire_usage($1, $2)";
                    retired.usage = self.count(sql, |args| _ = args.int(before.day()).int(ROWS)).await?;
                }
                if retired.usage == 0 {
                    return Ok((retired, None));
                }
                mark
            }
        };
        Ok((retired, Some(next)))
    }

    async fn host_oldest_event(&self) -> Result<Option<Timestamp>> {
        let rows = self.call("SELECT oldest_segment()", |_| {}).await?;
        rows.first().map_or(Ok(None), |row| Columns::new(row).time_opt())
    }
}

impl Postgres {
    /// Looks at one segment, and drops it if it may go.
    async fn drop_segment(&self, before: Timestamp, beyond: i64, retired: &mut Retired) -> Result<Mark> {
        let mut args = Args::default();
        args.int(before.0).int(beyond);
        let sql =
            "SELECT segment, is_gone, coalesce(gone_events, 0), coalesce(gone_runs, 0) FROM retire_segment($1, $2)";
        let rows = self.0.sessions.take(PATIENT).await?.fetch(sql, args).await?;
        let Some(row) = rows.first() else { return Ok(Mark::Keys(0)) };
        let mut columns = Columns::new(row);
        let segment = columns.int()?;
        if columns.flag()? {
            retired.segments = 1;
            (retired.events, retired.runs) = (columns.count()?, columns.count()?);
        }
        Ok(Mark::Events(segment))
    }

    /// Sweeps some blocks of a table; says where the next ones begin.
    async fn sweep(&self, what: i64, block: i64, gone: &mut u64) -> Result<Option<i64>> {
        let mut args = Args::default();
        args.int(what).int(block).int(BLOCKS);
        let sql = "SELECT gone, next_block FROM sweep($1, $2, $3)";
        let rows = self.0.sessions.take(PATIENT).await?.fetch(sql, args).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let mut columns = Columns::new(row);
        *gone = columns.count()?;
        columns.int_opt()
    }
}
