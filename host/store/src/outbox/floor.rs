//! The floor: below it no row will ever become visible again, so looks need not go there.
//!
//! Deleted rows stay in the index until they are cleaned up, and any transaction in the database that is left open keeps
//! that from happening. Without a floor, every look would walk past all of them.
//!
//! That a row with a lower number than another may still come is because of a transaction that got its number earlier and
//! has not committed. It holds the lock that every writer of the table holds, from before it got the number to its end.
//! So: of all writers there are at one moment, once the last has ended, everything up to what was seen before that moment
//! is visible or will never be. Only the table's own writers count; whatever else is open in the database does not.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use sqlx::Row as _;

use crate::outbox::Result;
use crate::outbox::line::Line;
use crate::outbox::table::Table;

/// Calls after which the floor is given up for once, in case numbers were set back.
const CALLS: u32 = 60;

#[derive(Debug, Default)]
pub(super) struct Floor(Mutex<State>);

#[derive(Debug)]
struct State {
    floor: i64,
    /// The highest number that was ever read.
    seen: i64,
    /// What had been seen, and who was writing just after.
    mark: Option<(i64, HashSet<String>)>,
    calls: u32,
}

impl Default for State {
    fn default() -> Self {
        Self { floor: i64::MIN, seen: i64::MIN, mark: None, calls: 0 }
    }
}

impl Floor {
    /// Rows have higher numbers than this.
    pub(super) fn id(&self) -> i64 {
        self.state().floor
    }

    /// A row with this number was read.
    pub(super) fn saw(&self, id: i64) {
        let mut state = self.state();
        state.seen = state.seen.max(id);
    }

    pub(super) fn clear(&self) {
        *self.state() = State::default();
    }

    pub(super) async fn raise(&self, line: &Line, table: &Table) -> Result<()> {
        let State { floor, seen, .. } = *self.state();
        // After what was seen, so that whoever had a lower number by then is among them or has ended.
        let Some(writers) = writers(line, table).await? else {
            self.clear();
            return Ok(());
        };
        let (mark, anew) = {
            let mut state = self.state();
            state.calls = (state.calls + 1) % CALLS;
            (state.mark.take(), state.calls == 0)
        };
        let (below, mark) = match mark {
            Some((below, then)) if then.is_disjoint(&writers) => (Some(below), (seen, writers)),
            Some(mark) => (None, mark),
            None => (None, (seen, writers)),
        };
        let below = if anew { Some(floor) } else { below };
        if let Some(below) = below {
            // Rows may lie there whose tenants wait.
            let lowest = lowest(line, table, if anew { i64::MIN } else { floor }).await?;
            self.state().floor = lowest.map_or(below, |lowest| below.min(lowest.saturating_sub(1)));
        }
        self.state().mark = Some(mark);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Transactions that write to the table; none if the table is not one where that tells anything.
async fn writers(line: &Line, table: &Table) -> Result<Option<HashSet<String>>> {
    let rows = line.fetch(table.writers()).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let read = |error| line.fault(error);
    let counted: bool = row.try_get(0).map_err(read)?;
    let writers: Vec<String> = row.try_get(1).map_err(read)?;
    Ok(counted.then(|| writers.into_iter().collect()))
}

async fn lowest(line: &Line, table: &Table, above: i64) -> Result<Option<i64>> {
    let rows = line.fetch(table.lowest().bind(above)).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    row.try_get(0).map_err(|error| line.fault(error))
}
