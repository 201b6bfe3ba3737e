//! All of the way of an event: published, matched, run, committed, delivered; and every way to see it.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulkhead_tests::eventually;
use bulkhead_tests::guest;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::event;
use bulkhead_tests::receiver::Arrival;
use bulkhead_tests::receiver::Receiver;
use bulkhead_tests::stream::Stream;
use reqwest::Method;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderName;
use serde_json::Value;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

/// An order of two articles, worth 1,500 euros.
fn order(id: &str, customer: &str) -> Value {
    let mut order = event(
        &format!("order-{id}"),
        "orders.created",
        json!({
            "id": id, "customer": {"id": customer, "email": "a@example.com", "country": "DE"}, "channel": "web",
            "total": 1500.0, "currency": "EUR", "rate": 1.0,
            "items": [{"sku": "KB-87", "quantity": 10, "price": 89.0}, {"sku": "DK-01", "quantity": 2, "price": 305.0}],
        }),
    );
    order["partitionkey"] = customer.into();
    order
}

async fn arrived(receiver: &Receiver, count: usize) -> Result<Vec<Arrival>> {
    eventually(&format!("{count} deliveries"), SOON, async || {
        let arrivals = receiver.arrivals();
        if arrivals.len() < count {
            bail!("{} arrived", arrivals.len());
        }
        Ok(Some(arrivals))
    })
    .await
}

/// As a receiver would check it.
fn verify(secret: &str, arrival: &Arrival) -> Result<()> {
    let mut headers = HeaderMap::new();
    for (name, value) in &arrival.headers {
        headers.insert(HeaderName::from_bytes(name.as_bytes())?, value.parse()?);
    }
    let webhook = standardwebhooks::Webhook::new(secret)?;
    webhook.verify(&arrival.body, &headers).with_context(|| format!("the signature of {}", arrival.id))?;
    let mut altered = arrival.body.clone();
    altered.push(b' ');
    assert!(webhook.verify(&altered, &headers).is_err(), "an altered body must not pass");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_all_of_the_way() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let receiver = Receiver::start().await?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    let secret = format!("whsec_{}", STANDARD.encode([7_u8; 32]));
    let (status, answer) = client.send(Method::PUT, "/v1/secrets/signing", Some(json!({"value": secret}))).await?;
    assert!(matches!(status, 200 | 201 | 204), "{status} {answer}");
    client.sink("crm", json!({"kind": "webhook", "url": receiver.url, "secret": "signing"})).await?;
    client.push("enrich-order").await?;
    client.push("fraud-score").await?;
    client.configure("fraud-score", json!({"threshold": 3})).await?;
    client
        .rule(json!({
            "name": "lines", "on": "orders.created", "match": {"data": {"channel": ["web"]}},
            "steps": [{"redact": ["/customer/email"]}, {"transform": "enrich-order"}, {"deliver": "crm"}],
        }))
        .await?;
    client
        .rule(json!({
            "name": "fraud", "on": "orders.created", "where": "data.total > 1000.0", "order": "key",
            "steps": [{"handle": "fraud-score"}],
        }))
        .await?;
    client
        .rule(json!({"name": "tell", "on": "orders.flagged", "steps": [{"map": {"flagged": "data.order"}}, {"deliver": "crm"}]}))
        .await?;
    client.rule(json!({"name": "small", "on": "orders.created", "where": "data.total < 10.0", "steps": [{"deliver": "crm"}]})).await?;

    let receipt = client.publish(&[order("A-1", "C-1")]).await?;
    assert_eq!((&receipt["accepted"], &receipt["duplicates"]), (&json!(1), &json!(0)), "{receipt}");
    assert_eq!(receipt["ids"], json!(["order-A-1"]));

    // Two lines from the transformer, one message about the flag.
    let arrivals = arrived(&receiver, 3).await?;
    for arrival in &arrivals {
        verify(&secret, arrival)?;
    }
    // A step of a rule delivers the event as it is then, in CloudEvents form.
    let events: Vec<Value> = arrivals.iter().map(|it| serde_json::from_slice(&it.body)).collect::<Result<_, _>>()?;
    assert!(arrivals.iter().all(|it| it.headers["content-type"] == "application/cloudevents+json"));
    let bodies: Vec<Value> = events.iter().map(|event| event["data"].clone()).collect();
    assert!(bodies.contains(&json!({"flagged": "A-1"})), "{bodies:?}");
    let mut amounts: Vec<_> = bodies.iter().filter_map(|body| body["amount"].as_f64()).collect();
    amounts.sort_by(f64::total_cmp);
    assert_eq!(amounts, [610.0, 890.0], "{bodies:?}");

    // What the plugin wrote.
    let profile = client.state("fraud-score", "customer:C-1").await?.context("no profile")?;
    assert_eq!(serde_json::from_slice::<Value>(&profile)?["orders"], 1);
    let keys = client.list("/v1/plugins/fraud-score/state").await?;
    assert_eq!(keys.len(), 1, "{keys:?}");

    // What it emitted descends from the order.
    let flagged = client.list("/v1/events?type=orders.flagged").await?;
    assert_eq!(flagged.len(), 1);
    assert_eq!((&flagged[0]["causationid"], &flagged[0]["correlationid"]), (&json!("order-A-1"), &json!("order-A-1")));
    assert_eq!(flagged[0]["data"]["score"], 3, "{}", flagged[0]);
    assert_eq!(client.list("/v1/events?correlation=order-A-1").await?.len(), 2);

    story_and_usage(&client).await
}

