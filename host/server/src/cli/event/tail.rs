//! Following events as they come: over server-sent events, going on where it stopped after every break.

use std::io::IsTerminal as _;
use std::time::Duration;
use std::time::Instant;

use clap::Args;
use reqwest::Method;
use reqwest::Response;
use reqwest::header::ACCEPT;
use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::paint::cut;
use crate::cli::screen;
use crate::cli::screen::Output;
use crate::cli::sse::Parser;
use crate::cli::value;
use crate::cli::value::at;

/// A host sends a comment more often than this; silence beyond it is a dead connection.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The longest wait before connecting again.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What is followed.
#[derive(Debug, Args)]
pub struct Tail {
    /// Of this type: a dotted glob, `*` for one part, `**` for any number
    #[arg(long = "type", value_name = "GLOB")]
    kind: Option<String>,
    /// Only those for which this CEL expression holds
    #[arg(long = "where", value_name = "CEL")]
    condition: Option<String>,
    /// Go on from this point: an id of the stream
    #[arg(long, value_name = "ID")]
    from: Option<String>,
    /// End after this many events
    #[arg(short = 'n', long, value_name = "COUNT")]
    limit: Option<u64>,
    /// How events are printed: table, or json [default: table on a terminal, JSON lines on a pipe]
    #[arg(short, long, value_enum, hide_possible_values = true)]
    output: Option<Output>,
}

impl Tail {
    /// Does it, until it is interrupted.
    pub async fn run(self, client: &Client) -> Result<()> {
        let json = self.output.map_or(!std::io::stdout().is_terminal(), |output| output == Output::Json);
        let paint = Paint::stdout();
        let mut parser = Parser::default();
        let mut left = self.limit;
        let mut broken_since: Option<Instant> = None;
        let mut answered = false;
        loop {
            let last = parser.last_id().map(str::to_owned).or(self.from.clone());
            match self.connect(client, last.as_deref()).await {
                Ok(mut response) => {
                    answered = true;
                    broken_since = None;
                    parser.reconnected();
                    while let Ok(Ok(Some(piece))) = tokio::time::timeout(SILENCE_MAX, response.chunk()).await {
                        let messages = parser.feed(&piece);
                        let messages = messages.map_err(|_| Error::failed("the host sends an endless message"))?;
                        for message in messages {
                            print(&message.event, &message.data, json, paint)?;
                            left = left.map(|left| left.saturating_sub(1));
                            if left == Some(0) {
                                return Ok(());
                            }
                        }
                    }
                }
                // The first answer decides whether there is anything to follow; a host that was there comes back.
                Err(error @ Error::Unreachable { .. }) if !answered => return Err(error),
                Err(Error::Unreachable { .. }) => {}
                Err(Error::Refused(problem)) if matches!(problem.status, 429 | 502 | 503 | 504) => {}
                Err(error) => return Err(error),
            }
            let since = *broken_since.get_or_insert_with(Instant::now);
            if since.elapsed() < Duration::from_secs(1) && std::io::stderr().is_terminal() {
                screen::note(&Paint::stderr().dim("… connecting again"))?;
            }
            let asked = Duration::from_millis(parser.retry_ms().unwrap_or(500));
            tokio::time::sleep(asked.max(since.elapsed() / 4).clamp(Duration::from_millis(100), WAIT_MAX)).await;
        }
    }

    async fn connect(&self, client: &Client, last: Option<&str>) -> Result<Response> {
        let all = [("type", &self.kind), ("where", &self.condition)];
        let query: Vec<_> = all.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
        let mut request = client.request(Method::GET, &["v1", "events", "stream"], &query)?;
        request = request.header(ACCEPT, "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        // No time limit on the whole: it never ends.
        let response = client.send(request).await?;
        if response.status().is_success() { Ok(response) } else { Err(client.refusal(response).await) }
    }
}

fn print(kind: &str, data: &str, json: bool, paint: Paint) -> Result<()> {
    let event: Option<Value> = serde_json::from_str(data).ok();
    // What the host says about the stream itself is no event.
    let Some(event) = event.filter(|event| event.get("type").is_some()) else {
        return screen::note(&paint.yellow(&clean(&format!("{kind}: {data}"))));
    };
    if json { screen::line(&one_line(data)) } else { screen::line(&line(&event, paint)) }
}

fn one_line(data: &str) -> String {
    // JSON has no line ends inside its texts, so those between are blanks.
    data.replace('\n', " ")
}

/// `12:00:01  orders.created  17  k1  {"total":120}`
fn line(event: &Value, paint: Paint) -> String {
    let clock = value::time(event.get("time").unwrap_or(&Value::Null));
    let clock = clock.split_once(' ').map_or(clock.as_str(), |(_, clock)| clock);
    let mut text =
        format!("{}  {}  {}", paint.dim(clock), paint.cyan(&clean(&at(event, "/type"))), clean(&at(event, "/id")));
    for name in ["/partitionkey", "/subject"] {
        let value = at(event, name);
        if !value.is_empty() {
            text += &format!("  {}", paint.bold(&clean(&value)));
            break;
        }
    }
    if let Some(data) = event.get("data") {
        text += &format!("  {}", paint.dim(&cut(&clean(&data.to_string()), 100)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = serde_json::json!({
            "time": "2026-01-31T12:00:01.5Z", "type": "orders.created", "id": "17\u{1b}[2J", "subject": "o17",
            "data": {"total": 120},
        });
        assert_eq!(line(&event, Paint::plain()), "12:00:01  orders.created  17\\u{1b}[2J  o17  {\"total\":120}");
        assert_eq!(one_line("{\n\"a\":1}"), "{ \"a\":1}");
    }
}
