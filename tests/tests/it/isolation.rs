//! Tenants see nothing of each other, keys open what they are for, and secrets stay inside.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::OPERATOR_KEY;
use bulkhead_tests::host::event;
use bulkhead_tests::openapi;
use bulkhead_tests::openapi::Route;
use bulkhead_tests::receiver::Receiver;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

/// Stands in everything that the first tenant has, and in nothing else.
const MARK: &str = "okapi7731";

/// A value that must never be seen again.
const SECRET: &str = "whsec_c2VjcmV0LW9mLXRoZS1va2FwaS03NzMxLWRvLW5vdC1zaG93";

/// What the first tenant has, by the segment of the path that it follows.
struct Victim {
    client: Client,
    ids: BTreeMap<&'static str, String>,
}

impl Victim {
    /// A tenant with one of everything.
    async fn new(host: &Host, receiver: &Receiver) -> Result<Self> {
        let client = host.tenant("okapi").await?;
        client.expect_any(Method::PUT, "/v1/secrets/okapi-secret", Some(json!({"value": SECRET}))).await?;
        let url = format!("{}{MARK}", receiver.url);
        client.sink("okapi-sink", json!({"kind": "webhook", "url": url, "secret": "okapi-secret"})).await?;
        let down = Receiver::start().await?;
        down.answer(500);
        let url = format!("{}{MARK}", down.url);
        client.sink("okapi-down", json!({"kind": "webhook", "url": url, "retry": {"attempts": 1}})).await?;
        client.push("checker").await?;
        client.push("always-fails").await?;
        let steps = json!([{"deliver": "okapi-sink"}, {"deliver": "okapi-down"}, {"handle": "checker"}]);
        client.rule(json!({"name": "okapi-rule", "description": MARK, "on": "steps", "steps": steps})).await?;
        client.rule(json!({"name": "okapi-fails", "on": "steps", "steps": [{"handle": "always-fails"}]})).await?;
        let mut first = event("okapi-event", "steps", json!({"key": MARK, "seq": 1, "note": MARK}));
        (first["partitionkey"], first["subject"]) = (MARK.into(), MARK.into());
        client.publish(&[first]).await?;
        client.run_in("okapi-event", "okapi-rule", "done").await?;
        // One that failed: it has a recording, too.
        let run = client.run_in("okapi-event", "okapi-fails", "parked").await?;
        let deliveries = eventually("its deliveries to be settled", SOON, async || {
            let deliveries = client.list("/v1/deliveries").await?;
            let settled = deliveries.iter().filter(|delivery| delivery["state"] != "pending").count();
            Ok((settled == 2).then_some(deliveries))
        })
        .await?;
        let parked = deliveries.iter().find(|delivery| delivery["state"] == "parked").context("none is parked")?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("no id");
        let ids = BTreeMap::from([
            ("events", "okapi-event".to_owned()),
            ("runs", text(&run["id"])?),
            ("plugins", "checker".to_owned()),
            ("versions", "1".to_owned()),
            ("state", format!("count:{MARK}")),
            ("rules", "okapi-rule".to_owned()),
            ("rule-sets", "1".to_owned()),
            ("sinks", "okapi-sink".to_owned()),
            ("secrets", "okapi-secret".to_owned()),
            ("deliveries", text(&parked["id"])?),
            ("tenants", "okapi".to_owned()),
            ("keys", client.key().split('_').nth(1).context("a key without an id")?.to_owned()),
        ]);
        Ok(Self { client, ids })
    }

    fn id(&self, segment: &str) -> Result<String> {
        let id = self.ids.get(segment);
        id.cloned().with_context(|| format!("what follows `{segment}` in a path is new: add one to `Victim::new`"))
    }

    /// Everything that it can see of itself.
    async fn all(&self, routes: &[Route]) -> Result<BTreeMap<String, Value>> {
        let mut all = BTreeMap::new();
        for route in routes.iter().filter(|route| is_tenants(route) && is_plain_get(route)) {
            let path = route.filled(|segment, _| self.id(segment))?;
            let (status, mut answer) = self.client.send(Method::GET, &path, None).await?;
            assert_eq!(status, 200, "{path}: {answer}");
            // The sink that is down is looked at again and again; what that shows is the time, not the tenant.
            if let Some(fields) = answer.as_object_mut() {
                fields.remove("now");
            }
            all.insert(path, answer);
        }
        Ok(all)
    }
}

