//! A process that is killed leaves no server and no folder.
//!
//! The process is this test binary once more, told to start servers and wait to be killed.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use bulkhead_services::Postgres;
use bulkhead_services::PostgresOptions;
use bulkhead_services::Redis;
use bulkhead_services::RedisOptions;

/// The server itself gets five seconds to end in order.
const LIMIT: Duration = Duration::from_secs(30);

#[test]
#[ignore = "no test of its own: it is what `the_killed_leave_nothing` kills"]
fn owner() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions { fast: true, ..PostgresOptions::default() })?;
    let redis = Redis::start(RedisOptions::default())?;
    for (pid, log) in [(postgres.pid()?, postgres.log()), (redis.pid()?, redis.log())] {
        let folder = log.parent().context("the log lies in no folder")?;
        println!("\nserver {pid} {}", folder.display());
    }
    println!("\nready");
    // Nothing ever comes, and an end only if somebody else runs this.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

#[test]
fn the_killed_leave_nothing() -> Result<()> {
    let mut owner = Command::new(std::env::current_exe()?)
        .args(["--exact", "owner", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(owner.stdout.take().context("no output")?);
    let mut servers = Vec::new();
    for line in output.lines() {
        let line = line?;
        if line == "ready" {
            break;
        }
        let mut words = line.split(' ');
        if words.next() == Some("server")
            && let (Some(pid), Some(folder)) = (words.next(), words.next())
        {
            servers.push((format!("/proc/{pid}/cwd"), folder.to_owned()));
        }
    }
    owner.kill()?;
    owner.wait()?;
    assert_eq!(servers.len(), 2, "the owner did not start its servers");
    let until = Instant::now() + LIMIT;
    for (process, folder) in servers {
        // A dead process that nobody has waited for yet has no working folder any more.
        while Path::new(&folder).exists() || Path::new(&process).read_link().is_ok() {
            assert!(Instant::now() < until, "{process} or {folder} is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
