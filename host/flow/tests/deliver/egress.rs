//! The guard against the catalogue of requests that must not leave, and answers that must not come in.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use async_trait::async_trait;
use bulkhead_flow::egress::Egress;
use bulkhead_flow::egress::EgressError;
use bulkhead_flow::egress::EgressOptions;
use bulkhead_flow::egress::Ports;
use bulkhead_flow::egress::Reply;
use bulkhead_flow::egress::resolve::Lookup;
use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderName;
use reqwest::header::HeaderValue;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::fixture::local_options;
use crate::fixture::receiver::Receiver;
use crate::fixture::receiver::Say;

/// Names that lead where the test says: each look-up takes the next answer, the last again and again.
#[derive(Default)]
struct Names {
    answers: HashMap<&'static str, Vec<Vec<&'static str>>>,
    asked: AtomicUsize,
}

#[async_trait]
impl Lookup for Names {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let answers = self.answers.get(name).ok_or_else(|| io::Error::other("no such name"))?;
        let answer = &answers[asked % answers.len()];
        Ok(answer.iter().map(|address| address.parse().expect("because it is an address")).collect())
    }
}

fn named(options: EgressOptions, answers: &[(&'static str, &[&[&'static str]])]) -> (Egress, Arc<Names>) {
    let answers = answers.iter().map(|(name, all)| (*name, all.iter().map(|one| one.to_vec()).collect())).collect();
    let names = Arc::new(Names { answers, asked: AtomicUsize::new(0) });
    (Egress::with_lookup(options, Arc::clone(&names) as Arc<dyn Lookup>), names)
}

/// As in production: no exceptions.
fn strict() -> Egress {
    named(EgressOptions::default(), &[]).0
}

async fn post(egress: &Egress, url: &str) -> Result<Reply, EgressError> {
    egress.post(url, HeaderMap::new(), Bytes::from_static(b"{}")).await
}

async fn code(egress: &Egress, url: &str) -> &'static str {
    match post(egress, url).await {
        Ok(_) => "sent",
        Err(error) => error.code(),
    }
}

/// None of these URLs is let through, neither when a sink is saved nor when it is sent to.
async fn all_denied(egress: &Egress, urls: &[&str]) {
    for url in urls {
        let refused = egress.check_url(url).map(|_| ()).expect_err(url);
        assert_eq!(refused.code(), "denied:egress", "{url}: {refused}");
        assert!(refused.is_final(), "{url}");
        assert_eq!(code(egress, url).await, "denied:egress", "{url}");
    }
}

#[tokio::test]
async fn n01_this_machine_is_out_of_reach() {
    let admin = Receiver::start(|_, _| Say::Status(200)).await;
    let port = admin.address.port();
    let urls = ["127.0.0.1", "localhost", "LOCALHOST", "api.localhost", "localhost.", "0.0.0.0", "[::1]", "[::]"];
    let urls: Vec<_> = urls.iter().map(|host| format!("http://{host}:{port}/")).collect();
    all_denied(&strict(), &urls.iter().map(String::as_str).collect::<Vec<_>>()).await;
    // The system's own look-up is asked only if the text passes, and what it says is checked.
    assert_eq!(
        code(&Egress::new(EgressOptions::default()), &format!("http://localhost:{port}/")).await,
        "denied:egress"
    );
    assert_eq!(admin.connections(), 0);
}

#[tokio::test]
async fn n02_metadata_services_are_out_of_reach() {
    let urls = [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://METADATA.google.internal./",
        "http://100.100.100.200/",
        "http://168.63.129.16/metadata/v1/",
        "http://192.0.0.192/opc/v1/",
    ];
    all_denied(&strict(), &urls).await;
}

#[tokio::test]
async fn n03_addresses_inside_addresses_are_out_of_reach() {
    let urls = [
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b:1::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[::7f00:1]/",
        "http://[2001:0:7f00:1::]/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1]/",
        "http://[ff02::1]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://198.18.0.1/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://172.31.255.255/",
    ];
    all_denied(&strict(), &urls).await;
    // An exception for an address is none for what carries it.
    let local = Egress::new(local_options());
    all_denied(&local, &["http://[::ffff:127.0.0.1]:8080/", "http://[::7f00:1]:8080/", "http://[::1]:8080/"]).await;
}

