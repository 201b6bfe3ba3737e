//! Sinks: the places outside where a tenant's deliveries go.
//!
//! A sink is one file here, one variant of [`SinkSpec`], and the arms that the compiler then asks for. It makes one
//! attempt and says how it ended; when the next attempt is, or that there is none, is decided by `policy::verdict`.
//!
//! Every sink carries the delivery's id to the receiver, the same on every attempt: an attempt may be made again after a
//! crash although it arrived, and the id is how the receiver can tell.
//!
//! Reading order: [`SinkSpec`], [`spec`], [`webhook`], [`mod@file`], [`redis`], [`log`].

mod document;
pub mod file;
pub mod log;
pub mod redis;
pub mod spec;
pub mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::policy::retry::Retry;
use bulkhead_domain::policy::verdict::Failure;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_store::deliveries::DueDelivery;
use secrecy::SecretString;

use crate::egress::Egress;
pub use crate::sink::spec::SinkSpec;
pub use crate::sink::spec::SpecError;

/// What all sinks of a host share.
#[derive(Debug, Clone)]
pub struct Outlets {
    /// The way out.
    pub egress: Egress,
    /// Where file sinks write; none switches them off.
    pub files: Option<Arc<file::Files>>,
    /// The Redis that stream and channel sinks write to; none switches them off.
    pub redis: Option<Arc<redis::Outlet>>,
    /// Whether there are log sinks: deliveries, bodies included, then land in the host's own log.
    pub log: bool,
}

/// A sink with everything that it needs of its tenant, at one moment.
#[derive(Debug, Clone)]
pub struct ResolvedSink {
    /// What it is.
    pub spec: Arc<SinkSpec>,
    /// The secrets that [`SinkSpec::secrets`] names, opened; those that the tenant does not have are missing.
    pub secrets: BTreeMap<String, SecretString>,
    /// The tenant's id as the outside sees it.
    pub tenant_uid: String,
    /// The tenant's name.
    pub tenant_name: String,
    /// Whether nothing may be sent now (the tenant is paused or suspended).
    pub held: bool,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What it means.
    pub outcome: Outcome,
    /// What the receiver said, in short (`204 No Content`); empty if it said nothing.
    pub said: String,
    /// Whether it tells something about the receiver's health: a refusal by our own guard or a missing secret does not.
    pub reached_out: bool,
}

impl Attempt {
    /// It arrived.
    #[must_use]
    pub fn done(said: impl Into<String>) -> Self {
        Self { outcome: Outcome::Done, said: said.into(), reached_out: true }
    }

    /// It failed and may be tried again.
    #[must_use]
    pub fn failed(failure: Failure) -> Self {
        Self { outcome: Outcome::Failed(failure), said: String::new(), reached_out: true }
    }

    /// It is of no use to try again until somebody changes something on our side.
    #[must_use]
    pub fn refused(code: &str, reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Rejected(Failure::new(code, reason)), said: String::new(), reached_out: false }
    }
}

impl ResolvedSink {
    /// Makes one attempt. Ends within the sink's time, whatever the receiver does.
    pub async fn deliver(&self, outlets: &Outlets, due: &DueDelivery, now: Timestamp) -> Attempt {
        match &*self.spec {
            SinkSpec::Webhook(webhook) => webhook.deliver(&outlets.egress, &self.secrets, due, now).await,
            SinkSpec::File(file) => file.deliver(outlets.files.as_deref(), &self.tenant_uid, due).await,
            SinkSpec::RedisStream(stream) => stream.deliver(outlets.redis.as_deref(), &self.tenant_uid, due).await,
            SinkSpec::RedisChannel(channel) => channel.deliver(outlets.redis.as_deref(), &self.tenant_uid, due).await,
            SinkSpec::Log(log) => log.deliver(outlets.log, &self.tenant_uid, due),
        }
    }
}

impl SinkSpec {
    /// Whether the sink could work on this host, as far as can be told without sending anything: asked when it is saved.
    pub fn check(&self, outlets: &Outlets) -> Result<(), SpecError> {
        match self {
            Self::Webhook(webhook) => webhook.check(&outlets.egress),
            Self::File(_) if outlets.files.is_none() => Err(SpecError::new("kind", "this host has no file sinks")),
            Self::RedisStream(stream) => stream.check(outlets.redis.as_deref()),
            Self::RedisChannel(_) => redis::check(outlets.redis.as_deref()).map(drop),
            Self::Log(_) if !outlets.log => Err(SpecError::new("kind", "this host has no log sinks")),
            Self::File(_) | Self::Log(_) => Ok(()),
        }
    }

    /// Names of the tenant's secrets that it uses.
    #[must_use]
    pub fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Webhook(webhook) => webhook.secrets(),
            Self::File(_) | Self::RedisStream(_) | Self::RedisChannel(_) | Self::Log(_) => Vec::new(),
        }
    }

    /// When the next attempt is after one that failed.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Webhook(webhook) => webhook.retry.clone(),
            Self::File(_) | Self::RedisStream(_) | Self::RedisChannel(_) | Self::Log(_) => Retry::of_deliveries(),
        }
    }

    /// Attempts under way at a time.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        match self {
            Self::Webhook(webhook) => webhook.concurrency,
            Self::File(_) => file::CONCURRENCY,
            Self::RedisStream(_) | Self::RedisChannel(_) => redis::CONCURRENCY,
            Self::Log(_) => log::CONCURRENCY,
        }
    }
}
