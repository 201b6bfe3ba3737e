//! The connection that all Redis sinks of a host share, and what the answers of a Redis mean.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkhead_domain::policy::verdict::Failure;
use bulkhead_domain::policy::verdict::Outcome;
use redis::Client;
use redis::Cmd;
use redis::ErrorKind;
use redis::FromRedisValue;
use redis::RedisError;
use redis::RedisResult;
use redis::aio::ConnectionManager;
use redis::aio::ConnectionManagerConfig;

use crate::link;
use crate::link::LinkError;
use crate::sink::Attempt;

/// The library's own bound is half a second, which a Redis that writes a snapshot misses.
const ANSWER: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(2);

/// The way to the operator's Redis. The connection is made at the first use, and again after it broke.
pub struct Outlet {
    client: Client,
    entries_max: u64,
    held: Mutex<Held>,
    /// Whether the last command came through; its changes are logged.
    reachable: AtomicBool,
}

#[derive(Default)]
struct Held {
    manager: Option<ConnectionManager>,
    /// Which one it is: who saw an old one fail must not take a new one away.
    number: u64,
}

impl Outlet {
    /// The Redis at `url`. No stream keeps more than about `entries_max` entries.
    ///
    /// # Errors
    ///
    /// If that is no address. Nothing is connected to yet.
    pub fn new(url: &str, entries_max: u64) -> Result<Self, LinkError> {
        let client = link::client(url)?;
        Ok(Self { client, entries_max, held: Mutex::default(), reachable: AtomicBool::new(true) })
    }

    /// The most entries of a stream.
    pub(super) fn entries_max(&self) -> u64 {
        self.entries_max
    }

    /// Sends a command and reads its answer; a failure comes as what it means to the delivery.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Attempt> {
        let answer = self.try_ask(command).await;
        let error = answer.as_ref().err();
        self.note(error);
        answer.map_err(|error| judge(&error))
    }

    async fn try_ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let (mut manager, number) = self.manager()?;
        let answer = command.query_async(&mut manager).await;
        if let Err(error) = &answer
            && !is_final(error)
        {
            self.forget(number);
        }
        answer
    }

    fn manager(&self) -> RedisResult<(ConnectionManager, u64)> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(manager) = &held.manager {
            return Ok((manager.clone(), held.number));
        }
        // All who wait for it share one attempt to connect; the next attempt is the next delivery's.
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_number_of_retries(0);
        let manager = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        held.number += 1;
        held.manager = Some(manager.clone());
        Ok((manager, held.number))
    }

    /// Lets go of a connection that failed. It would mend what it sees broken, but not a peer that is silent, nor a
    /// handshake that was refused, and it would answer with its last failed attempt to reconnect, however long ago.
    fn forget(&self, number: u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.number == number {
            held.manager = None;
        }
    }

    /// Says once that Redis is gone, and once that it is back.
    fn note(&self, error: Option<&RedisError>) {
        let reachable = error.is_none_or(is_final);
        if self.reachable.swap(reachable, Ordering::Relaxed) == reachable {
            return;
        }
        match error {
            Some(error) if !reachable => tracing::warn!(%error, "Redis sinks are in trouble; their deliveries wait"),
            _ => tracing::info!("Redis sinks are back"),
        }
    }
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may hold a password.
        f.debug_struct("Outlet").field("entries_max", &self.entries_max).finish_non_exhaustive()
    }
}

/// Whether it would end the same way until a person changes something about the key: another kind of value is in the way.
/// All else (gone, loading, full, read-only, without permission) is the operator's to mend, and may be mended by then.
fn is_final(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

/// What a failure means. The reason is for the tenant, so it says nothing of the operator's Redis but what kind it is of.
fn judge(error: &RedisError) -> Attempt {
    if is_final(error) {
        let reason = "the key holds something else than a stream: it was not made by this host";
        let outcome = Outcome::Rejected(Failure::new("redis:wrongtype", reason));
        return Attempt { outcome, said: String::new(), reached_out: true };
    }
    if error.is_timeout() {
        return Attempt::failed(Failure::new("redis:timeout", "the host's Redis does not answer in time"));
    }
    let reason = match (error.code(), error.kind()) {
        (Some("OOM"), _) => "the host's Redis is full",
        (Some("LOADING"), _) => "the host's Redis is reading its data",
        (Some("READONLY" | "MASTERDOWN" | "NOREPLICAS" | "MISCONF"), _) => "the host's Redis takes no writes now",
        (Some("BUSY"), _) => "the host's Redis is busy with a script",
        (Some(_), _) | (None, ErrorKind::AuthenticationFailed) => "the host's Redis refuses the host",
        (None, ErrorKind::Io) => "the host's Redis cannot be reached",
        (None, _) => "the host's Redis answers in a way the host does not know",
    };
    let code = match error.code() {
        Some(code) => format!("redis:{}", code.to_ascii_lowercase()),
        None if error.is_io_error() => "redis:unreachable".to_owned(),
        None => "redis:protocol".to_owned(),
    };
    Attempt::failed(Failure::new(code, reason))
}
