//! What SQLite's errors mean to callers, and to the writer.

use sqlx::error::DatabaseError;

use crate::Error;

const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const NOTADB: i32 = 26;
/// A sync failed: a kind of `IOERR`.
const IOERR_FSYNC: i32 = 1_034;

/// The result code, if the database itself answered.
fn extended(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error().and_then(DatabaseError::code)?.parse().ok()
}

fn code(error: &sqlx::Error) -> Option<i32> {
    Some(extended(error)? & 0xff)
}

/// As the caller sees it.
pub(super) fn outward(error: sqlx::Error) -> Error {
    match code(&error) {
        Some(FULL) => Error::Full,
        Some(CORRUPT | NOTADB) => Error::Damaged(error.to_string()),
        _ => unavailable("the database failed", error),
    }
}

/// A failure with its cause.
pub(super) fn unavailable(reason: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unavailable { reason: reason.into(), source: Some(Box::new(source)) }
}

/// A failure that has no cause but what is said.
pub(super) fn refused(reason: impl Into<String>) -> Error {
    Error::Unavailable { reason: reason.into(), source: None }
}

/// Whether a sync failed, so that what was written before it may be lost, and no later sync would say so.
pub(super) fn unsynced(error: &sqlx::Error) -> bool {
    extended(error) == Some(IOERR_FSYNC)
}

/// Whether the connection is not to be trusted any more: after a failed write or sync, what the system's cache holds
/// and what the disk holds may differ, and a transaction may or may not have happened.
pub(super) fn poisons(error: &Error) -> bool {
    match error {
        Error::Damaged(_) => true,
        Error::Unavailable { source, .. } => {
            let cause = source.as_ref().and_then(|source| source.downcast_ref::<sqlx::Error>());
            cause.is_none_or(|cause| code(cause).is_none_or(|code| matches!(code, IOERR | CANTOPEN)))
        }
        _ => false,
    }
}
