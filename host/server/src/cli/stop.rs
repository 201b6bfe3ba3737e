//! The signals that end a host: Ctrl-C and SIGTERM.

use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// Returns when the process is asked to end.
pub async fn stopped() {
    // Without a handler (which cannot happen on a system that has signals) only Ctrl-C counts.
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => _ = tokio::signal::ctrl_c().await,
    }
}
