//! The table's name, and every statement with that name in it.

use std::str::FromStr;
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::Postgres;
use sqlx::postgres::PgArguments;

use crate::outbox::Error;

/// A statement with its parameters.
pub(super) type Query = sqlx::query::Query<'static, Postgres, PgArguments>;

/// Postgres cuts longer names, and `_rejected` must have room.
const NAME_MAX: usize = 54;
const SCHEMA_MAX: usize = 63;

/// Which table: `bulkhead_outbox`, unless it is called otherwise. Without a schema, the role's `search_path` finds it.
#[derive(Debug, Clone)]
pub struct Table {
    name: String,
    shown: String,
    statements: Statements,
}

#[derive(Debug, Clone)]
struct Statements {
    next: Arc<str>,
    first: Arc<str>,
    delete: Arc<str>,
    reject: Arc<str>,
    reject_names: Arc<str>,
    waiting: Arc<str>,
    lowest: Arc<str>,
    writers: Arc<str>,
}

impl Default for Table {
    fn default() -> Self {
        Self::make(None, "bulkhead_outbox")
    }
}

impl FromStr for Table {
    type Err = Error;

    /// Reads `name` or `schema.name`. Upper and lower case differ.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        let plain = |part: &str, max: usize| {
            let letters = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            letters && part.len() <= max && part.starts_with(|first: char| !first.is_ascii_digit())
        };
        if !plain(name, NAME_MAX) || !schema.is_none_or(|schema| plain(schema, SCHEMA_MAX)) {
            return Err(Error::Name(text.chars().take(80).flat_map(char::escape_default).collect()));
        }
        Ok(Self::make(schema, name))
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Table {
    fn make(schema: Option<&str>, name: &str) -> Self {
        let (prefix, shown) = match schema {
            Some(schema) => (format!("\"{schema}\"."), format!("{schema}.{name}")),
            None => (String::new(), name.to_owned()),
        };
        let statements = Statements::make(&format!("{prefix}\"{name}\""), &format!("{prefix}\"{name}_rejected\""));
        Self { name: name.to_owned(), shown, statements }
    }

    /// Where the table's trigger tells of new rows.
    pub(super) fn channel(&self) -> &str {
        &self.name
    }

    pub(super) fn next(&self) -> Query {
        query(&self.statements.next)
    }

    pub(super) fn first(&self) -> Query {
        query(&self.statements.first)
    }

    pub(super) fn delete(&self) -> Query {
        query(&self.statements.delete)
    }

    pub(super) fn reject(&self) -> Query {
        query(&self.statements.reject)
    }

    pub(super) fn reject_names(&self) -> Query {
        query(&self.statements.reject_names)
    }

    pub(super) fn waiting(&self) -> Query {
        query(&self.statements.waiting)
    }

    pub(super) fn lowest(&self) -> Query {
        query(&self.statements.lowest)
    }

    pub(super) fn writers(&self) -> Query {
        query(&self.statements.writers)
    }
}

/// What stands in the text besides constants is a name that was checked.
fn query(text: &Arc<str>) -> Query {
    sqlx::query(AssertSqlSafe(Arc::clone(text)))
}

