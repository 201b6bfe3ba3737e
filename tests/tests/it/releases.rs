//! Candidates and previews over several nodes: which node works, and whether one is killed meanwhile, makes no difference.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use bulkhead_tests::cluster::Cluster;
use bulkhead_tests::eventually;
use bulkhead_tests::guest;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::event;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;

const SETTLED: Duration = Duration::from_secs(60);
/// Ordering keys; of so many a half is never none or all.
const KEYS: usize = 40;

/// A tenant with a checker whose runs are tried once. Its clients, by node.
async fn prepare(cluster: &Cluster) -> Result<Vec<Client>> {
    let client = cluster.tenant("acme").await?;
    client.push("checker").await?;
    let steps = json!([{"handle": {"plugin": "checker"}}]);
    client.rule(json!({"name": "check", "on": "steps", "retry": {"attempts": 1}, "steps": steps})).await?;
    Ok(cluster.nodes.iter().map(|node| client.at(&node.host)).collect())
}

async fn stored(client: &Client, wasm: Vec<u8>) -> Result<u64> {
    let (_, manifest) = bulkhead_tests::plugin("checker")?;
    client.store_as("checker", wasm, Some(manifest)).await?["version"].as_u64().context("no version")
}

/// One event for each of these keys, the one half by way of one client, the other by way of the other.
async fn publish(clients: [&Client; 2], round: u64, keys: &[usize]) -> Result<()> {
    let step = |key: &usize| {
        let mut step = event(&format!("{round}-{key}"), "steps", json!({"key": format!("k{key}"), "seq": round}));
        step["partitionkey"] = format!("k{key}").into();
        step
    };
    let (one, other) = keys.split_at(keys.len() / 2);
    clients[0].publish(&one.iter().map(step).collect::<Vec<_>>()).await?;
    clients[1].publish(&other.iter().map(step).collect::<Vec<_>>()).await?;
    Ok(())
}

/// The versions that ended the runs of a round, by key.
async fn versions(client: &Client, round: u64, keys: usize) -> Result<BTreeMap<usize, u64>> {
    eventually(&format!("round {round} to be over"), SETTLED, async || {
        let runs = client.list("/v1/runs").await?;
        let mut found = BTreeMap::new();
        for run in runs.iter().filter(|run| run["state"] == "done" || run["state"] == "parked") {
            let id = run["event"].as_str().context("a run without its event")?;
            if let Some(key) = id.strip_prefix(&format!("{round}-")) {
                found.insert(key.parse()?, run["version"].as_u64().context("a run without its version")?);
            }
        }
        if found.len() == keys { Ok(Some(found)) } else { bail!("{} of {keys} are", found.len()) }
    })
    .await
}

/// The place of the node that works for the tenant.
fn worker(cluster: &Cluster) -> Result<usize> {
    let owners = cluster.ask(
        "SELECT DISTINCT l.owner FROM leases l JOIN progress p ON p.shard = l.shard JOIN tenants t ON t.id = p.tenant
         WHERE t.name = 'acme'",
    )?;
    ensure!(owners.len() == 1, "they are {owners:?}");
    // `node-2-69cc0c40`: what it is called, and its start.
    let number = owners[0].split('-').nth(1).and_then(|number| number.parse::<usize>().ok());
    let number = number.with_context(|| format!("the name of a node is {}", owners[0]))?;
    Ok(number - 1)
}

async fn candidate(client: &Client) -> Result<Value> {
    let plugin = client.get("/v1/plugins/checker").await?;
    Ok(plugin["candidates"][0].clone())
}

