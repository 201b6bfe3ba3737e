//! `bulkhead sink`: the places that deliveries go to.

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::input;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Listing;
use crate::cli::screen::Output;
use crate::cli::value::at;

const EXAMPLES: &str = "Examples:
  bulkhead secret set crm-signing < secret.txt
  bulkhead sink set crm --webhook https://crm.example.com/hooks --secret crm-signing
  bulkhead sink set orders --redis-stream orders
  bulkhead sink set crm --file crm.json     # every field, as GET /v1/sinks/crm shows them
  bulkhead sink test crm
  bulkhead sink list";

const COLUMNS: &[Column] = &[
    ("NAME", "/name", Cell::Text),
    ("KIND", "/kind|/spec/kind", Cell::Text),
    ("TO", "/url|/path|/spec/url|/spec/path|/spec/stream|/spec/channel", Cell::Text),
    ("PENDING", "/pending", Cell::Count),
    ("PARKED", "/parked", Cell::Count),
    ("CIRCUIT", "/circuit", Cell::State),
    ("UPDATED", "/updated", Cell::Time),
];

/// Destinations of deliveries: set, list, show, test, delete
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Sink {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a sink, or change it
    Set(Set),
    /// All sinks
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// One sink
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Send it one trial delivery and say what came of it
    Test {
        /// Its name
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Remove a sink; what is still on its way to it is parked
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Default, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
struct Set {
    /// Its name; rules and plugins deliver to it by this name
    name: String,
    /// POST each delivery to this address
    #[arg(long, value_name = "URL", group = "what")]
    webhook: Option<String>,
    /// Name of the secret that signs webhook calls; several while a receiver changes over
    #[arg(long = "secret", value_name = "NAME", requires = "webhook")]
    secrets: Vec<String>,
    /// A header of each webhook call, `Name: value`; may stand several times
    #[arg(long = "header", value_name = "HEADER", requires = "webhook")]
    headers: Vec<String>,
    /// Append each delivery as a line to this file on the host, in a folder of the tenant's own
    #[arg(long, value_name = "PATH", group = "what")]
    to_file: Option<String>,
    /// Write each delivery to the host's log, where its operator allows that
    #[arg(long, group = "what")]
    to_log: bool,
    /// Add each delivery to this stream in the operator's Redis, under the tenant's prefix
    #[arg(long, value_name = "STREAM", group = "what")]
    redis_stream: Option<String>,
    /// About so many entries are kept in that stream [default: 10000]
    #[arg(long, value_name = "ENTRIES", requires = "redis_stream")]
    maxlen: Option<u64>,
    /// Publish each delivery on this channel of the operator's Redis, under the tenant's prefix
    #[arg(long, value_name = "CHANNEL", group = "what")]
    redis_channel: Option<String>,
    /// Read all fields from a JSON file; - is standard input
    #[arg(short, long, value_name = "FILE", group = "what")]
    file: Option<PathBuf>,
}

impl Set {
    /// What the host is to know of the sink.
    async fn spec(&self) -> Result<Value> {
        if let Some(file) = &self.file {
            let text = input::text(file).await?;
            return serde_json::from_str(&text)
                .map_err(|cause| Error::failed(format!("{} is no JSON: {cause}", file.display())));
        }
        if let Some(path) = &self.to_file {
            return Ok(json!({"kind": "file", "path": path}));
        }
        if self.to_log {
            return Ok(json!({"kind": "log"}));
        }
        if let Some(stream) = &self.redis_stream {
            let mut spec = json!({"kind": "redis-stream", "stream": stream});
            if let Some(maxlen) = self.maxlen {
                spec["maxlen"] = json!(maxlen);
            }
            return Ok(spec);
        }
        if let Some(channel) = &self.redis_channel {
            return Ok(json!({"kind": "redis-channel", "channel": channel}));
        }
        let mut spec = json!({"kind": "webhook", "url": self.webhook});
        match self.secrets.as_slice() {
            [] => {}
            [one] => spec["secret"] = json!(one),
            several => spec["secret"] = json!(several),
        }
        let mut headers = Map::new();
        for header in &self.headers {
            let Some((name, value)) = header.split_once(':') else {
                return Err(Error::Usage(format!("`{header}` is no header: write `Name: value`")));
            };
            headers.insert(name.trim().to_owned(), Value::from(value.trim()));
        }
        if !headers.is_empty() {
            spec["headers"] = Value::Object(headers);
        }
        Ok(spec)
    }
}

impl Sink {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let client = self.connection.tenant()?;
        match self.action {
            Action::Set(set) => {
                client.put(&["v1", "sinks", &set.name], &set.spec().await?).await?;
                screen::line(&format!("sink {} is set; try it: bulkhead sink test {}", set.name, set.name))
            }
            Action::List { listing } => {
                let items = client.list(&["v1", "sinks"], &[], listing.limit).await?;
                screen::list(items, listing.output, COLUMNS, "no sinks yet: bulkhead sink set NAME --webhook URL")
            }
            Action::Show { name, format } => {
                screen::one(&client.get(&["v1", "sinks", &name], &[]).await?, format.output)
            }
            Action::Test { name, format } => {
                let outcome = client.post(&["v1", "sinks", &name, "test"], &json!({})).await?;
                if format.output == Output::Json {
                    screen::json(&outcome)?;
                } else {
                    screen::object(&outcome)?;
                }
                let arrived = outcome.get("delivered").or(outcome.get("ok")).and_then(Value::as_bool);
                if arrived == Some(false) || at(&outcome, "/outcome") == "failed" { Err(Error::Told) } else { Ok(()) }
            }
            Action::Delete { name } => {
                client.delete(&["v1", "sinks", &name]).await?;
                screen::line(&format!("sink {name} is gone"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn flags_become_a_spec() {
        let set = |headers: &[&str]| Set {
            name: "crm".into(),
            webhook: Some("https://x.example/h".into()),
            secrets: vec!["s".into()],
            headers: headers.iter().map(ToString::to_string).collect(),
            ..Set::default()
        };
        let spec = set(&["X-Team: a:b"]).spec().await.expect("because the header is well formed");
        assert_eq!(
            spec,
            json!({"kind": "webhook", "url": "https://x.example/h", "secret": "s", "headers": {"X-Team": "a:b"}})
        );
        assert!(matches!(set(&["nothing"]).spec().await, Err(Error::Usage(_))));
        let file = Set { to_file: Some("big.ndjson".into()), ..Set::default() };
        let spec = file.spec().await.expect("because a path is all it takes");
        assert_eq!(spec, json!({"kind": "file", "path": "big.ndjson"}));
        let stream = Set { redis_stream: Some("orders".into()), maxlen: Some(5), ..Set::default() };
        let spec = stream.spec().await.expect("because a name is all it takes");
        assert_eq!(spec, json!({"kind": "redis-stream", "stream": "orders", "maxlen": 5}));
        let channel = Set { redis_channel: Some("live".into()), ..Set::default() };
        let spec = channel.spec().await.expect("because a name is all it takes");
        assert_eq!(spec, json!({"kind": "redis-channel", "channel": "live"}));
    }
}
