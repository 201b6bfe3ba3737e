//! A disk that does not sync: what is not on it is not acknowledged, and what was acknowledged is there afterwards.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use anyhow::ensure;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::Settings;
use bulkhead_tests::ledger::Ledger;
use bulkhead_tests::receiver::Receiver;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const SIGABRT: i32 = 6;

/// Stands between the host and the system: syncs of files fail whose names end as the file says that `FAILING_SYNCS`
/// names.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    char link[64], name[4096], end[64];
    const char *path = getenv("FAILING_SYNCS");
    FILE *file = path ? fopen(path, "r") : NULL;
    size_t have = file ? fread(end, 1, sizeof end, file) : 0;
    if (file) fclose(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name);
    return have && length >= (ssize_t)have && !memcmp(name + length - have, end, have);
}

static int passed_on(const char *name, int fd) {
    if (fails(fd)) return errno = EIO, -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}

int fsync(int fd) { return passed_on("fsync", fd); }
int fdatasync(int fd) { return passed_on("fdatasync", fd); }
"#;

/// A host on a disk of which some files may not be synced, and a publisher that keeps books.
struct Scene {
    failing: PathBuf,
    receiver: Receiver,
    host: Host,
    client: Client,
    ledger: Ledger,
}

impl Scene {
    async fn start(folder: &Path) -> Result<Self> {
        let (source, shim, failing) = (folder.join("shim.c"), folder.join("shim.so"), folder.join("failing"));
        std::fs::write(&source, SHIM)?;
        let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&shim, &source]).arg("-ldl").status()?;
        ensure!(status.success(), "the shim does not compile");
        let environment = vec![
            ("LD_PRELOAD".to_owned(), shim.display().to_string()),
            ("FAILING_SYNCS".to_owned(), failing.display().to_string()),
        ];
        let receiver = Receiver::start().await?;
        let host = Host::start_as(folder, Settings { environment, ..Settings::default() }).await?;
        let client = host.tenant("acme").await?;
        Ledger::prepare(&client, &receiver).await?;
        Ok(Self { failing, receiver, host, client, ledger: Ledger::default() })
    }

    /// From now on, syncs of files fail whose names end so; of none, if that is empty.
    fn fail(&self, end: &str) -> Result<()> {
        // Renamed, so that nobody reads half of it.
        let new = self.failing.with_extension("new");
        std::fs::write(&new, end)?;
        Ok(std::fs::rename(new, &self.failing)?)
    }

    /// The host has ended because of a sync; it starts again on a disk that works, and takes in what it did not acknowledge.
    async fn recover(&mut self, batch: &[Value]) -> Result<()> {
        let status = self.host.ended(SOON).await?;
        ensure!(status.signal() == Some(SIGABRT), "{status}");
        self.fail("")?;
        self.host.restart().await?;
        self.client = self.client.at(&self.host);
        // It may be there or not; a publisher sends it again.
        let Self { client, ledger, .. } = self;
        eventually("an acknowledgement", SOON, async || Ok(ledger.offer(client, batch).await.then_some(()))).await
    }

    /// Compares the books; says how many events were acknowledged.
    async fn compare(&self) -> Result<u64> {
        let findings = self.ledger.compare(&self.client, &self.receiver, SOON * 2).await?;
        ensure!(findings.violations.is_empty(), "{:#?}", findings.violations);
        Ok(findings.acked)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_cannot_sync_is_not_acknowledged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut scene = Scene::start(folder.path()).await?;
    let keys = ["a".to_owned(), "b".to_owned()];
    for _ in 0..5 {
        let batch = scene.ledger.next(&keys, 10);
        scene.ledger.offer_once(&scene.client, &batch).await?;
        scene.fail("-wal")?;
        let next = scene.ledger.next(&keys, 10);
        ensure!(!scene.ledger.offer(&scene.client, &next).await, "it is not on the disk");
        // Nobody knows what is on the disk and what is not, so the next process looks.
        scene.recover(&next).await?;
    }
    let acked = scene.compare().await?;
    ensure!(acked == 200, "{acked}");
    Ok(())
}

/// What was folded into a database that could not be synced is folded again by the next process, from the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_database_cannot_be_synced_ends_and_nothing_is_lost() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut scene = Scene::start(folder.path()).await?;
    let keys: Vec<String> = (0..20).map(|key| format!("key-{key}")).collect();
    scene.fail(".db")?;
    // Until the log is long enough to be folded.
    let mut batch = scene.ledger.next(&keys, 20);
    while scene.ledger.offer(&scene.client, &batch).await {
        batch = scene.ledger.next(&keys, 20);
    }
    scene.recover(&batch).await?;
    ensure!(scene.host.log()?.contains("could not be synced"), "{}", scene.host.log()?);
    println!("{} events acknowledged around a database that could not be synced", scene.compare().await?);
    Ok(())
}
