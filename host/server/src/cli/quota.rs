//! `bulkhead quota` and `bulkhead tenant quota`: limits, how much of them is used, and how an operator sets them.

use clap::Args;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::connection::Connection;
use crate::cli::error::Result;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Output;
use crate::cli::value::count;
use crate::measure::Bytes;

const EXAMPLES: &str = "Examples:
  bulkhead quota
  bulkhead quota --output json";

const COLUMNS: &[Column] = &[
    ("QUOTA", "/quota", Cell::Text),
    ("STATE", "/state", Cell::State),
    ("USED", "/used", Cell::Count),
    ("LIMIT", "/limit", Cell::Count),
    ("UNIT", "/unit", Cell::Text),
    ("SINCE", "/since", Cell::Time),
    ("AGAIN IN MS", "/retry_after_ms", Cell::Count),
];

/// The tenant's limits, how much of them is used, and which of them bites
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Quota {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    format: Format,
}

impl Quota {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let items = self.connection.tenant()?.list(&["v1", "quotas"], &[], usize::MAX).await?;
        let parts = items.iter().find_map(|item| item.get("parts")).and_then(stored);
        screen::list(items, self.format.output, COLUMNS, "nothing is limited")?;
        match parts {
            Some(parts) if self.format.output == Output::Table => screen::note(&parts),
            _ => Ok(()),
        }
    }
}

/// What storage is made of.
fn stored(parts: &Value) -> Option<String> {
    let of = |part: &str| parts.get(part).and_then(Value::as_u64).map(count);
    Some(format!("storage is {} bytes of plugins' state and {} of their components", of("state")?, of("components")?))
}

const SET_COLUMNS: &[Column] =
    &[("QUOTA", "/quota", Cell::Text), ("OWN", "/own", Cell::Count), ("EFFECTIVE", "/effective", Cell::Count)];

/// What an operator sets. What is not given stays as it is.
#[derive(Debug, Args)]
pub struct Set {
    /// Its name or id
    name: String,
    /// Events handed in per second; 0 unsets it, as for all of these
    #[arg(long, value_name = "EVENTS")]
    rate: Option<u64>,
    /// Events handed in at once before the rate counts
    #[arg(long, value_name = "EVENTS")]
    burst: Option<u64>,
    /// Batches at work at once, on each node
    #[arg(long, value_name = "BATCHES")]
    concurrency: Option<u16>,
    /// Events that wait to be worked off
    #[arg(long, value_name = "EVENTS")]
    backlog: Option<u64>,
    /// Bytes of plugins' state and components: 512, 64KiB, 10MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    storage: Option<Bytes>,
    /// Fuel of plugins in a minute
    #[arg(long, value_name = "FUEL")]
    fuel: Option<u64>,
    #[command(flatten)]
    format: Format,
}

fn size(text: &str) -> std::result::Result<Bytes, &'static str> {
    Bytes::parse(text).ok_or("it is no size; write 512, 64KiB or 10MiB")
}

impl Set {
    /// Sets what is given, and shows what counts then.
    pub async fn run(&self, client: &Client) -> Result<()> {
        let path = ["admin", "v1", "tenants", &self.name, "quotas"];
        let mut answer = client.get(&path, &[]).await?;
        let mut own = answer.get("own").and_then(Value::as_object).cloned().unwrap_or_default();
        if self.change(&mut own) {
            answer = client.put(&path, &Value::Object(own)).await?;
        }
        if self.format.output == Output::Json {
            return screen::json(&answer);
        }
        let row = |(quota, pointer): (&str, &str)| {
            let of = |which: &str| answer.pointer(&format!("/{which}{pointer}")).cloned();
            of("effective").map(|effective| json!({"quota": quota, "own": of("own"), "effective": effective}))
        };
        let rows = [
            ("rate", "/events_per_second/rate"),
            ("burst", "/events_per_second/burst"),
            ("concurrency", "/concurrency"),
            ("backlog", "/backlog_events"),
            ("storage", "/storage_bytes"),
            ("fuel", "/fuel_per_minute"),
        ];
        screen::list(rows.into_iter().filter_map(row).collect(), Output::Table, SET_COLUMNS, "nothing is limited")
    }

    /// True if there is anything to change.
    fn change(&self, own: &mut Map<String, Value>) -> bool {
        let mut rate = own.get("events_per_second").and_then(Value::as_object).cloned().unwrap_or_default();
        let rate_changed = [set(&mut rate, "rate", self.rate), set(&mut rate, "burst", self.burst)].contains(&true);
        if rate_changed && self.rate == Some(0) {
            own.remove("events_per_second");
        } else if rate_changed {
            own.insert("events_per_second".to_owned(), Value::Object(rate));
        }
        let others = [
            set(own, "concurrency", self.concurrency.map(u64::from)),
            set(own, "backlog_events", self.backlog),
            set(own, "storage_bytes", self.storage.map(|bytes| bytes.0)),
            set(own, "fuel_per_minute", self.fuel),
        ];
        rate_changed || others.contains(&true)
    }
}

/// Sets a number, or with 0 removes it. True if one was given.
fn set(object: &mut Map<String, Value>, name: &str, number: Option<u64>) -> bool {
    match number {
        None => return false,
        Some(0) => _ = object.remove(name),
        Some(number) => _ = object.insert(name.to_owned(), number.into()),
    }
    true
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        set: Set,
    }

    fn changed(flags: &str, own: &Value) -> Option<Value> {
        let words = ["quota", "acme"].into_iter().chain(flags.split_whitespace());
        let cli = Cli::try_parse_from(words).expect("because the flags are right");
        let mut own = own.as_object().expect("because it is an object").clone();
        cli.set.change(&mut own).then_some(Value::Object(own))
    }

    #[test]
    fn what_is_given_changes_and_the_rest_stays() {
        assert_eq!(changed("", &json!({"concurrency": 2})), None);
        assert_eq!(changed("--rate 10", &json!({})), Some(json!({"events_per_second": {"rate": 10}})));
        let own = json!({"events_per_second": {"rate": 10, "burst": 5}, "concurrency": 2});
        assert_eq!(
            changed("--rate 20 --storage 1KiB", &own),
            Some(json!({"events_per_second": {"rate": 20, "burst": 5}, "concurrency": 2, "storage_bytes": 1_024}))
        );
        assert_eq!(
            changed("--burst 0 --concurrency 0 --fuel 7", &own),
            Some(json!({"events_per_second": {"rate": 10}, "fuel_per_minute": 7}))
        );
        assert_eq!(changed("--rate 0 --backlog 3", &own), Some(json!({"concurrency": 2, "backlog_events": 3})));
    }
}
