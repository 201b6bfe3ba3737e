//! The listener: accepts connections, serves the router on them, and lets them end when the host does.
//!
//! A connection that sends no whole head in time, or does nothing for long, is closed; connections have a bound, so that
//! one who opens many and says nothing takes nothing from others but those places.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::drain;

/// Connections open at a time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4_096;
/// The longest time for the head of a request, the first one or the next on a kept connection.
const HEAD: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// How often an HTTP/2 client that says nothing is asked whether it is there, and how long it may take to answer.
const PING: Duration = Duration::from_secs(20);
/// Streams under way on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 128;
/// How long to leave the kernel alone that has no more file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// Serves until `stop`; then takes no further connection, and returns when the requests under way are answered or `grace`
/// is over.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken, grace: Duration) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let under_way = GracefulShutdown::new();
    let builder = builder();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        let router = router.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let request = drain::request(request);
            let router = router.clone();
            async move {
                let answer: Result<_, Infallible> = router.oneshot(request).await;
                answer
            }
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = under_way.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection broke");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, under_way.shutdown()).await.is_err() {
        tracing::warn!("the grace is over; requests under way are cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Answers are small and wanted at once.
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES_MAX.max(64 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .max_concurrent_streams(HTTP2_STREAMS_MAX);
    builder
}
