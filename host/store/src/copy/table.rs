//! What is copied: every table with its columns, in the order in which rows may refer to each other.

/// What a column holds, on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    /// True or false; a number in SQLite.
    Flag,
    Real,
    Text,
    /// A text that only people read. A NUL in it, which Postgres cannot keep, is shown as its sign, as in everything
    /// that a host writes to Postgres.
    Said,
    Blob,
    /// 16 bytes that Postgres keeps as a UUID.
    Uuid,
    /// A shard, numbered anew. The row's first column is the tenant.
    Shard,
    /// The tenant's home, which SQLite does not store. The row's first column is the tenant.
    Home,
}

/// A column of the target.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// What it is called in SQLite.
    source: &'static str,
    pub(super) kind: Kind,
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, source: name, kind }
}

const fn int(name: &'static str) -> Column {
    column(name, Kind::Int)
}

const fn text(name: &'static str) -> Column {
    column(name, Kind::Text)
}

const fn blob(name: &'static str) -> Column {
    column(name, Kind::Blob)
}

const fn flag(name: &'static str) -> Column {
    column(name, Kind::Flag)
}

const fn uuid(name: &'static str) -> Column {
    column(name, Kind::Uuid)
}

const SHARD: Column = column("shard", Kind::Shard);
const REASON: Column = column("reason", Kind::Said);
/// What a key of state and its value have in common. In SQLite they are one row.
const SLOT: Column =
    Column { name: "slot", source: "row_number() OVER (ORDER BY tenant, plugin, key)", kind: Kind::Int };

/// A table of the target.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Where its rows are in SQLite.
    source: &'static str,
    /// How many of the columns, from the first on, name a row.
    pub(super) named_by: usize,
    pub(super) columns: &'static [Column],
}

