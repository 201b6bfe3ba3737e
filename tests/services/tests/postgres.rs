//! A real server: it gives databases, and survives what suites do to it.

use std::path::Path;

use anyhow::Result;
use bulkhead_services::Postgres;
use bulkhead_services::PostgresOptions;
use bulkhead_services::shared;
use bulkhead_services::sql;

#[test]
fn databases_are_apart_and_go() -> Result<()> {
    let server = shared::postgres()?;
    let (one, two) = (server.database()?, server.database()?);
    sql(one.owner_url(), "CREATE TABLE t (n int); INSERT INTO t VALUES (7);")?;
    assert_eq!(sql(one.owner_url(), "SELECT n FROM t;")?, "7");
    assert!(sql(two.owner_url(), "SELECT n FROM t;").is_err());
    let known = format!("SELECT count(*) FROM pg_database WHERE datname = '{}';", one.name());
    assert_eq!(sql(server.admin_url(), &known)?, "1");
    drop(one);
    assert_eq!(sql(server.admin_url(), &known)?, "0");
    Ok(())
}

#[test]
fn the_hosts_role_owns_nothing() -> Result<()> {
    let database = shared::postgres()?.database()?;
    let role = "SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolcanlogin
                FROM pg_roles WHERE rolname = current_user;";
    assert_eq!(sql(database.host_url(), role)?, "f|f|f|f|t");
    let refused = sql(database.host_url(), "CREATE TABLE t (n int);").expect_err("because it may not");
    assert!(refused.to_string().contains("permission denied for schema public"), "{refused}");
    sql(database.owner_url(), "CREATE TABLE t (n int);")?;
    let refused = sql(database.host_url(), "SELECT n FROM t;").expect_err("because nothing was granted");
    assert!(refused.to_string().contains("permission denied for table t"), "{refused}");
    Ok(())
}

#[test]
fn processes_may_make_the_role_at_the_same_moment() -> Result<()> {
    let server = Postgres::start(PostgresOptions { fast: true, ..PostgresOptions::default() })?;
    let made: Vec<Result<_>> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| server.database())).collect();
        all.into_iter().map(|one| one.join().expect("because it does not panic")).collect()
    });
    for database in made {
        assert_eq!(sql(database?.host_url(), "SELECT 1;")?, "1");
    }
    Ok(())
}

#[test]
fn rows_survive_every_end() -> Result<()> {
    let server = Postgres::start(PostgresOptions { shared_buffers: "16MB".to_owned(), ..PostgresOptions::default() })?;
    let database = server.database()?;
    let url = database.owner_url();
    assert_eq!(sql(url, "SHOW fsync; SHOW max_connections; SHOW shared_buffers;")?, "on\n200\n16MB");
    sql(url, "CREATE TABLE t (n int); INSERT INTO t VALUES (1);")?;

    let before = server.pid()?;
    server.kill()?;
    assert!(!Path::new(&format!("/proc/{before}")).exists());
    assert!(server.pid().is_err());
    assert!(sql(url, "SELECT n FROM t;").is_err());
    server.start_again()?;
    assert_ne!(server.pid()?, before);
    assert_eq!(sql(url, "SELECT n FROM t;")?, "1");

    server.stop_immediate()?;
    assert!(sql(url, "SELECT n FROM t;").is_err());
    server.start_again()?;
    assert!(server.start_again().is_err(), "a running server must not be started twice");
    assert_eq!(sql(url, "SELECT n FROM t;")?, "1");

    server.restart_fast()?;
    assert_eq!(sql(url, "SELECT n FROM t;")?, "1");

    let folder = server.log().parent().expect("because the log lies in the folder").to_owned();
    drop(database);
    drop(server);
    assert!(!folder.exists(), "{} is still there", folder.display());
    Ok(())
}
