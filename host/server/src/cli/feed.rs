//! Feeding: NDJSON from a file or a pipe into `POST /v1/events`, at any size, with several requests on their way.
//!
//! A request that was lost on the way is sent again: the host knows an event by its source and id and counts it as a
//! duplicate. For the same reason an interrupted feed can simply be repeated.

use std::cell::RefCell;
use std::time::Duration;
use std::time::Instant;

use futures_util::future::try_join_all;
use reqwest::Method;
use reqwest::Response;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use reqwest::header::RETRY_AFTER;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use crate::cli::batch::Batch;
use crate::cli::batch::Dealer;
use crate::cli::batch::LINE_MAX;
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;

/// Requests on their way at a time. A host commits what arrives together in one transaction, so more gain little.
pub const LANES: usize = 4;

/// A pipe that pauses this long gets what it has written so far sent off.
const IDLE: Duration = Duration::from_millis(150);

/// Rejected lines that are remembered one by one; the others are only counted.
const REJECTED_MAX: usize = 1_000;

/// The longest wait that a host's `Retry-After` is believed.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How a feed is done.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Requests on their way at a time.
    pub lanes: usize,
    /// How long one request is tried again while the host is busy or away.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { lanes: LANES, patience: Duration::from_secs(120) }
    }
}

/// A line that the host did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its number in the input, from 1.
    pub line: u64,
    /// For machines.
    pub code: String,
    /// For people.
    pub detail: String,
}

/// What has become of the lines so far.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Bytes read.
    pub bytes: u64,
    /// Events accepted.
    pub accepted: u64,
    /// Events that the host had already.
    pub duplicates: u64,
    /// Events that it did not take.
    pub rejected: u64,
    /// The first of them.
    pub reasons: Vec<Rejected>,
    /// Ids of accepted events; only kept for a feed of one event.
    pub ids: Vec<String>,
    /// Set while the host asks for a pause: why.
    pub waiting: Option<String>,
}

impl Tally {
    /// All lines that are answered.
    pub fn answered(&self) -> u64 {
        self.accepted + self.duplicates + self.rejected
    }

    fn add(&mut self, batch: &Batch, answer: Answer) {
        self.accepted += answer.accepted;
        self.duplicates += answer.duplicates;
        self.rejected += answer.rejected.len() as u64;
        self.waiting = None;
        if batch.lines.len() == 1 {
            self.ids = answer.ids.into_iter().filter_map(|id| id.as_str().map(str::to_owned)).collect();
        }
        for (index, code, detail) in answer.rejected.into_iter().map(|it| (it.index, it.code, it.detail)) {
            if self.reasons.len() < REJECTED_MAX {
                let line = batch.lines.get(index).copied().unwrap_or_default();
                self.reasons.push(Rejected { line, code, detail });
            }
        }
    }
}

/// The host's answer to a request.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    accepted: u64,
    #[serde(default)]
    duplicates: u64,
    rejected: Vec<RawRejected>,
    #[serde(default)]
    ids: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct RawRejected {
    index: usize,
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
}

/// Sends everything that `input` gives until it ends, and keeps `tally` current meanwhile.
///
/// The tally counts also when this fails or is dropped: what it says was answered.
pub async fn publish(
    client: &Client,
    input: impl AsyncRead + Unpin,
    options: Options,
    tally: &RefCell<Tally>,
) -> Result<()> {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..options.lanes.max(1)).map(|_| mpsc::channel(1)).unzip();
    let lanes = receivers.into_iter().map(|receiver| lane(client, receiver, options.patience, tally));
    tokio::try_join!(read(input, senders, tally), try_join_all(lanes))?;
    Ok(())
}

/// Works a lane off, one request after the other.
async fn lane(
    client: &Client,
    mut batches: mpsc::Receiver<Batch>,
    patience: Duration,
    tally: &RefCell<Tally>,
) -> Result<()> {
    while let Some(batch) = batches.recv().await {
        deliver(client, batch, patience, tally).await?;
    }
    Ok(())
}

