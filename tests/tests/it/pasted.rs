//! A plugin from text: JavaScript is sent, and events are handled by it, without a toolchain anywhere.

use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::event;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;
use tokio::process::Command;

const LONG: Duration = Duration::from_secs(30);

const MANIFEST: &str = "[plugin]\nname = \"tenth\"\n[grants]\nemit = [\"orders.*\"]\n";

const SOURCE: &str = r#"
function handle(event) {
  const nth = state.increment("orders");
  console.log("order", nth);
  if (nth % 2 === 0) effects.emit({ type: "orders.second", data: { nth, order: event.json().id } });
}"#;

async fn paste(client: &Client, source: &str, status: u16) -> Result<Value> {
    let body = json!({"source": source, "manifest": MANIFEST});
    client.expect(status, Method::POST, "/v1/plugins/tenth/source?activate=true", Some(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_function_handles_events_and_its_next_version_takes_over() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;

    let began = Instant::now();
    let first = paste(&client, SOURCE, 201).await?;
    println!("pasted and active after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(
        (&first["version"], &first["state"], &first["exports"]),
        (&json!(1), &json!("active"), &json!(["handler"]))
    );
    let again = paste(&client, SOURCE, 200).await?;
    assert_eq!((&again["version"], &again["existed"], &again["digest"]), (&json!(1), &json!(true), &first["digest"]));

    client.rule(json!({"name": "tenth", "on": ["orders.created"], "steps": [{"handle": {"plugin": "tenth"}}]})).await?;
    client
        .publish(&[event("a", "orders.created", json!({"id": "A"})), event("b", "orders.created", json!({"id": "B"}))])
        .await?;
    let second = eventually("the emitted event", LONG, async || {
        Ok(client.list("/v1/events?type=orders.second").await?.first().cloned())
    })
    .await?;
    assert_eq!(second["data"]["nth"], 2, "{second}");

    let other = paste(&client, "function handle() { throw new Reject('no more'); }", 201).await?;
    assert_eq!(other["version"], 2);
    assert_ne!(other["digest"], first["digest"]);
    client.publish(&[event("c", "orders.created", json!({"id": "C"}))]).await?;
    let run = client.run_in("c", "tenth", "parked").await?;
    assert!(run.to_string().contains("no more"), "{run}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_answered_with_its_place() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;

    let problem = paste(&client, "function handle(event) {\n  let x = ;\n}", 422).await?;
    assert_eq!((&problem["code"], &problem["reason"]), (&json!("plugin-refused"), &json!("rejected_upload:source")));
    let fault = &problem["errors"][0];
    assert_eq!((&fault["line"], &fault["column"]), (&json!(2), &json!(11)), "{problem}");
    assert_eq!(fault["excerpt"], "  let x = ;\n          ^");
    for (source, says) in [
        ("const greet = 1;", "neither a function `handle` nor a function `transform`"),
        ("for (;;);", "fuel"),
        ("effects.emit({ type: 'orders.x' }); function handle() {}", "denied"),
    ] {
        let problem = paste(&client, source, 422).await?;
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{problem}");
    }
    let (status, _) = client.send(Method::GET, "/v1/plugins/tenth", None).await?;
    assert_eq!(status, 404, "what was refused is not there");

    let request = client.request(Method::POST, "/v1/plugins/tenth/source").header("content-type", "text/javascript");
    let answer = request.body("x".repeat(300 << 10)).send().await?;
    assert_eq!(answer.status(), 413);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_ceiling_cut_from_a_manifest_is_refused_with_word_of_the_operator() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    let ceiling = json!({"emit": ["audit.*"]});
    host.operator().expect(200, Method::PUT, "/admin/v1/tenants/acme/grants", Some(ceiling)).await?;
    paste(&client, "function handle() { effects.emit({ type: 'orders.second' }); }", 201).await?;
    client.rule(json!({"name": "tenth", "on": ["orders.created"], "steps": [{"handle": {"plugin": "tenth"}}]})).await?;
    client.publish(&[event("a", "orders.created", json!({}))]).await?;
    let run = client.run_in("a", "tenth", "parked").await?.to_string();
    assert!(run.contains("emitting `orders.second` is not granted"), "{run}");
    assert!(run.contains("a ceiling cut it: ask the operator"), "{run}");
    let version = client.get("/v1/plugins/tenth/versions/1").await?;
    assert_eq!(version["cut"], json!([{"grant": "emit orders.*", "by": "tenant"}]), "{version}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_pushes_a_file_of_javascript() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    let file = folder.path().join("tenth.js");
    // A module of one file is taken as it is.
    std::fs::write(
        &file,
        format!("import {{ effects, state }} from \"bulkhead-plugin\";\nexport {}", SOURCE.trim_start()),
    )?;
    std::fs::write(folder.path().join("tenth.toml"), MANIFEST)?;
    let output = Command::new(bulkhead_tests::binary()?)
        .args(["plugin", "push", "--activate"])
        .arg(&file)
        .env("BULKHEAD_URL", &host.url)
        .env("BULKHEAD_KEY", client.key())
        .stdin(Stdio::null())
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("version 1 is active"), "{said}");
    let shown = client.get("/v1/plugins/tenth").await?;
    assert_eq!(shown["versions"][0]["grants"]["emit"], json!(["orders.*"]), "{shown}");
    shown["digest"].as_str().context("no digest").map(drop)
}

const PAGE: &str = include_str!("../../../docs/plugins-javascript.md");

/// The first block of a language in the part of the page that is about pasting.
fn block(language: &str) -> Result<&'static str> {
    let (_, part) = PAGE.split_once("\n## Without a toolchain").context("the page has no such part")?;
    let (_, block) = part.split_once(&format!("\n```{language}\n")).context("the part has no such block")?;
    block.split_once("```").map(|(block, _)| block).context("the block is not closed")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_about_pasting_shows_works() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    std::fs::write(folder.path().join("tenth.js"), block("js")?)?;
    std::fs::write(folder.path().join("tenth.toml"), block("toml")?)?;
    let command = block("sh")?.trim().strip_prefix("bulkhead ").context("the page has another command by now")?;
    let output = Command::new(bulkhead_tests::binary()?)
        .args(command.split(' '))
        .current_dir(folder.path())
        .env("BULKHEAD_URL", &host.url)
        .env("BULKHEAD_KEY", client.key())
        .stdin(Stdio::null())
        .output()
        .await?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let orders: Vec<Value> = (0..10).map(|at| event(&format!("o-{at}"), "orders.created", json!({}))).collect();
    client.publish(&orders).await?;
    let tenth = eventually("the tenth order", LONG, async || {
        Ok(client.list("/v1/events?type=orders.tenth").await?.first().cloned())
    })
    .await?;
    assert_eq!(tenth["data"], json!({"nth": 10}));
    Ok(())
}
