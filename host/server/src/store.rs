//! Opening the store that the configuration names, and ending it; whichever it is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use bulkhead_store::Error;
use bulkhead_store::Store;
use bulkhead_store::postgres;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::sqlite;
use bulkhead_store::sqlite::Sqlite;
use secrecy::ExposeSecret as _;
use secrecy::SecretString;

use crate::config;
use crate::config::Config;

/// Shards of a new store on Postgres: enough for a dozen nodes to have even shares.
pub const SHARDS: u16 = 48;
/// How long a start waits for a server that is starting, too.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_FIRST: Duration = Duration::from_millis(250);
const BETWEEN_LAST: Duration = Duration::from_secs(5);

/// A store that is open.
#[derive(Clone)]
pub enum Opened {
    /// For one node.
    Sqlite(Sqlite),
    /// For several.
    Postgres(Postgres),
}

impl Opened {
    /// Opens what the configuration names, for the node of this name.
    pub async fn open(config: &Config, node: &str) -> anyhow::Result<Self> {
        match &config.store {
            config::Store::Sqlite(path) => sqlite(path, config.synchronous).await.map(Self::Sqlite),
            config::Store::Postgres { url, owner, connections } => {
                if let Some(owner) = owner {
                    migrate(owner, url, SHARDS, log).await?;
                }
                let options = postgres::Options {
                    node: node.to_owned(),
                    connections: *connections,
                    ..postgres::Options::new(url.expose_secret())
                };
                let opened = patiently(log, || Postgres::open(options.clone())).await;
                opened.map(Self::Postgres).context("the store cannot be opened")
            }
        }
    }

    /// Its ports.
    pub fn ports(&self) -> Store {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// Whether other nodes may have it open, too.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Ends it, after what is under way.
    pub async fn close(self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }
}

/// Makes the tables on Postgres, or brings them up to date. `tell` hears why it has to be begun again.
pub async fn migrate(
    owner: &SecretString,
    host: &SecretString,
    shards: u16,
    tell: impl Fn(&str),
) -> anyhow::Result<()> {
    let made = patiently(tell, || postgres::migrate(owner.expose_secret(), host.expose_secret(), shards)).await;
    made.context("the store's tables cannot be brought up to date")
}

async fn sqlite(path: &Path, synchronous: config::Synchronous) -> anyhow::Result<Sqlite> {
    let synchronous = match synchronous {
        config::Synchronous::Full => sqlite::Synchronous::Full,
        config::Synchronous::Normal => sqlite::Synchronous::Normal,
    };
    let options = sqlite::Options { synchronous, ..sqlite::Options::new(path) };
    Sqlite::open(options).await.with_context(|| format!("the store {} cannot be opened", path.display()))
}

fn log(told: &str) {
    tracing::warn!("{told}");
}

/// A server that cannot be reached may be starting: it is asked again for a while.
async fn patiently<T, F: Future<Output = bulkhead_store::Result<T>>>(
    tell: impl Fn(&str),
    mut ask: impl FnMut() -> F,
) -> bulkhead_store::Result<T> {
    let began = Instant::now();
    let mut between = BETWEEN_FIRST;
    loop {
        match ask().await {
            Err(Error::Unavailable { reason, source: Some(cause) }) if began.elapsed() < PATIENCE => {
                tell(&format!("{reason}: {cause}; asking again"));
                tokio::time::sleep(between).await;
                between = (between * 2).min(BETWEEN_LAST);
            }
            answer => return answer,
        }
    }
}
