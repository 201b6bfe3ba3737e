//! The body of an upload: a component, with its manifest and its signature if it comes as a form.
//!
//! The component goes to a file piece by piece as it comes (see [`crate::spool`]); the host's memory does not grow with it.
//! Too much is refused as soon as it is too much. Whoever sends slowly holds one of the tenant's places for uploads, and
//! nothing else.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::extract::FromRequest as _;
use axum::extract::Multipart;
use axum::extract::Request;
use axum::extract::multipart::Field;
use axum::extract::multipart::MultipartError;
use axum::http::header;
use bulkhead_domain::id::TenantId;
use bulkhead_sandbox::inspect::SIZE_MAX;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::StreamExt as _;
use futures_util::stream;

use crate::api::body::Pieces;
use crate::api::code::Code;
use crate::api::extract::media_type;
use crate::api::extract::shown;
use crate::api::places::Place;
use crate::api::places::Places;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::manifest;
use crate::measure;
use crate::signature;
use crate::spool::Arrived;
use crate::spool::Arriving;
use crate::spool::Content;
use crate::spool::Spool;

/// The longest time for a whole upload: a component of full size over a line of 1 Mbit/s.
const WHOLE: Duration = Duration::from_secs(600);
/// Bytes between two parts of a form, and of a part's head: ordinary ones have a few hundred.
const HEAD_MAX: usize = 64 << 10;
/// What can be sent.
const PARTS: &str =
    "the parts are `component` (application/wasm), `manifest` (plugin.toml) and `signature` (a DSSE envelope)";

/// Where uploads arrive, and how many at a time: each may hold as much of the disk as a component may have.
pub struct Uploads {
    spool: Spool,
    places: Places,
}

/// What is uploaded, apart from its name.
pub(super) struct Parts {
    /// The component.
    pub(super) wasm: Content,
    /// Its manifest.
    pub(super) manifest: Option<String>,
    /// Its signature.
    pub(super) signature: Option<String>,
}

impl Uploads {
    /// `count` at a time over all tenants, in this folder.
    pub fn open(folder: &Path, count: usize) -> io::Result<Self> {
        Ok(Self { spool: Spool::open(folder)?, places: Places::new(count, "uploads") })
    }

    /// A place for a tenant's upload, until it is dropped.
    pub(super) async fn place(&self, tenant: TenantId) -> Result<Place> {
        self.places.take(tenant).await
    }

    /// Receives one of at most `limit` bytes, in either form.
    pub(super) async fn receive(&self, request: Request, limit: usize) -> Result<Parts> {
        let (parts, content) = request.into_parts();
        match media_type(&parts.headers).as_str() {
            "application/wasm" => {
                let mut pieces = Pieces::new(&parts.headers, content, limit.min(SIZE_MAX))?.within(WHOLE);
                let mut arriving = self.start().await?;
                while let Some(piece) = pieces.next().await? {
                    write(&mut arriving, &piece).await?;
                }
                Ok(Parts { wasm: Content::File(finish(arriving).await?), manifest: None, signature: None })
            }
            "multipart/form-data" => {
                let pieces = Pieces::new(&parts.headers, content, limit)?.within(WHOLE);
                let watched = Watched::default();
                let mut request = Request::new(Body::from_stream(Paced::new(pieces, watched.clone())));
                if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
                    request.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
                }
                DefaultBodyLimit::disable().apply(&mut request);
                // Why the body ended is a better answer than that the form did.
                self.form(request, &watched).await.map_err(|problem| watched.take_problem().unwrap_or(problem))
            }
            other => Err(Problem::new(Code::MediaType, format!("`{}` is not taken here", shown(other))).hint(
                "send application/wasm, or multipart/form-data with the parts `component`, `manifest` and `signature`",
            )),
        }
    }

    async fn form(&self, request: Request, watched: &Watched) -> Result<Parts> {
        let form = Multipart::from_request(request, &()).await;
        let mut form =
            form.map_err(|rejection| malformed(format!("the form cannot be read: {}", rejection.body_text())))?;
        let (mut wasm, mut manifest, mut signature) = (None, None, None);
        while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
            watched.moved();
            let name = field.name().unwrap_or_default().to_owned();
            match name.as_str() {
                "component" if wasm.is_none() => wasm = Some(self.component(field, watched).await?),
                "manifest" if manifest.is_none() => {
                    manifest = Some(text("manifest", field, manifest::SIZE_MAX, watched).await?);
                }
                "signature" if signature.is_none() => {
                    signature = Some(text("signature", field, signature::SIZE_MAX, watched).await?);
                }
                "component" | "manifest" | "signature" => {
                    return Err(malformed(format!("the part `{name}` is there twice")));
                }
                other => return Err(malformed(format!("the form has a part `{}`", shown(other))).hint(PARTS)),
            }
        }
        let missing = || malformed("the form has no part `component`".to_owned()).hint(PARTS);
        Ok(Parts { wasm: Content::File(wasm.ok_or_else(missing)?), manifest, signature })
    }

    async fn component(&self, mut field: Field<'_>, watched: &Watched) -> Result<Arrived> {
        let mut arriving = self.start().await?;
        while let Some(piece) = field.chunk().await.map_err(|error| broken(&error))? {
            watched.moved();
            write(&mut arriving, &piece).await?;
        }
        finish(arriving).await
    }

    async fn start(&self) -> Result<Arriving> {
        self.spool.start().await.map_err(|error| disk(&error))
    }
}

