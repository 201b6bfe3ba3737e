//! Moving to Postgres with the commands of the guide: everything is there, and the new host goes on where the old one was.

use std::path::Path;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use bulkhead_services::Database;
use bulkhead_services::shared;
use bulkhead_services::sql;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::Settings;
use bulkhead_tests::host::event;
use bulkhead_tests::receiver::Receiver;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;
use tokio::process::Command;

const SETTLED: Duration = Duration::from_secs(60);
/// Tables with the same name on both sides.
const TABLES: [&str; 12] = [
    "tenants",
    "api_keys",
    "plugins",
    "plugin_versions",
    "plugin_history",
    "rule_sets",
    "sinks",
    "state_values",
    "events",
    "runs",
    "unfinished",
    "deliveries",
];

/// `bulkhead store …` with both addresses of a database in its environment.
async fn store(database: &Database, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(bulkhead_tests::binary()?);
    command
        .arg("store")
        .args(words)
        .env("BULKHEAD_STORE", database.host_url())
        .env("BULKHEAD_STORE_OWNER", database.owner_url())
        .stdin(Stdio::null());
    Ok(command.output().await?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn done(database: &Database, words: &[&str]) -> Result<Output> {
    let output = store(database, words).await?;
    ensure!(output.status.success(), "store {}: {}", words.join(" "), said(&output));
    Ok(output)
}

/// What it says, having refused.
async fn refused(database: &Database, words: &[&str]) -> Result<String> {
    let output = store(database, words).await?;
    ensure!(!output.status.success(), "store {} went through: {}", words.join(" "), said(&output));
    ensure!(output.stdout.is_empty(), "a refusal is no output: {}", said(&output));
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// An event of a key, to be counted by `checker` in this order.
fn step(key: &str, seq: u64, fail: Option<&str>) -> Value {
    let mut step = event(&format!("{key}-{seq}"), "steps", json!({"key": key, "seq": seq}));
    step["partitionkey"] = key.into();
    if let Some(fail) = fail {
        step["data"]["fail"] = fail.into();
    }
    step
}

/// A tenant whose events are counted in order, delivered, and fail where they say so, on their first attempt.
async fn prepare(host: &Host, name: &str, receiver: &Receiver) -> Result<Client> {
    let client = host.tenant(name).await?;
    client.push("always-fails").await?;
    client.push("checker").await?;
    client.configure("always-fails", json!({"mode": "none", "succeed_at": 2})).await?;
    client.sink("out", json!({"kind": "webhook", "url": receiver.url})).await?;
    let retry = json!({"attempts": 5, "first": "8s", "factor": 1, "max": "8s"});
    let steps = json!([{"handle": "always-fails"}, {"handle": "checker"}, {"deliver": "out"}]);
    client.rule(json!({"name": "check", "on": "steps", "order": "key", "retry": retry, "steps": steps})).await?;
    Ok(client)
}

async fn counted(client: &Client, key: &str, count: u64) -> Result<()> {
    eventually(&format!("{count} events of {key} to be counted"), SETTLED, async || {
        let seen = client.number("checker", &format!("count:{key}")).await?;
        if seen == count { Ok(Some(())) } else { anyhow::bail!("{seen} are") }
    })
    .await?;
    assert_eq!(client.number("checker", &format!("disorder:{key}")).await?, 0, "in order");
    Ok(())
}

/// Rows in the file of a host that has ended.
fn rows(file: &Path, table: &str) -> Result<u64> {
    let conn = rusqlite::Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))?.try_into()?)
}

