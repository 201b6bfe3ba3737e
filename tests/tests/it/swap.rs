//! Changes while events flow: of a plugin's version, of a watched file, of the rules. Nothing is lost, nothing repeated.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use bulkhead_tests::eventually;
use bulkhead_tests::guest;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::ledger::Ledger;
use bulkhead_tests::receiver::Receiver;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;
use tokio::task::JoinHandle;

const SETTLED: Duration = Duration::from_secs(90);

/// A publisher that goes on until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Ledger>>,
}

impl Load {
    fn start(client: &Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, until) = (client.clone(), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let keys: Vec<String> = (0..10).map(|key| format!("key-{key}")).collect();
            let mut ledger = Ledger::default();
            while !until.load(Ordering::Relaxed) {
                let batch = ledger.next(&keys, 2);
                if !ledger.offer(&client, &batch).await {
                    bail!("a batch was not taken");
                }
                // A pace that deliveries keep up with; how much flows is not the question here.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(ledger)
        });
        Self { stop, task }
    }

    async fn stop(self) -> Result<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

/// Waits until so many more events are counted: something flows between two changes.
async fn flows(client: &Client, more: u64) -> Result<()> {
    let before = client.number("checker", "count:key-0").await?;
    eventually("events to flow", Duration::from_secs(30), async || {
        let now = client.number("checker", "count:key-0").await?;
        Ok((now >= before + more).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn swapping_versions_under_load_drops_and_doubles_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let receiver = Receiver::start().await?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    Ledger::prepare(&client, &receiver).await?;
    let (wasm, manifest) = bulkhead_tests::plugin("checker")?;
    let load = Load::start(&client);
    for version in 2..=9 {
        flows(&client, 3).await?;
        let pushed = client.push_as("checker", guest::marked(&wasm, version), Some(manifest.clone())).await?;
        assert_eq!((&pushed["version"], &pushed["state"]), (&json!(version), &json!("active")), "{pushed}");
        if version % 3 == 0 {
            flows(&client, 3).await?;
            client.expect(200, Method::POST, "/v1/plugins/checker/rollback", Some(json!({}))).await?;
        }
        if version % 4 == 0 {
            client.expect_any(Method::POST, "/v1/plugins/checker/pause", Some(json!({}))).await?;
            client.expect_any(Method::POST, "/v1/plugins/checker/resume", Some(json!({}))).await?;
        }
    }
    flows(&client, 3).await?;
    let ledger = load.stop().await?;
    let findings = ledger.compare(&client, &receiver, SETTLED).await?;
    assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
    let mut versions: Vec<u64> =
        client.list("/v1/runs?state=done").await?.iter().filter_map(|run| run["version"].as_u64()).collect();
    versions.sort_unstable();
    versions.dedup();
    println!("{} events, counted by versions {versions:?}", findings.acked);
    assert_eq!(versions.len(), 9, "every version has worked: {versions:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn editing_rules_under_load_loses_and_repeats_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let receiver = Receiver::start().await?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    Ledger::prepare(&client, &receiver).await?;
    let load = Load::start(&client);
    for edit in 0..20 {
        flows(&client, 2).await?;
        let mut rule = Ledger::rule();
        rule["description"] = format!("edit {edit}").into();
        rule["where"] = format!("data.seq > {}", -edit).into();
        let answer = client.rule(rule).await?;
        let number = answer["rule_set"].as_u64().context("no number")?;
        match edit % 4 {
            0 => {
                _ = client
                    .rule(json!({"name": format!("other-{edit}"), "on": "nothing", "steps": [{"emit": "x"}]}))
                    .await?
            }
            1 => {
                let path = format!("/v1/rule-sets/{}/restore", number - 1);
                client.expect_any(Method::POST, &path, Some(json!({}))).await?;
            }
            2 => {
                client.expect_any(Method::POST, "/v1/rules/check/pause", Some(json!({}))).await?;
                client.expect_any(Method::POST, "/v1/rules/check/resume", Some(json!({}))).await?;
            }
            _ => {
                client.expect_any(Method::POST, "/v1/pause", Some(json!({}))).await?;
                client.expect_any(Method::POST, "/v1/resume", Some(json!({}))).await?;
            }
        }
    }
    let ledger = load.stop().await?;
    let findings = ledger.compare(&client, &receiver, SETTLED).await?;
    assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
    assert!(client.list("/v1/parked").await?.is_empty());
    println!("{} events under 20 edits", findings.acked);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_what_has_changed_meanwhile_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    let rule = |to: &str| json!({"name": "one", "on": "a", "steps": [{"emit": to}]});
    let first = client.rule(rule("b")).await?["rule_set"].as_u64().context("no number")?;
    let put = async |to: &str, guard: u64| -> Result<(u16, Value)> {
        let request = client.request(Method::PUT, "/v1/rules/one").header("if-match", format!("\"{guard}\""));
        let answer = request.json(&rule(to)).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    };
    let (status, answer) = put("c", first).await?;
    assert_eq!(status, 200, "{answer}");
    let (status, problem) = put("d", first).await?;
    assert_eq!((status, &problem["code"]), (412, &json!("precondition-failed")), "{problem}");
    let restored = client.expect_any(Method::POST, &format!("/v1/rule-sets/{first}/restore"), Some(json!({}))).await?;
    assert!(restored["rule_set"].as_u64() > answer["rule_set"].as_u64(), "an old set comes back under a new number");
    let rules = client.list("/v1/rules").await?;
    assert!(rules[0].to_string().contains("\"b\""), "{rules:?}");
    Ok(())
}

/// A plugin's files in the watched folder.
struct Files {
    folder: PathBuf,
    client: Client,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    async fn plugin(&self) -> Result<Value> {
        self.client.get("/v1/plugins/checker").await
    }

    /// Waits until this version is active; says how long that took.
    async fn active(&self, version: u64, since: Instant) -> Result<Duration> {
        eventually(&format!("version {version} to be active"), Duration::from_secs(20), async || {
            let plugin = self.plugin().await?;
            if plugin["active"] != version {
                bail!("{plugin}");
            }
            Ok(Some(since.elapsed()))
        })
        .await
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn watched_files_become_versions() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let watched = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), &["--plugins-dir", &watched.path().display().to_string()]).await?;
    let client = host.tenant("acme").await?;
    let files = Files { folder: watched.path().join("acme"), client: client.clone() };
    std::fs::create_dir(&files.folder)?;
    let (wasm, manifest) = bulkhead_tests::plugin("checker")?;
    let component = files.path("checker.wasm");
    let mut times = Vec::new();

    // New. The manifest first, as anybody would who has read that it stands beside.
    write(&files.path("checker.toml"), manifest.as_bytes())?;
    write(&component, &wasm)?;
    times.push(("new", files.active(1, Instant::now()).await?));
    client.rule(json!({"name": "check", "on": "steps", "order": "key", "steps": [{"handle": "checker"}]})).await?;

    // Changed in place.
    write(&component, &guest::marked(&wasm, 2))?;
    times.push(("changed", files.active(2, Instant::now()).await?));

    // Written beside it and renamed into place.
    write(&files.path(".checker.wasm.part"), &guest::marked(&wasm, 3))?;
    std::fs::rename(files.path(".checker.wasm.part"), &component)?;
    times.push(("renamed", files.active(3, Instant::now()).await?));

    // Written slowly: no part of it is taken for the whole.
    let slow = guest::marked(&wasm, 4);
    let mut file = tokio::fs::File::create(&component).await?;
    for piece in slow.chunks(slow.len() / 12) {
        tokio::io::AsyncWriteExt::write_all(&mut file, piece).await?;
        tokio::io::AsyncWriteExt::flush(&mut file).await?;
        // That is how slow the writer is.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(files.plugin().await?["active"].as_u64() >= Some(3));
    }
    drop(file);
    times.push(("slowly", files.active(4, Instant::now()).await?));

    // Broken: what runs goes on running, and it says why.
    write(&component, b"\0asm this is none")?;
    let refusal = eventually("the refusal to be shown", Duration::from_secs(20), async || {
        let plugin = files.plugin().await?;
        let refused = ["refused", "refusal", "file"].iter().map(|name| plugin[*name].clone()).find(|it| !it.is_null());
        Ok(refused)
    })
    .await?;
    assert!(refusal["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{refusal}");
    assert_eq!(files.plugin().await?["active"], 4);
    assert!(host.log()?.contains("refused"), "the log says so, too");

    // Removed: that retires nothing.
    std::fs::remove_file(&component)?;
    let mut step = bulkhead_tests::host::event("k-1", "steps", json!({"key": "k", "seq": 1}));
    step["partitionkey"] = "k".into();
    client.publish(&[step]).await?;
    let run = client.run_in("k-1", "check", "done").await?;
    assert_eq!(run["version"], 4, "{run}");

    // There again, and whole; the refusal is over.
    write(&component, &guest::marked(&wasm, 5))?;
    times.push(("mended", files.active(5, Instant::now()).await?));
    let plugin = files.plugin().await?;
    assert!(["refused", "refusal", "file"].iter().all(|name| plugin[*name].is_null()), "{plugin}");

    // A folder of nobody, and odd names, do no harm.
    std::fs::create_dir(watched.path().join("nobody"))?;
    write(&watched.path().join("nobody/x.wasm"), &wasm)?;
    write(&files.path("Not A Name.wasm"), &wasm)?;
    let names = client.list("/v1/plugins").await?;
    assert_eq!(names.len(), 1, "{names:?}");
    println!("from the end of writing to active: {times:?}");
    // Half a second where nothing else goes on; a machine that builds something meanwhile takes its time.
    for (how, time) in times {
        assert!(time < Duration::from_secs(5), "{how} took {time:?}");
    }
    Ok(())
}
