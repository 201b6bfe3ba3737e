//! What nobody wants of a request's body: read on for a while and thrown away, so that the sender gets to read why.
//!
//! A host that answers before a body is whole and then closes the connection with bytes unread makes the sender's kernel
//! throw the answer away, and all that the sender sees is a broken connection.

use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::header;
use bytes::Bytes;
use futures_util::future::poll_fn;
use hyper::body::Frame;
use hyper::body::SizeHint;

/// Bytes that are thrown away, and the time that it may take.
const BYTES_MAX: usize = 16 << 20;
const TIME_MAX: Duration = Duration::from_secs(3);

/// The request with a body that is read on after everybody else let go of it.
pub fn request<B>(request: hyper::Request<B>) -> Request
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    // Who asks first whether to send the body has not sent it, and need not.
    let asks = request.headers().contains_key(header::EXPECT);
    request.map(|body| if asks { Body::new(body) } else { Body::new(Drained { body: Some(body) }) })
}

struct Drained<B: HttpBody<Data = Bytes> + Send + Unpin + 'static> {
    /// None at its end.
    body: Option<B>,
}

impl<B: HttpBody<Data = Bytes> + Send + Unpin + 'static> HttpBody for Drained<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl<B: HttpBody<Data = Bytes> + Send + Unpin + 'static> Drop for Drained<B> {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        // Without a runtime there is no connection that could be answered on.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(tokio::time::timeout(TIME_MAX, async move {
            let mut left = BYTES_MAX;
            while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(less) => left = less,
                    None => break,
                }
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    #[tokio::test]
    async fn what_is_left_is_read_on_up_to_a_bound() {
        let (pieces, stream) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let body = Body::from_stream(ReceiverStream::new(stream));
        drop(request(hyper::Request::new(body)));
        let piece = Bytes::from(vec![0; 1 << 20]);
        let mut sent = 0;
        while pieces.send(Ok(piece.clone())).await.is_ok() {
            sent += 1;
        }
        assert!((16..=18).contains(&sent), "{sent}");
    }

    #[tokio::test]
    async fn who_asks_before_sending_is_not_asked_to_send() {
        let (pieces, stream) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let body = Body::from_stream(ReceiverStream::new(stream));
        let asking = hyper::Request::builder().header("expect", "100-continue").body(body);
        drop(request(asking.expect("because it is a request")));
        assert!(pieces.is_closed());
    }
}