/// Everything but what belongs to the database itself or to nodes at work: its version, its segments, leases, nodes, and
/// the number of shards.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "host_values",
        source: "host_values WHERE name <> 'store:shards'",
        named_by: 1,
        columns: &[text("name"), blob("value")],
    },
    Table {
        name: "tenants",
        source: "tenants",
        named_by: 3,
        columns: &[
            int("id"),
            text("uid"),
            text("name"),
            int("state"),
            int("settings"),
            int("rule_set"),
            int("created"),
            text("quotas"),
            text("policy"),
            text("asks"),
        ],
    },
    Table {
        name: "api_keys",
        source: "api_keys",
        named_by: 1,
        columns: &[
            text("id"),
            int("tenant"),
            blob("hash"),
            text("scopes"),
            text("note"),
            int("created"),
            int("revoked"),
        ],
    },
    Table {
        name: "plugins",
        source: "plugins",
        named_by: 3,
        columns: &[
            int("id"),
            int("tenant"),
            text("name"),
            int("active"),
            int("previous"),
            flag("paused"),
            text("config"),
            int("created"),
            text("policy"),
            int("activated"),
        ],
    },
    Table {
        name: "plugin_versions",
        source: "plugin_versions",
        named_by: 3,
        columns: &[
            int("tenant"),
            int("plugin"),
            int("number"),
            text("digest"),
            text("manifest"),
            text("inspection"),
            text("grants"),
            text("author"),
            int("created"),
            flag("retired"),
            int("activated"),
            text("approver"),
            int("approved"),
            text("signature"),
            int("size"),
        ],
    },
    Table {
        name: "plugin_history",
        source: "plugin_history",
        named_by: 3,
        columns: &[
            int("tenant"),
            int("plugin"),
            int("number"),
            text("action"),
            int("version"),
            text("author"),
            int("at"),
            text("detail"),
        ],
    },
    Table {
        name: "plugin_previews",
        source: "plugin_previews",
        named_by: 4,
        columns: &[
            int("tenant"),
            int("plugin"),
            int("version"),
            int("against"),
            text("author"),
            int("at"),
            text("counts"),
        ],
    },
    Table {
        name: "rollouts",
        source: "rollouts",
        named_by: 3,
        columns: &[
            int("tenant"),
            int("plugin"),
            int("kind"),
            int("number"),
            int("version"),
            text("author"),
            int("started"),
            text("terms"),
            text("tally"),
        ],
    },
    Table { name: "blobs", source: "blobs", named_by: 1, columns: &[text("digest"), blob("bytes")] },
    Table {
        name: "rule_sets",
        source: "rule_sets",
        named_by: 2,
        columns: &[int("tenant"), int("number"), text("rules"), text("author"), text("note"), int("created")],
    },
    Table { name: "paused_rules", source: "paused_rules", named_by: 2, columns: &[int("tenant"), text("rule")] },
    Table {
        name: "sinks",
        source: "sinks",
        named_by: 2,
        columns: &[int("tenant"), text("name"), text("spec"), int("updated")],
    },
    Table {
        name: "secrets",
        source: "secrets",
        named_by: 2,
        columns: &[int("tenant"), text("name"), int("version"), blob("sealed"), int("updated")],
    },
    Table {
        name: "state_keys",
        source: "state",
        named_by: 3,
        columns: &[int("tenant"), int("plugin"), text("key"), SLOT],
    },
    Table {
        name: "state_values",
        source: "state",
        named_by: 2,
        columns: &[int("tenant"), SLOT, int("version"), int("expires"), blob("value")],
    },
    Table {
        name: "events",
        source: "events",
        named_by: 2,
        columns: &[
            int("tenant"),
            int("pos"),
            SHARD,
            int("recorded"),
            int("time"),
            int("hops"),
            int("budget"),
            text("id"),
            text("source"),
            text("kind"),
            text("subject"),
            text("key"),
            text("correlation"),
            text("causation"),
            text("content_type"),
            text("attributes"),
            blob("hash"),
            blob("data"),
        ],
    },
    Table { name: "event_keys", source: "event_keys", named_by: 2, columns: &[int("tenant"), uuid("key"), int("pos")] },
    Table { name: "lanes", source: "progress", named_by: 2, columns: &[int("tenant"), SHARD] },
    Table {
        name: "progress",
        source: "progress",
        named_by: 2,
        columns: &[int("tenant"), SHARD, Column { name: "turn", source: "number", kind: Kind::Int }, int("cursor")],
    },
    Table {
        name: "runs",
        source: "runs",
        named_by: 4,
        columns: &[
            int("tenant"),
            int("pos"),
            text("rule"),
            int("number"),
            int("attempt"),
            int("rule_set"),
            uuid("event"),
            text("plugin"),
            int("plugin_version"),
            int("state"),
            text("code"),
            REASON,
            int("fuel"),
            int("micros"),
            int("ended"),
            int("effects"),
            text("logs"),
        ],
    },
    Table {
        name: "recordings",
        source: "recordings",
        named_by: 2,
        columns: &[
            int("tenant"),
            int("number"),
            int("pos"),
            text("rule"),
            uuid("event"),
            int("attempt"),
            int("step"),
            int("item"),
            text("plugin"),
            int("plugin_version"),
            text("code"),
            int("recorded"),
            int("size"),
            blob("body"),
        ],
    },
    Table {
        name: "unfinished",
        source: "unfinished",
        named_by: 3,
        columns: &[
            int("tenant"),
            int("pos"),
            text("rule"),
            SHARD,
            text("key"),
            uuid("event"),
            int("waiting"),
            int("due"),
            int("attempts"),
            text("code"),
            REASON,
            text("plugin"),
            int("hops"),
            int("budget"),
            int("rule_set"),
            int("since"),
            int("updated"),
            text("pins"),
        ],
    },
    Table {
        name: "deliveries",
        source: "deliveries",
        named_by: 2,
        columns: &[
            int("tenant"),
            text("id"),
            Column { name: "shard", source: "NULL", kind: Kind::Home },
            int("seq"),
            text("sink"),
            text("key"),
            int("pos"),
            text("rule"),
            int("state"),
            int("due"),
            int("attempts"),
            text("code"),
            REASON,
            int("created"),
            int("updated"),
            text("content_type"),
            text("attributes"),
            blob("body"),
        ],
    },
    Table {
        name: "timers",
        source: "timers",
        named_by: 2,
        columns: &[
            int("tenant"),
            text("id"),
            int("plugin"),
            text("name"),
            int("due"),
            SHARD,
            int("hops"),
            int("budget"),
            text("source"),
            text("kind"),
            text("subject"),
            int("time"),
            text("key"),
            text("correlation"),
            text("causation"),
            text("content_type"),
            text("attributes"),
            blob("data"),
        ],
    },
    Table {
        name: "usage",
        source: "usage",
        named_by: 4,
        columns: &[
            int("tenant"),
            int("day"),
            text("plugin"),
            text("rule"),
            int("events"),
            int("attempts"),
            int("done"),
            int("failed"),
            int("fuel"),
            int("micros"),
            int("emitted"),
            int("deliveries"),
        ],
    },
    Table {
        name: "usage_units",
        source: "usage_units",
        named_by: 5,
        columns: &[int("tenant"), int("day"), text("plugin"), text("rule"), text("unit"), column("amount", Kind::Real)],
    },
];

