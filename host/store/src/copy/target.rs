//! The Postgres side, as the owner of the tables: one transaction, which holds everybody else off.

use std::str::FromStr as _;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::Arguments as _;
use sqlx::AssertSqlSafe;
use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::PgConnection;
use sqlx::Row as _;
use sqlx::ValueRef as _;
use sqlx::postgres::PgArguments;
use sqlx::postgres::PgConnectOptions;
use sqlx::postgres::PgRow;
use tokio::time::timeout;
use uuid::Uuid;

use crate::copy::Error;
use crate::copy::Result;
use crate::copy::source::Highest;
use crate::copy::table::Kind;
use crate::copy::table::TABLES;
use crate::copy::table::Table;
use crate::copy::value::Tally;
use crate::copy::value::Value;
use crate::postgres::check_url;

/// The version of the tables that [`TABLES`] describes.
const VERSION: i64 = 18;

/// A server that takes longer to let a client in is not there.
const CONNECT: Duration = Duration::from_secs(5);

/// What the connection is set to: statements may take as long as they do, but nobody waits long for somebody's lock.
const SETTINGS: [(&str, &str); 7] = [
    ("search_path", "bulkhead,pg_temp"),
    ("lock_timeout", "10s"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
];

/// The owner's connection.
pub(super) struct Target {
    conn: PgConnection,
    pub(super) shards: u16,
}

/// The version of the tables at an address that may look at them; 0 if there are none.
pub(super) async fn version(url: &str) -> Result<i64> {
    let mut conn = connect(url).await?;
    let found = tables(&mut conn).await?;
    conn.close().await.map_err(failed("the connection does not end"))?;
    Ok(found)
}

async fn connect(url: &str) -> Result<PgConnection> {
    check_url(url)?;
    // What is wrong with an address is not repeated: a password may be in it.
    let options = PgConnectOptions::from_str(url).map_err(|_| Error::Refused("the address cannot be read".into()))?;
    let options = options.application_name("bulkhead store").options(SETTINGS).disable_statement_logging();
    let doing = format!("cannot connect to Postgres at {}:{}", options.get_host(), options.get_port());
    match timeout(CONNECT, options.connect()).await {
        Ok(connected) => connected.map_err(failed(doing)),
        Err(_) => Err(Error::Refused(format!("{doing}: there was no answer within {CONNECT:?}"))),
    }
}

async fn tables(conn: &mut PgConnection) -> Result<i64> {
    let doing = "the version of the tables cannot be read";
    let sql = "SELECT to_regclass('bulkhead._sqlx_migrations') IS NOT NULL";
    let there: bool = sqlx::query_scalar(sql).fetch_one(&mut *conn).await.map_err(failed(doing))?;
    if !there {
        return Ok(0);
    }
    let sql = "SELECT coalesce(max(version), 0) FROM bulkhead._sqlx_migrations";
    sqlx::query_scalar(sql).fetch_one(conn).await.map_err(failed(doing))
}

fn failed(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Error {
    |source| Error::Target { doing: doing.into(), source }
}

impl Target {
    /// Connects, and checks that everything is as it must be for its owner to work on it alone.
    pub(super) async fn open(url: &str) -> Result<Self> {
        let mut conn = connect(url).await?;
        match tables(&mut conn).await? {
            VERSION => {}
            0 => {
                return Err(Error::Refused("the target has no tables: make them with `bulkhead store migrate`".into()));
            }
            found => {
                let remedy = if found < VERSION {
                    "bring them up to date with `bulkhead store migrate`"
                } else {
                    "copy with the program that made them"
                };
                return Err(Error::Refused(format!(
                    "the target's tables have version {found}, and this program copies into version {VERSION}: {remedy}"
                )));
            }
        }
        let mut target = Self { conn, shards: 0 };
        let sql = "SELECT bool_and(pg_has_role(current_user, c.relowner, 'USAGE')) FROM pg_class c
                   WHERE c.relnamespace = 'bulkhead'::REGNAMESPACE AND c.relkind IN ('r', 'p')";
        if target.ask::<Option<bool>>(sql).await? != Some(true) {
            return Err(Error::Refused(
                "the target's tables do not belong to that role: give the address with their owner, who sees all \
                 tenants at once"
                    .into(),
            ));
        }
        target.shards = u16::try_from(target.ask::<i64>("SELECT count(*) FROM leases").await?).unwrap_or_default();
        let nodes = target.ask::<Option<String>>("SELECT string_agg(name, ', ') FROM nodes WHERE until > micros()");
        if let Some(nodes) = nodes.await? {
            return Err(Error::Refused(format!("hosts work on the target: {nodes}. Stop them first")));
        }
        Ok(target)
    }

    async fn ask<T>(&mut self, sql: &'static str) -> Result<T>
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        sqlx::query_scalar(sql).fetch_one(&mut self.conn).await.map_err(failed("the target does not answer"))
    }

    async fn run(&mut self, sql: String, doing: &str) -> Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.conn).await.map_err(failed(doing))?;
        Ok(())
    }

    /// Begins a transaction that only looks, at one moment.
    pub(super) async fn begin_reading(&mut self) -> Result<()> {
        let sql = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.run(sql.into(), "the target does not let anybody look").await
    }

    /// Begins a transaction that has the tables to itself. Refuses tables that have something in them.
    pub(super) async fn begin_writing(&mut self) -> Result<()> {
        let names: Vec<_> = TABLES.iter().map(|table| table.name).collect();
        let sql = format!("BEGIN; LOCK TABLE {}, leases, nodes, segments IN EXCLUSIVE MODE", names.join(", "));
        self.run(sql, "somebody else is at work on the target").await?;
        let mut filled = Vec::new();
        for name in names {
            let sql = AssertSqlSafe(format!("SELECT EXISTS (SELECT 1 FROM {name})"));
            let there = sqlx::query_scalar::<_, bool>(sql).fetch_one(&mut self.conn).await;
            if there.map_err(failed(format!("{name} cannot be read")))? {
                filled.push(name);
            }
        }
        if filled.is_empty() {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "the target is not empty: there are rows in {}. Copy into a database that no host has used yet",
            filled.join(", ")
        )))
    }

    /// Makes the segments that positions up to the highest are in, and lets numbers go on beyond it.
    pub(super) async fn make_room(&mut self, highest: Highest) -> Result<()> {
        let doing = "there is no room for events to be made";
        let number = highest.number.max(self.ask("SELECT last_value FROM numbers").await?);
        let (first, last) = highest.positions.unwrap_or((number, number));
        for segment in first >> 32..=last >> 32 {
            self.run(format!("SELECT setval('numbers', {}); SELECT grow()", (segment << 32).max(1)), doing).await?;
        }
        self.run(format!("SELECT setval('numbers', {number}); SELECT grow()"), doing).await?;
        for (table, highest) in [("tenants", highest.tenant), ("plugins", highest.plugin)] {
            let sql = format!(
                "SELECT setval(pg_get_serial_sequence('bulkhead.{table}', 'id'), {}, {})",
                highest.max(1),
                highest > 0
            );
            self.run(sql, doing).await?;
        }
        Ok(())
    }

    /// Whether every sequence goes on beyond what the source has given out.
    pub(super) async fn goes_on_beyond(&mut self, highest: Highest) -> Result<bool> {
        let next = "SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END FROM";
        let mut beyond = true;
        for (sequence, highest) in
            [("numbers", highest.number), ("tenants_id_seq", highest.tenant), ("plugins_id_seq", highest.plugin)]
        {
            let next = sqlx::query_scalar::<_, i64>(AssertSqlSafe(format!("{next} {sequence}")));
            let next = next.fetch_one(&mut self.conn).await.map_err(failed(format!("{sequence} cannot be read")))?;
            beyond &= next > highest;
        }
        Ok(beyond)
    }

    /// Adds rows.
    pub(super) async fn add(&mut self, table: &'static Table, rows: Lists) -> Result<()> {
        let mut args = PgArguments::default();
        for list in rows.lists {
            list.bind(&mut args);
        }
        let added = sqlx::query_with(AssertSqlSafe(table.add()), args).execute(&mut self.conn).await;
        added.map_err(failed(format!("rows cannot be added to {}", table.name)))?;
        Ok(())
    }

    /// What is in a table.
    pub(super) async fn tally(&mut self, table: &'static Table) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut rows = sqlx::query(AssertSqlSafe(table.read_target())).fetch(&mut self.conn);
        while let Some(row) = rows.try_next().await.map_err(failed(format!("{} cannot be read", table.name)))? {
            tally.add(&read(table, &row)?);
        }
        Ok(tally)
    }

    /// Ends the transaction, and the connection.
    pub(super) async fn commit(mut self) -> Result<()> {
        // Plans of the first minutes would be made for empty tables.
        let names: Vec<_> = TABLES.iter().map(|table| table.name).collect();
        self.run(format!("ANALYZE {}; COMMIT", names.join(", ")), "the copy cannot be committed").await?;
        self.close().await
    }

    /// Ends the connection; without [`Target::commit`] nothing has changed.
    pub(super) async fn close(self) -> Result<()> {
        self.conn.close().await.map_err(failed("the connection does not end"))
    }
}

