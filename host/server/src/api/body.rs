//! Reading bodies: never more than the limit, never for longer than a sender of good will needs.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header;
use bytes::Bytes;
use bytes::BytesMut;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::api::code::Code;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::measure;

/// The longest wait for the next piece.
const PIECE: Duration = Duration::from_secs(15);
/// The longest time for a whole body that is read into memory.
const WHOLE: Duration = Duration::from_secs(60);

/// A body, piece by piece, up to a limit.
pub struct Pieces {
    stream: axum::body::BodyDataStream,
    left: usize,
    limit: usize,
    until: Option<Instant>,
}

impl Pieces {
    /// The pieces of a body. One that says that it is larger than `limit` is refused before anything is read.
    pub fn new(headers: &HeaderMap, body: Body, limit: usize) -> Result<Self> {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > limit as u64) {
            return Err(too_large(limit));
        }
        Ok(Self { stream: body.into_data_stream(), left: limit, limit, until: None })
    }

    /// The same, all within this time.
    pub fn within(self, time: Duration) -> Self {
        Self { until: Some(Instant::now() + time), ..self }
    }

    /// The next piece; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let wait = self.until.map_or(PIECE, |until| until.saturating_duration_since(Instant::now()).min(PIECE));
        let piece = tokio::time::timeout(wait, self.stream.next()).await;
        let piece = piece.map_err(|_| Problem::new(Code::BodyTooSlow, "the body came too slowly, and was given up"))?;
        match piece {
            None => Ok(None),
            Some(Err(_)) => Err(Problem::new(Code::BodyMalformed, "the body broke off")),
            Some(Ok(piece)) => {
                self.left = self.left.checked_sub(piece.len()).ok_or_else(|| too_large(self.limit))?;
                Ok(Some(piece))
            }
        }
    }
}

/// Reads a whole body into memory.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes> {
    let mut pieces = Pieces::new(headers, body, limit)?.within(WHOLE);
    let Some(first) = pieces.next().await? else { return Ok(Bytes::new()) };
    let Some(second) = pieces.next().await? else { return Ok(first) };
    let mut whole = BytesMut::from(first.as_ref());
    whole.extend_from_slice(&second);
    while let Some(piece) = pieces.next().await? {
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// The body has more bytes than it may.
pub fn too_large(limit: usize) -> Problem {
    let limit = measure::Bytes(limit as u64);
    Problem::new(Code::BodyTooLarge, format!("the body is larger than the {limit} that are taken here"))
}
