//! Requests to other hosts, as a guest makes them: granted, within limits, recorded, and answered by whoever has a way
//! out. Who really sends them is the flow's affair and tested there.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::effect::Effect;
use bulkhead_domain::policy::limits::HttpLimits;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::recording::Duty;
use bulkhead_domain::recording::Place;
use bulkhead_domain::recording::Read;
use bulkhead_sandbox::Attempt;
use bulkhead_sandbox::Exchange;
use bulkhead_sandbox::Outbound;
use bulkhead_sandbox::Record;
use bulkhead_sandbox::Rules;
use bulkhead_sandbox::Setup;
use bulkhead_sandbox::outbound::Fault;
use bulkhead_sandbox::outbound::Reply;
use bulkhead_sandbox::outbound::Request;
use serde_json::Value;
use serde_json::json;

use crate::golden;
use crate::lab;
use crate::lab::Bench;
use crate::lab::code;
use crate::lab::reason;

/// Answers every request with what was asked, after a while; remembers all.
#[derive(Default)]
struct Echo {
    takes: Duration,
    fault: Option<Fault>,
    seen: Mutex<Vec<Request>>,
}

impl Echo {
    fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Answering {
    ready: Instant,
    ended: Result<Reply, Fault>,
}

impl Outbound for Echo {
    fn begin(&self, request: Request) -> Box<dyn Exchange> {
        let Request { method, url, body, .. } = &request;
        let text = format!("{method} {url} {}", String::from_utf8_lossy(body));
        let reply =
            Reply { status: 201, headers: vec![("x-by".to_owned(), "echo".into())], body: text.into_bytes().into() };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        let ended = self.fault.clone().map_or(Ok(reply), Err);
        Box::new(Answering { ready: Instant::now() + self.takes, ended })
    }
}

impl Exchange for Answering {
    fn wait(&mut self, until: Instant, given_up: &dyn Fn() -> bool) -> Option<Result<Reply, Fault>> {
        while Instant::now() < self.ready {
            if Instant::now() >= until || given_up() {
                return None;
            }
            std::thread::yield_now();
        }
        Some(self.ended.clone())
    }
}

fn setup() -> Setup {
    let mut setup = lab::setup();
    setup.grants.http.extend(["api.example.com".to_owned(), "http://127.0.0.1:9000".to_owned()]);
    setup
}

fn bench(data: &Value) -> Bench {
    let mut bench = Bench::default();
    bench.event.data = data.to_string().into_bytes().into();
    bench
}

/// One call of the guest that calls what the event says.
fn call(way: Option<&Arc<Echo>>, setup: Setup, data: &Value) -> Attempt {
    call_with(way, setup, &bench(data))
}

fn call_with(way: Option<&Arc<Echo>>, setup: Setup, bench: &Bench) -> Attempt {
    let plugin = lab::load(&golden::component("portable/http-caller"));
    let sandbox = match way {
        Some(way) => {
            let way: Arc<dyn Outbound> = Arc::<Echo>::clone(way);
            lab::SANDBOX.with_outbound(way)
        }
        None => lab::SANDBOX.clone(),
    };
    sandbox.session(&plugin, Arc::new(setup)).handle(&bench.call())
}

/// What the guest was told, call by call.
#[track_caller]
fn answers(attempt: &Attempt) -> Vec<Value> {
    assert_eq!(code(attempt), "done", "{}", reason(attempt));
    let answer = |effect: &Effect| match effect {
        Effect::State(write) if write.key.starts_with("answer:") => {
            serde_json::from_slice(write.value.as_ref().expect("because it was set")).ok()
        }
        _ => None,
    };
    attempt.effects.iter().filter_map(answer).collect()
}

#[track_caller]
fn error(attempt: &Attempt) -> String {
    answers(attempt)[0]["error"].as_str().unwrap_or_else(|| panic!("{:?}", answers(attempt))).to_owned()
}

fn one(url: &str) -> Value {
    json!({"calls": [{"url": url}]})
}

#[test]
fn a_granted_request_is_sent_and_its_answer_read() {
    let echo = Arc::new(Echo::default());
    let data = json!({"calls": [
        {"url": "https://api.example.com/orders?id=7", "headers": [["X-Token", "t"], ["Content-Length", "9"]]},
        {"method": "POST", "url": "http://127.0.0.1:9000", "body": "hello"},
    ]});
    let attempt = call(Some(&echo), setup(), &data);
    let answers = answers(&attempt);
    assert_eq!(answers[0]["status"], 201);
    assert_eq!(answers[0]["headers"], json!([["x-by", "echo"]]));
    assert_eq!(answers[0]["body"], "GET https://api.example.com/orders?id=7 ");
    assert_eq!(answers[1]["body"], "POST http://127.0.0.1:9000/ hello");
    let seen = echo.seen();
    let names: Vec<_> = seen[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-token", "idempotency-key"], "how long a body is, is the connection's to say");
    assert_eq!(seen[0].timeout, HttpLimits::default().time);
}

/// The receiver can tell a repetition from another request; and the guest may have a key of its own.
#[test]
fn a_retry_sends_the_same_key() {
    let echo = Arc::new(Echo::default());
    let data = json!({"calls": [
        {"url": "https://api.example.com/a"}, {"url": "https://api.example.com/a"},
        {"url": "https://api.example.com/b", "headers": [["Idempotency-Key", "mine"]]},
    ]});
    for attempt in 1..=2 {
        call_with(Some(&echo), setup(), &Bench { attempt, ..bench(&data) });
    }
    let keys: Vec<String> = echo
        .seen()
        .iter()
        .map(|request| {
            let key = request.headers.iter().find(|(name, _)| name == "idempotency-key").expect("because it is added");
            String::from_utf8_lossy(&key.1).into_owned()
        })
        .collect();
    assert_eq!(keys[..3], keys[3..]);
    assert_ne!(keys[0], keys[1]);
    assert!(keys[0].starts_with("req_"));
    assert_eq!(keys[2], "mine");
}

#[test]
fn without_the_grant_or_a_way_out_it_is_denied_and_the_log_says_why() {
    let echo = Arc::new(Echo::default());
    for url in [
        "https://other.example.com/",
        "http://api.example.com/",
        "https://api.example.com:8443/",
        "https://127.0.0.1:9000/",
        "https://api.example.com.evil.test/",
    ] {
        let attempt = call(Some(&echo), setup(), &one(url));
        assert_eq!(error(&attempt), "ErrorCode::HttpRequestDenied", "{url}");
        let line = &attempt.logs[0].message;
        assert!(line.contains("is not granted; add it to `http` under [grants]"), "{line}");
        assert!(line.contains("a ceiling cut it: ask the operator"), "{line}");
    }
    assert_eq!(echo.seen(), []);
    let attempt = call(None, setup(), &one("https://api.example.com/"));
    assert_eq!(error(&attempt), "ErrorCode::HttpRequestDenied", "as in a preview");
    assert!(attempt.logs[0].message.contains("nothing is sent from here"));
}

#[test]
fn sizes_and_numbers_are_bounded() {
    let echo = Arc::new(Echo::default());
    let limits = |http| Setup { limits: Limits { http, ..lab::setup().limits }, ..setup() };
    let post =
        |bytes: usize| json!({"calls": [{"method": "POST", "url": "https://api.example.com/", "body_bytes": bytes}]});
    let small = || limits(HttpLimits { request_bytes: 100_000, ..HttpLimits::default() });
    assert_eq!(answers(&call(Some(&echo), small(), &post(100_000)))[0]["status"], 201);
    let attempt = call(Some(&echo), small(), &post(100_001));
    assert!(error(&attempt).starts_with("ErrorCode::HttpRequestBodySize"), "{}", error(&attempt));

    let many = json!({"calls": vec![json!({"url": "https://api.example.com/"}); 4]});
    let few = limits(HttpLimits { requests: 3, ..HttpLimits::default() });
    let told = answers(&call(Some(&echo), few, &many));
    assert_eq!(told[2]["status"], 201);
    assert_eq!(told[3]["error"], "ErrorCode::ConnectionLimitReached");

    let long = format!("https://api.example.com/{}", "x".repeat(3_000));
    assert_eq!(error(&call(Some(&echo), setup(), &one(&long))), "ErrorCode::HttpRequestUriInvalid");
    let smuggled = json!({"calls": [{"url": "https://api.example.com/", "headers": [["Host", "evil"]]}]});
    assert!(error(&call(Some(&echo), setup(), &smuggled)).contains("Forbidden"));
}

/// Nothing goes out before the body is whole.
#[test]
fn a_body_that_is_not_finished_is_not_sent() {
    let echo = Arc::new(Echo::default());
    let data =
        json!({"calls": [{"method": "POST", "url": "https://api.example.com/", "body": "x", "unfinished": true}]});
    assert_eq!(error(&call(Some(&echo), setup(), &data)), "ErrorCode::HttpRequestUriInvalid");
    assert_eq!(echo.seen(), []);
}

/// Eight requests of 100 ms each take no longer than one, and none of the call's own 50 ms.
#[test]
fn requests_go_side_by_side_and_waiting_is_not_computing() {
    let echo = Arc::new(Echo { takes: Duration::from_millis(300), ..Echo::default() });
    let mut setup = setup();
    setup.limits.time = Duration::from_millis(250);
    let data = json!({"calls": vec![json!({"url": "https://api.example.com/"}); 8]});
    let attempt = call(Some(&echo), setup, &data);
    assert_eq!(answers(&attempt).len(), 8);
    assert!(attempt.duration >= Duration::from_millis(300) && attempt.duration < Duration::from_millis(1_200));
}

#[test]
fn waiting_has_an_end() {
    let echo = Arc::new(Echo { takes: Duration::from_secs(60), ..Echo::default() });
    let http = HttpLimits { wait: Duration::from_millis(50), ..HttpLimits::default() };
    let setup = || Setup { limits: Limits { http: http.clone(), ..lab::setup().limits }, ..setup() };
    let data = json!({"calls": vec![json!({"url": "https://api.example.com/"}); 3]});
    let told = answers(&call(Some(&echo), setup(), &data));
    assert!(told.iter().all(|answer| answer["error"] == "ErrorCode::HttpResponseTimeout"), "{told:?}");

    let bench = bench(&data);
    bench.cancelled.store(true, Ordering::Relaxed);
    lab::assert_ends(&call_with(Some(&echo), setup(), &bench), "host:cancelled");
}

#[test]
fn every_fault_has_its_code() {
    for (fault, expected) in [
        (Fault::Prohibited("10.0.0.1 is no public address".into()), "ErrorCode::DestinationIpProhibited"),
        (Fault::Busy("too many".into()), "ErrorCode::ConnectionLimitReached"),
        (Fault::Name, "ErrorCode::DnsError"),
        (Fault::Refused, "ErrorCode::ConnectionRefused"),
        (Fault::Timeout, "ErrorCode::HttpResponseTimeout"),
        (Fault::Tls("expired".into()), "ErrorCode::TlsCertificateError"),
        (Fault::ResponseTooLarge(7), "ErrorCode::HttpResponseBodySize(Some(7))"),
        (Fault::HeadersTooLarge(7), "ErrorCode::HttpResponseHeaderSectionSize(Some(7))"),
        (Fault::Broken, "ErrorCode::HttpResponseIncomplete"),
    ] {
        let echo = Arc::new(Echo { fault: Some(fault.clone()), ..Echo::default() });
        let attempt = call(Some(&echo), setup(), &one("https://api.example.com/secret?token=abc"));
        assert!(error(&attempt).starts_with(expected), "{}", error(&attempt));
        let line = &attempt.logs[0].message;
        assert!(line.starts_with("GET https://api.example.com/secret: ") && !line.contains("token"), "{line}");
    }
}

/// What came back is in the recording, and a re-execution has it from there.
#[test]
fn answers_are_recorded_and_replayed() {
    let plugin = lab::load(&golden::component("portable/http-caller"));
    for fault in [None, Some(Fault::Timeout)] {
        let echo = Arc::new(Echo { fault: fault.clone(), ..Echo::default() });
        let way: Arc<dyn Outbound> = Arc::<Echo>::clone(&echo);
        let mut session = lab::SANDBOX.with_outbound(way).session(&plugin, Arc::new(setup()));
        let data = json!({"calls": [
            {"method": "POST", "url": "https://api.example.com/a", "body": "1"},
            {"method": "POST", "url": "https://api.example.com/a", "body": "2"},
            {"url": "https://nowhere.example.com/"},
        ]});
        let bench = bench(&data);
        let mut call = bench.call();
        call.record = Record { bytes: 1 << 20, fresh: true };
        let attempt = session.handle(&call);
        assert_eq!(answers(&attempt).len(), 3);
        let place = Place { run: "run".into(), rule: "rule".into(), step: 0, item: 0, settings: 1 };
        let recording = session.record(&call, Duty::Handle, place, &attempt, Rules { redact: &[], bytes: 1 << 20 });
        let kept = |read: &&Read| matches!(read, Read::Http { status, .. } if status.is_some() == fault.is_none());
        assert_eq!(recording.reads.iter().filter(kept).count(), 2, "{:?}", recording.reads);

        let replayed = lab::SANDBOX.replay(&plugin, &recording).expect("because nothing is missing");
        assert!(replayed.exact && replayed.difference.is_none(), "{:?}", replayed.difference);
        assert_eq!(echo.seen().len(), 2, "a re-execution sends nothing");

        let mut without = recording.clone();
        without.reads.retain(|read| !matches!(read, Read::Http { .. }));
        let replayed = lab::SANDBOX.replay(&plugin, &without).expect("because nothing is cut");
        assert_eq!(replayed.difference.unrecorded.len(), 2);
    }
}

/// A guest of the next call finds nothing of the one before.
#[test]
fn an_instance_goes_on_after_a_call_with_requests() {
    let echo = Arc::new(Echo::default());
    let plugin = lab::load(&golden::component("portable/http-caller"));
    let way: Arc<dyn Outbound> = Arc::<Echo>::clone(&echo);
    let mut session = lab::SANDBOX.with_outbound(way).session(&plugin, Arc::new(setup()));
    for round in 0..50 {
        let attempt = session.handle(&bench(&one("https://api.example.com/")).call());
        assert_eq!(answers(&attempt)[0]["status"], 201);
        assert_eq!(attempt.instantiated, round == 0);
    }
    assert_eq!(echo.seen().len(), 50);
}
