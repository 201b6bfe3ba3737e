//! Programs: where the servers' executables are on this machine.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

/// What to do where a program is not there.
pub(crate) const MISSING: &str = "`cargo xtask test` and `cargo xtask services` install what is missing on Debian, \
                                  which is `apt-get install postgresql redis-server`";

/// What Debian's `postgresql` brings outside of the PATH, in a folder per version.
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// The folder with the programs of a Postgres server, of the newest one if there are several.
///
/// # Errors
///
/// If there is none; the error says which package has it.
pub fn postgres() -> Result<PathBuf> {
    let whole = |folder: &PathBuf| ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).is_file());
    search_path()
        .chain(postgres_folders())
        .find(whole)
        .with_context(|| format!("the programs of a Postgres server are not installed; {MISSING}"))
}

/// The client for SQL. The server's own is taken first: Debian's on the PATH is a wrapper that takes longer to start.
pub(crate) fn psql() -> Result<PathBuf> {
    postgres_folders()
        .chain(search_path())
        .map(|folder| folder.join("psql"))
        .find(|path| path.is_file())
        .with_context(|| format!("`psql` is not installed; {MISSING}"))
}

/// The program of a Redis server.
///
/// # Errors
///
/// If there is none; the error says which package has it.
pub fn redis() -> Result<PathBuf> {
    search_path()
        .map(|folder| folder.join("redis-server"))
        .find(|path| path.is_file())
        .with_context(|| format!("`redis-server` is not installed; {MISSING}"))
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

/// Newest version first.
fn postgres_folders() -> impl Iterator<Item = PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(Path::new(POSTGRES_VERSIONS))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, folder)| folder)
}
