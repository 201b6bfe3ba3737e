//! What a guest holds of `wasi:http` within one call.

use bulkhead_domain::policy::limits::HttpLimits;
use bytes::Bytes;
use bytes::BytesMut;

use super::bindings::wasi::http::types::Scheme;
use crate::abi::handles::Handles;
use crate::capability::Stop;
use crate::capability::http::Asked;

/// Bytes of all headers that a guest holds at a time.
const HEADERS_MAX: usize = 1 << 20;
/// Bytes of the headers of one message.
const MESSAGE_HEADERS_MAX: usize = 32 << 10;

/// All of it, by kind. A call that ends takes it along.
#[derive(Default)]
pub(crate) struct Held {
    pub(super) fields: Handles<Fields>,
    pub(super) requests: Handles<OutgoingRequest>,
    pub(super) options: Handles<Options>,
    pub(super) outgoing: Handles<Outgoing>,
    pub(super) futures: Handles<Future>,
    pub(super) responses: Handles<Response>,
    pub(super) incoming: Handles<Incoming>,
    pub(super) replies: Handles<OutgoingResponse>,
    header_bytes: usize,
    body_bytes: usize,
}

/// `fields`.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    /// Names in lower case.
    pub entries: Vec<(String, Bytes)>,
    /// Those of a request or a response cannot be changed through what was lent of them.
    pub immutable: bool,
}

impl Fields {
    pub(super) fn size(&self) -> usize {
        self.entries.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
    }
}

/// `outgoing-request`.
pub(super) struct OutgoingRequest {
    pub method: String,
    pub path: Option<String>,
    pub scheme: Option<Scheme>,
    pub authority: Option<String>,
    pub headers: Fields,
    /// The number of its body, once the guest asked for it.
    pub body: Option<u32>,
}

/// `request-options`, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    pub connect: Option<u64>,
    pub first_byte: Option<u64>,
    pub between_bytes: Option<u64>,
}

/// `outgoing-body`.
#[derive(Default)]
pub(super) struct Outgoing {
    pub bytes: BytesMut,
    /// The guest has the stream.
    pub lent: bool,
    /// More was written than a request may have.
    pub too_large: bool,
    /// It was finished before its request was handed over.
    pub finished: bool,
    /// The exchange that begins when this is finished.
    pub future: Option<u32>,
}

/// `future-incoming-response`.
pub(super) enum Future {
    /// Its request's body is not finished yet.
    Unsent(Box<Asked>),
    /// Under way or over, by the number of the exchange.
    Begun(usize),
    /// Nothing was sent.
    Failed(crate::outbound::Fault),
    /// The guest has what came back.
    Taken,
}

/// `incoming-response`.
pub(super) struct Response {
    pub status: u16,
    pub headers: Fields,
    /// Until the guest asks for it.
    pub body: Option<Bytes>,
}

/// `incoming-body`, and the stream over it.
pub(super) struct Incoming {
    pub rest: Bytes,
    /// The guest has the stream.
    pub lent: bool,
}

/// `outgoing-response`: it can be made, and goes nowhere.
pub(super) struct OutgoingResponse {
    pub status: u16,
    pub headers: Fields,
}

impl Held {
    /// Keeps headers.
    pub(super) fn add_fields(&mut self, fields: Fields) -> Result<u32, Stop> {
        self.charge(0, fields.size())?;
        self.fields.add(fields)
    }

    /// Takes the headers of a message out; those of an earlier call are gone.
    pub(super) fn take_fields(&mut self, number: u32) -> wasmtime::Result<Fields> {
        let fields = self.fields.take(number)?;
        self.header_bytes -= fields.size();
        if fields.size() > MESSAGE_HEADERS_MAX {
            return Err(Stop::Bytes(format!("more than {MESSAGE_HEADERS_MAX} bytes of headers of one message")).into());
        }
        Ok(fields)
    }

    pub(super) fn drop_fields(&mut self, number: u32) {
        if let Some(fields) = self.fields.remove(number) {
            self.header_bytes -= fields.size();
        }
    }

    /// Changes headers within what a guest may hold of them.
    pub(super) fn change_fields(&mut self, number: u32, entries: Vec<(String, Bytes)>) -> wasmtime::Result<()> {
        let before = self.fields.get(number)?.size();
        let fields = Fields { entries, immutable: false };
        self.charge(before, fields.size())?;
        *self.fields.get(number)? = fields;
        Ok(())
    }

    fn charge(&mut self, before: usize, after: usize) -> Result<(), Stop> {
        let bytes = self.header_bytes - before + after;
        if bytes > HEADERS_MAX {
            return Err(Stop::Bytes(format!("more than {HEADERS_MAX} bytes of headers at a time")));
        }
        self.header_bytes = bytes;
        Ok(())
    }

    /// The call is over.
    pub(crate) fn clear(&mut self) {
        let Self {
            fields,
            requests,
            options,
            outgoing,
            futures,
            responses,
            incoming,
            replies,
            header_bytes,
            body_bytes,
        } = self;
        fields.clear();
        requests.clear();
        options.clear();
        outgoing.clear();
        futures.clear();
        responses.clear();
        incoming.clear();
        replies.clear();
        (*header_bytes, *body_bytes) = (0, 0);
    }

    /// The next bytes of an answer's body; none at its end.
    pub(crate) fn read(&mut self, body: u32, bytes: u64) -> Option<Bytes> {
        /// Bytes given at once.
        const PIECE: usize = 256 << 10;
        // A body of an earlier call is at its end.
        let incoming = self.incoming.get(body).ok().filter(|incoming| !incoming.rest.is_empty())?;
        let bytes = usize::try_from(bytes).unwrap_or(PIECE).min(PIECE).min(incoming.rest.len());
        Some(incoming.rest.split_to(bytes))
    }

    /// Takes bytes of a request's body.
    pub(crate) fn write(&mut self, body: u32, bytes: &[u8], limits: &HttpLimits) -> Written {
        let all = limits.request_bytes.saturating_mul(limits.requests as usize);
        let Ok(outgoing) = self.outgoing.get(body) else { return Written::Closed };
        if outgoing.finished {
            return Written::Closed;
        }
        if outgoing.too_large
            || outgoing.bytes.len() + bytes.len() > limits.request_bytes
            || self.body_bytes + bytes.len() > all
        {
            outgoing.too_large = true;
            return Written::TooLarge;
        }
        self.body_bytes += bytes.len();
        outgoing.bytes.extend_from_slice(bytes);
        Written::Whole
    }
}

/// What became of bytes that the guest wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Whole,
    /// There is nothing to write to any more.
    Closed,
    /// They are more than a request may have.
    TooLarge,
}