/// Cuts the input into lines and deals them out.
async fn read(
    mut input: impl AsyncRead + Unpin,
    lanes: Vec<mpsc::Sender<Batch>>,
    tally: &RefCell<Tally>,
) -> Result<()> {
    let mut dealer = Dealer::new(lanes.len());
    let mut buffer: Vec<u8> = Vec::with_capacity(256 << 10);
    let mut number = 0;
    loop {
        // Cancelling `read_buf` loses nothing: what is not read yet stays where it is.
        let read = match tokio::time::timeout(IDLE, input.read_buf(&mut buffer)).await {
            Ok(read) => read.map_err(|cause| Error::failed(format!("the input cannot be read: {cause}")))?,
            Err(_) => {
                send_all(&lanes, dealer.rest()).await;
                continue;
            }
        };
        tally.borrow_mut().bytes += read as u64;
        let mut start = 0;
        while let Some(length) = buffer[start..].iter().position(|byte| *byte == b'\n') {
            number += 1;
            deal(&mut dealer, &lanes, number, &buffer[start..start + length]).await;
            start += length + 1;
        }
        buffer.drain(..start);
        if buffer.len() > LINE_MAX {
            return Err(Error::failed(format!("line {} is longer than {} MiB", number + 1, LINE_MAX >> 20)));
        }
        if read == 0 {
            deal(&mut dealer, &lanes, number + 1, &buffer).await;
            send_all(&lanes, dealer.rest()).await;
            return Ok(());
        }
    }
}

async fn deal(dealer: &mut Dealer, lanes: &[mpsc::Sender<Batch>], number: u64, line: &[u8]) {
    let line = line.trim_ascii();
    if line.is_empty() {
        return;
    }
    if let Some(full) = dealer.deal(number, line) {
        send_all(lanes, vec![full]).await;
    }
}

async fn send_all(lanes: &[mpsc::Sender<Batch>], batches: Vec<(usize, Batch)>) {
    for (lane, batch) in batches {
        // A lane only goes when the whole feed fails, and that failure is told.
        let _ = lanes[lane].send(batch).await;
    }
}

/// Sends a batch until the host has answered for each of its lines.
async fn deliver(client: &Client, batch: Batch, patience: Duration, tally: &RefCell<Tally>) -> Result<()> {
    let mut todo = vec![batch];
    while let Some(batch) = todo.pop() {
        match attempt(client, &batch, patience, tally).await? {
            Attempt::Answered(answer) => tally.borrow_mut().add(&batch, answer),
            Attempt::TooLarge if batch.lines.len() > 1 => {
                let (first, second) = batch.halves();
                todo.push(second);
                todo.push(first);
            }
            Attempt::TooLarge => {
                let rejected = RawRejected {
                    index: 0,
                    code: "event:too-large".to_owned(),
                    detail: format!("{} bytes are more than the host takes", batch.body.len()),
                };
                let answer = Answer { accepted: 0, duplicates: 0, rejected: vec![rejected], ids: Vec::new() };
                tally.borrow_mut().add(&batch, answer);
            }
        }
    }
    Ok(())
}

/// What came of a batch.
enum Attempt {
    Answered(Answer),
    TooLarge,
}

async fn attempt(client: &Client, batch: &Batch, patience: Duration, tally: &RefCell<Tally>) -> Result<Attempt> {
    let begun = Instant::now();
    let mut tries = 0;
    loop {
        tries += 1;
        let request = client
            .request(Method::POST, &["v1", "events"], &[])?
            .header(CONTENT_TYPE, "application/x-ndjson")
            .timeout(WAIT_MAX * 2)
            .body(batch.body.clone());
        let (error, wait) = match client.send(request).await {
            Ok(response) => match response.status() {
                StatusCode::PAYLOAD_TOO_LARGE => return Ok(Attempt::TooLarge),
                status if status.is_success() || status == StatusCode::UNPROCESSABLE_ENTITY => {
                    return answer(client, response).await.map(Attempt::Answered);
                }
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
                | StatusCode::INSUFFICIENT_STORAGE => {
                    let asked = retry_after(&response);
                    (client.refusal(response).await, asked)
                }
                _ => return Err(client.refusal(response).await),
            },
            // Before the first answer a missing host is a wrong address; later it is a restart.
            Err(error) if tally.borrow().answered() == 0 && tries == 1 => return Err(error),
            Err(error) => (error, None),
        };
        let wait = wait.unwrap_or_else(|| backoff(tries)).min(WAIT_MAX);
        if begun.elapsed() + wait > patience {
            return Err(error);
        }
        tally.borrow_mut().waiting = Some(error.to_string());
        tokio::time::sleep(wait).await;
    }
}

