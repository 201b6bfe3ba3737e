//! The events of the demo: a day's worth from a file, repeated as often as wanted, each day with ids and times of its
//! own.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::cli::Error;
use crate::cli::Result;

/// The events of one tenant.
#[derive(Debug, Clone)]
pub struct Stream {
    day: Vec<String>,
}

impl Stream {
    /// Reads a day.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|cause| {
            Error::hinted(
                format!("the demo's events {} cannot be read: {cause}", path.display()),
                "`cargo xtask demo` starts the demo with all that it needs; --data names the folder",
            )
        })?;
        let day: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        if let Some(number) = day.iter().position(|line| serde_json::from_str::<Value>(line).is_err()) {
            return Err(Error::failed(format!("{}: event {} is no JSON", path.display(), number + 1)));
        }
        Ok(Self { day })
    }

    /// Events of one day.
    pub fn per_day(&self) -> usize {
        self.day.len()
    }

    /// The events of a day, as lines. The first day is the file, byte for byte.
    pub fn day(&self, day: usize) -> impl Iterator<Item = String> + '_ {
        self.day.iter().map(move |line| if day == 0 { line.clone() } else { moved(line, day) })
    }

    /// How many of all days' events are so.
    pub fn count(&self, days: usize, is_so: impl Fn(&Value) -> bool) -> u64 {
        let events = self.day.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        (events.filter(is_so).count() * days) as u64
    }
}

/// The same event on another day: with another id, and the time so much later.
fn moved(line: &str, day: usize) -> String {
    let Ok(mut event) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    let id = event.get("id").and_then(Value::as_str).unwrap_or_default();
    event["id"] = format!("{id}-{}", day + 1).into();
    let time = event.get("time").and_then(Value::as_str).and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let later = Duration::from_secs(86_400 * day as u64);
    if let Some(time) = time.and_then(|time| time.checked_add(later).ok()) {
        event["time"] = time.to_string().into();
    }
    event.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_differ_in_ids_and_times_alone() {
        let folder = tempfile::tempdir().expect("because a temporary folder can be made");
        let path = folder.path().join("events.ndjson");
        let line = r#"{"id":"a","type":"x","time":"2026-01-05T09:00:16Z","data":{"n":1.50}}"#;
        std::fs::write(&path, format!("{line}\n\n")).expect("because the folder is there");
        let stream = Stream::read(&path).expect("because it was written");
        assert_eq!(stream.day(0).collect::<Vec<_>>(), [line]);
        let third: Value = serde_json::from_str(&stream.day(2).next().expect("because a day has one")).expect("JSON");
        let expected = r#"{"id":"a-3","type":"x","time":"2026-01-07T09:00:16Z","data":{"n":1.5}}"#;
        assert_eq!(third, serde_json::from_str::<Value>(expected).expect("because it is JSON"));
        assert_eq!((stream.per_day(), stream.count(3, |it| it["type"] == "x")), (1, 3));
    }
}
