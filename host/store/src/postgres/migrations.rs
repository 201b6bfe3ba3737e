//! The tables' versions. Migrations are part of the program; the owner runs them, one node at a time.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::PgConnection;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::Migration;
use sqlx::migrate::MigrationType;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout;

use crate::Error;
use crate::Result;
use crate::postgres::fault;
use crate::postgres::open::parse;
use crate::postgres::text;
use crate::postgres::text::Args;
use crate::row::Columns;

/// Number, name, text. A released one is never edited: its hash is compared with the one it ran under.
const ALL: &[(i64, &str, &str)] = &[
    (1, "log", include_str!("../../../../migrations/postgres/0001_log.sql")),
    (2, "work", include_str!("../../../../migrations/postgres/0002_work.sql")),
    (3, "catalogue", include_str!("../../../../migrations/postgres/0003_catalogue.sql")),
    (4, "quotas", include_str!("../../../../migrations/postgres/0004_quotas.sql")),
    (5, "retention", include_str!("../../../../migrations/postgres/0005_retention.sql")),
    (6, "due_deliveries", include_str!("../../../../migrations/postgres/0006_due_deliveries.sql")),
    (7, "recordings", include_str!("../../../../migrations/postgres/0007_recordings.sql")),
    (8, "versions", include_str!("../../../../migrations/postgres/0008_versions.sql")),
    (9, "previews", include_str!("../../../../migrations/postgres/0009_previews.sql")),
    (10, "accepted", include_str!("../../../../migrations/postgres/0010_accepted.sql")),
    (11, "components", include_str!("../../../../migrations/postgres/0011_components.sql")),
    (12, "tails", include_str!("../../../../migrations/postgres/0012_tails.sql")),
    (13, "plans", include_str!("../../../../migrations/postgres/0013_plans.sql")),
    (14, "steady_plans", include_str!("../../../../migrations/postgres/0014_steady_plans.sql")),
    (15, "passed", include_str!("../../../../migrations/postgres/0015_passed.sql")),
    (16, "in_vain", include_str!("../../../../migrations/postgres/0016_in_vain.sql")),
    (17, "long_company", include_str!("../../../../migrations/postgres/0017_long_company.sql")),
    (18, "state_keys", include_str!("../../../../migrations/postgres/0018_state_keys.sql")),
];

/// Where everything of ours is.
pub(super) const SCHEMA: &str = "bulkhead";

/// The lock of whoever brings the tables up to date; others wait for it.
const LOCK: i64 = 0x6275_6c6b_6865_6164;

