//! Shared: one server of each kind for all tests of a process, or of a whole run.
//!
//! `cargo xtask test` and `cargo xtask services` start the servers and name them in the environment. Without them, as
//! when one test is run by hand, a process starts its own at the first use.

use std::sync::OnceLock;

use anyhow::Result;
use anyhow::anyhow;

use crate::database::Database;
use crate::postgres::Postgres;
use crate::postgres::PostgresOptions;
use crate::redis::Redis;
use crate::redis::RedisOptions;

/// Names the Postgres server for tests: the address of a superuser.
pub const POSTGRES_VARIABLE: &str = "BULKHEAD_TEST_POSTGRES";

/// Names the Redis server for tests.
pub const REDIS_VARIABLE: &str = "BULKHEAD_TEST_REDIS";

/// A Postgres server that others use too: keep to a database of your own.
#[derive(Debug, Clone)]
pub struct SharedPostgres {
    admin_url: String,
}

impl SharedPostgres {
    /// Where the superuser reaches the server.
    #[must_use]
    pub fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// Makes an empty database.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub fn database(&self) -> Result<Database> {
        Database::create(&self.admin_url)
    }
}

/// A Redis server that others use too: keep to names that nobody else has, and flush nothing.
#[derive(Debug, Clone)]
pub struct SharedRedis {
    url: String,
}

impl SharedRedis {
    /// Where clients reach the server.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// The Postgres server for tests that do not harm it.
///
/// # Errors
///
/// If none is named and none can be started.
pub fn postgres() -> Result<SharedPostgres> {
    // Never dropped; its guardian ends it with this process.
    static OWN: OnceLock<Result<Postgres, String>> = OnceLock::new();
    if let Some(admin_url) = named(POSTGRES_VARIABLE) {
        return Ok(SharedPostgres { admin_url });
    }
    let own = OWN.get_or_init(|| Postgres::start(postgres_options()).map_err(|error| format!("{error:#}")));
    let own = own.as_ref().map_err(|error| anyhow!("{error}"))?;
    Ok(SharedPostgres { admin_url: own.admin_url() })
}

/// The Redis server for tests that do not harm it.
///
/// # Errors
///
/// If none is named and none can be started.
pub fn redis() -> Result<SharedRedis> {
    // Never dropped; its guardian ends it with this process.
    static OWN: OnceLock<Result<Redis, String>> = OnceLock::new();
    if let Some(url) = named(REDIS_VARIABLE) {
        return Ok(SharedRedis { url });
    }
    let own = OWN.get_or_init(|| Redis::start(RedisOptions::default()).map_err(|error| format!("{error:#}")));
    let own = own.as_ref().map_err(|error| anyhow!("{error}"))?;
    Ok(SharedRedis { url: own.url() })
}

/// How a Postgres is to be that is shared: nobody cuts its power.
#[must_use]
pub fn postgres_options() -> PostgresOptions {
    PostgresOptions { fast: true, ..PostgresOptions::default() }
}

fn named(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}
