//! The flight recorder from outside: a run is replayed and captured by the command line, and is nobody else's.

use std::path::Path;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::Settings;
use bulkhead_tests::host::event;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;
use tokio::process::Command;

/// A first use compiles the component.
const PATIENCE: Duration = Duration::from_secs(120);

/// The command line, with a tenant's key.
async fn bulkhead(folder: &Path, client: &Client, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(bulkhead_tests::binary()?);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command.env("NO_COLOR", "1").env("XDG_CACHE_HOME", folder.join("cache"));
    command.env("BULKHEAD_URL", client.address()).env("BULKHEAD_KEY", client.key());
    let output = tokio::time::timeout(PATIENCE, command.output());
    output.await.with_context(|| format!("{arguments:?} did not end"))?.map_err(Into::into)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A host that records every run.
async fn host(folder: &Path) -> Result<Host> {
    let environment = vec![("BULKHEAD_RECORDER_SAMPLE".to_owned(), "1".to_owned())];
    Host::start_as(folder, Settings { environment, ..Settings::default() }).await
}

async fn run_of(client: &Client, id: &str, rule: &str, state: &str) -> Result<String> {
    let run = client.run_in(id, rule, state).await?;
    run["id"].as_str().map(str::to_owned).context("a run without an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_replayed_and_captured_from_the_command_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = host(folder.path()).await?;
    let client = host.tenant("acme").await?;
    client.push("fraud-score").await?;
    client.rule(json!({"name": "score", "on": "orders", "steps": [{"handle": {"plugin": "fraud-score"}}]})).await?;
    let order =
        json!({"id": "A-1", "total": 1250.5, "customer": {"id": "c-1", "email": "ann@example.org", "country": "DE"}});
    client.publish(&[event("e-1", "orders", order)]).await?;
    let run = run_of(&client, "e-1", "score", "done").await?;

    let same = bulkhead(folder.path(), &client, &["plugin", "replay", &run]).await?;
    ensure!(
        same.status.code() == Some(0) && text(&same).starts_with("identical: effects, logs, fuel "),
        "{}",
        text(&same)
    );

    // Another plugin stands for another build.
    let (other, _) = bulkhead_tests::plugin("usage-meter")?;
    std::fs::write(folder.path().join("other.wasm"), other)?;
    let different =
        bulkhead(folder.path(), &client, &["plugin", "replay", &run, "--component", "other.wasm", "-o", "json"])
            .await?;
    ensure!(different.status.code() == Some(1), "{}", text(&different));
    let report: Value = serde_json::from_slice(&different.stdout)?;
    ensure!(report["identical"] == false && report["difference"]["fuel"].is_object(), "{report}");

    // The fixture that it becomes passes where the plugin is.
    let project = folder.path().join("project");
    std::fs::create_dir_all(project.join("tests"))?;
    let (wasm, manifest) = bulkhead_tests::plugin("fraud-score")?;
    std::fs::write(project.join("built.wasm"), wasm)?;
    let manifest =
        manifest.split("[build]").next().unwrap_or_default().to_owned() + "[build]\nartifact = \"built.wasm\"\n";
    std::fs::write(project.join("plugin.toml"), manifest)?;
    let captured = bulkhead(&project, &client, &["plugin", "capture", &run, "-o", "tests/captured.json"]).await?;
    ensure!(captured.status.success(), "{}", text(&captured));
    let tested = bulkhead(&project, &client, &["plugin", "test"]).await?;
    ensure!(tested.status.success(), "{}", text(&tested));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_recorded_and_recordings_are_the_tenants_own() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    client.push("always-fails").await?;
    client.rule(json!({"name": "fail", "on": "fails", "steps": [{"handle": {"plugin": "always-fails"}}]})).await?;
    client.publish(&[event("e-1", "fails", json!({"a": 1}))]).await?;
    let run = run_of(&client, "e-1", "fail", "parked").await?;
    let recording = client.get(&format!("/v1/runs/{run}/recording")).await?;
    ensure!(recording["ended"]["outcome"]["code"] == "plugin:reject", "{recording}");
    ensure!(recording["event"]["data"]["text"] == "{\"a\":1}", "{recording}");
    let heads = client.list("/v1/plugins/always-fails/recordings").await?;
    ensure!(heads.len() == 1 && heads[0]["run"] == run.as_str(), "{heads:?}");
    client.expect(404, Method::GET, &format!("/v1/runs/{run}/recording?attempt=2"), None).await?;
    client.expect(404, Method::GET, "/v1/runs/nothing/recording", None).await?;
    client.expect(404, Method::GET, "/v1/plugins/nothing/recordings", None).await?;

    let other = host.tenant("other").await?;
    other.push("always-fails").await?;
    other.expect(404, Method::GET, &format!("/v1/runs/{run}/recording"), None).await?;
    ensure!(other.list("/v1/plugins/always-fails/recordings").await?.is_empty());
    let (publisher, _) = host.key("acme", &["publish"]).await?;
    publisher.expect(403, Method::GET, &format!("/v1/runs/{run}/recording"), None).await?;

    let replayed = bulkhead(folder.path(), &client, &["plugin", "replay", &run]).await?;
    ensure!(replayed.status.success() && text(&replayed).contains("identical"), "{}", text(&replayed));
    Ok(())
}