fn copied_rows(database: &Database, table: &str) -> Result<u64> {
    Ok(sql(database.owner_url(), &format!("SELECT count(*) FROM bulkhead.{table};"))?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_moves_to_postgres_and_the_new_host_goes_on_with_its_work() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let receiver = Receiver::start().await?;
    let mut old = Host::start(folder.path()).await?;
    let acme = prepare(&old, "acme", &receiver).await?;
    let other = prepare(&old, "other", &receiver).await?;

    // Done and delivered; done and not delivered; parked; not read yet; waiting for its next attempt; held behind that.
    acme.publish(&[step("a", 1, None)]).await?;
    counted(&acme, "a", 1).await?;
    eventually("the first delivery", SETTLED, async || Ok((receiver.distinct() == 1).then_some(()))).await?;
    receiver.answer(503);
    acme.publish(&[step("b", 1, None), step("c", 1, Some("reject"))]).await?;
    counted(&acme, "b", 1).await?;
    acme.run_in("c-1", "check", "parked").await?;
    other.expect_any(Method::POST, "/v1/pause", None).await?;
    other.publish(&[step("d", 1, None)]).await?;
    acme.publish(&[step("a", 2, Some("retry")), step("a", 3, None)]).await?;
    acme.run_in("a-2", "check", "retrying").await?;
    let plugin = acme.get("/v1/plugins/checker").await?;
    assert_eq!(old.terminate().await?, Some(0));
    receiver.answer(200);

    let file = folder.path().join("bulkhead.db");
    assert!(rows(&file, "unfinished")? >= 3, "parked, waiting, and held behind that one");
    let database = shared::postgres()?.database()?;
    let from = format!("sqlite:{}", file.display());
    let copy = ["copy", "--from", &from, "-o", "json"];
    let says = refused(&database, &copy).await?;
    assert!(says.contains("has no tables") && says.contains("bulkhead store migrate"), "{says}");
    let planned = said(&done(&database, &["migrate", "--plan"]).await?);
    assert!(planned.contains("there are no tables: they would be made"), "{planned}");
    let says = refused(&database, &copy).await?;
    assert!(says.contains("has no tables"), "{says}");
    let made = said(&done(&database, &["migrate"]).await?);
    assert!(made.contains("tables made") && made.contains("48 shards"), "{made}");
    let planned = said(&done(&database, &["migrate", "--plan"]).await?);
    assert!(planned.contains("tables are up to date"), "{planned}");

    let copied = done(&database, &copy).await?;
    let compared: Vec<Value> = serde_json::from_slice(&copied.stdout)?;
    assert!(compared.iter().all(|table| table["digests"] == "equal"), "{compared:?}");
    for table in TABLES {
        let line = compared.iter().find(|line| line["what"] == table).with_context(|| format!("no {table}"))?;
        let (here, there) = (rows(&file, table.trim_end_matches("_values"))?, copied_rows(&database, table)?);
        assert_eq!((&line["source"], &line["target"], here), (&json!(here), &json!(there), there), "{table}");
        assert!(there > 0, "{table}");
    }
    done(&database, &["copy", "--from", &from, "--verify-only"]).await?;
    let says = refused(&database, &copy).await?;
    assert!(says.contains("the target is not empty") && says.contains("tenants"), "{says}");
    done(&database, &["copy", "--from", &from, "--verify-only"]).await?;

    // With the old one's folder of keys.
    let settings = Settings { store: Some(database.host_url().to_owned()), ..Settings::default() };
    let new = Host::start_as(folder.path(), settings).await?;
    let (acme, other) = (acme.at(&new), other.at(&new));
    assert_eq!(acme.get("/v1/plugins/checker").await?["digest"], plugin["digest"]);
    counted(&acme, "a", 3).await?;
    acme.run_in("a-3", "check", "done").await?;
    acme.run_in("c-1", "check", "parked").await?;
    let receipt = acme.publish(&[step("a", 1, None)]).await?;
    assert_eq!(receipt["duplicates"], 1, "{receipt}");
    assert_eq!(other.number("checker", "count:d").await?, 0, "the tenant is still paused");
    other.expect_any(Method::POST, "/v1/resume", None).await?;
    counted(&other, "d", 1).await?;
    acme.publish(&[step("a", 4, None)]).await?;
    counted(&acme, "a", 4).await?;
    eventually("all deliveries", SETTLED, async || Ok((receiver.distinct() == 6).then_some(()))).await?;
    assert_eq!(receiver.repeats(), 0, "none arrives twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_programs_tables_are_refused_and_stay_as_they_are() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut old = Host::start(folder.path()).await?;
    old.tenant("acme").await?;
    assert_eq!(old.terminate().await?, Some(0));
    let from = format!("sqlite:{}", folder.path().join("bulkhead.db").display());
    let database = shared::postgres()?.database()?;
    done(&database, &["migrate"]).await?;
    sql(
        database.owner_url(),
        "INSERT INTO bulkhead._sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the future', true, '', 0);",
    )?;
    for words in [&["copy", "--from", &from][..], &["migrate"], &["migrate", "--plan"]] {
        let says = refused(&database, words).await?;
        assert!(says.contains("version 9999"), "{says}");
        assert!(!says.contains(" at line "), "{says}");
    }
    assert_eq!(copied_rows(&database, "tenants")?, 0);
    Ok(())
}

/// Whoever forgets one of the two files when a node is set up.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_not_opened_with_keys_that_are_not_its_own() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path()).await?;
    host.tenant("acme").await?;
    assert_eq!(host.terminate().await?, Some(0));
    for (name, says) in
        [("kek", "tenants' secrets would not open"), ("pepper", "tenants' keys and secrets would not work")]
    {
        let file = folder.path().join("data").join(name);
        let kept = std::fs::read(&file)?;
        std::fs::remove_file(&file)?;
        assert!(host.restart().await.is_err(), "without its {name}");
        assert!(host.log()?.contains(says), "{}", host.log()?);
        // What is not there is made; what would be made in vain is not.
        assert_eq!(file.exists(), name == "pepper");
        if file.exists() {
            std::fs::remove_file(&file)?;
        }
        std::fs::write(&file, kept)?;
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o400))?;
        host.restart().await?;
        assert_eq!(host.terminate().await?, Some(0));
    }
    Ok(())
}
