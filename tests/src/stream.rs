//! A reader of the live stream (server-sent events).

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use reqwest::Method;
use serde_json::Value;

use crate::host::Client;

/// An open stream.
pub struct Stream {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// The id of the last message that was read whole.
    pub last_id: Option<String>,
}

impl Stream {
    /// Opens `path`, going on after `last_id` if there is one. What is published after this returned is seen.
    pub async fn open(client: &Client, path: &str, last_id: Option<&str>) -> Result<Self> {
        let mut request = client.request(Method::GET, path).header("accept", "text/event-stream");
        request = request.timeout(Duration::from_secs(300));
        if let Some(last_id) = last_id {
            request = request.header("last-event-id", last_id);
        }
        let response = request.send().await?;
        if response.status() != 200 {
            bail!("{path}: {}: {}", response.status(), response.text().await?);
        }
        Ok(Self { response, buffer: Vec::new(), last_id: last_id.map(str::to_owned) })
    }

    /// The next event; none if the host has ended the stream. Waits at most `limit`.
    pub async fn next(&mut self, limit: Duration) -> Result<Option<Value>> {
        tokio::time::timeout(limit, self.message()).await.with_context(|| format!("no event within {limit:?}"))?
    }

    async fn message(&mut self) -> Result<Option<Value>> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block = String::from_utf8(self.buffer.drain(..end + 2).collect())?;
                if let Some(event) = self.block(&block)? {
                    return Ok(Some(event));
                }
            }
            // A host that dies breaks the stream off: for the reader that is its end, too.
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }

    /// A message without data (a comment, a retry time) is no event.
    fn block(&mut self, block: &str) -> Result<Option<Value>> {
        let mut data = String::new();
        for line in block.lines() {
            match line.split_once(':') {
                Some(("data", value)) => data.push_str(value),
                Some(("id", value)) => self.last_id = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        if data.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&data).with_context(|| format!("the stream's data is not JSON: {data}"))?))
    }
}