#[tokio::test]
async fn n04_odd_spellings_are_the_same_address() {
    let admin = Receiver::start(|_, _| Say::Status(200)).await;
    let port = admin.address.port();
    let hosts = [
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "0x7f000001",
        "127.1",
        "127.0.0.1.",
        "１２７.0.0.1",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "%31%32%37.0.0.1",
    ];
    let urls: Vec<_> = hosts.iter().map(|host| format!("http://{host}:{port}/")).collect();
    all_denied(&strict(), &urls.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(admin.connections(), 0);
    // With an exception they lead to the very same place.
    let local = Egress::new(local_options());
    for url in &urls {
        assert_eq!(code(&local, url).await, "sent", "{url}");
    }
}

#[tokio::test]
async fn n05_private_answers_are_dropped() {
    let allowed = Receiver::start_at("127.0.0.2:0", |_, _| Say::Status(200)).await;
    let port = allowed.address.port();
    let forbidden = Receiver::start_at(&format!("127.0.0.1:{port}"), |_, _| Say::Status(200)).await;
    let options = EgressOptions { allow: vec!["127.0.0.2/32".parse().expect("because it is one")], ..local_options() };
    let answers: &[(&str, &[&[&str]])] = &[
        ("private.test", &[&["10.0.0.5"]]),
        ("loopback.test", &[&["127.0.0.1", "::1", "::ffff:127.0.0.2"]]),
        ("mixed.test", &[&["127.0.0.1", "10.0.0.5", "127.0.0.2"]]),
        ("empty.test", &[&[]]),
    ];
    let (egress, _) = named(options, answers);
    for name in ["private.test", "loopback.test"] {
        let error = post(&egress, &format!("http://{name}:{port}/")).await.expect_err(name);
        assert_eq!(error.code(), "denied:egress");
        assert!(!error.to_string().contains("10.0") && !error.to_string().contains("127"), "{error}");
    }
    assert_eq!(code(&egress, &format!("http://mixed.test:{port}/")).await, "sent");
    assert_eq!(code(&egress, &format!("http://empty.test:{port}/")).await, "egress:dns");
    assert_eq!(code(&egress, &format!("http://unknown.test:{port}/")).await, "egress:dns");
    assert_eq!((allowed.count(), forbidden.connections()), (1, 0));
}

#[tokio::test]
async fn n06_a_name_that_changes_its_mind_leads_nowhere_else() {
    let close = || Say::With(200, vec![("connection", "close".to_owned())]);
    let allowed = Receiver::start_at("127.0.0.2:0", move |_, _| close()).await;
    let port = allowed.address.port();
    let forbidden = Receiver::start_at(&format!("127.0.0.1:{port}"), |_, _| Say::Status(200)).await;
    let options = EgressOptions { allow: vec!["127.0.0.2/32".parse().expect("because it is one")], ..local_options() };
    let (egress, names) = named(options, &[("rebind.test", &[&["127.0.0.2"], &["127.0.0.1"]])]);
    let url = format!("http://rebind.test:{port}/");
    let mut codes: HashMap<_, usize> = HashMap::new();
    for _ in 0..1_000 {
        *codes.entry(code(&egress, &url).await).or_default() += 1;
    }
    assert_eq!(forbidden.connections(), 0, "{codes:?}");
    assert!(names.asked.load(Ordering::SeqCst) >= 1_000, "every connection asked anew");
    assert_eq!((codes["sent"], codes["denied:egress"]), (500, 500), "{codes:?}");
}

#[tokio::test]
async fn n07_redirects_are_not_followed() {
    let inside = Receiver::start(|_, _| Say::Status(200)).await;
    let target = inside.url("/");
    for status in [301, 302, 303, 307, 308] {
        for location in [target.as_str(), "http://169.254.169.254/", "file:///etc/passwd", "gopher://127.0.0.1:6379/"] {
            let location = location.to_owned();
            let there = move |_: &_, _| Say::With(status, vec![("location", location.clone())]);
            let redirecting = Receiver::start_at("127.0.0.2:0", there).await;
            let reply = post(&Egress::new(local_options()), &redirecting.url("/")).await.expect("because it answers");
            assert_eq!((reply.status.as_u16(), redirecting.count()), (status, 1));
        }
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn n08_nothing_is_smuggled_into_a_request() {
    let urls = [
        "http://allowed.example@127.0.0.1/",
        "http://user:secret@example.com/",
        "http://:secret@example.com/",
        "http://127.0.0.1#@allowed.example/",
        "http://example.com/a\r\nHost: inside",
        "http://example.com/a\nb",
        "http://exa\tmple.com/",
        " http://example.com/",
        "http://example.com/ HTTP/1.1",
        "http:///",
        "//example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "javascript:alert(1)",
        "http://example.com:0/",
        "http://example.com:99999/",
    ];
    let egress = strict();
    all_denied(&egress, &urls).await;
    all_denied(&egress, &[&format!("http://example.com/{}", "x".repeat(2_048))]).await;

    let receiver = Receiver::start(|_, _| Say::Status(200)).await;
    let local = Egress::new(local_options());
    for name in ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "proxy-authorization"] {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        let error = local.post(&receiver.url("/"), headers, Bytes::new()).await.expect_err(name);
        assert_eq!(error.code(), "denied:egress", "{name}");
    }
    assert_eq!(receiver.connections(), 0);
    // What is sent has one host, one length and a target without a host.
    let url = receiver.url("/%0d%0aX-Evil:%201?a=%0d%0a#http://inside/");
    local.post(&url, HeaderMap::new(), Bytes::from_static(b"hello")).await.expect("because it answers");
    let seen = receiver.seen().remove(0);
    assert_eq!(seen.line, "POST /%0d%0aX-Evil:%201?a=%0d%0a HTTP/1.1");
    assert_eq!(seen.headers.get_all("host").iter().count(), 1);
    assert_eq!(seen.header("content-length"), "5");
    assert!(seen.headers.get("transfer-encoding").is_none() && seen.headers.get("accept-encoding").is_none());
    assert_eq!(seen.header("user-agent"), concat!("bulkhead/", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn n09_an_answer_has_bounds_in_size() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n";
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536)).into_bytes();
    let infinite = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    let hundred = format!("{head}content-length: 104857600\r\n\r\n").into_bytes();
    let endless = format!("{head}\r\n").into_bytes();
    let megabyte = vec![b'x'; 65_536];
    let many = format!("{head}{}\r\n", "x-a: 1\r\n".repeat(10_000)).into_bytes();
    let wide = format!("{head}x-wide: {}\r\n\r\n", "y".repeat(40_000)).into_bytes();
    let says = [
        ("infinite chunks", Say::Repeat(infinite, chunk, Duration::ZERO)),
        ("100 MB said", Say::Repeat(hundred, megabyte.clone(), Duration::ZERO)),
        ("infinite to the end", Say::Repeat(endless, megabyte, Duration::ZERO)),
        ("10,000 headers", Say::Raw(many)),
        ("40 KB in a header", Say::Raw(wide)),
    ];
    let options =
        EgressOptions { first_byte: Duration::from_secs(5), total: Duration::from_secs(10), ..local_options() };
    let egress = Egress::new(options);
    for (what, say) in says {
        let receiver = Receiver::start(move |_, _| say.clone()).await;
        assert_eq!(code(&egress, &receiver.url("/")).await, "egress:limit", "{what}");
        // What the sockets between hold is the kernel's; beyond it nothing was taken.
        assert!(receiver.written() < 16 << 20, "{what}: {} bytes were taken", receiver.written());
    }
}

#[tokio::test]
async fn n09_an_answer_has_bounds_in_time() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".to_vec();
    let says = [
        ("nothing at all", Say::Hang(Vec::new())),
        ("half a head", Say::Hang(b"HTTP/1.1 200 OK\r\nx-a".to_vec())),
        ("hangs after the headers", Say::Hang(head.clone())),
        ("slow drip", Say::Repeat(head, b"x".to_vec(), Duration::from_millis(50))),
        ("slow drip in the head", Say::Repeat(Vec::new(), b"H".to_vec(), Duration::from_millis(50))),
        ("never-ending 1xx", Say::Repeat(Vec::new(), b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec(), Duration::ZERO)),
    ];
    let egress = Egress::new(local_options());
    for (what, say) in says {
        let receiver = Receiver::start(move |_, _| say.clone()).await;
        let started = Instant::now();
        let code = code(&egress, &receiver.url("/")).await;
        // A drip that is no HTTP ends at once, which is as well.
        assert!(
            code == "egress:timeout" || (what.ends_with("in the head") && code == "egress:broken"),
            "{what}: {code}"
        );
        assert!(started.elapsed() < Duration::from_secs(4), "{what}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn n09_nothing_is_unpacked() {
    let body = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec();
    let mut raw =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    raw.extend(&body);
    let receiver = Receiver::start(move |_, _| Say::Raw(raw.clone())).await;
    let reply = post(&Egress::new(local_options()), &receiver.url("/")).await.expect("because it answers");
    assert_eq!(reply.body, body);
    assert_eq!(reply.headers["content-encoding"], "gzip");
}

#[tokio::test]
async fn n10_only_ports_of_the_web_are_called() {
    let egress = strict();
    for port in [1, 22, 25, 139, 445, 587, 1_023] {
        all_denied(&egress, &[&format!("http://example.com:{port}/")]).await;
    }
    for port in [80, 443, 1_024, 8_080, 65_535] {
        assert!(egress.check_url(&format!("https://example.com:{port}/")).is_ok(), "{port}");
    }
    let only = Egress::new(EgressOptions { ports: Ports::Only(vec![443]), ..EgressOptions::default() });
    assert!(only.check_url("https://example.com/").is_ok());
    all_denied(&only, &["http://example.com/", "https://example.com:8443/"]).await;
}

#[tokio::test]
async fn n11_nobody_calls_this_product_itself() {
    let own = ["Events.Example.com", "127.0.0.1:8080", "[2a00:1450::1]", "9.9.9.9", "example.org:80"];
    let own_hosts = own.iter().map(ToString::to_string).collect();
    let (egress, _) = named(EgressOptions { own_hosts, ..local_options() }, &[("alias.test", &[&["9.9.9.9"]])]);
    let urls = [
        "https://events.example.com/v1/events",
        "https://EVENTS.example.com.:8443/",
        "http://127.0.0.1:8080/v1/events",
        "http://2130706433:8080/",
        "http://[2a00:1450:0::1]/",
        "http://9.9.9.9/",
        "http://example.org/",
    ];
    all_denied(&egress, &urls).await;
    assert_eq!(code(&egress, "http://alias.test/").await, "denied:egress", "a name that leads there, too");
    for url in ["http://127.0.0.1:8081/", "https://example.org/", "https://example.com/"] {
        assert!(egress.check_url(url).is_ok(), "{url}");
    }
}

/// Says to the child below where to post to, and by its presence that it is the child.
const PROXY_CASE: &str = "BULKHEAD_TEST_PROXY_CASE";

#[tokio::test(flavor = "multi_thread")]
async fn n12_proxies_of_the_environment_are_ignored() {
    if let Ok(url) = std::env::var(PROXY_CASE) {
        let reply = post(&Egress::new(local_options()), &url).await.expect("because the receiver answers");
        assert_eq!(reply.status.as_u16(), 204);
        return;
    }
    let proxy = Receiver::start(|_, _| Say::Status(200)).await;
    let receiver = Receiver::start(|_, _| Say::Status(204)).await;
    let mut child = Command::new(std::env::current_exe().expect("because this test runs from a file"));
    child.args(["--exact", "egress::n12_proxies_of_the_environment_are_ignored"]).env(PROXY_CASE, receiver.url("/"));
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        child.env(name, proxy.url("")).env(name.to_lowercase(), proxy.url(""));
    }
    let child = child.env_remove("NO_PROXY").env_remove("no_proxy").env_remove("REQUEST_METHOD");
    let output = tokio::task::block_in_place(|| child.output());
    let output = output.expect("because this test can be started again");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((receiver.count(), proxy.connections()), (1, 0));
}

#[tokio::test]
async fn failures_of_the_network_have_their_codes() {
    let gone = Receiver::start(|_, _| Say::Status(200)).await;
    let url = gone.url("/");
    drop(gone);
    let egress = Egress::new(local_options());
    crate::fixture::until("the port is closed", || std::net::TcpStream::connect(&url[7..url.len() - 1]).is_err()).await;
    assert_eq!(code(&egress, &url).await, "egress:connect");
    for (raw, expected) in [
        ("", "egress:broken"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "egress:broken"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "egress:broken"),
    ] {
        let receiver = Receiver::start(move |_, _| Say::Raw(raw.as_bytes().to_vec())).await;
        assert_eq!(code(&egress, &receiver.url("/")).await, expected, "{raw:?}");
    }
    // Plain text where TLS was promised.
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("because a port is free");
    let url = format!("https://{}/", plain.local_addr().expect("because it is bound"));
    let greeting = tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.expect("because somebody connects");
        stream.write_all(b"220 mail.example.com ESMTP\r\n").await.expect("because somebody is there");
        // Until the other end hangs up.
        while stream.read(&mut [0; 1_024]).await.is_ok_and(|count| count > 0) {}
    });
    assert_eq!(code(&egress, &url).await, "egress:tls");
    greeting.await.expect("because it does not panic");
}
