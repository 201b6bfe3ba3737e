//! Postgres hangs: it neither answers nor refuses. Whoever uploads or promotes meanwhile is told in time to come back,
//! nothing of it was done, and later the same request is.

use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::ensure;
use bulkhead_tests::cluster::Cluster;
use bulkhead_tests::eventually;
use bulkhead_tests::guest;
use bulkhead_tests::host::Client;
use reqwest::Method;
use reqwest::RequestBuilder;
use serde_json::Value;
use serde_json::json;
use tokio::task::JoinHandle;

/// An answer comes within this time, whatever has become of Postgres.
const BOUND: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_secs(60);

/// When Postgres begins to hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before anything was asked of it.
    Before,
    /// In the middle of the transaction.
    Midway,
}

const MOMENTS: [Moment; 2] = [Moment::Before, Moment::Midway];

/// Keeps a transaction that changes tenants' settings from going on.
struct Lock(JoinHandle<()>);

impl Lock {
    async fn hold(cluster: &Cluster) -> Result<Self> {
        let script = "SET application_name = 'lock'; BEGIN; SELECT 1 FROM bulkhead.tenants FOR NO KEY UPDATE;
                      SELECT pg_sleep(600);";
        let url = cluster.owner_url().to_owned();
        // It ends by force, which is its only way to end.
        let holder = tokio::task::spawn_blocking(move || drop(bulkhead_services::sql(&url, script)));
        eventually("the tenants to be locked", SETTLED, async || {
            let sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'lock' AND query LIKE '%pg_sleep(600)%'";
            Ok(cluster.ask(sql)?.first().map(drop))
        })
        .await?;
        Ok(Self(holder))
    }

    /// Waits until somebody waits for it.
    async fn wanted(&self, cluster: &Cluster) -> Result<()> {
        eventually("the transaction to wait", SETTLED, async || {
            let sql =
                "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'bulkhead %' AND wait_event_type = 'Lock'";
            Ok(cluster.ask(sql)?.first().map(drop))
        })
        .await
    }

    async fn release(self, cluster: &Cluster) -> Result<()> {
        cluster.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lock'")?;
        Ok(self.0.await?)
    }
}

/// All that uploads and promotions write.
fn written(cluster: &Cluster) -> Result<Vec<String>> {
    cluster.ask(
        "SELECT (SELECT count(*) FROM plugin_versions), (SELECT count(*) FROM blobs), (SELECT count(*) FROM rollouts),
                (SELECT count(*) FROM plugin_history), (SELECT max(settings) FROM tenants),
                (SELECT string_agg(name || ' ' || coalesce(active, 0), ',' ORDER BY name) FROM plugins)",
    )
}

/// Sends a request into a Postgres that hangs, and mends it when the request was answered.
async fn refused_in_time(cluster: &Cluster, request: RequestBuilder, moment: Moment) -> Result<()> {
    let wire = &cluster.nodes[0].wire;
    let before = written(cluster)?;
    let (asked, began) = match moment {
        Moment::Before => {
            wire.cut();
            (tokio::spawn(request.send()), Instant::now())
        }
        Moment::Midway => {
            let lock = Lock::hold(cluster).await?;
            let asked = (tokio::spawn(request.send()), Instant::now());
            lock.wanted(cluster).await?;
            wire.cut();
            // The server goes on, and what it answers arrives too late.
            lock.release(cluster).await?;
            asked
        }
    };
    let answer = asked.await??;
    let took = began.elapsed();
    println!("{moment:?}: {} after {took:?}", answer.status());
    ensure!(took < BOUND, "{moment:?}: answered after {took:?}");
    assert_eq!(answer.status(), 503, "{moment:?}");
    let again: u64 = answer.headers()["retry-after"].to_str()?.parse()?;
    assert!((1..=60).contains(&again), "{again}");
    let problem: Value = answer.json().await?;
    assert_eq!(problem["code"], "store-unavailable", "{problem}");

    wire.heal();
    let client = cluster.nodes[0].host.operator();
    eventually("the node to be ready", SETTLED, async || {
        Ok((client.anonymous(Method::GET, "/readyz").send().await?.status() == 200).then_some(()))
    })
    .await?;
    eventually("no transaction to be left open", SETTLED, async || {
        let sql = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'bulkhead %' AND state LIKE 'idle in%'";
        Ok(cluster.ask(sql)?.is_empty().then_some(()))
    })
    .await?;
    assert_eq!(written(cluster)?, before, "{moment:?}: what was refused was not done");
    Ok(())
}

async fn one_node() -> Result<(Cluster, Client)> {
    let cluster = Cluster::start(1).await?;
    cluster.balanced(1).await?;
    let client = cluster.tenant("acme").await?;
    client.push("checker").await?;
    Ok((cluster, client))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_while_postgres_hangs_is_refused_in_time_and_goes_through_later() -> Result<()> {
    let (cluster, client) = one_node().await?;
    let (wasm, _) = bulkhead_tests::plugin("checker")?;
    for (moment, number) in MOMENTS.into_iter().zip(2..) {
        let upload = || {
            let request = client.request(Method::PUT, "/v1/plugins/checker?activate=true");
            request.header("content-type", "application/wasm").body(guest::marked(&wasm, number))
        };
        refused_in_time(&cluster, upload(), moment).await?;
        let answer = upload().send().await?;
        let status = answer.status();
        let uploaded: Value = answer.json().await?;
        assert_eq!(
            (status.as_u16(), &uploaded["version"], &uploaded["state"]),
            (201, &json!(number), &json!("active")),
            "{uploaded}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_while_postgres_hangs_is_refused_in_time_and_goes_through_later() -> Result<()> {
    let (cluster, client) = one_node().await?;
    let (wasm, manifest) = bulkhead_tests::plugin("checker")?;
    for (moment, number) in MOMENTS.into_iter().zip(2..) {
        let stored = client.store_as("checker", guest::marked(&wasm, number), Some(manifest.clone())).await?;
        assert_eq!(stored["version"], number, "{stored}");
        let canary = json!({"version": number, "percent": 50, "min_runs": 1_000});
        client.expect(201, Method::POST, "/v1/plugins/checker/canary", Some(canary)).await?;

        let promotion = || client.request(Method::POST, "/v1/plugins/checker/canary/promote");
        refused_in_time(&cluster, promotion(), moment).await?;
        let plugin = client.get("/v1/plugins/checker").await?;
        assert_eq!(plugin["candidates"][0]["version"], number, "the canary goes on: {plugin}");
        assert_eq!(promotion().send().await?.status(), 200);
        let plugin = client.get("/v1/plugins/checker").await?;
        assert_eq!((&plugin["active"], plugin["candidates"][0].is_null()), (&json!(number), true), "{plugin}");
    }
    Ok(())
}
