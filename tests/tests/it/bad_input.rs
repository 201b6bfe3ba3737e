//! Bad input: each gets a clear refusal with a code, and takes nothing else with it.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::event;
use bulkhead_tests::openapi;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(30);

/// Sends bytes as they are; the answer must be a problem with this status and code. Gives it.
async fn refused(
    client: &Client,
    (method, path): (Method, &str),
    media: &str,
    body: impl Into<reqwest::Body>,
    (status, code): (u16, &str),
) -> Result<Value> {
    let request = client.request(method.clone(), path).header("content-type", media).body(body);
    let answer = request.send().await.with_context(|| format!("{method} {path} as {media}"))?;
    let seen = answer.status().as_u16();
    let kind = answer.headers().get("content-type").and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
    let text = answer.text().await?;
    let said = format!("{method} {path} as {media}: {seen} {kind} {text}");
    assert_eq!(seen, status, "{said}");
    let problem: Value = serde_json::from_str(&text).with_context(|| said.clone())?;
    assert!(kind.starts_with("application/problem+json"), "{said}");
    assert_eq!(problem["code"], code, "{said}");
    assert_eq!(problem["type"], format!("/docs/errors/{code}"), "{said}");
    assert_eq!(problem["status"], status, "{said}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{said}");
    let page = client.anonymous(Method::GET, &format!("/docs/errors/{code}")).send().await?;
    assert_eq!(page.status(), 200, "every code has a page: {code}");
    Ok(problem)
}

