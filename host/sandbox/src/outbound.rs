//! The way out: what a guest with the `http` grant asks of other hosts, as values. Who sends it is not here: the flow
//! does, over its egress guard; a re-execution answers from its recording; everybody else has no way out at all.
//!
//! Guests run synchronously, so an exchange is begun without waiting and waited for when the guest looks at it. Then the
//! guest is told that it is over, however long it took: what a guest sees does not depend on how fast others are.

use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::PluginId;
use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;

/// A request to another host. It is granted, and within the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose it is.
    pub plugin: PluginId,
    /// What is to be done, in capitals.
    pub method: String,
    /// Where: scheme, authority, path and query.
    pub url: String,
    /// Headers, without those that belong to the connection. Names are in lower case.
    pub headers: Vec<(String, Bytes)>,
    /// What is sent.
    pub body: Bytes,
    /// Time for all of it.
    pub timeout: Duration,
    /// Bytes that its answer's body may have.
    pub response_bytes: usize,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, Bytes)>,
    /// Its body, whole.
    pub body: Bytes,
}

/// Why nothing came back. Kept in recordings, so that a re-execution fails in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It is not granted, or the operator does not allow it. The text says what is missing.
    #[error("{0}")]
    Denied(String),
    /// It is no request that can be sent.
    #[error("{0}")]
    Invalid(String),
    /// The egress guard lets nobody go there.
    #[error("{0}")]
    Prohibited(String),
    /// As many requests of this invocation, or of this host, are under way as may be.
    #[error("{0}")]
    Busy(String),
    /// The name has no address.
    #[error("the host's name was not found")]
    Name,
    /// Somebody is there and takes no connection.
    #[error("the connection was refused")]
    Refused,
    /// Nobody can be reached there.
    #[error("the host cannot be reached")]
    Unreachable,
    /// The other side could not prove who it is.
    #[error("no secure connection: {0}")]
    Tls(String),
    /// No connection in time.
    #[error("timed out while connecting")]
    ConnectTimeout,
    /// No answer in time.
    #[error("timed out while waiting for the answer")]
    Timeout,
    /// The answer ended in its middle, or was none.
    #[error("the connection broke")]
    Broken,
    /// The request's body is larger than it may be.
    #[error("the request's body has more than {0} bytes")]
    RequestTooLarge(usize),
    /// The answer's body is larger than it may be.
    #[error("the answer's body has more than {0} bytes")]
    ResponseTooLarge(usize),
    /// The answer's headers are larger than they may be.
    #[error("the answer's headers have more than {0} bytes")]
    HeadersTooLarge(usize),
    /// The recording has no answer to this request.
    #[error("the recording has no answer to it")]
    Unrecorded,
}

/// Sends requests.
pub trait Outbound: Send + Sync {
    /// Begins an exchange. Does not block.
    fn begin(&self, request: Request) -> Box<dyn Exchange>;
}

/// A request under way. Dropping it gives it up.
pub trait Exchange: Send {
    /// How it ended, if it does by then and nobody gives it up before. Blocks the guest's thread, which is free for nobody
    /// else; an implementation sees to it that others have one, and asks `given_up` every now and then.
    fn wait(&mut self, until: Instant, given_up: &dyn Fn() -> bool) -> Option<Result<Reply, Fault>>;
}