fn read(table: &'static Table, row: &PgRow) -> Result<Vec<Value>> {
    let column = |(at, column): (usize, &crate::copy::table::Column)| {
        let value = row.try_get_raw(at).map_err(failed(format!("{}.{}", table.name, column.name)))?;
        if value.is_null() {
            return Ok(Value::Null);
        }
        let odd = |why: &str| Error::Refused(format!("the target's {}.{} {why}", table.name, column.name));
        let bytes = value.as_bytes().map_err(|_| odd("cannot be read"))?;
        let number = || <[u8; 8]>::try_from(bytes).map_err(|_| odd("is no number"));
        Ok(match column.kind {
            Kind::Int | Kind::Flag | Kind::Shard | Kind::Home => Value::Int(i64::from_be_bytes(number()?)),
            Kind::Real => Value::Real(f64::from_be_bytes(number()?)),
            Kind::Blob | Kind::Uuid => Value::Blob(bytes.to_vec()),
            Kind::Text | Kind::Said => Value::Text(String::from_utf8(bytes.to_vec()).map_err(|_| odd("is not UTF-8"))?),
        })
    };
    table.columns.iter().enumerate().map(column).collect()
}

/// Rows on their way: a list for each column.
pub(super) struct Lists {
    lists: Vec<List>,
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

enum List {
    Ints(Vec<Option<i64>>),
    Flags(Vec<Option<bool>>),
    Reals(Vec<Option<f64>>),
    Texts(Vec<Option<String>>),
    Blobs(Vec<Option<Vec<u8>>>),
    Uuids(Vec<Option<Uuid>>),
}

impl Lists {
    pub(super) fn of(table: &'static Table) -> Self {
        let list = |column: &crate::copy::table::Column| match column.kind {
            Kind::Int | Kind::Shard | Kind::Home => List::Ints(Vec::new()),
            Kind::Flag => List::Flags(Vec::new()),
            Kind::Real => List::Reals(Vec::new()),
            Kind::Text | Kind::Said => List::Texts(Vec::new()),
            Kind::Blob => List::Blobs(Vec::new()),
            Kind::Uuid => List::Uuids(Vec::new()),
        };
        Self { lists: table.columns.iter().map(list).collect(), rows: 0, bytes: 0 }
    }

