//! Events that others publish in their own way: a Python service to a Redis stream, a Python application to its outbox.
//! The node that reads is killed in the middle, and another goes on.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use bulkhead_tests::cluster::Cluster;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Client;
use serde_json::Value;
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(60);
const ENTRIES: usize = 2_000;
const ORDERS: usize = 900;

/// Runs a client of the folder `clients`; gives what it printed.
async fn client(script: &str, arguments: &[&str]) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = Command::new("/usr/bin/python3");
    let output = command
        .arg(path)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .context("Debian's python3 is not there")?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The numbers in a tenant's events of this type, in the order of the log.
async fn numbers(client: &Client, kind: &str) -> Result<Vec<u64>> {
    let events = client.list(&format!("/v1/events?type={kind}&order=asc")).await?;
    events.iter().map(|event| event["data"]["number"].as_u64().context("an event without a number")).collect()
}

/// Which node runs a source.
async fn runs_at(cluster: &Cluster, source: &str) -> Result<Option<usize>> {
    for (number, node) in cluster.nodes.iter().enumerate() {
        let overview = node.host.operator().get("/admin/v1/overview").await?;
        let sources = overview["sources"].as_array().cloned().unwrap_or_default();
        let reads = |status: &Value| status["name"] == source && status["state"] == "reading";
        if sources.iter().any(reads) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_service_publishes_to_a_stream_and_an_application_to_its_outbox() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("bulkhead.toml");
    std::fs::write(&config, "")?;
    let config_path = config.display().to_string();
    let mut cluster = Cluster::bare()?;
    let shop = cluster.postgres.database()?;
    bulkhead_services::sql(shop.owner_url(), include_str!("../../../deploy/outbox.sql"))?;
    let sources = format!(
        "[[sources]]\nkind = \"redis-stream\"\nname = \"orders\"\ntenant = \"acme\"\nstream = \"platform:orders\"\n\
         [[sources]]\nkind = \"outbox\"\nname = \"shop\"\nurl = \"{}\"\n",
        shop.owner_url()
    );
    std::fs::write(&config, sources)?;
    for _ in 0..2 {
        cluster.join(&[("BULKHEAD_CONFIG", &config_path)]).await?;
    }
    cluster.balanced(2).await?;
    let (acme, globex) = (cluster.tenant("acme").await?, cluster.tenant("globex").await?);

    let url = cluster.redis.url();
    let entries = ENTRIES.to_string();
    let arguments = [url.as_str(), "platform:orders", entries.as_str()];
    let publishing = client("publish_stream.py", &arguments);
    let killing = async {
        let reader = eventually("a node to read the stream", LIMIT, async || runs_at(&cluster, "orders").await).await?;
        eventually("events to arrive", LIMIT, async || Ok((!numbers(&acme, "stream").await?.is_empty()).then_some(())))
            .await?;
        anyhow::Ok(reader)
    };
    let (published, reader) = tokio::join!(publishing, killing);
    assert_eq!(published?, entries);
    let reader = reader?;
    cluster.nodes[reader].host.kill().await?;
    let alive = &cluster.nodes[1 - reader].host;
    let (acme, globex) = (acme.at(alive), globex.at(alive));
    let all = eventually("all entries to arrive", LIMIT, async || {
        let seen = numbers(&acme, "stream").await?;
        ensure!(seen.len() >= ENTRIES, "{} of {ENTRIES}", seen.len());
        Ok(Some(seen))
    })
    .await?;
    let expected: Vec<u64> = (0..ENTRIES as u64).collect();
    assert!(all == expected, "every entry once, in the order of the stream");
    assert!(numbers(&globex, "stream").await?.is_empty(), "whose they are is not for the message to say");

    let committed: usize = client("write_outbox.py", &[shop.owner_url(), &ORDERS.to_string()]).await?.parse()?;
    let (ours, theirs) = eventually("all rows to arrive", LIMIT, async || {
        let seen = (numbers(&acme, "outbox").await?, numbers(&globex, "outbox").await?);
        ensure!(seen.0.len() + seen.1.len() >= committed, "{} and {} of {committed}", seen.0.len(), seen.1.len());
        Ok(Some(seen))
    })
    .await?;
    let kept = |number: &u64| number % 3 != 2;
    let expected = |rest: u64| (0..ORDERS as u64).filter(|number| number % 2 == rest).filter(kept).collect::<Vec<_>>();
    assert_eq!((ours, theirs), (expected(0), expected(1)), "what was rolled back never was");
    let left = bulkhead_services::sql(shop.owner_url(), "SELECT count(*) FROM bulkhead_outbox;")?;
    assert_eq!(left.trim(), "0");
    Ok(())
}