/// Waits until so many attempts of both versions are counted.
async fn counted(client: &Client, runs: u64) -> Result<Value> {
    eventually(&format!("{runs} attempts to be counted"), SETTLED, async || {
        let candidate = candidate(client).await?;
        let of = |which: &str| candidate[which]["runs"].as_u64().unwrap_or_default();
        if of("active") + of("candidate") == runs { Ok(Some(candidate.clone())) } else { bail!("{candidate}") }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_the_same_on_every_node_and_taken_back_by_the_sum_of_all() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.balanced(3).await?;
    let clients = prepare(&cluster).await?;
    let all: Vec<usize> = (0..KEYS).collect();
    let (wasm, _) = bulkhead_tests::plugin("checker")?;
    let second = stored(&clients[0], guest::marked(&wasm, 2)).await?;
    let trap = stored(&clients[0], guest::trapper()?).await?;

    // Two nodes after another work on the same keys.
    let start = json!({"version": second, "percent": 50, "min_runs": 1_000});
    clients[0].expect(201, Method::POST, "/v1/plugins/checker/canary", Some(start)).await?;
    publish([&clients[0], &clients[1]], 1, &all).await?;
    let before = versions(&clients[0], 1, KEYS).await?;
    let chosen: Vec<usize> = all.iter().copied().filter(|key| before[key] == second).collect();
    ensure!(!chosen.is_empty() && chosen.len() < KEYS, "{before:?}");
    counted(&clients[1], KEYS as u64).await?;
    let first_worker = worker(&cluster)?;
    cluster.nodes[first_worker].host.terminate().await?;
    let left: Vec<usize> = (0..3).filter(|node| *node != first_worker).collect();
    let (here, there) = (&clients[left[0]], &clients[left[1]]);
    publish([here, there], 2, &all).await?;
    assert_eq!(versions(there, 2, KEYS).await?, before, "the same keys on another node");
    ensure!(worker(&cluster)? != first_worker);
    let sum = counted(here, 2 * KEYS as u64).await?;
    assert_eq!(sum["candidate"]["runs"], 2 * chosen.len(), "both nodes' counts: {sum}");
    here.expect(200, Method::DELETE, "/v1/plugins/checker/canary", None).await?;

    // What fails is taken back once both nodes' failures are enough, and no earlier.
    let failing = chosen.len();
    let start = json!({"version": trap, "percent": 50, "min_runs": failing});
    here.expect(201, Method::POST, "/v1/plugins/checker/canary", Some(start)).await?;
    let (some, rest) = chosen.split_at(failing / 2);
    publish([here, there], 3, some).await?;
    ensure!(versions(there, 3, some.len()).await?.values().all(|version| *version == trap));
    counted(there, some.len() as u64).await?;
    let second_worker = worker(&cluster)?;
    cluster.nodes[second_worker].host.kill().await?;
    let last = &clients[*left.iter().find(|node| **node != second_worker).context("nobody is left")?];
    publish([last, last], 4, rest).await?;
    let ended = eventually("the canary to be taken back", SETTLED, async || {
        let history = last.list("/v1/plugins/checker/history").await?;
        let ended = history.into_iter().find(|entry| entry["action"] == "canary-ended" && entry["version"] == trap);
        Ok(ended)
    })
    .await?;
    assert_eq!((&ended["author"], &ended["detail"]["reason"]), (&json!("host"), &json!("rolled-back")), "{ended}");
    assert_eq!(ended["detail"]["tally"]["candidate"]["failed"], failing, "{ended}");
    publish([last, last], 5, &chosen).await?;
    let after: BTreeSet<u64> = versions(last, 5, failing).await?.into_values().collect();
    assert_eq!(after, BTreeSet::from([1]), "all events go to the active version");
    Ok(())
}

/// Everything that a preview or a shadow must leave as it was.
async fn traces(client: &Client) -> Result<Value> {
    let mut state = Vec::new();
    for key in client.list("/v1/plugins/checker/state").await? {
        let name = key["key"].as_str().context("a key without its name")?.to_owned();
        state.push((client.number("checker", &name).await?, name));
    }
    let mut runs: Vec<Value> = client.list("/v1/runs").await?;
    runs.iter_mut().for_each(|run| *run = json!([run["id"], run["state"], run["version"]]));
    Ok(json!({
        "state": state,
        "events": client.list("/v1/events").await?.len(),
        "runs": runs,
        "active": client.get("/v1/plugins/checker").await?["active"],
        "previews": client.get("/v1/plugins/checker/policy").await?["previews"],
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_in_a_preview_leaves_nothing_behind() -> Result<()> {
    let mut cluster = Cluster::start(2).await?;
    cluster.balanced(2).await?;
    let clients = prepare(&cluster).await?;
    let all: Vec<usize> = (0..KEYS).collect();
    publish([&clients[0], &clients[1]], 1, &all).await?;
    versions(&clients[0], 1, KEYS).await?;
    let burner = stored(&clients[0], guest::burner()?).await?;
    let before = traces(&clients[0]).await?;

    let path = "/v1/plugins/checker/preview";
    let long = tokio::spawn({
        let client = clients[1].clone();
        async move {
            // Whoever only asks whether it is under way may have the place first.
            loop {
                match client.send(Method::POST, path, Some(json!({"version": burner}))).await {
                    Ok((503, _)) => {}
                    other => return other,
                }
            }
        }
    });
    eventually("the preview to be under way", SETTLED, async || {
        ensure!(!long.is_finished(), "it is over already");
        let (status, _) = clients[1].send(Method::POST, path, Some(json!({"version": 1, "last": 1}))).await?;
        Ok((status == 503).then_some(()))
    })
    .await?;
    let mut before = before;
    // What was asked meanwhile is remembered as every preview is; the long one is not.
    before["previews"] = clients[0].get("/v1/plugins/checker/policy").await?["previews"].clone();
    cluster.nodes[1].host.kill().await?;
    ensure!(long.await?.is_err(), "nobody answers any more");

    cluster.balanced(1).await?;
    assert_eq!(traces(&clients[0]).await?, before, "nothing may come of it");
    let remembered = before["previews"].to_string();
    ensure!(!remembered.contains(&format!("\"version\":{burner}")), "{remembered}");
    // The other node previews and works.
    let report = clients[0].expect(200, Method::POST, path, Some(json!({"version": burner, "last": 1}))).await?;
    assert_eq!(report["groups"]["new_failure"]["count"], 1, "{report}");
    publish([&clients[0], &clients[0]], 2, &all).await?;
    let worked: BTreeSet<u64> = versions(&clients[0], 2, KEYS).await?.into_values().collect();
    assert_eq!(worked, BTreeSet::from([1]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_in_a_shadow_leaves_nothing_behind() -> Result<()> {
    let mut cluster = Cluster::start(2).await?;
    cluster.balanced(2).await?;
    let clients = prepare(&cluster).await?;
    let all: Vec<usize> = (0..KEYS).collect();
    let burner = stored(&clients[0], guest::burner()?).await?;
    let body = json!({"version": burner});
    clients[0].expect(201, Method::POST, "/v1/plugins/checker/shadow", Some(body)).await?;
    publish([&clients[0], &clients[1]], 1, &all).await?;
    // The first of several is compared, and each of them takes its time: the next one is at work or waits.
    let compared = async |client: &Client, more: u64| {
        eventually("a run to be made again", SETTLED, async || {
            let runs = candidate(client).await?["candidate"]["runs"].as_u64().unwrap_or_default();
            Ok((runs >= more).then_some(runs))
        })
        .await
    };
    compared(&clients[0], 1).await?;
    let killed = worker(&cluster)?;
    let left = &clients[1 - killed];
    cluster.nodes[killed].host.kill().await?;
    cluster.balanced(1).await?;

    let done: BTreeSet<u64> = versions(left, 1, KEYS).await?.into_values().collect();
    assert_eq!(done, BTreeSet::from([1]), "all by the active version");
    let seen = compared(left, 1).await?;
    publish([left, left], 2, &all).await?;
    let done: BTreeSet<u64> = versions(left, 2, KEYS).await?.into_values().collect();
    assert_eq!(done, BTreeSet::from([1]));
    compared(left, seen + 1).await?;
    for key in 0..KEYS {
        assert_eq!(left.number("checker", &format!("count:k{key}")).await?, 2, "once each");
        assert_eq!(left.number("checker", &format!("disorder:k{key}")).await?, 0);
    }
    let ended = left.expect(200, Method::DELETE, "/v1/plugins/checker/shadow", None).await?;
    assert_eq!(ended["version"], burner, "{ended}");
    assert!(candidate(left).await?.is_null(), "nothing is under way");
    Ok(())
}
