//! The load: one tenant whose plugin changes, and others that must not notice. Open loop: a batch has a time at which it
//! is to be sent, whatever the host does, and latency counts from that time.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::stream::Stream;
use serde_json::Value;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;

/// Beside the one whose plugin changes.
const OTHERS: u32 = 49;
/// Of all events, the changing tenant publishes one in so many.
const SHARE: u64 = 5;
/// Events of a batch of the changing tenant: one of each key.
pub const KEYS: u64 = 10;
/// Events of a batch of another tenant. The last one is followed to its end.
const BATCH: u64 = 20;
/// Bytes that make an event about a kilobyte.
const PADDING: usize = 700;

/// Something published: when it was to be sent, and when what followed from it was seen, both from the epoch.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub due: Duration,
    pub seen: Duration,
}

impl Seen {
    pub fn latency(&self) -> Duration {
        self.seen.saturating_sub(self.due)
    }
}

/// What a publisher knows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Books {
    pub sent: u64,
    pub acknowledged: u64,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// A host under load.
pub struct Load {
    pub epoch: Instant,
    /// The tenant whose plugin `checker` changes.
    pub changing: Client,
    /// Between two batches of the changing tenant.
    pub gap: Duration,
    changing_seen: Log,
    changing_task: JoinHandle<Result<Books>>,
    others: Vec<Client>,
    others_seen: Log,
    others_tasks: JoinSet<Result<Books>>,
    stop: Arc<AtomicBool>,
}

/// What is left of it.
pub struct Ended {
    pub changing: Client,
    pub changing_books: Books,
    pub changing_seen: Vec<Seen>,
    pub others: Vec<Client>,
    pub others_books: Books,
    pub others_seen: Vec<Seen>,
}

impl Load {
    /// Makes the tenants and sets them to work, so many events a second in all.
    pub async fn start(host: &Host, events: u64) -> Result<Self> {
        let epoch = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let (changing_seen, others_seen) = (Log::default(), Log::default());
        let changing = host.tenant("changing").await?;
        changing.push("checker").await?;
        let rule = json!({"name": "check", "on": "steps", "order": "key", "steps": [{"handle": "checker"}]});
        changing.rule(rule).await?;
        let stream = Stream::open(&changing, "/v1/events/stream?type=checked", None).await?;
        let mut others = Vec::new();
        for number in 0..OTHERS {
            let client = host.tenant(&format!("other-{number}")).await?;
            client.push("bench-standard").await?;
            client.rule(json!({"name": "work", "on": "work", "steps": [{"handle": "bench-standard"}]})).await?;
            // The same work, and a word when it is done.
            let steps = json!([{"handle": "bench-standard"}, {"map": {"due": "data.due"}}, {"emit": "done"}]);
            client.rule(json!({"name": "probe", "on": "probe", "steps": steps})).await?;
            let stream = Stream::open(&client, "/v1/events/stream?type=done", None).await?;
            watch(stream, epoch, Arc::clone(&others_seen), |done| {
                done["data"]["due"].as_u64().map(Duration::from_micros)
            });
            others.push(client);
        }

        let gap = Duration::from_secs_f64((KEYS * SHARE) as f64 / events as f64);
        // Time for all publishers to be there.
        let first = Instant::now() + Duration::from_millis(200);
        let first_due = first.duration_since(epoch);
        watch(stream, epoch, Arc::clone(&changing_seen), move |checked| {
            let batch = u32::try_from(checked["data"]["seq"].as_u64()?.checked_sub(1)?).ok()?;
            Some(first_due + gap * batch)
        });
        let changing_task =
            tokio::spawn(publish(changing.clone(), first, gap, Arc::clone(&stop), |batch, _| steps(batch + 1)));
        let others_gap = gap.mul_f64(f64::from(OTHERS) * BATCH as f64 / (KEYS * (SHARE - 1)) as f64);
        let mut others_tasks = JoinSet::new();
        for (number, client) in others.iter().enumerate() {
            // Spread over the period, or all would come at once.
            let first = first + others_gap.mul_f64(number as f64 / f64::from(OTHERS));
            let batch = move |batch, due: Instant| orders(batch, due.duration_since(epoch));
            others_tasks.spawn(publish(client.clone(), first, others_gap, Arc::clone(&stop), batch));
        }
        Ok(Self { epoch, changing, gap, changing_seen, changing_task, others, others_seen, others_tasks, stop })
    }

