//! A receiver of webhooks: counts what arrives, by id, and answers as it is told.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;

use anyhow::Result;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

/// One request that arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// `webhook-id`
    pub id: String,
    /// All headers, names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Listens on a free port of loopback until it is dropped.
pub struct Receiver {
    /// `http://127.0.0.1:…/`
    pub url: String,
    arrivals: Arc<Mutex<Arrivals>>,
    status: Arc<AtomicU16>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Arrivals {
    all: Vec<Arrival>,
    ids: HashSet<String>,
}

impl Receiver {
    /// Starts listening; answers 200.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let arrivals = Arc::new(Mutex::new(Arrivals::default()));
        let status = Arc::new(AtomicU16::new(200));
        let (into, answer) = (Arc::clone(&arrivals), Arc::clone(&status));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&into), Arc::clone(&answer)));
            }
        });
        Ok(Self { url, arrivals, status, task })
    }

    /// Answers with this status from now on.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// What arrived so far, in order.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).all.clone()
    }

    /// How many arrived again under an id that was known.
    #[must_use]
    pub fn repeats(&self) -> usize {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.all.len() - arrivals.ids.len()
    }

    /// How many different ids arrived so far.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).ids.len()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, arrivals: Arc<Mutex<Arrivals>>, status: Arc<AtomicU16>) {
    let mut buffer = Vec::new();
    while let Some((arrival, used)) = read(&mut stream, &mut buffer).await {
        buffer.drain(..used);
        let status = status.load(Ordering::Relaxed);
        // Only what is answered with success counts as arrived.
        if status < 300 {
            let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            arrivals.ids.insert(arrival.id.clone());
            arrivals.all.push(arrival);
        }
        let answer = format!("HTTP/1.1 {status} Answer\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(Arrival, usize)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let headers: HashMap<String, String> = head
                .lines()
                .skip(1)
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let length: usize = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            if buffer.len() >= end + 4 + length {
                let body = buffer[end + 4..end + 4 + length].to_vec();
                let id = headers.get("webhook-id").cloned().unwrap_or_default();
                return Some((Arrival { id, headers, body }, end + 4 + length));
            }
        }
        let mut chunk = [0; 16 << 10];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}
