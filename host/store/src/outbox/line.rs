//! A line: one connection, made when it is needed.

use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::postgres::PgRow;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::outbox::Error;
use crate::outbox::Result;
use crate::outbox::fault;
use crate::outbox::table::Query;

/// How long a connection may take to come about.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// How long a statement may take; longer, and the network is gone.
const ANSWER: Duration = Duration::from_secs(30);

pub(super) struct Line {
    connect: PgConnectOptions,
    place: String,
    idle: Mutex<Option<PgConnection>>,
}

impl Line {
    pub(super) fn new(connect: PgConnectOptions) -> Self {
        let place = format!("{}:{}", connect.get_host(), connect.get_port());
        Self { connect, place, idle: Mutex::default() }
    }

    /// One statement, and the rows that come. A transaction of its own.
    pub(super) async fn fetch(&self, query: Query) -> Result<Vec<PgRow>> {
        let mut idle = self.idle.lock().await;
        // Taken out for as long as it is used: a call that is broken off leaves no answer to be read by the next.
        let mut conn = match idle.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        match timeout(ANSWER, query.fetch_all(&mut conn)).await {
            Err(_) => Err(self.silent("does not answer")),
            Ok(Ok(rows)) => {
                *idle = Some(conn);
                Ok(rows)
            }
            Ok(Err(error)) => Err(self.fault(error)),
        }
    }

    pub(super) fn fault(&self, error: sqlx::Error) -> Error {
        fault::outward(&self.place, error)
    }

    async fn connect(&self) -> Result<PgConnection> {
        match timeout(CONNECT, self.connect.connect()).await {
            Err(_) => Err(self.silent("does not answer")),
            Ok(made) => made.map_err(|error| self.fault(error)),
        }
    }

    fn silent(&self, reason: &str) -> Error {
        Error::Unreachable { place: self.place.clone(), reason: reason.to_owned() }
    }
}