    /// For people: who publishes what.
    pub fn describe(&self, events: u64) -> String {
        format!(
            "{} tenants, {events} events/s in all; {KEYS} every {:.1} ms are of the tenant whose plugin changes",
            OTHERS + 1,
            self.gap.as_secs_f64() * 1e3
        )
    }

    /// Now, from the epoch.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Ends it, once all that was acknowledged is worked off.
    pub async fn end(mut self, host: &Host) -> Result<Ended> {
        self.stop.store(true, Ordering::Relaxed);
        let changing_books = self.changing_task.await??;
        let mut others_books = Books::default();
        while let Some(ended) = self.others_tasks.join_next().await {
            let books = ended??;
            others_books.sent += books.sent;
            others_books.acknowledged += books.acknowledged;
        }
        eventually("everything to be worked off", Duration::from_secs(300), async || {
            let overview = host.operator().get("/admin/v1/overview").await?;
            let waits = |of: &Value| of["unread"].as_u64().unwrap_or(0) + of["retrying"].as_u64().unwrap_or(0) > 0;
            let waiting = overview["waiting"].as_array().context("no list")?.iter().any(waits);
            Ok((!waiting).then_some(()))
        })
        .await?;
        Ok(Ended {
            changing: self.changing,
            changing_books,
            changing_seen: take(&self.changing_seen),
            others: self.others,
            others_books,
            others_seen: take(&self.others_seen),
        })
    }
}

fn take(log: &Log) -> Vec<Seen> {
    std::mem::take(&mut *log.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Notes when follow-ups are seen. `due` reads from one when its cause was to be sent.
fn watch(mut stream: Stream, epoch: Instant, into: Log, due: impl Fn(&Value) -> Option<Duration> + Send + 'static) {
    tokio::spawn(async move {
        while let Ok(Some(event)) = stream.next(Duration::from_secs(3_600)).await {
            if let Some(due) = due(&event) {
                let seen = Seen { due, seen: epoch.elapsed() };
                into.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            }
        }
    });
}

/// One tenant's batches until it is told to stop. `batch` makes the one with this number, due at this time.
async fn publish(
    client: Client,
    first: Instant,
    gap: Duration,
    stop: Arc<AtomicBool>,
    batch: impl Fn(u64, Instant) -> Vec<Value> + Send,
) -> Result<Books> {
    let (mut books, mut requests) = (Books::default(), JoinSet::new());
    let acknowledge = |books: &mut Books, receipt: Result<Result<Value>, tokio::task::JoinError>| -> Result<()> {
        books.acknowledged += receipt??["accepted"].as_u64().context("no count in the receipt")?;
        Ok(())
    };
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let due = first + gap.mul_f64(number as f64);
        tokio::time::sleep_until(due.into()).await;
        let events = batch(number, due);
        books.sent += events.len() as u64;
        let client = client.clone();
        requests.spawn(async move { client.publish(&events).await });
        while let Some(ended) = requests.try_join_next() {
            acknowledge(&mut books, ended)?;
        }
    }
    while let Some(ended) = requests.join_next().await {
        acknowledge(&mut books, ended)?;
    }
    Ok(books)
}

/// The changing tenant's batch: each key's event with this number.
fn steps(seq: u64) -> Vec<Value> {
    let step = |key: u64| {
        let key = format!("key-{key}");
        json!({
            "specversion": "1.0", "id": format!("{key}-{seq}"), "source": "/bench", "type": "steps",
            "partitionkey": key, "data": {"key": key, "seq": seq, "padding": "x".repeat(PADDING)},
        })
    };
    (0..KEYS).map(step).collect()
}

/// Another tenant's batch; its last event says when it was due.
fn orders(batch: u64, due: Duration) -> Vec<Value> {
    let order = |number: u64| {
        let kind = if number + 1 == BATCH { "probe" } else { "work" };
        let id = format!("{batch}-{number}");
        let due = due.as_micros() as u64;
        let data = json!({"id": id, "total": 17.5, "channel": "web", "due": due, "padding": "x".repeat(PADDING)});
        json!({"specversion": "1.0", "id": id, "source": "/bench", "type": kind, "data": data})
    };
    (0..BATCH).map(order).collect()
}
