//! The tables' versions. Migrations are part of the program and run at start, each in its own transaction.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::SqliteConnection;
use sqlx::migrate::Migration;
use sqlx::migrate::MigrationType;
use sqlx::migrate::Migrator;

use crate::Result;
use crate::sqlite::fault;
use crate::sqlite::row::Columns;
use crate::sqlite::text::Args;
use crate::sqlite::text::fetch;

/// Number, name, text. A released one is never edited: its hash is compared with the one it ran under.
const ALL: &[(i64, &str, &str)] = &[
    (1, "log", include_str!("../../../../migrations/sqlite/0001_log.sql")),
    (2, "work", include_str!("../../../../migrations/sqlite/0002_work.sql")),
    (3, "catalogue", include_str!("../../../../migrations/sqlite/0003_catalogue.sql")),
    (4, "quotas", include_str!("../../../../migrations/sqlite/0004_quotas.sql")),
    (5, "retention", include_str!("../../../../migrations/sqlite/0005_retention.sql")),
    (6, "due_deliveries", include_str!("../../../../migrations/sqlite/0006_due_deliveries.sql")),
    (7, "recordings", include_str!("../../../../migrations/sqlite/0007_recordings.sql")),
    (8, "versions", include_str!("../../../../migrations/sqlite/0008_versions.sql")),
    (9, "previews", include_str!("../../../../migrations/sqlite/0009_previews.sql")),
    (10, "accepted", include_str!("../../../../migrations/sqlite/0010_accepted.sql")),
    (11, "components", include_str!("../../../../migrations/sqlite/0011_components.sql")),
    (12, "tails", include_str!("../../../../migrations/sqlite/0012_tails.sql")),
    (13, "plans", include_str!("../../../../migrations/sqlite/0013_plans.sql")),
    (14, "steady_plans", include_str!("../../../../migrations/sqlite/0014_steady_plans.sql")),
    (15, "passed", include_str!("../../../../migrations/sqlite/0015_passed.sql")),
    (16, "in_vain", include_str!("../../../../migrations/sqlite/0016_in_vain.sql")),
    (17, "long_company", include_str!("../../../../migrations/sqlite/0017_long_company.sql")),
    (18, "state_keys", include_str!("../../../../migrations/sqlite/0018_state_keys.sql")),
];

/// Brings the tables up to date. Refuses tables that a newer program made.
pub(super) async fn run(conn: &mut SqliteConnection) -> Result<()> {
    let newest = ALL.last().map_or(0, |(number, ..)| *number);
    let found = version(conn).await?;
    if found > newest {
        return Err(fault::refused(format!(
            "the store's tables have version {found}, made by a newer program; this one knows versions up to {newest}"
        )));
    }
    let migrations = ALL
        .iter()
        .map(|(number, name, sql)| {
            Migration::new(*number, Cow::Borrowed(*name), MigrationType::Simple, (*sql).into_sql_str(), false)
        })
        .collect();
    Migrator::with_migrations(migrations)
        .run_direct(None, conn, false)
        .await
        .map_err(|error| fault::unavailable("the store's tables cannot be brought up to date", error))
}

/// The newest migration that ran; 0 for an empty database.
async fn version(conn: &mut SqliteConnection) -> Result<i64> {
    let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'";
    if fetch(conn, sql, Args::default()).await.map_err(fault::outward)?.is_empty() {
        return Ok(0);
    }
    let sql = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";
    let rows = fetch(conn, sql, Args::default()).await.map_err(fault::outward)?;
    rows.first().map_or(Ok(0), |row| Columns::new(row).int())
}
