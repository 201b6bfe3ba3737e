//! Plugins' requests over the real guard, to a server that behaves as badly as it is told to.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::PluginId;
use bulkhead_domain::policy::origin::Origin;
use bulkhead_flow::egress::Egress;
use bulkhead_flow::egress::EgressOptions;
use bulkhead_flow::outbound::Origins;
use bulkhead_flow::outbound::Requests;
use bulkhead_sandbox::Exchange;
use bulkhead_sandbox::Outbound;
use bulkhead_sandbox::outbound::Fault;
use bulkhead_sandbox::outbound::Reply;
use bulkhead_sandbox::outbound::Request;
use bytes::Bytes;
use tokio::runtime::Handle;

use crate::fixture::local_options;
use crate::fixture::receiver::Receiver;
use crate::fixture::receiver::Say;

fn requests(options: EgressOptions) -> Arc<Requests> {
    Arc::new(Requests::new(Egress::new(options), Origins::All, Handle::current()))
}

fn request(url: String) -> Request {
    Request {
        plugin: PluginId(1),
        method: "POST".into(),
        url,
        headers: vec![("x-token".into(), Bytes::from_static(b"t"))],
        body: Bytes::from_static(b"hello"),
        timeout: Duration::from_secs(5),
        response_bytes: 1_000,
    }
}

/// Waits as a guest's thread does.
async fn wait(mut exchange: Box<dyn Exchange>, time: Duration) -> Option<Result<Reply, Fault>> {
    let waiting = tokio::task::spawn_blocking(move || exchange.wait(Instant::now() + time, &|| false));
    waiting.await.expect("because it does not panic")
}

async fn ask(requests: &Requests, request: Request) -> Result<Reply, Fault> {
    wait(requests.begin(request), Duration::from_secs(10)).await.expect("because it is over by then")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_out_as_it_is_and_comes_back_whole() {
    let raw = b"HTTP/1.1 207 Multi\r\nx-by: server\r\ncontent-length: 5\r\n\r\nworld".to_vec();
    let server = Receiver::start(move |_, _| Say::Raw(raw.clone())).await;
    let reply = ask(&requests(local_options()), request(format!("http://{}/a?b=c", server.address))).await;
    let reply = reply.expect("because the server answers");
    assert_eq!((reply.status, &reply.body[..]), (207, &b"world"[..]));
    assert!(reply.headers.contains(&("x-by".to_owned(), Bytes::from_static(b"server"))));
    let seen = &server.seen()[0];
    assert_eq!((seen.line.as_str(), &seen.body[..]), ("POST /a?b=c HTTP/1.1", &b"hello"[..]));
    assert_eq!((seen.header("x-token"), seen.header("content-length")), ("t", "5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_and_the_guard_have_the_last_word() {
    let server = Receiver::start(|_, _| Say::Status(200)).await;
    let url = format!("http://{}/", server.address);
    let only = |origin: &str| Origins::Only([Origin::parse(origin).expect("because it is one")].into());
    let with = |origins| Requests::new(Egress::new(local_options()), origins, Handle::current());
    for origins in [Origins::default(), only("api.example.com"), only(&server.address.to_string())] {
        let asked = ask(&with(origins.clone()), request(url.clone())).await;
        assert!(matches!(&asked, Err(Fault::Denied(text)) if text.contains("operator")), "{origins:?}: {asked:?}");
    }
    assert_eq!(
        ask(&with(only(&format!("http://{}", server.address))), request(url.clone())).await.map(|it| it.status),
        Ok(200)
    );

    // As in production: this machine is nobody's business, however it is spelt.
    let strict = requests(EgressOptions::default());
    let port = server.address.port();
    for host in ["127.0.0.1", "localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254"] {
        let asked = ask(&strict, request(format!("http://{host}:{port}/"))).await;
        assert!(matches!(asked, Err(Fault::Prohibited(_) | Fault::Invalid(_))), "{host}: {asked:?}");
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_answers_and_nothing_is_too_long() {
    let away = Receiver::start(|_, _| Say::Status(200)).await;
    let target = format!("http://{}/", away.address);
    let server = Receiver::start(move |seen, _| match seen.line.split(' ').nth(1).unwrap_or_default() {
        "/redirect" => Say::With(302, vec![("location", target.clone())]),
        "/late" => Say::Late(Duration::from_secs(30)),
        "/slow" => Say::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc".to_vec()),
        "/large" => {
            Say::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n{}", "x".repeat(1_001)).into_bytes())
        }
        "/endless" => Say::Repeat(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 100], Duration::ZERO),
        _ => Say::Raw(b"nonsense\r\n\r\n".to_vec()),
    })
    .await;
    let requests = requests(local_options());
    let short = |path: &str| Request {
        timeout: Duration::from_millis(300),
        ..request(format!("http://{}{path}", server.address))
    };
    let redirect = ask(&requests, short("/redirect")).await.expect("because a redirect is an answer");
    assert_eq!(redirect.status, 302);
    assert_eq!(away.seen().len(), 0, "and is not followed");
    for (path, expected) in [
        ("/late", Fault::Timeout),
        ("/slow", Fault::Timeout),
        ("/large", Fault::ResponseTooLarge(1_000)),
        ("/endless", Fault::ResponseTooLarge(1_000)),
        ("/nonsense", Fault::Broken),
    ] {
        assert_eq!(ask(&requests, short(path)).await, Err(expected), "{path}");
    }
    let nobody = request("http://127.0.0.1:1/".into());
    let asked = ask(&requests, nobody).await;
    assert!(matches!(asked, Err(Fault::Refused | Fault::Prohibited(_))), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_cannot_have_more_under_way_than_its_share() {
    let server = Receiver::start(|_, _| Say::Late(Duration::from_secs(30))).await;
    let requests = requests(local_options());
    let url = format!("http://{}/", server.address);
    let under_way: Vec<_> = (0..64).map(|_| requests.begin(request(url.clone()))).collect();
    let more = wait(requests.begin(request(url.clone())), Duration::from_secs(1)).await;
    assert!(matches!(more, Some(Err(Fault::Busy(_)))), "{more:?}");
    let other = Request { plugin: PluginId(2), ..request(url.clone()) };
    assert_eq!(wait(requests.begin(other), Duration::from_millis(50)).await, None, "another plugin has its own share");
    // What is given up makes room.
    drop(under_way);
    assert_eq!(wait(requests.begin(request(url)), Duration::from_millis(50)).await, None);
}