impl Statements {
    fn make(table: &str, rejected: &str) -> Self {
        // The inner select makes texts of JSON once. What goes beyond the sizes asked for is measured there, and stays there.
        let next = format!(
            "SELECT id, tenant, bytes, bytes <= $5, event_id, source, type, subject, time, datacontenttype, partitionkey,
                    CASE WHEN bytes <= $5 THEN attributes END,
                    CASE WHEN bytes <= $5 THEN data END,
                    CASE WHEN bytes <= $5 THEN data_bytes END
             FROM (
                 SELECT *, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM (
                     SELECT *, 256 + coalesce(octet_length(attributes), 0)::BIGINT + coalesce(octet_length(data), 0)
                               + coalesce(octet_length(data_bytes), 0) AS bytes
                     FROM (
                         SELECT id, left(tenant, 1000) AS tenant, left(event_id, 2000) AS event_id,
                                left(source, 2000) AS source, left(type, 2000) AS type, left(subject, 2000) AS subject,
                                time::TEXT AS time, left(datacontenttype, 2000) AS datacontenttype,
                                left(partitionkey, 2000) AS partitionkey, attributes::TEXT AS attributes,
                                data::TEXT AS data, data_bytes
                         FROM {table} WHERE id > $1 AND tenant <> ALL ($2) AND id <> ALL ($3) ORDER BY id LIMIT $4
                     ) texts
                 ) sizes
             ) sums WHERE before < $6 ORDER BY id"
        );
        let first = format!(
            "SELECT id, left(tenant, 1000) FROM {table}
             WHERE id > $1 AND tenant <> ALL ($2) AND id <> ALL ($3) ORDER BY id LIMIT 1"
        );
        let delete = format!("DELETE FROM {table} WHERE id = ANY ($1)");
        let refused = "unnest($1::BIGINT[], $2::TEXT[], $3::TEXT[]) AS refused(id, code, reason) USING (id)";
        let reject = format!(
            "WITH gone AS (DELETE FROM {table} WHERE id = ANY ($1) RETURNING *)
             INSERT INTO {rejected} (row, code, reason)
             SELECT to_jsonb(gone), refused.code, refused.reason FROM gone JOIN {refused} ORDER BY id"
        );
        let reject_names = format!(
            "WITH gone AS (DELETE FROM {table} WHERE id = ANY ($1)
                           RETURNING id, left(tenant, 1000) AS tenant, left(type, 2000) AS type)
             INSERT INTO {rejected} (row, code, reason)
             SELECT to_jsonb(gone), refused.code, refused.reason FROM gone JOIN {refused} ORDER BY id"
        );
        let waiting = format!(
            "SELECT count(*), (max(greatest(0, extract(epoch FROM now() - created_at))) FILTER (WHERE isfinite(created_at)))
                              ::BIGINT
             FROM (SELECT created_at FROM {table} WHERE id > $1 ORDER BY id LIMIT $2) rows"
        );
        let lowest = format!("SELECT min(id) FROM {table} WHERE id > $1");
        // Numbers tell something if the table gives them out itself, one by one.
        let writers = format!(
            "SELECT c.relkind = 'r' AND EXISTS (
                        SELECT 1 FROM pg_attribute a
                        JOIN pg_depend d ON d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype = 'i'
                        JOIN pg_sequence s ON s.seqrelid = d.objid
                        WHERE a.attrelid = c.oid AND a.attname = 'id' AND a.attidentity = 'a' AND s.seqcache = 1
                    ),
                    ARRAY (
                        SELECT virtualtransaction FROM pg_locks
                        WHERE locktype = 'relation' AND relation = c.oid AND mode = 'RowExclusiveLock'
                              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                    )
             FROM pg_class c WHERE c.oid = '{table}'::regclass"
        );
        Self {
            next: next.into(),
            first: first.into(),
            delete: delete.into(),
            reject: reject.into(),
            reject_names: reject_names.into(),
            waiting: waiting.into(),
            lowest: lowest.into(),
            writers: writers.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_and_nothing_else() {
        let table: Table = "App.order_events".parse().expect("because it is one");
        assert_eq!((table.to_string().as_str(), table.channel()), ("App.order_events", "order_events"));
        assert!(table.statements.delete.starts_with("DELETE FROM \"App\".\"order_events\" WHERE"));
        assert!(table.statements.reject.contains("INTO \"App\".\"order_events_rejected\""));
        let long = "x".repeat(NAME_MAX + 1);
        for wrong in ["", ".", "a.", ".a", "a.b.c", "1a", "a b", "a\"b", "a'b", "ä", &long, "a;drop table b", "a\0"] {
            assert!(wrong.parse::<Table>().is_err(), "{wrong}");
        }
    }
}
