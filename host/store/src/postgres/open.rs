//! Opening: which settings every connection has, and what must be true before the first write.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::PgConnection;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use sqlx::postgres::PgPoolOptions;
use tokio::time::timeout;

use crate::Error;
use crate::Result;
use crate::postgres::fault;
use crate::postgres::migrations;
use crate::postgres::migrations::SCHEMA;
use crate::postgres::text;
use crate::postgres::text::Args;
use crate::row::Columns;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// `postgres://role:password@server/database`. A secret: shown nowhere.
    pub url: String,
    /// The node's name, as the server's list of connections shows it.
    pub node: String,
    /// Connections at most. A node's share of the server's `max_connections`.
    pub connections: u32,
    /// Calls that append at the same time; each takes along what came while the ones before it were under way.
    pub appenders: usize,
    /// How long to wait for a connection before saying that the store is unavailable.
    pub patience: Duration,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("node", &self.node)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// What suits a node with a few cores.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            node: "bulkhead".to_owned(),
            connections: 16,
            appenders: 2,
            patience: Duration::from_secs(3),
        }
    }
}

/// What every connection of a host is set to, as name and value.
///
/// - A statement sees what was committed before it began: what waited for a lock must see what it waited for.
/// - The server ends a transaction whose node fell silent in the middle of it, so that its locks do not hold others up.
/// - No statement of ours takes that long, or waits that long for a lock; one that does is cut off, and its caller told
///   that the store is unavailable.
/// - A connection whose other end is gone is noticed within seconds, also in the middle of a statement, which then ends.
/// - Statements run thousands of times with lists of all lengths: planning each anew costs more than the plans differ.
///   They are short, whatever a plan for lists of unknown lengths expects: compiling them would take longer.
/// - The newest row of a key is the first that an index meets backwards. Of a table that is taken for empty all rows of the
///   key would be fetched and sorted, with those that are dead.
const SETTINGS: [(&str, &str); 12] = [
    ("search_path", "bulkhead,pg_temp"),
    ("default_transaction_isolation", "read committed"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("statement_timeout", "30s"),
    ("lock_timeout", "4s"),
    ("client_connection_check_interval", "2s"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    ("enable_bitmapscan", "off"),
];

/// Large values are compressed with lz4 where the server has it: pglz, the default, is slower than the disk by far.
const COMPRESSION: &str = "SELECT set_config(name, 'lz4', false) FROM pg_settings
                           WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)";

/// Statements that stay prepared on a connection: all there are.
const STATEMENTS: usize = 200;

/// Whether that is an address of a database. Connects to nothing; the error does not repeat a password.
pub fn check_url(url: &str) -> Result<()> {
    parse(url).map(drop)
}

/// Reads a URL.
pub(super) fn parse(url: &str) -> Result<PgConnectOptions> {
    // The error would show the URL, password included.
    PgConnectOptions::from_str(url).map_err(|_| fault::refused("the store's URL is none that Postgres knows"))
}

/// Connects, and checks that everything is as it must be. Gives the number of shards.
pub(super) async fn open(options: &Options) -> Result<(PgPool, u16)> {
    let connect = parse(&options.url)?
        .application_name(&format!("bulkhead {}", options.node))
        .statement_cache_capacity(STATEMENTS)
        .options(SETTINGS)
        .disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(options.connections)
        .acquire_timeout(options.patience)
        // A connection that fails in use is replaced; asking each before use would double the round trips.
        .test_before_acquire(false)
        .after_connect(|conn, _| {
            Box::pin(async {
                match sqlx::raw_sql(COMPRESSION).execute(conn).await {
                    // A server that refuses that is as good without.
                    Ok(_) | Err(sqlx::Error::Database(_)) => Ok(()),
                    Err(error) => Err(error),
                }
            })
        })
        .connect_with(connect.clone())
        .await;
    let pool = match pool {
        Ok(pool) => pool,
        Err(error) => {
            let place = format!("{}:{}", connect.get_host(), connect.get_port());
            let why = reason(error, &connect, options.patience).await;
            return Err(fault::connecting(format!("cannot connect to Postgres at {place}"), why));
        }
    };
    let mut conn = pool.acquire().await.map_err(fault::outward)?;
    check_role(&mut conn).await?;
    check_tables(&mut conn).await?;
    let rows = text::fetch(&mut conn, "SELECT count(*) FROM leases", Args::default()).await?;
    let shards = rows.first().map_or(Ok(0), |row| Columns::new(row).narrow())?;
    drop(conn);
    Ok((pool, shards))
}

/// Why there is no connection. The pool tries until its time is over, and then tells of nothing but that.
async fn reason(error: sqlx::Error, connect: &PgConnectOptions, patience: Duration) -> sqlx::Error {
    if !matches!(error, sqlx::Error::PoolTimedOut) {
        return error;
    }
    match timeout(patience, connect.connect()).await {
        Ok(Err(why)) => why,
        Ok(Ok(_)) | Err(_) => error,
    }
}

/// Row-level security binds neither superusers, nor who may bypass it; and an owner could switch it off.
async fn check_role(conn: &mut PgConnection) -> Result<()> {
    let mut args = Args::default();
    args.text(SCHEMA);
    let sql = "SELECT current_user::TEXT, r.rolsuper, r.rolbypassrls, EXISTS (
                   SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = $1 AND pg_has_role(current_user, c.relowner, 'MEMBER')
               ) FROM pg_roles r WHERE r.rolname = current_user";
    let rows = text::fetch(conn, sql, args).await?;
    let row = rows.first().ok_or_else(|| Error::Damaged("the role that connected is not among the roles".into()))?;
    let mut columns = Columns::new(row);
    let name = columns.text()?;
    let why = if columns.flag()? {
        "is a superuser"
    } else if columns.flag()? {
        "may bypass row-level security"
    } else if columns.flag()? {
        "owns the tables, or may act as their owner"
    } else {
        return Ok(());
    };
    Err(fault::refused(format!(
        "the role {name} {why}: row-level security would not keep tenants apart. Give `store` a plain role, and \
         `store_owner` the URL of the one that owns the tables"
    )))
}

async fn check_tables(conn: &mut PgConnection) -> Result<()> {
    let newest = migrations::newest();
    // Without a right to look, there is nothing that was made for this role.
    let sql = "SELECT has_schema_privilege(n.oid, 'USAGE') FROM pg_namespace n WHERE n.nspname = 'bulkhead'";
    let rows = text::fetch(conn, sql, Args::default()).await?;
    let may_look = rows.first().map(|row| Columns::new(row).flag()).transpose()?.unwrap_or_default();
    let found = if may_look { migrations::refuse_newer(conn).await? } else { 0 };
    if found == newest {
        return Ok(());
    }
    let found = match found {
        0 => "are not there, or not open to this role".to_owned(),
        found => format!("have version {found}, and this program needs {newest}"),
    };
    Err(fault::refused(format!(
        "the store's tables {found}: give `store_owner` for them to be made at start, or run `bulkhead store migrate`"
    )))
}
