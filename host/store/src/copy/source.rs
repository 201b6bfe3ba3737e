//! The SQLite side: nobody else has the store open, and rows come as they are.

use std::path::Path;

use bulkhead_domain::id::TenantId;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::AssertSqlSafe;
use sqlx::ConnectOptions as _;
use sqlx::Row as _;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::sqlite::SqliteRow;

use crate::copy::Error;
use crate::copy::Result;
use crate::copy::lanes::Lanes;
use crate::copy::table::Kind;
use crate::copy::table::Table;
use crate::copy::value::Value;
use crate::sqlite::Options;
use crate::sqlite::Sqlite;

/// A store that is open for nobody but this.
pub(super) struct Source {
    /// Holds the store's lock.
    store: Sqlite,
    conn: SqliteConnection,
    pub(super) shards: u16,
}

/// The numbers up to which the store has given them out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Highest {
    /// Positions, versions of state, and the order of runs and deliveries.
    pub(super) number: i64,
    /// The first and the last position of an event.
    pub(super) positions: Option<(i64, i64)>,
    pub(super) tenant: i64,
    pub(super) plugin: i64,
}

impl Source {
    /// Opens a store that is there and that no host has open. Brings its tables up to date, as a host's start does.
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        if !path.is_file() {
            return Err(Error::Refused(format!("there is no file {shown}")));
        }
        let connect = SqliteConnectOptions::new().filename(path).read_only(true).disable_statement_logging();
        let mut conn = connect.connect().await.map_err(Error::Source)?;
        // A look before the store is opened, which would make tables in whatever file that is.
        let shards = sqlx::query("SELECT value FROM host_values WHERE name = 'store:shards'").fetch_optional(&mut conn);
        let shards: Option<[u8; 2]> = match shards.await {
            Ok(row) => row.and_then(|row| row.try_get::<Vec<u8>, _>(0).ok()?.try_into().ok()),
            Err(sqlx::Error::Database(_)) => None,
            Err(error) => return Err(Error::Source(error)),
        };
        let Some(shards) = shards.map(u16::from_le_bytes) else {
            return Err(Error::Refused(format!("{shown} is no store")));
        };
        let store = Sqlite::open(Options { shards, readers: 1, ..Options::new(path) }).await?;
        Ok(Self { store, conn, shards })
    }

    pub(super) async fn highest(&mut self) -> Result<Highest> {
        let sql = "SELECT max(coalesce((SELECT max(pos) FROM events), 0), coalesce((SELECT max(seq) FROM deliveries), 0),
                              coalesce((SELECT max(number) FROM runs), 0), coalesce((SELECT max(version) FROM state), 0),
                              (SELECT count(*) FROM state),
                              coalesce((SELECT max(max(head, number)) FROM progress), 0)),
                          coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'tenants'), 0),
                          coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'plugins'), 0),
                          (SELECT min(pos) FROM events), (SELECT max(pos) FROM events)";
        let row = sqlx::query(sql).fetch_one(&mut self.conn).await.map_err(Error::Source)?;
        let int = |at: usize| row.try_get_unchecked::<Option<i64>, _>(at).map_err(Error::Source);
        Ok(Highest {
            number: int(0)?.unwrap_or_default(),
            tenant: int(1)?.unwrap_or_default(),
            plugin: int(2)?.unwrap_or_default(),
            positions: int(3)?.zip(int(4)?),
        })
    }

    /// All rows of a table, as they shall be in a store with other shards.
    pub(super) fn rows(&mut self, table: &'static Table, lanes: Lanes) -> BoxStream<'_, Result<Vec<Value>>> {
        let rows = sqlx::query(AssertSqlSafe(table.read_source())).fetch(&mut self.conn);
        rows.map(move |row| read(table, lanes, &row.map_err(Error::Source)?)).boxed()
    }

    /// Lets others open the store.
    pub(super) async fn close(self) {
        drop(self.conn);
        self.store.close().await;
    }
}

fn read(table: &'static Table, lanes: Lanes, row: &SqliteRow) -> Result<Vec<Value>> {
    let mut values: Vec<Value> = Vec::with_capacity(table.columns.len());
    for (at, column) in table.columns.iter().enumerate() {
        let whole = |why| Error::Row { table: table.name, row: name(table, row), why };
        let int = || row.try_get_unchecked::<Option<i64>, _>(at).map_err(Error::Source);
        let bytes = || row.try_get_unchecked::<Option<Vec<u8>>, _>(at).map_err(Error::Source);
        let tenant = match values.first() {
            Some(Value::Int(tenant)) => TenantId(*tenant),
            _ => TenantId(0),
        };
        let value = match column.kind {
            Kind::Int => int()?.map(Value::Int),
            Kind::Flag => int()?.map(|flag| Value::Int(i64::from(flag != 0))),
            Kind::Real => row.try_get_unchecked::<Option<f64>, _>(at).map_err(Error::Source)?.map(Value::Real),
            Kind::Blob => bytes()?.map(Value::Blob),
            Kind::Uuid => match bytes()? {
                Some(bytes) if bytes.len() != 16 => {
                    return Err(whole(format!("{} is {} bytes long instead of 16", column.name, bytes.len())));
                }
                bytes => bytes.map(Value::Blob),
            },
            Kind::Text | Kind::Said => match bytes()?.map(String::from_utf8).transpose() {
                Ok(Some(text)) if column.kind == Kind::Said => Some(Value::Text(text.replace('\0', "\u{2400}"))),
                Ok(Some(text)) if text.contains('\0') => {
                    return Err(whole(format!("{} has a NUL in it, which Postgres cannot keep", column.name)));
                }
                Ok(text) => text.map(Value::Text),
                Err(_) => return Err(whole(format!("{} is not UTF-8", column.name))),
            },
            Kind::Shard => match int()?.map(|shard| (shard, lanes.place(tenant, shard))) {
                Some((_, Some(place))) => Some(Value::Int(i64::from(place.0))),
                Some((shard, None)) => {
                    let Lanes { from, to } = lanes;
                    return Err(whole(format!("shard {shard} of {from} has no place among {to}: make more shards")));
                }
                None => None,
            },
            Kind::Home => Some(Value::Int(i64::from(lanes.home(tenant).0))),
        };
        values.push(value.unwrap_or(Value::Null));
    }
    Ok(values)
}

/// The columns that name a row, however damaged.
fn name(table: &'static Table, row: &SqliteRow) -> String {
    let column = |(at, column): (usize, &crate::copy::table::Column)| {
        let value = match column.kind {
            Kind::Text | Kind::Said => row
                .try_get_unchecked::<Vec<u8>, _>(at)
                .map(|bytes| Value::Text(String::from_utf8_lossy(&bytes).into_owned())),
            Kind::Blob | Kind::Uuid => row.try_get_unchecked(at).map(Value::Blob),
            Kind::Int | Kind::Flag | Kind::Real | Kind::Shard | Kind::Home => {
                row.try_get_unchecked(at).map(|value: Option<i64>| value.map_or(Value::Null, Value::Int))
            }
        };
        value.map_or_else(|_| format!("{} unreadable", column.name), |value| format!("{} {value}", column.name))
    };
    let columns: Vec<_> = table.columns.iter().take(table.named_by).enumerate().map(column).collect();
    columns.join(", ")
}
