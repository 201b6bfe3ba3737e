//! One attempt of a webhook: what the receiver gets, and what its answers mean.

use std::time::Duration;

use bulkhead_domain::clock::Clock as _;
use bulkhead_domain::clock::SystemClock;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_flow::egress::Egress;
use bulkhead_flow::egress::EgressOptions;
use bulkhead_flow::sink::Attempt;
use bulkhead_flow::sink::Outlets;
use serde_json::Value;
use serde_json::json;
use standardwebhooks::Webhook;

use crate::fixture::due;
use crate::fixture::local_options;
use crate::fixture::local_outlets;
use crate::fixture::receiver::Receiver;
use crate::fixture::receiver::Say;
use crate::fixture::resolved;

const OLD: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEW: &str = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

async fn attempt_with(outlets: &Outlets, spec: &Value, secrets: &[(&str, &str)]) -> Attempt {
    let delivery = due(1, "eff_1", "crm", "{\"order\":1}");
    resolved(spec, secrets).deliver(outlets, &delivery, SystemClock.now()).await
}

async fn attempt(spec: &Value, secrets: &[(&str, &str)]) -> Attempt {
    attempt_with(&local_outlets(), spec, secrets).await
}

/// `done`, or the failure's code behind `failed` (there is another attempt) or `rejected` (there is none).
fn ended(attempt: &Attempt) -> String {
    match &attempt.outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Failed(failure) => format!("failed {}", failure.code),
        Outcome::Rejected(failure) => format!("rejected {}", failure.code),
    }
}

#[tokio::test]
async fn the_receiver_can_verify_with_either_secret_during_a_change() {
    let receiver = Receiver::start(|_, _| Say::Status(204)).await;
    let spec = json!({"kind": "webhook", "url": receiver.url("/hook"), "secret": ["old", "new"],
                      "headers": {"X-Team": "a {{secret:token}}"}});
    let made = attempt(&spec, &[("old", OLD), ("new", NEW), ("token", "t0ken")]).await;
    assert_eq!(ended(&made), "done");
    let seen = receiver.seen().remove(0);
    assert_eq!(seen.line, "POST /hook HTTP/1.1");
    assert_eq!((seen.header("webhook-id"), seen.header("content-type")), ("eff_1", "application/json"));
    assert_eq!(seen.header("x-team"), "a t0ken");
    for secret in [OLD, NEW] {
        let webhook = Webhook::new(secret).expect("because it is well formed");
        webhook.verify(&seen.body, &seen.headers).expect("because both secrets sign");
    }
    let other = Webhook::new("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("because it is well formed");
    assert!(other.verify(&seen.body, &seen.headers).is_err());
}

#[tokio::test]
async fn an_answer_means_what_its_status_says() {
    for (status, expected) in [
        (200, "done"),
        (204, "done"),
        (302, "rejected http:302"),
        (400, "rejected http:400"),
        (404, "rejected http:404"),
        (408, "failed http:408"),
        (410, "rejected http:410"),
        (425, "failed http:425"),
        (429, "failed http:429"),
        (500, "failed http:500"),
        (503, "failed http:503"),
    ] {
        let receiver = Receiver::start(move |_, _| Say::Status(status)).await;
        let made = attempt(&json!({"kind": "webhook", "url": receiver.url("/")}), &[]).await;
        assert_eq!(ended(&made), expected);
        assert!(made.reached_out, "{status}");
    }
}

#[tokio::test]
async fn a_receiver_s_wish_for_a_pause_is_heard() {
    let receiver = Receiver::start(|_, _| Say::With(429, vec![("retry-after", "7".to_owned())])).await;
    let made = attempt(&json!({"kind": "webhook", "url": receiver.url("/")}), &[]).await;
    let Outcome::Failed(failure) = made.outcome else { panic!("it may be tried again") };
    assert_eq!(failure.after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let inner = Receiver::start(|_, _| Say::Status(200)).await;
    let target = inner.url("/inner");
    let outer = Receiver::start(move |_, _| Say::With(307, vec![("location", target.clone())])).await;
    let made = attempt(&json!({"kind": "webhook", "url": outer.url("/")}), &[]).await;
    assert_eq!(ended(&made), "rejected http:307");
    assert_eq!(inner.count(), 0);
}

#[tokio::test]
async fn a_slow_or_endless_receiver_takes_no_more_than_its_time() {
    let outlets = Outlets { egress: Egress::new(local_options()), files: None, redis: None, log: false };
    let endless = b"HTTP/1.1 500 No\r\ncontent-type: text/plain\r\n\r\n".to_vec();
    let ways = [
        ("failed egress:timeout", Say::Hang(Vec::new())),
        ("failed egress:timeout", Say::Hang(b"HTTP/1.1 200 OK\r\n".to_vec())),
        ("failed http:500", Say::Repeat(endless, vec![b'x'; 1_024], Duration::from_millis(1))),
    ];
    for (expected, say) in ways {
        let receiver = Receiver::start(move |_, _| say.clone()).await;
        let began = std::time::Instant::now();
        let made = attempt_with(&outlets, &json!({"kind": "webhook", "url": receiver.url("/")}), &[]).await;
        assert_eq!(ended(&made), expected);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let Outcome::Failed(failure) = made.outcome else { panic!("it may be tried again") };
        assert!(failure.reason.len() < 500, "an excerpt is enough: {}", failure.reason.len());
    }
}

#[tokio::test]
async fn what_lacks_a_secret_or_may_not_go_there_sends_nothing() {
    let receiver = Receiver::start(|_, _| Say::Status(200)).await;
    let signed = json!({"kind": "webhook", "url": receiver.url("/"), "secret": "crm"});
    let made = attempt(&signed, &[]).await;
    assert_eq!(ended(&made), "rejected sink:secret");
    let strict = Outlets { egress: Egress::new(EgressOptions::default()), files: None, redis: None, log: false };
    let plain = json!({"kind": "webhook", "url": receiver.url("/")});
    let made = attempt_with(&strict, &plain, &[]).await;
    assert_eq!(ended(&made), "rejected denied:egress");
    assert!(!made.reached_out);
    assert_eq!(receiver.connections(), 0);
}
