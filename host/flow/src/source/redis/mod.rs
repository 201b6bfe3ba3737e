//! Redis Streams as a source: a consumer group on one stream, whose entries are one tenant's events.
//!
//! ```text
//! own pending ─┐                          ┌─ refused ─▶ <stream>:rejected ─┐
//! claimed ─────┼─▶ batch ──────▶ inbox ───┤                                ├──────▶ XACK
//! new ─────────┘   (one waits)            └─ durable, or known ────────────┘
//! ```
//!
//! - [`intake`] reads, hands in and lets go; while one batch is made durable, the next is read, and the one before is let
//!   go of. Any failure ends the connection and begins anew with what this consumer has pending, so nothing depends on
//!   how far it came.
//! - [`upkeep`] looks at the backlog and removes consumers that are gone; what it learns steers nothing.
//! - [`stream`] has the commands, [`entry`] what an entry means, [`past`] whether the stream lost what it had.
//!
//! Redis is transport: an entry that Redis loses before it is read is lost by its contract, which is why a stream that
//! was set back is counted and said. What was acknowledged here is in the store.
//!
//! Entries are left in the stream; trimming it is its publisher's business, as others may read it too.
//!
//! # Order
//!
//! One reader hands in what it reads in the order of the stream. Several readers of one group divide the entries among
//! themselves, and then nobody knows an order between them. Where order matters, one node at a time must run the
//! source, best under a consumer name that does not depend on the node: then whoever takes over begins with what the
//! one before had read and not acknowledged.

mod entry;
mod intake;
mod past;
mod stream;
mod upkeep;

use std::time::Duration;

use bulkhead_domain::id::TenantId;
use bulkhead_store::Store;
use redis::Client;
use secrecy::ExposeSecret as _;
use secrecy::SecretString;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::inbox::Inbox;
use crate::link;
use crate::source::Reporter;
use crate::source::Status;

use self::past::Past;
use self::stream::Stream;

/// How an entry holds an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A CloudEvent in JSON, in the field `event` (or `data`).
    #[default]
    CloudEvents,
    /// One attribute per field, and the payload in `data`.
    Fields,
}

/// Which stream, whose, and how it is read.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source's name, unique in the installation: labels its metrics, and tells its entries from those of others. Keep
    /// it when other things change.
    pub name: String,
    /// Where the server is. May hold a password.
    pub url: SecretString,
    /// The stream's key.
    pub stream: String,
    /// The group that reads it.
    pub group: String,
    /// Who in the group this is: the node's name, or one for all nodes if only one at a time runs the source.
    pub consumer: String,
    /// Whose events they are.
    pub tenant: TenantId,
    /// How an entry holds an event.
    pub format: Format,
    /// Entries per read, at most.
    pub batch: u32,
    /// How long a read waits for entries.
    pub block: Duration,
    /// A consumer that has not acknowledged an entry for so long has died; others take it over. More than twice what a
    /// batch may take.
    pub claim_idle: Duration,
    /// A consumer without pending entries that was not heard of for so long is removed from the group.
    pub gone_after: Duration,
    /// About how many refused entries `<stream>:rejected` keeps.
    pub rejected_max: u32,
}

impl Options {
    /// What suits most streams.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        url: SecretString,
        stream: impl Into<String>,
        tenant: TenantId,
        consumer: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            url,
            stream: stream.into(),
            group: "bulkhead".to_owned(),
            consumer: consumer.into(),
            tenant,
            format: Format::default(),
            batch: 1_000,
            block: Duration::from_secs(2),
            claim_idle: Duration::from_secs(60),
            gone_after: Duration::from_secs(3_600),
            rejected_max: 10_000,
        }
    }
}

/// The service.
pub struct RedisSource {
    options: Options,
    client: Client,
    stream: Stream,
    /// The event source of entries that name none.
    origin: String,
    store: Store,
    inbox: Inbox,
    reporter: Reporter,
    past: Past,
}

impl RedisSource {
    /// A source that is not running yet. Fails only if the address is none.
    pub fn new(options: Options, store: Store, inbox: Inbox) -> Result<Self, link::LinkError> {
        let client = link::client(options.url.expose_secret())?;
        let stream = Stream {
            key: options.stream.clone(),
            group: options.group.clone(),
            consumer: options.consumer.clone(),
            rejected: format!("{}:rejected", options.stream),
            rejected_max: options.rejected_max,
        };
        let origin = entry::origin(&options.name, &options.stream);
        let reporter = Reporter::new(&options.name);
        Ok(Self { options, client, stream, origin, store, inbox, reporter, past: Past::default() })
    }

    /// What it is at, to be watched.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.reporter.subscribe()
    }

    /// Takes in what comes until `stop`. A batch that is being made durable then is ended and acknowledged; whatever else
    /// was read is read again by the next to run.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.intake(&stop) => {}
            () = self.upkeep() => {}
        }
        self.reporter.stopped();
    }

    fn count(&self, what: &'static str, number: usize) {
        if number > 0 {
            metrics::counter!(what, "source" => self.options.name.clone()).increment(number as u64);
        }
    }
}
