//! Database: an empty one for each test, and the roles that use it.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::io::Write;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::postgres::CONNECT_LIMIT;
use crate::postgres::without_surroundings;
use crate::programs;

/// The role that the host connects as: it owns nothing and is above no policy. One per cluster.
const HOST_ROLE: &str = "bulkhead_host";

/// No secret: only servers of tests know the role by it.
const HOST_PASSWORD: &str = "bulkhead_host";

/// A database of its own, dropped with this value.
#[derive(Debug)]
pub struct Database {
    admin_url: String,
    name: String,
    owner_url: String,
    host_url: String,
}

impl Database {
    /// Makes one on the server that a superuser reaches at `admin_url`.
    pub(crate) fn create(admin_url: &str) -> Result<Self> {
        let name = format!("bulkhead_{:016x}", RandomState::new().hash_one(std::process::id()));
        let owner_url = with_database(admin_url, &name)?;
        let host_url = with_user(&owner_url, &format!("{HOST_ROLE}:{HOST_PASSWORD}"))?;
        // Whoever makes the role at the same moment makes the same one.
        let script = format!(
            "DO $$ BEGIN
                 CREATE ROLE {HOST_ROLE} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD '{HOST_PASSWORD}';
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
             END $$;
             CREATE DATABASE {name} TEMPLATE template0;
             \\connect {name}
             REVOKE CREATE ON SCHEMA public FROM PUBLIC;\n"
        );
        sql(admin_url, &script).context("a database could not be made")?;
        Ok(Self { admin_url: admin_url.to_owned(), name, owner_url, host_url })
    }

    /// Its name on the server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the role reaches it that owns the schema: for migrations.
    #[must_use]
    pub fn owner_url(&self) -> &str {
        &self.owner_url
    }

    /// Where the role `bulkhead_host` reaches it, with the password: no superuser, owns nothing, cannot bypass row-level
    /// security, makes no databases or roles.
    #[must_use]
    pub fn host_url(&self) -> &str {
        &self.host_url
    }

    /// The same by way of another port of this machine.
    #[must_use]
    pub fn host_url_by(&self, port: u16) -> String {
        let own = format!(":{}/", self.port());
        self.host_url.replace(&own, &format!(":{port}/"))
    }

    /// The server's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        let place = self.host_url.rsplit_once('/').map_or("", |(place, _)| place);
        let port = place.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        port.expect("because it was made with one")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server may be down, on purpose or with its own end.
        drop(sql(&self.admin_url, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE);", self.name)));
    }
}

/// Runs a script with `psql`; gives the rows it printed, columns separated by `|`.
///
/// # Errors
///
/// If the server does not answer or refuses a statement; the error has its words.
pub fn sql(url: &str, script: &str) -> Result<String> {
    let mut command = Command::new(programs::psql()?);
    without_surroundings(&mut command);
    let mut child = command
        .env("PGCONNECT_TIMEOUT", CONNECT_LIMIT.as_secs().to_string())
        .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password", "--set=ON_ERROR_STOP=1", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("`psql` could not be started")?;
    let mut input = child.stdin.take().context("the input of `psql` is not there")?;
    // If it ended before it read all of it, its own message says why.
    let written = input.write_all(script.as_bytes());
    drop(input);
    let output = child.wait_with_output().context("`psql` could not be waited for")?;
    if !output.status.success() {
        bail!("`psql` says: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    written.context("`psql` did not read its input")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The same server and user, another database.
fn with_database(url: &str, name: &str) -> Result<String> {
    let (server, query) = split_query(url);
    let (scheme, rest) = server.split_once("://").with_context(unusable)?;
    let authority = rest.split('/').next().unwrap_or(rest);
    Ok(format!("{scheme}://{authority}/{name}{query}"))
}

/// The same server and database, another user.
fn with_user(url: &str, user: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").with_context(unusable)?;
    let path = rest.find('/').unwrap_or(rest.len());
    let server = rest[..path].rsplit_once('@').map_or(0, |(before, _)| before.len() + 1);
    Ok(format!("{scheme}://{user}@{}", &rest[server..]))
}

fn split_query(url: &str) -> (&str, &str) {
    url.split_at(url.find('?').unwrap_or(url.len()))
}

/// Without the address: it may hold a password.
fn unusable() -> String {
    "a Postgres address has the form postgres://user:password@host:port/database".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_database() {
        let url =
            with_database("postgres://a:b%40@h:1/postgres?sslmode=disable", "x").expect("because it is an address");
        assert_eq!(url, "postgres://a:b%40@h:1/x?sslmode=disable");
        assert_eq!(with_user(&url, "c:d").expect("because it is an address"), "postgres://c:d@h:1/x?sslmode=disable");
        let url = with_database("postgres://h", "x").expect("because it is an address");
        assert_eq!(with_user(&url, "c").expect("because it is an address"), "postgres://c@h/x");
        assert!(with_database("h:1", "x").is_err());
    }
}
