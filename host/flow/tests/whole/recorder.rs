//! The flight recorder: what calls saw is written down with their runs, and re-executed it is the same, for every example
//! plugin there is.

use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::RunId;
use bulkhead_domain::recording::Read;
use bulkhead_domain::recording::Recording;
use bulkhead_flow::dispatch::recorder::Options;
use bulkhead_flow::inbox::Envelope;
use bulkhead_store::catalogue::Tenant;
use bulkhead_store::recordings::Head;
use bulkhead_store::work::RunState;
use serde_json::Value;
use serde_json::json;

use crate::fixture::Host;

/// Recorded runs of each plugin.
const RUNS: u32 = 1_000;
/// How long they may take: interpreters are made anew for each.
const PATIENCE: Duration = Duration::from_secs(600);
/// All runs, and all of them kept.
const ALL: Options = Options { sample: 1.0, bytes: 1 << 20, count_max: RUNS, bytes_max: 1 << 30 };
/// Plugins of which nothing can be had here: made by others' tools, or in need of others' hosts.
const ELSEWHERE: [&str; 5] = ["foreign-c", "foreign-python", "foreign-starling", "foreign-starling0", "http-caller"];

fn folder() -> PathBuf {
    std::env::var_os("BULKHEAD_PLUGINS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins"), PathBuf::from)
}