fn is_tenants(route: &Route) -> bool {
    route.path.starts_with("/v1/")
}

fn is_plain_get(route: &Route) -> bool {
    route.method == Method::GET && !route.path.ends_with("/stream")
}

/// What a body would name, by route; none for routes whose body names nothing of the store's.
fn bodies(route: &Route, victim: &Victim) -> Result<Vec<Value>> {
    let id = |segment: &str| victim.id(segment);
    Ok(match route.path.as_str() {
        "/v1/parked/redrive" | "/v1/parked/discard" => vec![
            json!({"runs": [id("runs")?]}),
            json!({"rule": "okapi-fails"}),
            json!({"plugin": "always-fails"}),
            json!({"key": MARK}),
            json!({}),
        ],
        "/v1/deliveries/redeliver" | "/v1/deliveries/drop" => {
            vec![json!({"id": id("deliveries")?}), json!({"sink": "okapi-down"})]
        }
        "/v1/plugins/{name}/activate" | "/v1/plugins/{name}/retire" | "/v1/plugins/{name}/rollback" => {
            vec![json!({"version": 1})]
        }
        "/v1/plugins/{name}/preview" | "/v1/plugins/{name}/shadow" => vec![json!({"version": 1})],
        "/v1/plugins/{name}/source" => vec![json!({"source": "no JavaScript ("})],
        "/v1/plugins/{name}/canary" => vec![json!({"version": 1, "percent": 50})],
        "/v1/rules/preview" => vec![json!({"name": "x", "on": "**", "steps": [{"map": {"one": "1"}}]})],
        // A name that is free in one's own tenant may be given; that changes nothing of the other's.
        "/v1/rules" => vec![json!({"rules": []})],
        "/v1/rules/{name}" => vec![json!({"name": "okapi-rule", "on": "x", "steps": [{"emit": "y"}]})],
        "/v1/sinks/{name}" => vec![json!({"kind": "log"}), json!({"kind": "webhook", "url": "https://example.com/"})],
        "/v1/secrets/{name}" => vec![json!({"value": "another"})],
        "/v1/plugins/{name}/config" => vec![json!({"deliver": true})],
        "/v1/events" => vec![event("okapi-event", "steps", json!({"key": "own", "seq": 1}))],
        _ => vec![json!({})],
    })
}