const PUBLISH: (Method, &str) = (Method::POST, "/v1/events");
const ONE: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const LINES: &str = "application/x-ndjson";

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_get_a_code_each_and_take_no_others_down() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path()).await?;
    let mut client = host.tenant("acme").await?;
    client.publish(&[event("before", "kept", json!({}))]).await?;

    let none = (422, "events-rejected");
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let with = |data: &str| format!(r#"{{"specversion":"1.0","id":"x","source":"/t","type":"a","data":{data}}}"#);
    // One event that is none, in each way that it comes; the receipt in the problem says why.
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (ONE, b"\xff\xfe\x00garbage".to_vec(), "event:utf8"),
        (ONE, Vec::new(), "event:json"),
        (ONE, b"[]".to_vec(), "event:json"),
        (ONE, b"{\"specversion\":\"1.0\"".to_vec(), "event:json"),
        (ONE, with("\"\u{0}\"").into_bytes(), "event:json"),
        (ONE, [with("\"").as_bytes(), b"\xc3\x28\"}"].concat(), "event:utf8"),
        (ONE, with(&deep(100_000)).into_bytes(), "event:too-deep"),
        (ONE, with(&deep(90)).into_bytes(), "event:too-deep"),
        (ONE, with(&format!("\"{}\"", "x".repeat(300 << 10))).into_bytes(), "event:too-large"),
        (ONE, br#"{"specversion":"0.3","id":"x","source":"/t","type":"a"}"#.to_vec(), "event:specversion"),
        (ONE, br#"{"specversion":"1.0","source":"/t","type":"a"}"#.to_vec(), "event:id"),
        (ONE, br#"{"specversion":"1.0","id":"x","source":"/t","type":"not a type"}"#.to_vec(), "event:type"),
        (ONE, br#"{"specversion":"1.0","id":"x","source":"/t","type":"bulkhead.x"}"#.to_vec(), "event:type"),
        (ONE, br#"{"specversion":"1.0","id":"x","source":"/t","type":"a","time":"noon"}"#.to_vec(), "event:time"),
        (ONE, br#"{"specversion":"1.0","id":"x","source":"/t","type":"a","UPPER":"x"}"#.to_vec(), "event:attribute"),
        (LINES, b"not json\n".to_vec(), "event:json"),
    ];
    for (media, body, code) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let problem = refused(&client, PUBLISH, media, body, none).await?;
        assert_eq!(problem["rejected"][0]["code"], code, "{shown}: {problem}");
        assert!(
            problem["rejected"][0]["detail"].as_str().is_some_and(|detail| !detail.is_empty()),
            "{shown}: {problem}"
        );
    }
    // A batch that is no batch at all.
    for body in [&b"{}"[..], b"nonsense", b"[{]", b"\xff"] {
        let answer = client.request(Method::POST, "/v1/events").header("content-type", BATCH).body(body).send().await?;
        assert!(matches!(answer.status().as_u16(), 400 | 422), "{}: {}", answer.status(), answer.text().await?);
    }
    let many: Vec<Value> = (0..1_001).map(|n| event(&format!("m-{n}"), "many", json!({}))).collect();
    let answer =
        client.request(Method::POST, "/v1/events").header("content-type", BATCH).body(serde_json::to_vec(&many)?);
    let answer = answer.send().await?;
    assert!(matches!(answer.status().as_u16(), 413 | 422), "{}: {}", answer.status(), answer.text().await?);
    refused(&client, PUBLISH, BATCH, vec![b' '; 5 << 20], (413, "body-too-large")).await?;
    refused(&client, PUBLISH, "text/plain", "x", (415, "media-type")).await?;
    refused(&client, PUBLISH, "application/xml", "<x/>", (415, "media-type")).await?;
    compressed(&client).await?;

    // Among good ones, a bad one is only itself: in a batch, and in a stream of lines.
    let good = |id: &str| event(id, "kept", json!({}));
    let receipt = client.publish(&[good("b-1"), json!({"id": "bad"}), good("b-2"), json!(7), good("b-3")]).await?;
    assert_eq!((&receipt["accepted"], &receipt["ids"]), (&json!(3), &json!(["b-1", "b-2", "b-3"])), "{receipt}");
    let at: Vec<_> = receipt["rejected"].as_array().into_iter().flatten().map(|it| it["index"].clone()).collect();
    assert_eq!(at, [1, 3], "{receipt}");
    let lines = format!("{}\n\nnot json\r\n{}\n{}", good("l-1"), with(&deep(90)), good("l-2"));
    let answer = client.request(Method::POST, "/v1/events").header("content-type", LINES).body(lines).send().await?;
    assert_eq!(answer.status(), 202);
    let receipt: Value = answer.json().await?;
    assert_eq!((&receipt["accepted"], receipt["rejected"].as_array().map(Vec::len)), (&json!(2), Some(2)), "{receipt}");

    // Binary mode.
    let binary = |id: &'static str| {
        let request = client.request(Method::POST, "/v1/events").header("content-type", "application/octet-stream");
        let request = request.header("ce-specversion", "1.0").header("ce-source", "/t").header("ce-type", "kept");
        if id.is_empty() { request } else { request.header("ce-id", id) }.body(&b"\xff\x00"[..])
    };
    assert_eq!(binary("bin-1").send().await?.status(), 202);
    assert_eq!(binary("").send().await?.status(), 422);

    // After all of it: what was accepted is there, also after a crash, and nothing else.
    host.kill().await?;
    host.restart().await?;
    client = client.at(&host);
    let mut kept: Vec<String> =
        client.list("/v1/events").await?.iter().filter_map(|event| event["id"].as_str()).map(str::to_owned).collect();
    kept.sort();
    assert_eq!(kept, ["b-1", "b-2", "b-3", "before", "bin-1", "l-1", "l-2"]);
    Ok(())
}

/// Compressed bodies are not taken, so that none can grow in here.
async fn compressed(client: &Client) -> Result<()> {
    // gzip of nothing much; what counts is that nobody unpacks it.
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b\x4c\x4a\x06\x00\xc2\x41\x24\x35\x03\x00\x00\x00";
    for encoding in ["gzip", "br", "deflate", "zstd"] {
        let request = client.request(Method::POST, "/v1/events").header("content-type", ONE);
        let answer = request.header("content-encoding", encoding).body(&gzip[..]).send().await?;
        let status = answer.status().as_u16();
        assert!(matches!(status, 400 | 415 | 422), "{encoding}: {status}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_plugins_are_refused_with_what_to_do() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    client.push("checker").await?;
    let (wasm, manifest) = bulkhead_tests::plugin("checker")?;
    let truncated = wasm[..wasm.len() / 2].to_vec();
    let core = wat::parse_str(r#"(module (func (export "handle")))"#)?;
    let foreign = wat::parse_str(r#"(component (import "acme:database/query@1.0.0" (instance)))"#)?;
    let empty = wat::parse_str("(component)")?;
    let mut flipped = wasm.clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 64].fill(0xff);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), ""),
        ("garbage", b"\x00\x01\x02 no wasm at all".to_vec(), ""),
        ("text", b"(module)".to_vec(), ""),
        ("truncated", truncated, ""),
        ("a core module", core, "wasm-tools component new"),
        ("foreign imports", foreign, "acme:database/query@1.0.0"),
        ("no exports", empty, "handler"),
        ("damaged", flipped, ""),
        ("an archive", b"PK\x03\x04 and so on".to_vec(), ""),
    ];
    let put = (Method::PUT, "/v1/plugins/checker?activate=true");
    for (what, body, said) in cases {
        let problem = refused(&client, put.clone(), "application/wasm", body, (422, "plugin-refused")).await?;
        assert!(problem.to_string().contains(said), "{what}: {problem}");
    }
    refused(&client, put.clone(), "application/zip", "x", (415, "media-type")).await?;
    refused(&client, put.clone(), "multipart/form-data", "x", (400, "body-malformed")).await?;
    refused(&client, put.clone(), "multipart/form-data; boundary=x", "--y\r\n", (400, "body-malformed")).await?;
    let name = (Method::PUT, "/v1/plugins/Not%20A%20Name");
    let answer =
        client.request(name.0, name.1).header("content-type", "application/wasm").body(wasm.clone()).send().await?;
    assert!(matches!(answer.status().as_u16(), 400 | 404 | 422), "{}", answer.status());

    // Manifests that say something else than they mean.
    for (from, to, said) in [
        ("[grants]", "[grant]", "grants"),
        ("deliver = [\"arrivals\"]", "delivr = [\"arrivals\"]", "deliver"),
        ("time = \"250ms\"", "time = \"soon\"", "time"),
        ("name = \"checker\"", "name = 7", "name"),
        ("[plugin]", "[plugin", ""),
    ] {
        let wrong = manifest.replacen(from, to, 1);
        assert_ne!(wrong, manifest, "{from}");
        let error =
            client.push_as("checker", wasm.clone(), Some(wrong)).await.expect_err("because it is wrong").to_string();
        assert!(error.contains("422") && error.contains("manifest-invalid") && error.contains(said), "{to}: {error}");
    }

    // None of it left anything, and what was there is as it was.
    let plugin = client.get("/v1/plugins/checker").await?;
    assert_eq!((&plugin["active"], plugin["versions"].as_array().map(Vec::len)), (&json!(1), Some(1)), "{plugin}");
    assert_eq!(client.list("/v1/plugins").await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_documents_name_the_place() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    let put = (Method::PUT, "/v1/rules/one");
    let yaml = "application/yaml";
    let wrong = "name: one\non: a\nwehre: data.total > 1000\nsteps:\n  - emit: b\n";
    let problem = refused(&client, put.clone(), yaml, wrong, (422, "rule-invalid")).await?;
    let first = &problem["errors"][0];
    assert_eq!(
        (&first["line"], &first["column"], &first["path"]),
        (&json!(3), &json!(1), &json!("wehre")),
        "{problem}"
    );
    assert!(first["hint"].as_str().is_some_and(|hint| hint.contains("where")), "{problem}");
    let cel = json!({"name": "one", "on": "a", "where": "data.total >", "steps": [{"emit": "b"}]});
    refused(&client, put.clone(), "application/json", cel.to_string(), (422, "rule-invalid")).await?;
    for (media, body) in [(yaml, "\t: ["), ("application/json", "{"), (yaml, "\u{0}"), ("application/json", "")] {
        let answer = client.request(put.0.clone(), put.1).header("content-type", media).body(body).send().await?;
        assert!(matches!(answer.status().as_u16(), 400 | 422), "{media} {body:?}: {}", answer.status());
    }
    let deep = format!(
        "name: one\non: a\nmatch: {{data: {}}}\nsteps: [{{emit: b}}]\n",
        "{a: ".repeat(5_000) + &"}".repeat(5_000)
    );
    refused(&client, put.clone(), yaml, deep, (422, "rule-invalid")).await?;
    // A thousand laughs: aliases that would grow are not followed.
    let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, before) in ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"])
    {
        laughs += &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 10].join(", "));
    }
    let began = Instant::now();
    let answer = client.request(put.0.clone(), put.1).header("content-type", yaml).body(laughs).send().await?;
    assert!(matches!(answer.status().as_u16(), 400 | 422), "{}", answer.status());
    assert!(began.elapsed() < Duration::from_secs(5));
    refused(&client, put.clone(), "image/png", "x", (415, "media-type")).await?;
    refused(&client, put, yaml, vec![b'#'; 5 << 20], (413, "body-too-large")).await?;

    for (path, status, code) in [
        ("/v1/events?typ=a", 400, "query-invalid"),
        ("/v1/events?limit=0", 400, "query-invalid"),
        ("/v1/events?limit=ten", 400, "query-invalid"),
        ("/v1/events?after=nonsense", 400, "cursor-invalid"),
        ("/v1/events?where=data.x%20%3E", 422, "condition-invalid"),
        ("/v1/events/nothing", 404, "not-found"),
        ("/v1/runs/nothing", 404, "not-found"),
        ("/v1/nothing", 404, "no-such-route"),
    ] {
        refused(&client, (Method::GET, path), "application/json", "", (status, code)).await?;
    }
    refused(&client, (Method::DELETE, "/v1/events"), "application/json", "", (405, "method-not-allowed")).await?;
    let sink = (Method::PUT, "/v1/sinks/one");
    for body in [
        json!({"kind": "pigeon"}),
        json!({"kind": "webhook", "url": "ftp://x"}),
        json!({"kind": "file", "path": "../x"}),
    ] {
        refused(&client, sink.clone(), "application/json", body.to_string(), (422, "sink-invalid")).await?;
    }
    // Addresses inside are refused when the sink is set, whatever way they are written.
    for url in ["http://10.0.0.1/", "http://169.254.169.254/latest", "http://[::1]/", "http://0x0a000001/"] {
        let body = json!({"kind": "webhook", "url": url}).to_string();
        let problem = refused(&client, sink.clone(), "application/json", body, (422, "sink-invalid")).await;
        problem.with_context(|| url.to_owned())?;
    }
    assert!(client.list("/v1/rules").await?.is_empty() && client.list("/v1/sinks").await?.is_empty());
    Ok(())
}

/// Every route gets garbage in every form: what comes back is never the host's fault.
#[tokio::test(flavor = "multi_thread")]
async fn no_route_fails_over_garbage() -> Result<()> {
    let seed: u64 = std::env::var("BULKHEAD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed} (set BULKHEAD_SEED to repeat)");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    client.publish(&[event("kept", "kept", json!({}))]).await?;
    let routes = openapi::routes(&client).await?;
    let medias = [
        "application/json",
        "application/yaml",
        ONE,
        BATCH,
        LINES,
        "application/wasm",
        "multipart/form-data; boundary=x",
        "",
        "\u{1}",
    ];
    let mut sent = 0;
    for route in routes.iter().filter(|route| !route.path.ends_with("/stream")) {
        let client = if route.path.starts_with("/admin/") { host.operator() } else { client.clone() };
        // Nobody shall pause or suspend what the next request needs; garbage cannot name the tenant that is there.
        if ["/v1/pause", "/admin/v1/pause"].contains(&route.path.as_str()) {
            continue;
        }
        for media in medias {
            let length = random.random_range(0..2_000);
            let mut body: Vec<u8> = (0..length).map(|_| random.random()).collect();
            if random.random_bool(0.5) {
                // Nearly JSON.
                body = format!("{{\"{}\": [{{}}, null, 1e999, \"\\ud800\"", random.random_range(0..9)).into_bytes();
            }
            let name = ["%00", "..%2f..%2fetc", "%ff%fe", "x", "💥", "a%0d%0ab"][random.random_range(0..6)];
            let path = route.filled(|_, _| Ok(name.to_owned()))?;
            let mut request = client.request(route.method.clone(), &path);
            if let Ok(media) = reqwest::header::HeaderValue::from_str(media) {
                request = request.header("content-type", media);
            }
            let answer = request.body(body).send().await.with_context(|| format!("seed {seed}: {}", route.name()))?;
            let status = answer.status().as_u16();
            let text = answer.text().await?;
            assert!(status < 500, "seed {seed}: {} {path} as {media}: {status} {text}", route.name());
            sent += 1;
        }
    }
    println!("{sent} requests over {} routes", routes.len());
    assert!(client.list("/v1/events").await?.iter().any(|event| event["id"] == "kept"));
    assert!(!host.log()?.contains("panicked"), "nothing panicked");
    Ok(())
}

/// What a connection answers to bytes; empty if it is closed without a word.
async fn raw(client: &Client, bytes: &[u8], limit: Duration) -> Result<String> {
    let mut stream = TcpStream::connect(client.address()).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    let read = async {
        loop {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend_from_slice(&piece[..read]),
            }
            // The head and, as problems are short, all of it.
            if answer.windows(4).any(|window| window == b"\r\n\r\n") && answer.ends_with(b"}") {
                break;
            }
        }
    };
    tokio::time::timeout(limit, read).await.context("neither answered nor closed")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_broken_connections_take_nothing_from_others() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(folder.path()).await?;
    let client = host.tenant("acme").await?;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {BATCH}\r\n",
        client.key()
    );
    // A body that does not come.
    let slow = async {
        let answer =
            raw(&client, format!("{head}content-length: 1000\r\n\r\n[").as_bytes(), Duration::from_secs(40)).await?;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("body-too-slow"), "{answer}");
        anyhow::Ok(())
    };
    let others = async {
        // More than is said to come at all is refused without reading it.
        let answer = raw(&client, format!("{head}content-length: 100000000000\r\n\r\n[").as_bytes(), SOON).await?;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        let answer = raw(&client, b"\x16\x03\x01\x02\x00\x01garbage that is no HTTP\r\n\r\n", SOON).await?;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        let answer = raw(&client, format!("{head}x: {}\r\n\r\n", "x".repeat(200_000)).as_bytes(), SOON).await?;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        // Chunks that break off: nothing of it is taken.
        let half = format!("{head}transfer-encoding: chunked\r\n\r\n10\r\n[{{\"specversion\":\r\nZZ\r\n");
        let answer = raw(&client, half.as_bytes(), SOON).await?;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        // Meanwhile everybody else is served.
        for n in 0..20 {
            client.publish(&[event(&format!("e-{n}"), "a", json!({}))]).await?;
        }
        assert_eq!(client.list("/v1/events").await?.len(), 20);
        anyhow::Ok(())
    };
    let (slow, others) = tokio::join!(slow, others);
    slow?;
    others
}
