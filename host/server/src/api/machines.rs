//! What machines ask: is it alive, is it ready, what does it measure.

use axum::Extension;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use tokio::sync::Mutex;

use crate::api::extract::Operator;
use crate::api::state::Api;

/// How long the store may take to answer before the host counts as not ready.
const STORE_WAIT: Duration = Duration::from_secs(2);

/// For so long what waits is not counted again, however many ask: the count is a look at every tenant.
const COUNTED: Duration = Duration::from_secs(10);

/// When what waits was counted last; who asks while it is being counted waits for that.
type Counted = Arc<Mutex<Option<Instant>>>;

/// The routes. They are for machines and stand in no catalogue.
pub fn routes() -> Router<Api> {
    let measured = get(measured).layer(Extension(Counted::default()));
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).route("/metrics", measured)
}

/// The process is alive.
async fn healthz() -> &'static str {
    "alive\n"
}

/// It takes requests: the store answers, and the host is not ending.
async fn readyz(State(api): State<Api>) -> (StatusCode, &'static str) {
    if api.ending.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "ending\n");
    }
    match tokio::time::timeout(STORE_WAIT, api.store.operator_paused()).await {
        Ok(Ok(_)) => (StatusCode::OK, "ready\n"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready: the store does not answer");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n")
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer in time\n"),
    }
}

/// What is measured, in the format of Prometheus. Names of tenants do not occur, but their numbers tell much: it is for
/// operators.
async fn measured(State(api): State<Api>, Extension(counted): Extension<Counted>, _: Operator) -> impl IntoResponse {
    let (waiting, running) = api.dispatch.depth();
    metrics::gauge!("bulkhead_turns_waiting").set(waiting as f64);
    metrics::gauge!("bulkhead_turns_running").set(running as f64);
    metrics::gauge!("bulkhead_streams_open").set(api.streams.count() as f64);
    let stats = api.sandbox.stats();
    metrics::gauge!("bulkhead_plugins_loaded").set(stats.loaded as f64);
    metrics::gauge!("bulkhead_plugins_loaded_bytes").set(stats.loaded_bytes as f64);
    metrics::gauge!("bulkhead_plugins_compiled").set(stats.compiled as f64);
    count_depths(&api, &counted).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics.render())
}

/// Counts what waits, unless that was done a moment ago; a store that did not answer is not asked sooner, either.
async fn count_depths(api: &Api, counted: &Counted) {
    let mut last = counted.lock().await;
    if last.is_some_and(|last| last.elapsed() < COUNTED) {
        return;
    }
    if let Ok(depths) = api.store.host_depths().await {
        let sum = |count: fn(&bulkhead_store::work::Depth) -> u64| depths.iter().map(count).sum::<u64>() as f64;
        metrics::gauge!("bulkhead_events_unread").set(sum(|depth| depth.backlog));
        metrics::gauge!("bulkhead_runs_waiting").set(sum(|depth| depth.waiting));
        metrics::gauge!("bulkhead_runs_held").set(sum(|depth| depth.held));
        metrics::gauge!("bulkhead_runs_parked").set(sum(|depth| depth.parked));
    }
    *last = Some(Instant::now());
}