/// Counts of what was found, whatever they are called.
fn counts(answer: &Value) -> u64 {
    let names = ["redriven", "discarded", "redelivered", "dropped", "count", "matched"];
    names.iter().filter_map(|name| answer[*name].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_leads_into_another_tenant() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let receiver = Receiver::start().await?;
    let host = Host::start(folder.path()).await?;
    let victim = Victim::new(&host, &receiver).await?;
    let stranger = host.tenant("stranger").await?;
    let mut routes = openapi::routes(&stranger).await?;
    routes.retain(is_tenants);
    assert!(routes.len() > 40, "only {} routes: {routes:?}", routes.len());
    let before = victim.all(&routes).await?;
    assert!(before.values().any(|answer| answer.to_string().contains(MARK)));

    // Reading first, then what acts, and last what may make something of one's own under the same name.
    let order = [Method::GET, Method::POST, Method::DELETE, Method::PUT];
    let mut tried = 0;
    for method in order {
        for route in routes.iter().filter(|route| route.method == method && !route.path.ends_with("/stream")) {
            tried += foreign(&stranger, &victim, route).await.with_context(|| route.name())?;
        }
    }
    // A cursor of one tenant is none in another.
    let page = victim.client.get("/v1/runs?limit=1").await?;
    let cursor = page["next"].as_str().context("two runs, and no next page")?;
    let problem = stranger.expect(400, Method::GET, &format!("/v1/runs?after={cursor}"), None).await?;
    assert_eq!(problem["code"], "cursor-invalid");

    let after = victim.all(&routes).await?;
    for (path, answer) in &before {
        assert_eq!(Some(answer), after.get(path), "{path} changed");
    }
    println!("{tried} requests with another tenant's names, over {} routes", routes.len());
    Ok(())
}

/// All requests of one route with the other tenant's names; gives how many.
async fn foreign(stranger: &Client, victim: &Victim, route: &Route) -> Result<usize> {
    let path = route.filled(|segment, _| victim.id(segment))?;
    let mut requests: Vec<(String, Option<Value>)> = Vec::new();
    if route.method == Method::GET {
        requests.push((path.clone(), None));
        let values = [
            ("event", victim.id("events")?),
            ("rule", "okapi-fails".to_owned()),
            ("plugin", "checker".to_owned()),
            ("sink", "okapi-down".to_owned()),
            ("key", MARK.to_owned()),
            ("subject", MARK.to_owned()),
            ("correlation", "okapi-event".to_owned()),
            ("type", "**".to_owned()),
        ];
        let known = values.iter().filter(|(name, _)| route.query.iter().any(|query| query == name));
        requests.extend(known.map(|(name, value)| (format!("{path}?{name}={value}"), None)));
    } else if route.method == Method::DELETE {
        requests.push((path.clone(), None));
    } else {
        requests.extend(bodies(route, victim)?.into_iter().map(|body| (path.clone(), Some(body))));
    }
    let count = requests.len();
    for (path, body) in requests {
        let (status, answer) = stranger.send(route.method.clone(), &path, body.clone()).await?;
        let text = answer.to_string();
        let said = format!("{} {path} {body:?}: {status} {text}", route.method);
        // Names that were asked for may stand in a refusal; what is in them may not.
        let echoed = path.contains(MARK) || body.as_ref().is_some_and(|body| body.to_string().contains(MARK));
        assert!(echoed || !text.contains(MARK), "{said}");
        assert!(status < 500, "{said}");
        let found_nothing = status == 404 || answer["items"].as_array().is_some_and(Vec::is_empty);
        match route.method {
            Method::GET if route.names_something() => assert!(found_nothing, "{said}"),
            Method::GET => {
                assert!(status != 200 || answer.get("items").is_none() || own(&path) || found_nothing, "{said}")
            }
            Method::DELETE => assert_eq!(status, 404, "{said}"),
            // A name that is free in one's own tenant may be given; this text is no JavaScript, so nothing comes of it.
            Method::POST if route.path.ends_with("/source") => assert_eq!(status, 422, "{said}"),
            Method::POST if route.names_something() => assert_eq!(status, 404, "{said}"),
            _ => assert_eq!(counts(&answer), 0, "{said}"),
        }
    }
    Ok(count)
}

/// Lists in which a tenant finds its own from the beginning: that it was made, its empty rule set.
fn own(path: &str) -> bool {
    ["/v1/audit", "/v1/rule-sets", "/v1/usage"].iter().any(|own| path.starts_with(own))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_what_it_is_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let admin = host.tenant("acme").await?;
    let (publisher, publisher_id) = host.key("acme", &["publish"]).await?;
    let (reader, _) = host.key("acme", &["read"]).await?;
    let routes = openapi::routes(&admin).await?;

    let refused = async |client: &Client, method: Method, path: &str, status: u16, code: &str| -> Result<()> {
        let problem = client.expect(status, method, path, None).await?;
        if problem["code"] != code || problem["type"] != format!("/docs/errors/{code}") {
            bail!("{path}: {problem} instead of {code}");
        }
        Ok(())
    };

    // Without a key, with a wrong one, with one of the other kind: the same on every route.
    let mut wrong = admin.key().to_owned();
    let last = if wrong.ends_with('a') { 'b' } else { 'a' };
    wrong.pop();
    wrong.push(last);
    let wrong = admin.with_key(&wrong);
    let operator = host.operator();
    let mut checked = 0;
    for route in &routes {
        let path = route.filled(|_, _| Ok("1".to_owned()))?;
        let (other, code) = match () {
            () if route.path.starts_with("/v1/") => (&operator, "tenant-only"),
            () if route.path.starts_with("/admin/") => (&admin, "operator-only"),
            () => continue,
        };
        let answer = without_key(&admin, route, &path).await?;
        assert_eq!((answer.0, answer.1["code"].as_str()), (401, Some("key-missing")), "{}: {}", route.name(), answer.1);
        refused(&wrong, route.method.clone(), &path, 401, "key-invalid").await?;
        refused(other, route.method.clone(), &path, 403, code).await?;
        checked += 1;
    }
    assert!(checked > 40, "only {checked} routes were checked");

    // Scopes: one for publishing opens nothing but that, one for reading changes nothing.
    for route in routes.iter().filter(|route| is_tenants(route)) {
        let path = route.filled(|_, _| Ok("1".to_owned()))?;
        let publishes = route.method == Method::POST && route.path == "/v1/events";
        // Who one is may be asked with any key.
        if !publishes && !["/v1/me", "/v1/whoami"].contains(&route.path.as_str()) {
            refused(&publisher, route.method.clone(), &path, 403, "scope-missing").await?;
        }
        if route.method != Method::GET && !route.path.ends_with("/preview") {
            refused(&reader, route.method.clone(), &path, 403, "scope-missing").await?;
        }
    }
    publisher.publish(&[event("1", "a", json!({}))]).await?;
    assert_eq!(reader.list("/v1/events").await?.len(), 1);

    // A key in the URL ends in logs, so it is refused there.
    let problem = admin.expect(400, Method::GET, &format!("/v1/events?key={}", admin.key()), None).await?;
    assert_eq!(problem["code"], "key-in-url", "{problem}");

    // Revoked and suspended: within a second, and back again.
    host.operator().expect_any(Method::DELETE, &format!("/admin/v1/tenants/acme/keys/{publisher_id}"), None).await?;
    eventually("the revoked key to be refused", Duration::from_secs(1), async || {
        Ok((publisher.send(Method::GET, "/v1/events", None).await?.0 == 401).then_some(()))
    })
    .await?;
    let operator = host.operator();
    operator.expect_any(Method::POST, "/admin/v1/tenants/acme/suspend", Some(json!({}))).await?;
    eventually("the tenant to be shut out", Duration::from_secs(1), async || {
        let (status, problem) = admin.send(Method::GET, "/v1/events", None).await?;
        Ok((status == 403 && problem["code"] == "tenant-suspended").then_some(()))
    })
    .await?;
    operator.expect_any(Method::POST, "/admin/v1/tenants/acme/resume", Some(json!({}))).await?;
    eventually("the tenant to be let in", Duration::from_secs(1), async || {
        Ok((admin.send(Method::GET, "/v1/events", None).await?.0 == 200).then_some(()))
    })
    .await
}

async fn without_key(client: &Client, route: &Route, path: &str) -> Result<(u16, Value)> {
    let answer = client.anonymous(route.method.clone(), path).send().await?;
    Ok((answer.status().as_u16(), answer.json().await.unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_stay_inside() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let receiver = Receiver::start().await?;
    let mut host = Host::start(folder.path()).await?;
    let victim = Victim::new(&host, &receiver).await?;
    let client = &victim.client;
    let routes = openapi::routes(client).await?;
    let secret_part = client.key().rsplit('_').next().context("a key without a secret")?;
    let hidden = [SECRET, SECRET.trim_start_matches("whsec_"), secret_part, OPERATOR_KEY];

    // Wrong things about secrets, whose refusals must not repeat them.
    for body in [json!({"value": SECRET, "more": 1}), json!({"vlaue": SECRET}), json!([SECRET])] {
        let (status, answer) = client.send(Method::PUT, "/v1/secrets/other", Some(body)).await?;
        assert!((400..500).contains(&status), "{status}");
        assert!(!answer.to_string().contains(SECRET), "{answer}");
    }
    client.expect_any(Method::POST, "/v1/sinks/okapi-sink/test", Some(json!({}))).await?;

    let all = victim.all(&routes).await?;
    for (path, answer) in &all {
        for hidden in hidden {
            assert!(!answer.to_string().contains(hidden), "{path} shows a secret");
        }
    }
    let operator = host.operator();
    for path in ["/admin/v1/tenants", "/admin/v1/tenants/okapi/keys", "/admin/v1/overview"] {
        let answer = operator.get(path).await?.to_string();
        assert!(!hidden.iter().any(|hidden| answer.contains(hidden)), "{path} shows a secret");
    }
    let metrics = operator.request(Method::GET, "/metrics").send().await?.text().await?;
    assert!(!hidden.iter().any(|hidden| metrics.contains(hidden)), "the metrics show a secret");

    host.terminate().await?;
    let log = host.log()?;
    assert!(!hidden.iter().any(|hidden| log.contains(hidden)), "the log shows a secret");
    // Nor do they stand in the store, where a copy of the file would give them away.
    for entry in std::fs::read_dir(folder.path())? {
        let path = entry?.path();
        if path.is_file() {
            let bytes = std::fs::read(&path)?;
            for hidden in hidden {
                let found = bytes.windows(hidden.len()).any(|window| window == hidden.as_bytes());
                assert!(!found, "{} holds a secret in the clear", path.display());
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbours_trouble_stays_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let (noisy, quiet) = (host.tenant("noisy").await?, host.tenant("quiet").await?);
    noisy.push("always-fails").await?;
    let retry = json!({"attempts": 3, "first": "10ms", "factor": 1, "max": "10ms"});
    noisy.rule(json!({"name": "break", "on": "**", "steps": [{"handle": "always-fails"}], "retry": retry})).await?;
    quiet.push("checker").await?;
    quiet.rule(json!({"name": "check", "on": "steps", "order": "key", "steps": [{"handle": "checker"}]})).await?;
    // Every way to fail, some of which take all the time or memory that they get.
    let kinds = ["reject", "trap", "panic", "loop", "memory", "stack"];
    let trouble: Vec<Value> =
        (0..60).map(|n| event(&format!("t-{n}"), "trouble", json!({"fail": kinds[n % 6]}))).collect();
    noisy.publish(&trouble).await?;
    for seq in 1..=50 {
        let mut step = event(&format!("k-{seq}"), "steps", json!({"key": "k", "seq": seq}));
        step["partitionkey"] = "k".into();
        quiet.publish(&[step]).await?;
    }
    eventually("the quiet one's events to be counted", SOON, async || {
        Ok((quiet.number("checker", "count:k").await? == 50).then_some(()))
    })
    .await?;
    assert_eq!(quiet.number("checker", "disorder:k").await?, 0);
    assert!(quiet.list("/v1/parked").await?.is_empty());
    let parked = eventually("the noisy one's runs to be parked", Duration::from_secs(90), async || {
        let parked = noisy.list("/v1/parked").await?;
        if parked.len() < 60 {
            bail!("{} are", parked.len());
        }
        Ok(Some(parked))
    })
    .await?;
    let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
    for run in &parked {
        *codes.entry(run["code"].as_str().unwrap_or_default()).or_default() += 1;
    }
    println!("the noisy one's runs ended with {codes:?}");
    assert!(codes.len() >= 4 && !codes.contains_key("host:panic") && !codes.contains_key(""), "{codes:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_does_not_keep_another_waiting() -> Result<()> {
    const FLOOD: usize = 20_000;
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let (noisy, quiet) = (host.tenant("noisy").await?, host.tenant("quiet").await?);
    for client in [&noisy, &quiet] {
        client.push("checker").await?;
        client.rule(json!({"name": "check", "on": "steps", "steps": [{"handle": "checker"}]})).await?;
    }
    let batches: Vec<Vec<Value>> = (0..FLOOD / 1_000)
        .map(|batch| {
            let step = |n| event(&format!("n-{batch}-{n}"), "steps", json!({"key": format!("k-{batch}"), "seq": n}));
            (1..=1_000).map(step).collect()
        })
        .collect();
    let flood = async {
        for batch in &batches {
            noisy.publish(batch).await?;
        }
        anyhow::Ok(())
    };
    let trickle = async {
        let mut slowest = Duration::ZERO;
        for seq in 1..=30 {
            let began = std::time::Instant::now();
            let id = format!("q-{seq}");
            quiet.publish(&[event(&id, "steps", json!({"key": "q", "seq": seq}))]).await?;
            quiet.run_in(&id, "check", "done").await?;
            slowest = slowest.max(began.elapsed());
        }
        anyhow::Ok(slowest)
    };
    let (flood, slowest) = tokio::join!(flood, trickle);
    flood?;
    let slowest = slowest?;
    println!("one event through the quiet tenant took at most {slowest:?} during the flood");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    eventually("the flood to be worked off", Duration::from_secs(90), async || {
        let usage = noisy.get("/v1/usage").await?;
        let done: u64 = usage["items"].as_array().into_iter().flatten().filter_map(|line| line["done"].as_u64()).sum();
        if done < FLOOD as u64 {
            bail!("{done} are");
        }
        assert_eq!(done, FLOOD as u64);
        Ok(Some(()))
    })
    .await
}
