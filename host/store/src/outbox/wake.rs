//! Wake: hears that rows came, if it can. It saves time, never events.

use std::time::Duration;
use std::time::Instant;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use sqlx::postgres::PgListener;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::outbox::line::CONNECT;

/// After a failure, listening is tried again this much later.
const AGAIN: Duration = Duration::from_secs(5);
/// How long no look is made by whoever cannot hear.
const DEAF: Duration = Duration::from_secs(1);
/// A connection on which nothing came for so long is asked whether it is still one.
const QUIET: Duration = Duration::from_secs(30);

pub(super) struct Wake {
    /// Of one connection; the listener takes it from here.
    pool: PgPool,
    channel: String,
    ear: Mutex<Ear>,
}

#[derive(Default)]
struct Ear {
    listener: Option<PgListener>,
    /// When the connection last proved to be one, or could not be made.
    proved: Option<Instant>,
}

impl Wake {
    pub(super) fn new(connect: PgConnectOptions, channel: &str) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(connect);
        Self { pool, channel: channel.to_owned(), ear: Mutex::default() }
    }

    /// Until something was heard, or `limit` is over; a second at most if nothing can be heard. Returns early when hearing begins or breaks off: what was said
    /// before, or meanwhile, nobody heard.
    pub(super) async fn wait(&self, limit: Duration) {
        let mut ear = self.ear.lock().await;
        let quiet = ear.proved.map(|proved| proved.elapsed());
        if ear.listener.is_none() && quiet.is_none_or(|quiet| quiet >= AGAIN) {
            ear.listener = self.listen().await;
            ear.proved = Some(Instant::now());
            if ear.listener.is_some() {
                return;
            }
        }
        let Some(listener) = &mut ear.listener else {
            tokio::time::sleep(limit.min(DEAF)).await;
            return;
        };
        let heard = match timeout(limit, listener.try_recv()).await {
            Err(_) if quiet.is_some_and(|quiet| quiet < QUIET) => return,
            Err(_) => matches!(timeout(CONNECT, sqlx::query("SELECT 1").execute(&mut *listener)).await, Ok(Ok(_))),
            Ok(Ok(Some(_))) => {
                // One look finds what all of them told of.
                while listener.next_buffered().is_some() {}
                true
            }
            Ok(Ok(None) | Err(_)) => false,
        };
        if !heard {
            tracing::debug!(channel = self.channel, "notifications broke off");
            ear.listener = None;
        }
        ear.proved = Some(Instant::now());
    }

    async fn listen(&self) -> Option<PgListener> {
        let attempt = async {
            let mut listener = PgListener::connect_with(&self.pool).await?;
            // Whoever waits must look before hearing begins anew.
            listener.eager_reconnect(false);
            listener.listen(&self.channel).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match timeout(CONNECT, attempt).await {
            Ok(Ok(listener)) => Some(listener),
            Ok(Err(error)) => {
                tracing::debug!(channel = self.channel, %error, "cannot listen; rows are found by looking");
                None
            }
            Err(_) => None,
        }
    }
}