    pub(super) fn add(&mut self, row: Vec<Value>) {
        for (list, value) in self.lists.iter_mut().zip(row) {
            self.bytes += value.bytes();
            list.push(value);
        }
        self.rows += 1;
    }
}

impl List {
    fn push(&mut self, value: Value) {
        match (self, value) {
            (Self::Ints(list), Value::Int(number)) => list.push(Some(number)),
            (Self::Flags(list), Value::Int(flag)) => list.push(Some(flag != 0)),
            (Self::Reals(list), Value::Real(number)) => list.push(Some(number)),
            (Self::Texts(list), Value::Text(text)) => list.push(Some(text)),
            (Self::Blobs(list), Value::Blob(bytes)) => list.push(Some(bytes)),
            (Self::Uuids(list), Value::Blob(bytes)) => list.push(Uuid::from_slice(&bytes).ok()),
            (Self::Ints(list), _) => list.push(None),
            (Self::Flags(list), _) => list.push(None),
            (Self::Reals(list), _) => list.push(None),
            (Self::Texts(list), _) => list.push(None),
            (Self::Blobs(list), _) => list.push(None),
            (Self::Uuids(list), _) => list.push(None),
        }
    }

    fn bind(self, args: &mut PgArguments) {
        let added = match self {
            Self::Ints(list) => args.add(list),
            Self::Flags(list) => args.add(list),
            Self::Reals(list) => args.add(list),
            Self::Texts(list) => args.add(list),
            Self::Blobs(list) => args.add(list),
            Self::Uuids(list) => args.add(list),
        };
        added.expect("because numbers, texts and bytes always encode");
    }
}