async fn story_and_usage(client: &Client) -> Result<()> {
    let runs = client.runs("order-A-1").await?;
    let mut rules: Vec<_> = runs.iter().filter_map(|run| run["rule"].as_str()).collect();
    rules.sort_unstable();
    assert_eq!(rules, ["fraud", "lines"], "`small` does not match: {runs:?}");
    for run in &runs {
        assert_eq!((&run["state"], &run["attempts"], &run["event"]), (&json!("done"), &json!(1), &json!("order-A-1")));
        assert!(run["fuel"].as_u64().is_some_and(|fuel| fuel > 0), "{run}");
        let id = run["id"].as_str().context("a run without an id")?;
        assert_eq!(client.get(&format!("/v1/runs/{id}")).await?["id"], run["id"]);
    }

    // The story names all of it from one end to the other.
    let story = client.get("/v1/events/order-A-1").await?;
    assert_eq!(story["event"]["id"], "order-A-1", "{story}");
    assert_eq!(story["runs"].as_array().map(Vec::len), Some(2), "{story}");
    assert_eq!(story["follow_ups"].as_array().map(Vec::len), Some(1), "{story}");
    assert_eq!(story["deliveries"].as_array().map(Vec::len), Some(2), "{story}");
    let flag = story["follow_ups"][0]["id"].as_str().context("a follow-up without an id")?;
    let story = client.get(&format!("/v1/events/{flag}")).await?;
    assert_eq!(story["causes"][0]["id"], "order-A-1", "{story}");
    eventually("the deliveries to be settled", SOON, async || {
        let deliveries = client.list("/v1/deliveries").await?;
        assert_eq!(deliveries.len(), 3);
        Ok(deliveries.iter().all(|delivery| delivery["state"] == "delivered").then_some(()))
    })
    .await?;

    let usage = client.get("/v1/usage").await?;
    let lines = usage["items"].as_array().context("no lines")?;
    let fraud = lines.iter().find(|line| line["rule"] == "fraud").with_context(|| format!("no line in {usage}"))?;
    assert_eq!((&fraud["plugin"], &fraud["done"], &fraud["emitted"]), (&json!("fraud-score"), &json!(1), &json!(1)));
    Ok(())
}

/// Reads so many events of the stream; gives their numbers.
async fn numbers(stream: &mut Stream, count: usize) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let event = stream.next(SOON).await?.context("the stream ended")?;
        numbers.push(event["data"]["n"].as_u64().with_context(|| format!("no number in {event}"))?);
    }
    Ok(numbers)
}

