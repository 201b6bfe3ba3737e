//! What goes wrong with somebody else's database.

use std::error::Error as _;

use sqlx::error::DatabaseError;

/// Why a call failed. Shows no password, and no content of rows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL does not read.
    #[error("the outbox's URL is none that Postgres knows")]
    Url,
    /// The name is not one that a table may have here.
    #[error("`{0}` is no table's name: letters, digits and _, at most 54, and optionally a schema and a dot before it")]
    Name(String),
    /// The server cannot be reached, or does not answer.
    #[error("Postgres at {place} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        place: String,
        /// What happened.
        reason: String,
    },
    /// The server answers, and will not do it.
    #[error("Postgres at {place} says: {reason}")]
    Refused {
        /// Host and port.
        place: String,
        /// The server's words.
        reason: String,
    },
    /// What a row holds cannot be read, or not be moved.
    #[error("a row of the outbox cannot be read: {reason}")]
    Data {
        /// The server's words.
        reason: String,
    },
}

/// An error of the driver, seen at `place`.
pub(super) fn outward(place: &str, error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(database) => refused(place, &**database),
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. } => Error::Refused {
            place: place.to_owned(),
            reason: format!("a column is not of the kind it should be: {error}"),
        },
        _ => {
            // The cause alone: the driver's own words around it say nothing more.
            let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            Error::Unreachable { place: place.to_owned(), reason }
        }
    }
}

fn refused(place: &str, error: &dyn DatabaseError) -> Error {
    let code = error.code().unwrap_or_default();
    let (message, hint) = (error.message(), hint(&code));
    match &*code {
        // A value that cannot be shown, or is too large for it; the last is how sizes beyond all limits are called.
        code if code.starts_with("22") || code.starts_with("54") || code == "XX000" => {
            Error::Data { reason: message.to_owned() }
        }
        _ => Error::Refused { place: place.to_owned(), reason: format!("{message}{hint} ({code})") },
    }
}

fn hint(code: &str) -> &'static str {
    match code {
        // undefined_table, undefined_column
        "42P01" | "42703" => "; deploy/outbox.sql makes it",
        // insufficient_privilege
        "42501" => "; deploy/outbox.sql shows what must be granted",
        _ => "",
    }
}
