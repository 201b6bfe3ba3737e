//! What Postgres's errors mean to callers.

use std::borrow::Cow;
use std::error::Error as Cause;

use sqlx::error::DatabaseError;

use crate::Error;

/// As the caller sees it. Whatever is not known to be the caller's or the data's fault may work later; whether a write
/// happened whose answer did not come, nobody knows until the store is read again.
pub(super) fn outward(error: sqlx::Error) -> Error {
    let code = error.as_database_error().and_then(DatabaseError::code).map(Cow::into_owned);
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
    let code = error.as_database_error().and_then(DatabaseError::code).map(Cow::into_owned);
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
pub(super) fn unavailable(reason: impl Into<String>, source: impl Cause + Send + Sync + 'static) -> Error {
    let source: Box<dyn Cause + Send + Sync> = match server(&source) {
        // The line is in the words of every error around it, too.
        Some(server) => Box::new(Said {
            words: source.to_string().replace(&server.to_string(), server.message()),
            code: server.code().map(Cow::into_owned),
        }),
        None => Box::new(source),
    };
    Error::Unavailable { reason: reason.into(), source: Some(source) }
}

/// A cause in the server's own words, for operators: with a line of its source they would look for it in their own.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
struct Said {
    words: String,
    code: Option<String>,
}

/// Under which code (SQLSTATE) the server refused; nothing if it did not answer.
pub(super) fn code(error: &Error) -> Option<&str> {
    let Error::Unavailable { source: Some(source), .. } = error else { return None };
    source.downcast_ref::<Said>()?.code.as_deref()
}

/// Whether connections that were not asked may have failed the same way: there was no answer, or one about the server.
pub(super) fn is_of_server(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().map(DatabaseError::code);
    match code {
        Some(Some(code)) => is_class_of_server(&code),
        Some(None) => false,
        None => true,
    }
}

/// Connections, the server's own stopping and failing: the same for everybody.
pub(super) fn is_class_of_server(code: &str) -> bool {
    ["08", "57", "58", "XX"].iter().any(|class| code.starts_with(class))
}

/// The same error for one more caller. Its cause goes to the log, not to each of them.
pub(super) fn again(error: &Error) -> Error {
    match error {
        Error::Full => Error::Full,
        Error::Damaged(what) => Error::Damaged(what.clone()),
        Error::Unavailable { reason, .. } => refused(reason.clone()),
        other => refused(other.to_string()),
    }
}

/// What the server has said, if it was the server.
fn server<'e>(error: &'e (dyn Cause + 'static)) -> Option<&'e (dyn DatabaseError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<sqlx::Error>()?.as_database_error())
}

/// A failure that has no cause but what is said.
pub(super) fn refused(reason: impl Into<String>) -> Error {
    Error::Unavailable { reason: reason.into(), source: None }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use sqlx::error::ErrorKind;
    use sqlx::migrate::MigrateError;

    use super::*;

    /// As the driver shows it.
    #[derive(Debug)]
    struct Server;

    impl fmt::Display for Server {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} at line 3941", self.message())
        }
    }

    impl Cause for Server {}

    impl DatabaseError for Server {
        fn message(&self) -> &str {
            "permission denied for table events"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some("42501".into())
        }

        fn as_error(&self) -> &(dyn Cause + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn Cause + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn Cause + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn told(error: &Error) -> Vec<String> {
        std::iter::successors(Some(error as &dyn Cause), |&error| error.source()).map(ToString::to_string).collect()
    }

    #[test]
    fn an_operator_reads_the_servers_words_and_no_line_of_its_source() {
        let failed = || sqlx::Error::Database(Box::new(Server));
        let said = "error returned from database: permission denied for table events";
        assert_eq!(told(&outward(failed()))[1..], [said]);
        let migration = unavailable("no tables", MigrateError::ExecuteMigration(failed(), 3));
        assert_eq!(told(&migration)[1..], [format!("while executing migration 3: {said}")]);
        assert_eq!(code(&outward(failed())), Some("42501"), "and the host its code");
        let closed = told(&outward(sqlx::Error::PoolClosed));
        assert_eq!(closed[1..], [sqlx::Error::PoolClosed.to_string()], "other causes stay as they are");
    }
}
