//! A receiver of webhooks on this machine, so that deliveries have somewhere to go: counts what arrives, by id.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Ids remembered in all: more than any demo makes, and a bound for one that runs for weeks.
const IDS_MAX: usize = 1_000_000;

/// What has arrived.
#[derive(Debug, Clone, Default)]
pub struct Arrivals {
    /// Per path: how often each id came.
    by_path: Arc<Mutex<BTreeMap<String, HashMap<String, u32>>>>,
}

/// How much has arrived at one path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Different ids.
    pub distinct: u64,
    /// Calls that repeated an id.
    pub repeated: u64,
}

impl Arrivals {
    /// What has arrived at `/{path}`.
    pub fn count(&self, path: &str) -> Count {
        let by_path = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        by_path.get(path).map_or_else(Count::default, |ids| Count {
            distinct: ids.len() as u64,
            repeated: ids.values().map(|times| u64::from(times - 1)).sum(),
        })
    }

    fn note(&self, path: String, id: &str) {
        let mut by_path = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = by_path.entry(path).or_default();
        if ids.len() >= IDS_MAX {
            ids.clear();
        }
        *ids.entry(id.to_owned()).or_default() += 1;
    }
}

/// Listens on a free port until it is cancelled.
pub async fn start(stop: CancellationToken) -> std::io::Result<(SocketAddr, Arrivals)> {
    let arrivals = Arrivals::default();
    let router = Router::new().route("/{path}", post(take)).with_state(arrivals.clone());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(cause) = served {
            tracing::warn!(%cause, "the demo's receiver has ended");
        }
    });
    Ok((address, arrivals))
}

async fn take(State(arrivals): State<Arrivals>, Path(path): Path<String>, headers: HeaderMap, _: Bytes) -> StatusCode {
    match headers.get("webhook-id").and_then(|id| id.to_str().ok()) {
        Some(id) => {
            arrivals.note(path, id);
            StatusCode::NO_CONTENT
        }
        None => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_told_from_arrivals() {
        let arrivals = Arrivals::default();
        for (path, id) in [("a", "1"), ("a", "2"), ("a", "1"), ("a", "1"), ("b", "1")] {
            arrivals.note(path.to_owned(), id);
        }
        assert_eq!(arrivals.count("a"), Count { distinct: 2, repeated: 2 });
        assert_eq!(arrivals.count("b"), Count { distinct: 1, repeated: 0 });
        assert_eq!(arrivals.count("c"), Count::default());
    }
}
