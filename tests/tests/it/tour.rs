//! The README's tour, command by command, as somebody would type it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use bulkhead_tests::eventually;
use serde_json::Value;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::process::Command;

const README: &str = include_str!("../../../README.md");

/// The shell blocks under a heading of the README, in order.
pub fn blocks(heading: &str) -> Result<Vec<String>> {
    let (_, part) =
        README.split_once(&format!("\n## {heading}\n")).with_context(|| format!("the README has no `{heading}`"))?;
    let part = part.split_once("\n## ").map_or(part, |(part, _)| part);
    let mut blocks = Vec::new();
    for block in part.split("\n```sh\n").skip(1) {
        blocks.push(block.split_once("\n```").context("a block is not closed")?.0.to_owned());
    }
    Ok(blocks)
}

/// A folder that looks like the repository to somebody on the tour, but is not it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests lie inside the repository")?;
        symlink(root.join("example-plugins"), folder.path().join("example-plugins"))?;
        symlink(root.join("tests"), folder.path().join("tests"))?;
        std::fs::create_dir(folder.path().join("bin"))?;
        symlink(bulkhead_tests::binary()?, folder.path().join("bin/bulkhead"))?;
        Ok(Self { folder })
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(self.folder.path().join("bin")).chain(std::env::split_paths(&path));
        command.current_dir(self.folder.path()).env("PATH", std::env::join_paths(paths).unwrap_or_default());
        for foreign in ["BULKHEAD_URL", "BULKHEAD_KEY", "BULKHEAD_OPERATOR_KEY", "BULKHEAD_PLUGINS"] {
            command.env_remove(foreign);
        }
        // Whatever port is free; whoever takes the tour has another machine.
        command.env("BULKHEAD_LISTEN", "127.0.0.1:0").env("HOME", self.folder.path());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a block as a shell would; gives what it printed.
    async fn run(&self, block: &str) -> Result<String> {
        let output = self.command("bash").args(["-euo", "pipefail", "-c", block]).output();
        let output = tokio::time::timeout(Duration::from_secs(60), output).await.context("it did not end")??;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("{}\n{out}\n{err}", output.status);
        }
        Ok(out.into_owned())
    }

    /// Starts a command that stays; gives it when it says that it listens.
    async fn stays(&self, block: &str) -> Result<Child> {
        let mut child =
            self.command("bash").args(["-c", &format!("exec {}", block.trim())]).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let first =
            tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await.context("it says nothing")??;
        let first = first.context("it ended")?;
        if !first.contains("listening on") {
            bail!("it says: {first}");
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(child)
    }

    async fn items(&self, command: &str) -> Result<Vec<Value>> {
        let text = self.run(&format!("{command} --output json")).await?;
        let value: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        Ok(value.as_array().or(value["items"].as_array()).cloned().unwrap_or_default())
    }
}

/// Commands that stay until they are interrupted.
fn stays(block: &str) -> bool {
    ["bulkhead dev", "bulkhead serve"].iter().any(|command| block.trim_start().starts_with(command))
}

/// The suite has built everything already, and set the path.
fn builds(block: &str) -> bool {
    block.contains("cargo ")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_tour_works() -> Result<()> {
    let place = Place::new()?;
    let mut host = None;
    let mut commands = 0;
    for block in blocks("A five-minute tour")? {
        if builds(&block) {
            let known = ["cargo xtask guest", "cargo build", "export PATH="];
            let unknown = block.lines().find(|line| !known.iter().any(|known| line.starts_with(known)));
            assert_eq!(unknown, None, "what builds is not run here, so nothing else may stand in its block");
        } else if stays(&block) {
            assert!(host.is_none(), "a second host");
            host = Some(place.stays(&block).await.with_context(|| block.clone())?);
        } else {
            place.run(&block).await.with_context(|| format!("of the tour:\n{block}"))?;
            commands += block.lines().filter(|line| line.starts_with("bulkhead ")).count();
        }
    }
    assert!(commands >= 8, "a tour of {commands} commands");

    // It led somewhere: orders were flagged, a delivery arrived in a file, without the address.
    eventually("an order to be flagged", Duration::from_secs(30), async || {
        let flagged = place.items("bulkhead event list --type orders.flagged").await?;
        Ok((!flagged.is_empty()).then_some(()))
    })
    .await?;
    let line = eventually("a delivery in the file", Duration::from_secs(30), async || {
        let files = files(&place.folder.path().join(".bulkhead"))?;
        let Some(file) = files.iter().find(|file| file.ends_with("large-orders.ndjson")) else { return Ok(None) };
        Ok(std::fs::read_to_string(file)?.lines().find(|line| line.contains("T-1")).map(str::to_owned))
    })
    .await?;
    assert!(!line.contains("me@example.com") && line.contains("[redacted]"), "{line}");

    // Ctrl-C ends it well.
    let mut host = host.context("the tour starts no host")?;
    let pid = host.id().context("the host is gone")?;
    std::process::Command::new("kill").args(["-INT", &pid.to_string()]).status()?;
    let status = tokio::time::timeout(Duration::from_secs(30), host.wait()).await.context("it did not end")??;
    assert!(status.success(), "{status}");
    Ok(())
}

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}
