//! A transaction under way, and what the host's memory must learn once it is durable.

use std::collections::HashMap;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::TenantId;
use sqlx::SqliteConnection;

use crate::Error;
use crate::Result;
use crate::sqlite::fault;
use crate::sqlite::memory::Changes;
use crate::sqlite::memory::LaneId;
use crate::sqlite::memory::Memory;
use crate::sqlite::memory::Progress;
use crate::sqlite::text::Args;
use crate::sqlite::text::execute;
use crate::sqlite::text::fetch;

/// See the module's text. A change notes something here only after its last step that can fail.
pub(in crate::sqlite) struct Transaction<'w> {
    pub(in crate::sqlite) conn: &'w mut SqliteConnection,
    pub(in crate::sqlite) memory: &'w Memory,
    number: &'w mut i64,
    /// Lanes as this transaction leaves them.
    pub(in crate::sqlite) lanes: HashMap<LaneId, Progress>,
    /// Lanes as this transaction has written them.
    pub(in crate::sqlite) written: HashMap<LaneId, Progress>,
    /// Everything else that memory learns.
    pub(in crate::sqlite) changes: Changes,
    /// State was changed by other than commits: the writer's versions must be looked up again.
    pub(in crate::sqlite) versions_changed: bool,
}

impl<'w> Transaction<'w> {
    pub(in crate::sqlite) fn new(conn: &'w mut SqliteConnection, memory: &'w Memory, number: &'w mut i64) -> Self {
        Self {
            conn,
            memory,
            number,
            lanes: HashMap::new(),
            written: HashMap::new(),
            changes: Changes::default(),
            versions_changed: false,
        }
    }

    /// A number that was never given out before: positions, versions of state, and the order of runs.
    pub(in crate::sqlite) fn number(&mut self) -> i64 {
        *self.number += 1;
        *self.number
    }

    /// A lane as this transaction has it now.
    pub(in crate::sqlite) fn peek(&self, id: LaneId) -> Progress {
        self.lanes.get(&id).copied().unwrap_or_else(|| self.memory.progress(id))
    }

    /// The same, to be changed.
    pub(in crate::sqlite) fn lane(&mut self, id: LaneId) -> &mut Progress {
        self.lanes.entry(id).or_insert_with(|| self.memory.progress(id))
    }

    /// Runs a statement; says how many rows changed.
    pub(in crate::sqlite) async fn execute(&mut self, sql: &'static str, bind: impl FnOnce(&mut Args)) -> Result<u64> {
        let mut args = Args::default();
        bind(&mut args);
        execute(self.conn, sql, args).await.map_err(fault::outward)
    }

    /// Runs a statement; gives the rows that come.
    pub(in crate::sqlite) async fn fetch(
        &mut self,
        sql: &'static str,
        bind: impl FnOnce(&mut Args),
    ) -> Result<Vec<sqlx::sqlite::SqliteRow>> {
        let mut args = Args::default();
        bind(&mut args);
        fetch(self.conn, sql, args).await.map_err(fault::outward)
    }

    /// Raises the version of a tenant's settings. `NotFound` if there is no such tenant.
    pub(in crate::sqlite) async fn settings_changed(&mut self, tenant: TenantId) -> Result<()> {
        let sql = "UPDATE tenants SET settings = settings + 1 WHERE id = ? RETURNING settings";
        let rows = self.fetch(sql, |args| _ = args.int(tenant.0)).await?;
        let Some(row) = rows.first() else { return Err(no_tenant(tenant)) };
        let settings = crate::sqlite::row::Columns::new(row).int()?;
        self.changes.settings.push((tenant, settings));
        Ok(())
    }

    /// The earliest of some times; the beginning of time if there are none.
    pub(in crate::sqlite) fn earliest(times: impl Iterator<Item = Timestamp>) -> Timestamp {
        times.min().unwrap_or(Timestamp(0))
    }
}

/// The tenant named does not exist.
pub(in crate::sqlite) fn no_tenant(tenant: TenantId) -> Error {
    Error::NotFound { what: "tenant", name: tenant.0.to_string() }
}
