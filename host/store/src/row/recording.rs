//! Rows of recordings.

use crate::Result;
use crate::recordings::Head;
use crate::recordings::Recorder;
use crate::row::AnyRow;
use crate::row::Columns;

/// The columns of a head, in the order in which [`head`] reads them.
macro_rules! recording_columns {
    () => {
        "number, pos, event, rule, attempt, step, item, plugin, plugin_version, code, recorded, size"
    };
}
pub(crate) use recording_columns;

/// Reads a head.
pub(crate) fn head<'r>(row: impl Into<AnyRow<'r>>) -> Result<Head> {
    let mut columns = Columns::new(row);
    Ok(Head {
        number: columns.int()?,
        of: Recorder {
            position: columns.position()?,
            event: columns.key()?,
            rule: columns.text()?,
            attempt: columns.narrow()?,
            step: columns.narrow()?,
            item: columns.narrow()?,
            plugin: columns.text()?,
            version: columns.narrow()?,
            code: columns.text()?,
            recorded: columns.time()?,
        },
        size: columns.count()?,
    })
}