/// What the owner's connection is set to: who cannot have a lock for that long, of another node's migration or of
/// somebody's transaction over our tables, says so and gives up.
const SETTINGS: [(&str, &str); 5] = [
    ("search_path", "bulkhead,pg_temp"),
    ("lock_timeout", "60s"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
];

/// A server that takes longer to let a client in is not there.
const CONNECT: Duration = Duration::from_secs(5);

/// Makes the tables, or brings them up to date, as their owner; then lets `host_url`'s role use them, and makes that role
/// if it is not there and the owner may. A new store gets `shards` shards, and keeps them. Any number of nodes may call
/// this at once. Refuses tables that a newer program made.
pub async fn migrate(owner_url: &str, host_url: &str, shards: u16) -> Result<()> {
    let owner = parse(owner_url)?.application_name("bulkhead migrate");
    let host = parse(host_url)?;
    let mut conn = connect(&owner).await?;
    check_encoding(&mut conn).await?;
    let mut args = Args::default();
    args.int(LOCK);
    text::execute(&mut conn, "SELECT pg_advisory_lock($1)", args).await?;
    // The lock goes with the connection, also if anything fails on the way.
    text::execute(&mut conn, "CREATE SCHEMA IF NOT EXISTS bulkhead", Args::default()).await?;
    refuse_newer(&mut conn).await?;
    let migrations = ALL
        .iter()
        .map(|(number, name, sql)| {
            Migration::new(*number, Cow::Borrowed(*name), MigrationType::Simple, (*sql).into_sql_str(), false)
        })
        .collect();
    Migrator::with_migrations(migrations)
        .set_locking(false)
        .run_direct(None, &mut conn, false)
        .await
        .map_err(|error| fault::unavailable("the store's tables cannot be brought up to date", error))?;
    first_start(&mut conn, shards).await?;
    text::execute(&mut conn, "SELECT grow()", Args::default()).await?;
    admit(&mut conn, &host, host_url).await?;
    conn.close().await.map_err(fault::outward)
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection> {
    let place = || format!("cannot connect to Postgres at {}:{} as its owner", options.get_host(), options.get_port());
    match timeout(CONNECT, options.clone().options(SETTINGS).connect()).await {
        Ok(connected) => connected.map_err(|error| fault::connecting(place(), error)),
        Err(_) => Err(fault::refused(format!("{}: there was no answer within {CONNECT:?}", place()))),
    }
}

async fn check_encoding(conn: &mut PgConnection) -> Result<()> {
    let sql = "SELECT pg_encoding_to_char(encoding)::TEXT FROM pg_database WHERE datname = current_database()";
    let rows = text::fetch(conn, sql, Args::default()).await?;
    let encoding = rows.first().map(|row| Columns::new(row).text()).transpose()?.unwrap_or_default();
    if encoding != "UTF8" {
        return Err(fault::refused(format!(
            "the database's encoding is {encoding}; make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )));
    }
    Ok(())
}

/// Refuses tables that a newer program made. Gives the version of those that are there; 0 if there are none.
pub(super) async fn refuse_newer(conn: &mut PgConnection) -> Result<i64> {
    let found = version(conn).await?;
    check_known(found)?;
    Ok(found)
}

fn check_known(found: i64) -> Result<()> {
    let newest = newest();
    if found <= newest {
        return Ok(());
    }
    Err(fault::refused(format!(
        "the store's tables have version {found}, made by a newer program; this one knows versions up to {newest}"
    )))
}

/// A step that brings tables up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The version that the tables have afterwards.
    pub version: i64,
    /// What it is called.
    pub name: &'static str,
    /// What it changes, and what it asks of nodes at work: lines of text.
    pub about: &'static str,
}

impl Step {
    /// What [`migrate`] would do with tables of this version (0: none are there), first things first. Refuses tables that
    /// a newer program made.
    pub fn after(version: i64) -> Result<Vec<Self>> {
        check_known(version)?;
        let steps = ALL.iter().filter(|(number, ..)| *number > version);
        Ok(steps.map(|&(version, name, sql)| Self { version, name, about: head(sql) }).collect())
    }
}

/// The comment that a script begins with.
fn head(sql: &'static str) -> &'static str {
    let length = sql.split_inclusive('\n').take_while(|line| line.starts_with("--")).map(str::len).sum();
    sql[..length].trim_end()
}

/// The version that this program needs.
pub(super) fn newest() -> i64 {
    ALL.last().map_or(0, |(number, ..)| *number)
}

/// The newest migration that ran; 0 for an empty database.
async fn version(conn: &mut PgConnection) -> Result<i64> {
    let sql = "SELECT to_regclass('bulkhead._sqlx_migrations') IS NOT NULL";
    let rows = text::fetch(conn, sql, Args::default()).await?;
    if !rows.first().map(|row| Columns::new(row).flag()).transpose()?.unwrap_or_default() {
        return Ok(0);
    }
    let sql = "SELECT coalesce(max(version), 0) FROM bulkhead._sqlx_migrations";
    let rows = text::fetch(conn, sql, Args::default()).await?;
    rows.first().map_or(Ok(0), |row| Columns::new(row).int())
}

async fn first_start(conn: &mut PgConnection, shards: u16) -> Result<()> {
    let wanted = i64::from(shards.max(1));
    let mut args = Args::default();
    args.int(wanted);
    let sql = "INSERT INTO leases (shard, owner, fence) SELECT shard, NULL, 0 FROM generate_series(0, $1 - 1) AS shard
               WHERE NOT EXISTS (SELECT 1 FROM leases)";
    text::execute(conn, sql, args).await?;
    let rows = text::fetch(conn, "SELECT count(*) FROM leases", Args::default()).await?;
    let stored = rows.first().map_or(Ok(0), |row| Columns::new(row).int())?;
    if stored != wanted {
        tracing::warn!(stored, wanted, "the store keeps the number of shards that it was made with");
    }
    Ok(())
}

/// Makes the host's role, if it is not there, and lets it in.
async fn admit(conn: &mut PgConnection, host: &PgConnectOptions, host_url: &str) -> Result<()> {
    let name = host.get_username();
    let mut args = Args::default();
    args.text(name);
    if text::fetch(conn, "SELECT 1 FROM pg_roles WHERE rolname = $1", args).await?.is_empty() {
        let mut args = Args::default();
        // The password travels as a parameter, and the server does not log parameters of statements that work.
        args.text(name).text_opt(password(host_url).as_deref());
        // Values only reach the text by way of the server's own quoting.
        let sql = "SELECT set_config('bulkhead.made', format('CREATE ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB
                   NOCREATEROLE NOINHERIT PASSWORD %L', $1::TEXT, $2::TEXT), false)";
        text::execute(conn, sql, args).await?;
        let sql = "DO $$ BEGIN EXECUTE current_setting('bulkhead.made');
                   EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
        text::execute(conn, sql, Args::default()).await.map_err(|error| {
            let reason = format!("the role {name} is not there and cannot be made by the owner; make it by hand");
            match error {
                Error::Unavailable { source: Some(source), .. } => Error::Unavailable { reason, source: Some(source) },
                _ => fault::refused(reason),
            }
        })?;
    }
    let mut args = Args::default();
    args.text(name);
    text::execute(conn, "SELECT admit($1::NAME)", args).await?;
    Ok(())
}

/// The password of a URL; the driver reads it, but does not give it out.
fn password(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let user = rest.split(['/', '?']).next()?.rsplit_once('@')?.0;
    let encoded = user.split_once(':')?.1.as_bytes();
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut at = 0;
    while let Some(byte) = encoded.get(at) {
        let hex = || u8::from_str_radix(std::str::from_utf8(encoded.get(at + 1..at + 3)?).ok()?, 16).ok();
        match (*byte == b'%').then(hex).flatten() {
            Some(decoded) => {
                bytes.push(decoded);
                at += 3;
            }
            None => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_says_what_it_is_about() {
        let steps = Step::after(0).expect("because nobody made these tables");
        assert_eq!(steps.len(), ALL.len());
        assert_eq!(Step::after(newest()).expect("because this program made these"), []);
        for step in steps {
            assert!(step.about.len() > 20, "{step:?}");
        }
    }

    #[test]
    fn a_password_is_read_from_a_url() {
        assert_eq!(password("postgres://a:b%40c%3a@h:5/d?x=1").as_deref(), Some("b@c:"));
        assert_eq!(password("postgres://a@h/d"), None);
        assert_eq!(password("postgres://h/d@e:f"), None);
    }
}