impl Table {
    /// All rows in SQLite.
    pub(super) fn read_source(&self) -> String {
        let columns: Vec<_> = self.columns.iter().map(|column| column.source).collect();
        format!("SELECT {} FROM {}", columns.join(", "), self.source)
    }

    /// All rows in Postgres.
    pub(super) fn read_target(&self) -> String {
        let column = |column: &Column| match column.kind {
            Kind::Int | Kind::Shard | Kind::Home => format!("{}::BIGINT", column.name),
            Kind::Flag => format!("{}::INTEGER::BIGINT", column.name),
            Kind::Real | Kind::Text | Kind::Said | Kind::Blob | Kind::Uuid => column.name.to_owned(),
        };
        let columns: Vec<_> = self.columns.iter().map(column).collect();
        format!("SELECT {} FROM bulkhead.{}", columns.join(", "), self.name)
    }

    /// Adds rows to Postgres, as lists of their columns.
    pub(super) fn add(&self) -> String {
        let columns: Vec<_> = self.columns.iter().map(|column| column.name).collect();
        let list = |(at, column): (usize, &Column)| {
            let kind = match column.kind {
                Kind::Int | Kind::Shard | Kind::Home => "BIGINT",
                Kind::Flag => "BOOLEAN",
                Kind::Real => "DOUBLE PRECISION",
                Kind::Text | Kind::Said => "TEXT",
                Kind::Blob => "BYTEA",
                Kind::Uuid => "UUID",
            };
            format!("${}::{kind}[]", at + 1)
        };
        let lists: Vec<_> = self.columns.iter().enumerate().map(list).collect();
        // Tenants and plugins keep their numbers.
        format!(
            "INSERT INTO bulkhead.{} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM unnest({})",
            self.name,
            columns.join(", "),
            lists.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Every column that SQLite has, as `table.column`.
    fn there_are() -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/sqlite");
        let files = std::fs::read_dir(folder).expect("because the migrations are there");
        let mut files: Vec<_> = files.map(|file| file.expect("because they can be listed").path()).collect();
        files.sort();
        let conn = rusqlite::Connection::open_in_memory().expect("because memory is there");
        for file in files {
            let script = std::fs::read_to_string(file).expect("because a migration is text");
            conn.execute_batch(&script).expect("because migrations run");
        }
        let sql = "SELECT m.name || '.' || c.name FROM sqlite_master m, pragma_table_info(m.name) c
                   WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'";
        let mut statement = conn.prepare(sql).expect("because the tables can be listed");
        let names = statement.query_map([], |row| row.get(0)).expect("because it is one text a row");
        names.collect::<Result<_, _>>().expect("because it is one text a row")
    }

    #[test]
    fn every_column_is_copied() {
        let mut left = there_are();
        for table in TABLES {
            let source = table.source.split(' ').next().unwrap_or_default();
            for column in table.columns {
                left.remove(&format!("{source}.{}", column.source));
            }
        }
        // Who works where belongs to the store that is left; a lane's head follows from its events.
        let known = ["leases.fence", "leases.owner", "leases.shard", "leases.until", "progress.head"];
        assert_eq!(left.iter().map(String::as_str).collect::<Vec<_>>(), known);
    }

    #[test]
    fn what_follows_from_the_tenant_can_be_computed() {
        for table in TABLES {
            let follows = |column: &Column| matches!(column.kind, Kind::Shard | Kind::Home);
            assert!(!table.columns.iter().any(follows) || table.columns[0].name == "tenant", "{}", table.name);
            assert!(table.named_by <= table.columns.len(), "{}", table.name);
        }
    }
}