/// The example plugins that are built, with their manifests.
fn examples() -> Vec<(String, Value)> {
    let files = std::fs::read_dir(folder()).expect("because `cargo xtask guest` made it");
    let mut found = Vec::new();
    for file in files {
        let path = file.expect("because it can be listed").path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|ending| ending == "toml") && !ELSEWHERE.contains(&name.as_str()) {
            let text = std::fs::read_to_string(&path).expect("because it was listed");
            found.push((name, toml::from_str(&text).expect("because manifests are TOML")));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

/// An event that each of the examples can do something with; some of them are wrong.
fn event(number: u32) -> Value {
    let customer = format!("c-{}", number % 7);
    json!({
        "specversion": "1.0", "id": format!("e{number}"), "source": "/test", "type": "orders.created",
        "partitionkey": customer, "subject": format!("order-{number}"),
        "data": {
            "id": format!("A-{number}"), "key": customer, "seq": number / 7 + 1, "name": customer,
            "total": f64::from(number % 97) * 12.5 - 3.0, "currency": "EUR", "rate": 0.5, "channel": "web", "product": customer,
            "customer": {"id": customer, "email": format!("{customer}@example.org"), "country": "DE"},
            "items": [{"sku": "KB-87", "quantity": number % 4 + 1, "price": 89.0},
                      {"sku": if number.is_multiple_of(11) { "?" } else { "MS-12" }, "quantity": 1, "price": 39.5}],
            "text": if number.is_multiple_of(5) { "a bad, awful thing" } else { "a very good one" },
            "repository": {"full_name": format!("org/repo-{}", number % 3)}, "action": "opened",
        },
    })
}

async fn publish(host: &Host, tenant: &Tenant, numbers: std::ops::Range<u32>) {
    let envelopes: Vec<_> = numbers.map(|number| Envelope::from_json(&event(number).to_string().into())).collect();
    let many = u32::try_from(envelopes.len()).expect("because it is a page");
    let receipt = host.flow.inbox.accept(tenant, envelopes).await.expect("because the store works");
    assert_eq!((receipt.accepted, receipt.rejected.len()), (many, 0));
}

async fn recordings(host: &Host, tenant: &Tenant, plugin: &str) -> Vec<Head> {
    host.store.recordings(tenant.id, plugin, None, RUNS * 2).await.expect("because the store works")
}

async fn read(host: &Host, tenant: &Tenant, head: &Head) -> Recording {
    let body = host.store.recording(tenant.id, head.number).await.expect("because the store works");
    serde_json::from_slice(&body.expect("because it was listed")).expect("because it was written so")
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_runs_of_every_example_are_the_same_again() {
    let host = Host::recording(ALL).await;
    let mut table = format!(
        "{:<18}{:>7}{:>8}{:>9}{:>10}{:>16}{:>10}\n",
        "plugin", "runs", "failed", "effects", "reads", "fuel of a run", "the same"
    );
    for (name, manifest) in examples() {
        let tenant = host.tenant(&name).await;
        let mut grants = manifest["grants"].clone();
        if let Some(grants) = grants.as_object_mut() {
            grants.remove("state");
        }
        let grants = if grants.is_null() { json!({}) } else { grants };
        let exports = host.install(&tenant, &name, &manifest, &grants).await;
        for sink in ["arrivals", "notifications", "crm"] {
            host.sink(&tenant, sink, &json!({"kind": "file", "path": "out.ndjson"})).await;
        }
        let verb = if exports.handler { "handle" } else { "transform" };
        let rule = format!(
            "{{name: example, on: [orders.created], retry: {{attempts: 1}}, steps: [{{{verb}: {{plugin: {name}}}}}]}}"
        );
        host.rules(&tenant, &rule).await;
        for first in (0..RUNS).step_by(100) {
            publish(&host, &tenant, first..first + 100).await;
        }
        let began = Instant::now();
        let mut heads = Vec::new();
        while heads.len() < RUNS as usize {
            assert!(began.elapsed() < PATIENCE, "{name}: {} of {RUNS} runs are recorded", heads.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
            heads = recordings(&host, &tenant, &name).await;
        }
        let (mut failed, mut effects, mut reads, mut fuel, mut same) = (0, 0, 0, 0, 0);
        let digest = read(&host, &tenant, &heads[0]).await.digest;
        let plugin = host.sandbox.load(&digest, &|| unreachable!("because it is loaded")).expect("because it ran");
        for head in &heads {
            let recording = read(&host, &tenant, head).await;
            let (sandbox, plugin) = (host.sandbox.clone(), plugin.clone());
            let work = tokio::task::spawn_blocking(move || (sandbox.replay(&plugin, &recording), recording));
            let (replayed, recording) = work.await.expect("because nothing panics");
            let replayed = replayed.expect("because it is whole");
            assert!(replayed.exact, "{name}: {:?}", recording.redacted);
            assert!(replayed.difference.is_none(), "{name}: {:#?}", replayed.difference);
            assert_eq!(replayed.ended, recording.ended, "{name}");
            failed += u32::from(!head.of.code.is_empty());
            effects += recording.ended.effects.len() + recording.ended.drafts.len();
            reads += recording.reads.len();
            fuel += recording.ended.fuel;
            same += 1;
        }
        assert_eq!(same, RUNS, "{name}");
        let fuel = fuel / u64::from(RUNS);
        table += &format!("{name:<18}{:>7}{failed:>8}{effects:>9}{reads:>10}{fuel:>16}{same:>10}\n", heads.len());
    }
    println!("{table}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_recorded_with_what_they_read_and_successes_are_not_unless_sampled() {
    let host = Host::recording(Options { sample: 0.0, ..ALL }).await;
    let tenant = host.tenant("acme").await;
    host.plugin(&tenant, "checker", &json!({})).await;
    host.rules(&tenant, "{name: check, on: [steps], order: key, steps: [{handle: {plugin: checker}}]}").await;
    host.publish(&tenant, "steps", "good", Some("k"), &json!({"key": "k", "seq": 1})).await;
    host.settled(&tenant, 1).await;
    assert_eq!(recordings(&host, &tenant, "checker").await, []);
    host.plugin(&tenant, "always-fails", &json!({"mode": "trap"})).await;
    host.rules(
        &tenant,
        "{name: fail, on: [fails], retry: {attempts: 2, first: 10ms}, steps: [{handle: {plugin: always-fails}}]}",
    )
    .await;
    host.publish(&tenant, "fails", "bad", None, &json!({"email": "ann@example.org"})).await;
    host.until("the run is parked", async || host.runs(&tenant, Some(RunState::Parked)).await.len() == 1).await;
    let heads = recordings(&host, &tenant, "always-fails").await;
    let attempts: Vec<_> = heads.iter().map(|head| (head.of.attempt, head.of.code.as_str())).collect();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!((attempts[0].0, attempts[1].0), (2, 1), "newest first");
    assert!(attempts[0].1.starts_with("trap:"), "{attempts:?}");
    let retry = read(&host, &tenant, &heads[0]).await;
    assert!(retry.fresh, "a retry has an instance of its own");
    assert_eq!(retry.call.run, heads[0].run().to_string());
    let run = RunId::parse(&retry.call.run).expect("because it is one");
    assert_eq!(host.store.recordings_of(tenant.id, run).await.expect("because the store works"), heads);
    assert!(!retry.reads.iter().any(|read| matches!(read, Read::Secret { .. })));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_can_switch_the_recorder_off_and_name_what_is_taken_out() {
    let host = Host::recording(ALL).await;
    for (name, recorder, recorded) in [
        ("off", json!({"off": true}), 0),
        ("none", json!({"sample": 0.0}), 0),
        ("redact", json!({"redact": ["/customer/email"]}), 20),
    ] {
        let tenant = host.tenant(name).await;
        host.install(&tenant, "usage-meter", &json!({"recorder": recorder}), &json!({})).await;
        host.rules(&tenant, "{name: meter, on: [orders.created], steps: [{handle: {plugin: usage-meter}}]}").await;
        // The first has a total below zero, which is a failure.
        publish(&host, &tenant, 1..21).await;
        host.settled(&tenant, 20).await;
        let heads = recordings(&host, &tenant, "usage-meter").await;
        assert_eq!(heads.len(), recorded, "{name}");
        for head in heads {
            let recording = read(&host, &tenant, &head).await;
            let text = serde_json::to_string(&recording).expect("because it is plain data");
            assert!(!text.contains("@example.org"), "{text}");
            assert!(recording.redacted.contains("event"));
        }
    }
    host.stop().await;
}