/// Reads the answer; what is no answer to events is a refusal.
async fn answer(client: &Client, response: Response) -> Result<Answer> {
    let status = response.status();
    let bytes = response.bytes().await.unwrap_or_default();
    if let Ok(answer) = serde_json::from_slice::<Answer>(&bytes) {
        return Ok(answer);
    }
    let response = axum::http::Response::builder().status(status).body(bytes);
    match response {
        Ok(response) => Err(client.refusal(Response::from(response)).await),
        Err(cause) => Err(Error::failed(cause.to_string())),
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<f64>().ok()?;
    Duration::try_from_secs_f64(seconds.max(0.05)).ok()
}

/// 0.1 s, doubled with each try up to 5 s.
fn backoff(tries: u32) -> Duration {
    Duration::from_millis((50_u64 << tries.min(7)).min(5_000))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    use axum::Json;
    use axum::http::header;
    use axum::response::IntoResponse as _;
    use serde_json::json;

    use super::*;

    /// A host that refuses each third request, takes at most 400 lines at a time, and dislikes `bad`.
    async fn host(arrived: Arc<Mutex<Vec<Value>>>) -> String {
        let count = Arc::new(AtomicU32::new(0));
        let take = move |body: String| {
            let (arrived, count) = (arrived.clone(), count.clone());
            async move {
                if count.fetch_add(1, Ordering::Relaxed) % 3 == 1 {
                    return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "0")], "{}").into_response();
                }
                if body.lines().count() > 400 {
                    return StatusCode::PAYLOAD_TOO_LARGE.into_response();
                }
                let mut arrived = arrived.lock().expect("because nobody panics holding it");
                let mut rejected = Vec::new();
                let (mut accepted, mut duplicates) = (0, 0);
                for (index, line) in body.lines().enumerate() {
                    match serde_json::from_str::<Value>(line) {
                        Err(_) => rejected.push(json!({"index": index, "code": "event:json", "detail": "no JSON"})),
                        Ok(event) if arrived.contains(&event) => duplicates += 1,
                        Ok(event) => {
                            accepted += 1;
                            arrived.push(event);
                        }
                    }
                }
                let answer = json!({"accepted": accepted, "duplicates": duplicates, "rejected": rejected, "ids": []});
                let status = if accepted > 0 { StatusCode::ACCEPTED } else { StatusCode::UNPROCESSABLE_ENTITY };
                (status, Json(answer)).into_response()
            }
        };
        let router = axum::Router::new().route("/v1/events", axum::routing::post(take));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("because port 0 is free");
        let address = listener.local_addr().expect("because it is bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn every_line_is_answered_once_and_keys_keep_their_order() {
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let client = Client::open(&host(arrived.clone()).await, None).expect("because the address is right");
        let mut input = String::new();
        for number in 0..2_000 {
            input += &format!("{{\"n\":{number},\"partitionkey\":\"k{}\"}}\n", number % 11);
        }
        // Line 2,001 is empty, 2,002 is bad, 2,003 repeats the first and has no end.
        input += "\n{bad}\r\n{\"n\":0,\"partitionkey\":\"k0\"}";
        let tally = RefCell::default();
        publish(&client, input.as_bytes(), Options::default(), &tally).await.expect("because the host is there");
        let tally = tally.into_inner();
        assert_eq!((tally.accepted, tally.duplicates, tally.rejected), (2_000, 1, 1));
        assert_eq!(tally.reasons[0], Rejected { line: 2_002, code: "event:json".into(), detail: "no JSON".into() });
        assert_eq!(tally.bytes, input.len() as u64);
        let arrived = arrived.lock().expect("because nobody panics holding it");
        for key in 0..11 {
            let key = format!("k{key}");
            let order = arrived.iter().filter(|it| it["partitionkey"] == key.as_str()).map(|it| it["n"].as_u64());
            assert!(order.is_sorted(), "{key}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_no_answer_is_a_refusal() {
        let router = axum::Router::new().fallback(async || {
            (
                StatusCode::UNPROCESSABLE_ENTITY,
                r#"{"type":"/docs/errors/x","title":"No","detail":"not so","status":422}"#,
            )
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("because port 0 is free");
        let url = format!("http://{}", listener.local_addr().expect("because it is bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = Client::open(&url, None).expect("because the address is right");
        let error = publish(&client, &b"{}"[..], Options::default(), &RefCell::default()).await.expect_err("a refusal");
        assert_eq!(error.to_string(), "the host refused: not so");
    }
}