async fn write(arriving: &mut Arriving, piece: &[u8]) -> Result<()> {
    if piece.len() > SIZE_MAX - arriving.size() {
        let most = measure::Bytes(SIZE_MAX as u64);
        return Err(Problem::new(Code::BodyTooLarge, format!("the component is larger than the {most} it may have"))
            .hint("strip its debug information (`wasm-tools strip`), or build it with size optimisation"));
    }
    arriving.write(piece).await.map_err(|error| disk(&error))
}

async fn finish(arriving: Arriving) -> Result<Arrived> {
    arriving.finish().await.map_err(|error| disk(&error))
}

/// A small part, in memory.
async fn text(part: &str, mut field: Field<'_>, most: usize, watched: &Watched) -> Result<String> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(|error| broken(&error))? {
        watched.moved();
        if piece.len() > most - bytes.len() {
            let most = measure::Bytes(most as u64);
            return Err(Problem::new(Code::BodyTooLarge, format!("the {part} is larger than the {most} it may have")));
        }
        bytes.extend_from_slice(&piece);
    }
    String::from_utf8(bytes).map_err(|_| malformed(format!("the {part} is not UTF-8 text")))
}

fn malformed(detail: String) -> Problem {
    Problem::new(Code::BodyMalformed, detail)
}

fn broken(error: &MultipartError) -> Problem {
    malformed(format!("the form breaks off: {}", error.body_text()))
}

fn disk(error: &io::Error) -> Problem {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        tracing::error!(%error, "an upload does not fit on the disk");
        return Problem::new(Code::StoreFull, "the disk that uploads arrive on is full");
    }
    Problem::internal(error)
}

/// What is known of a form's body beside what the parser says.
#[derive(Clone, Default)]
struct Watched(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// Bytes that the parser was given since it found a part, or a piece of one.
    unread: usize,
    /// Why the body ended.
    problem: Option<Problem>,
}

impl Watched {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parser found something.
    fn moved(&self) {
        self.seen().unread = 0;
    }

    fn take_problem(&self) -> Option<Problem> {
        self.seen().problem.take()
    }
}

/// Pieces for the parser of forms. It keeps whatever it can get until it finds the end of a part's head or of a part, so it
/// gets one piece at a time, and no more once it has found nothing in [`HEAD_MAX`] bytes.
struct Paced {
    pieces: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
    watched: Watched,
    rests: bool,
}

impl Paced {
    fn new(pieces: Pieces, watched: Watched) -> Self {
        let pieces = stream::try_unfold(pieces, |mut pieces| async {
            let piece = pieces.next().await?;
            Ok(piece.map(|piece| (piece, pieces)))
        });
        Self { pieces: Box::pin(pieces), watched, rests: false }
    }
}

impl Stream for Paced {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if std::mem::take(&mut self.rests) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = if self.watched.seen().unread > HEAD_MAX {
            Some(Err(malformed("the head of a part of the form has no end".to_owned())))
        } else {
            std::task::ready!(self.pieces.poll_next_unpin(context))
        };
        Poll::Ready(piece.map(|piece| match piece {
            Ok(piece) => {
                self.rests = true;
                self.watched.seen().unread += piece.len();
                Ok(piece)
            }
            Err(problem) => {
                self.watched.seen().problem = Some(problem);
                Err(io::Error::other("the body ended"))
            }
        }))
    }
}
