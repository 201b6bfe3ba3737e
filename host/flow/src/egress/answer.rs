//! An answer, read within its bounds.

use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use reqwest::Response;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::egress::EgressError;
use crate::egress::EgressOptions;

/// An answer whose headers are here and whose body is not yet. Dropping it ends the connection.
#[derive(Debug)]
pub struct Answer {
    response: Response,
    deadline: Instant,
    body_bytes_max: usize,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, as it came: nothing is decompressed.
    pub body: Bytes,
}

impl Answer {
    pub(super) fn new(response: Response, deadline: Instant, options: &EgressOptions) -> Result<Self, EgressError> {
        let size: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if size > options.header_bytes_max {
            return Err(EgressError::Limit { what: "headers", limit: options.header_bytes_max });
        }
        Ok(Self { response, deadline, body_bytes_max: options.body_bytes_max })
    }

    /// With another bound of the body than the guard's own.
    #[must_use]
    pub fn with_body_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Reads the body; a larger or slower one than is allowed is an error.
    pub async fn whole(mut self) -> Result<Reply, EgressError> {
        let limit = EgressError::Limit { what: "body", limit: self.body_bytes_max };
        if self.response.content_length().is_some_and(|length| length > self.body_bytes_max as u64) {
            return Err(limit);
        }
        let mut body = BytesMut::new();
        loop {
            let chunk = timeout_at(self.deadline, self.response.chunk()).await;
            match chunk.map_err(|_| EgressError::Timeout { doing: "reading the answer" })?.map_err(EgressError::of)? {
                Some(chunk) if body.len() + chunk.len() > self.body_bytes_max => return Err(limit),
                Some(chunk) => body.extend_from_slice(&chunk),
                None => break,
            }
        }
        let headers = std::mem::take(self.response.headers_mut());
        Ok(Reply { status: self.response.status(), headers, body: body.freeze() })
    }

    /// Reads the beginning of the body, for people to read, and never longer than `wait`. Whatever goes wrong ends it.
    ///
    /// If the body ends within these bounds the connection can be used again.
    pub async fn excerpt(mut self, bytes: usize, wait: Duration) -> Bytes {
        let deadline = self.deadline.min(Instant::now() + wait);
        let mut body = BytesMut::new();
        while body.len() < bytes {
            match timeout_at(deadline, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk[..chunk.len().min(bytes - body.len())]),
                _ => break,
            }
        }
        body.freeze()
    }
}
