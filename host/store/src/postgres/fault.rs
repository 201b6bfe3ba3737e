//! What Postgres's errors mean to callers.

use crate::Error;

/// As the caller sees it. Whatever is not known to be the caller's or the data's fault may work later; whether a write
/// happened whose answer did not come, nobody knows until the store is read again.
pub(super) fn outward(error: sqlx::Error) -> Error {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned);
    match code.as_deref() {
        // disk_full
        Some("53100") => Error::Full,
        // data_corrupted, index_corrupted
        Some("XX001" | "XX002") => Error::Damaged(said(&error)),
        _ => unavailable("the database failed", error),
    }
}

/// There is no connection. What the server will refuse as often as it is asked (the role, its password, the database)
/// comes without a cause, so that nobody asks again.
pub(super) fn connecting(reason: String, error: sqlx::Error) -> Error {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned);
    match code.as_deref() {
        // invalid_authorization_specification, invalid_password, invalid_catalog_name
        Some("28000" | "28P01" | "3D000") => refused(format!("{reason}: {}", said(&error))),
        _ => unavailable(reason, error),
    }
}

/// What the server said; the driver adds the line of the server's own source at which it said so.
fn said(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// A failure with its cause.
pub(super) fn unavailable(reason: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unavailable { reason: reason.into(), source: Some(Box::new(source)) }
}

/// A failure that has no cause but what is said.
pub(super) fn refused(reason: impl Into<String>) -> Error {
    Error::Unavailable { reason: reason.into(), source: None }
}