fn ticks(range: std::ops::Range<u64>) -> Vec<Value> {
    range.map(|n| event(&format!("tick-{n}"), "ticks.even", json!({"n": n}))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_resumes_without_a_gap_even_over_a_crash() -> Result<()> {
    const PATH: &str = "/v1/events/stream?type=ticks.*&where=data.n%20%3E%3D%200";
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path()).await?;
    let mut client = host.tenant("acme").await?;
    client.publish(&ticks(0..5)).await?;
    let mut stream = Stream::open(&client, PATH, None).await?;
    // What is published from now on; what does not fit is passed over.
    client.publish(&[event("other", "noise", json!({"n": 1})), event("below", "ticks.odd", json!({"n": -1}))]).await?;
    for part in 0..10 {
        client.publish(&ticks(10 * part + 100..10 * part + 110)).await?;
    }
    assert_eq!(numbers(&mut stream, 30).await?, (100..130).collect::<Vec<_>>());

    // Away for a while; meanwhile more comes.
    let last = stream.last_id.clone().context("the stream gives no ids")?;
    drop(stream);
    client.publish(&ticks(200..250)).await?;
    let mut stream = Stream::open(&client, PATH, Some(&last)).await?;
    let expected: Vec<u64> = (130..200).chain(200..250).collect();
    assert_eq!(numbers(&mut stream, expected.len()).await?, expected);

    // The same over a host that dies.
    client.publish(&ticks(250..260)).await?;
    assert_eq!(numbers(&mut stream, 5).await?, (250..255).collect::<Vec<_>>());
    let last = stream.last_id.clone().context("the stream gives no ids")?;
    host.kill().await?;
    host.restart().await?;
    client = client.at(&host);
    let mut stream = Stream::open(&client, PATH, Some(&last)).await?;
    client.publish(&ticks(260..270)).await?;
    assert_eq!(numbers(&mut stream, 15).await?, (255..270).collect::<Vec<_>>());
    Ok(())
}

/// Every file of this name below a folder.
fn files(folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, name)?);
        } else if path.file_name().is_some_and(|it| it == name) {
            found.push(path);
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_sink_gets_one_line_per_delivery() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    client.sink("archive", json!({"kind": "file", "path": "big/orders.ndjson"})).await?;
    client.rule(json!({"name": "keep", "on": "orders.*", "steps": [{"deliver": "archive"}]})).await?;
    let events: Vec<Value> =
        (0..50).map(|n| event(&format!("o-{n}"), "orders.created", json!({"n": n, "text": "zwei\nZeilen"}))).collect();
    client.publish(&events).await?;
    eventually("50 deliveries to be written", SOON, async || {
        let done = client.list("/v1/deliveries?state=delivered").await?.len();
        if done < 50 {
            bail!("{done} are");
        }
        Ok(Some(()))
    })
    .await?;
    let found = files(&folder.path().join("data"), "orders.ndjson")?;
    assert_eq!(found.len(), 1, "{found:?}");
    let text = std::fs::read_to_string(&found[0])?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut written: Vec<u64> = lines.iter().filter_map(|line| line["data"]["data"]["n"].as_u64()).collect();
    written.sort_unstable();
    assert_eq!(written, (0..50).collect::<Vec<_>>());
    assert!(lines.iter().all(|line| line["rule"] == "keep" && line["data"]["data"]["text"] == "zwei\nZeilen"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_survives_a_crash_and_fires_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path()).await?;
    let mut client = host.tenant("acme").await?;
    let (wasm, manifest) = guest::scheduler(None, 1_500)?;
    client.push_as("scheduler", wasm, Some(manifest)).await?;
    let (wasm, manifest) = guest::scheduler(Some("reminder"), 1_500)?;
    client.push_as("reminder", wasm, Some(manifest.replace("\"scheduler\"", "\"reminder\""))).await?;
    client.rule(json!({"name": "plain", "on": "plain", "steps": [{"handle": "scheduler"}]})).await?;
    client.rule(json!({"name": "named", "on": "named", "steps": [{"handle": "reminder"}]})).await?;
    client.publish(&[event("p-1", "plain", json!({})), event("n-1", "named", json!({}))]).await?;
    client.publish(&[event("n-2", "named", json!({}))]).await?;
    for (id, rule) in [("p-1", "plain"), ("n-1", "named"), ("n-2", "named")] {
        client.run_in(id, rule, "done").await?;
    }
    assert!(client.list("/v1/events?type=timer.fired").await?.is_empty(), "not before its time");
    host.kill().await?;
    host.restart().await?;
    client = client.at(&host);
    let causes = eventually("both timers to fire", SOON, async || {
        let fired = client.list("/v1/events?type=timer.fired").await?;
        let mut causes: Vec<String> =
            fired.iter().filter_map(|event| event["causationid"].as_str()).map(str::to_owned).collect();
        causes.sort();
        Ok((causes.len() >= 2).then_some(causes))
    })
    .await?;
    // The second timer of the name took the place of the first.
    assert_eq!(causes, ["n-2", "p-1"]);
    // A later timer has fired: what was due before it would have fired by now.
    client.publish(&[event("p-2", "plain", json!({}))]).await?;
    eventually("the later timer to fire", SOON, async || {
        let fired = client.list("/v1/events?type=timer.fired").await?;
        let later = fired.iter().any(|event| event["causationid"] == "p-2");
        Ok(later.then_some(fired.len()))
    })
    .await
    .map(|fired| assert_eq!(fired, 3))
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_counts_what_was_used() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    client.push("usage-meter").await?;
    client.rule(json!({"name": "meter", "on": "orders.created", "steps": [{"handle": "usage-meter"}]})).await?;
    let orders: Vec<Value> = (0..20).map(|n| order(&format!("A-{n}"), &format!("C-{}", n % 4))).collect();
    client.publish(&orders).await?;
    // Duplicates are not billed.
    client.publish(&orders).await?;
    let line = eventually("20 runs on the statement", SOON, async || {
        let usage = client.get("/v1/usage").await?;
        let line =
            usage["items"].as_array().and_then(|lines| lines.iter().find(|line| line["rule"] == "meter").cloned());
        Ok(line.filter(|line| line["done"] == 20))
    })
    .await?;
    assert_eq!((&line["plugin"], &line["attempts"], &line["failed"]), (&json!("usage-meter"), &json!(20), &json!(0)));
    assert_eq!((line["units"]["orders"].as_f64(), line["units"]["eur"].as_f64()), (Some(20.0), Some(30_000.0)));
    assert!(line["fuel"].as_u64().is_some_and(|fuel| fuel > 20_000), "{line}");
    for customer in 0..4 {
        assert_eq!(client.number("usage-meter", &format!("orders:C-{customer}")).await?, 5);
    }
    let usage = client.get("/v1/usage").await?;
    let events: u64 = usage["items"].as_array().into_iter().flatten().filter_map(|line| line["events"].as_u64()).sum();
    assert_eq!(events, 20, "{usage}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_down_gets_everything_later_under_the_same_ids() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let receiver = Receiver::start().await?;
    let other = Receiver::start().await?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    let retry = json!({"attempts": 20, "first": "50ms", "factor": 1.5, "max": "500ms"});
    client.sink("crm", json!({"kind": "webhook", "url": receiver.url, "retry": retry})).await?;
    client.sink("erp", json!({"kind": "webhook", "url": other.url})).await?;
    client.rule(json!({"name": "tell", "on": "orders.*", "steps": [{"deliver": "crm"}, {"deliver": "erp"}]})).await?;
    receiver.answer(503);
    let events: Vec<Value> = (0..20).map(|n| event(&format!("o-{n}"), "orders.created", json!({"n": n}))).collect();
    client.publish(&events).await?;
    // The other sink is not held up.
    arrived(&other, 20).await?;
    eventually("an attempt that failed", SOON, async || {
        let deliveries = client.list("/v1/deliveries?sink=crm").await?;
        Ok(deliveries.iter().any(|delivery| delivery["attempts"].as_u64() > Some(0)).then_some(()))
    })
    .await?;
    assert!(receiver.arrivals().is_empty());
    receiver.answer(200);
    let arrivals = arrived(&receiver, 20).await?;
    let mut ids: Vec<_> = arrivals.iter().map(|arrival| arrival.id.clone()).collect();
    ids.sort();
    let deliveries = client.list("/v1/deliveries?sink=crm").await?;
    let mut known: Vec<_> =
        deliveries.iter().filter_map(|delivery| delivery["id"].as_str()).map(str::to_owned).collect();
    known.sort();
    assert_eq!(ids, known, "each arrived once, under the id that the host shows");
    Ok(())
}

/// A follow-up is looked at again only where a rule takes it.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_rule_takes_is_done_with_the_run_that_emits_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    client.rule(json!({"name": "copy", "on": "a", "steps": [{"emit": "b"}]})).await?;
    for number in 0..10 {
        let id = format!("a-{number}");
        client.publish(&[event(&id, "a", json!({}))]).await?;
        client.run_in(&id, "copy", "done").await?;
    }
    // 20 if the follow-ups were read again, as those of a batch are that takes longer than its slice.
    let read = host.metric("bulkhead_batch_events_sum").await?;
    assert!((10.0..15.0).contains(&read), "{read}");
    let follow_ups = client.list("/v1/events?type=b").await?;
    assert_eq!(follow_ups.len(), 10);
    let id = follow_ups[0]["id"].as_str().context("no id")?;
    let story = client.get(&format!("/v1/events/{id}")).await?;
    assert_eq!((&story["runs"], &story["waits"]), (&json!([]), &json!([])), "{story}");

    // From now on one takes them.
    client.rule(json!({"name": "again", "on": "b", "steps": [{"emit": "c"}]})).await?;
    client.publish(&[event("a-10", "a", json!({}))]).await?;
    client.run_in("a-10", "copy", "done").await?;
    eventually("a follow-up of a follow-up", SOON, async || {
        Ok((client.list("/v1/events?type=c").await?.len() == 1).then_some(()))
    })
    .await?;
    assert_eq!(client.list("/v1/runs?rule=again").await?.len(), 1, "those before it were done already");
    Ok(())
}
