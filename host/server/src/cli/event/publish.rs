//! Publishing: a file or a pipe of events with a progress bar, or one event made from flags.

use std::cell::RefCell;
use std::io::IsTerminal as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use clap::Args;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncRead;

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::feed;
use crate::cli::feed::Options;
use crate::cli::feed::Tally;
use crate::cli::feed::publish;
use crate::cli::input;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::screen;
use crate::cli::screen::Output;
use crate::cli::value;

/// Rejected lines that are printed one by one.
const SHOWN: usize = 20;

/// What is published.
#[derive(Debug, Args)]
#[command(after_help = "The same file again publishes nothing twice: an event is known by its source and id.
Events with the same partitionkey (else subject) arrive in the order of the file.
Ends with exit code 1 if the host rejected any event; the lines are named.")]
pub struct Publish {
    /// CloudEvents, one JSON object per line (NDJSON), or a .json file with one event or a list; - is standard input
    #[arg(short, long, value_name = "FILE", required_unless_present = "kind", conflicts_with = "kind")]
    file: Option<PathBuf>,
    /// Requests on their way at a time
    #[arg(long, default_value_t = feed::LANES, value_name = "COUNT", value_parser = in_flight)]
    in_flight: usize,
    /// Go on trying this long while the host is busy or away
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    patience: u64,
    /// No progress bar
    #[arg(short, long)]
    quiet: bool,
    /// How the result is printed: table, or json
    #[arg(short, long, value_enum, default_value_t = Output::Table, hide_possible_values = true)]
    output: Output,
    #[command(flatten)]
    single: Single,
}

/// One event, from flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "One event from flags")]
struct Single {
    /// Its type, for example orders.created
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Where it happened
    #[arg(long, default_value = "/bulkhead/cli")]
    source: String,
    /// Its id, unique within the source [default: a new one]
    #[arg(long)]
    id: Option<String>,
    /// What it is about
    #[arg(long, requires = "kind", conflicts_with = "file")]
    subject: Option<String>,
    /// Its ordering key (partitionkey)
    #[arg(long = "ordering-key", value_name = "KEY", requires = "kind", conflicts_with = "file")]
    ordering_key: Option<String>,
    /// Its payload: JSON, or text; @FILE reads a file, - standard input
    #[arg(short, long, requires = "kind", conflicts_with = "file")]
    data: Option<String>,
    /// A further attribute, `name=value`; may stand several times
    #[arg(long = "attribute", value_name = "NAME=VALUE", requires = "kind", conflicts_with = "file")]
    attributes: Vec<String>,
}

fn in_flight(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=32) => Ok(count),
        _ => Err("a number from 1 to 32".to_owned()),
    }
}

impl Publish {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        let single = self.single.kind.is_some();
        let (input, length): (Box<dyn AsyncRead + Unpin>, Option<u64>) = match &self.file {
            None => (Box::new(std::io::Cursor::new(self.single.line().await?)), None),
            Some(file) => open(file).await?,
        };
        let options = Options { lanes: self.in_flight, patience: Duration::from_secs(self.patience) };
        let tally = RefCell::default();
        let begun = Instant::now();
        let bar = (!self.quiet && !single && std::io::stderr().is_terminal()).then(|| bar(length));
        let outcome = tokio::select! {
            outcome = publish(client, input, options, &tally) => outcome,
            never = show(bar.as_ref(), &tally) => match never {},
            _ = tokio::signal::ctrl_c() => Err(Error::hinted(
                "interrupted",
                "repeat the command to go on: what has arrived counts as a duplicate",
            )),
        };
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        // Answers come in another order than the lines.
        tally.borrow_mut().reasons.sort_by_key(|it| it.line);
        report(&tally.borrow(), begun.elapsed(), self.output)?;
        outcome?;
        if tally.borrow().rejected > 0 { Err(Error::Told) } else { Ok(()) }
    }
}

/// NDJSON streams; a `.json` file is read whole, because its events may stand on several lines each.
async fn open(path: &Path) -> Result<(Box<dyn AsyncRead + Unpin>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(tokio::io::stdin()), None));
    }
    if path.extension().is_some_and(|it| it.eq_ignore_ascii_case("json")) {
        let lines = flattened(&input::text(path).await?)
            .map_err(|cause| Error::failed(format!("{} is no JSON: {cause}", path.display())))?;
        let length = lines.len() as u64;
        return Ok((Box::new(std::io::Cursor::new(lines)), Some(length)));
    }
    let file = tokio::fs::File::open(path).await.map_err(|cause| Error::file(path, "opened", &cause))?;
    let about = file.metadata().await.map_err(|cause| Error::file(path, "read", &cause))?;
    if about.is_dir() {
        return Err(Error::Usage(format!("{} is a folder; name a file", path.display())));
    }
    let length = about.is_file().then_some(about.len());
    Ok((Box::new(file), length))
}

/// One line per event. Payloads keep their spelling except for blanks between them.
fn flattened(text: &str) -> serde_json::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let events = match value? {
            Value::Array(events) => events,
            event => vec![event],
        };
        for event in events {
            serde_json::to_writer(&mut lines, &event)?;
            lines.push(b'\n');
        }
    }
    Ok(lines)
}

impl Single {
    /// The event, as a line.
    async fn line(&self) -> Result<Vec<u8>> {
        let mut event = Map::new();
        let mut put = |name: &str, value: Value| event.insert(name.to_owned(), value);
        put("specversion", "1.0".into());
        put("id", self.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string()).into());
        put("source", self.source.clone().into());
        put("type", self.kind.clone().into());
        if let Some(subject) = &self.subject {
            put("subject", subject.clone().into());
        }
        if let Some(key) = &self.ordering_key {
            put("partitionkey", key.clone().into());
        }
        for attribute in &self.attributes {
            let Some((name, value)) = attribute.split_once('=') else {
                return Err(Error::Usage(format!("`{attribute}` is no attribute: write `name=value`")));
            };
            put(name, value.into());
        }
        if let Some(data) = &self.data {
            let text = match data.strip_prefix('@') {
                Some(file) => input::text(Path::new(file)).await?,
                None if data == "-" => input::text(Path::new("-")).await?,
                None => data.clone(),
            };
            match serde_json::from_str::<Value>(&text) {
                Ok(json) => put("data", json),
                Err(_) if text.trim_start().starts_with(['{', '[']) => {
                    return Err(Error::Usage("--data begins like JSON and is none".to_owned()));
                }
                Err(_) => {
                    put("datacontenttype", "text/plain".into());
                    put("data", text.into())
                }
            };
        }
        serde_json::to_vec(&event).map_err(|cause| Error::failed(cause.to_string()))
    }
}

fn bar(length: Option<u64>) -> ProgressBar {
    let (bar, shape) = match length {
        Some(length) => {
            (ProgressBar::new(length), "{bar:28} {percent:>3} %  {bytes} of {total_bytes}  {msg}  {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}  {elapsed}"),
    };
    // A template that is wrong is seen in every test of this file.
    bar.with_style(ProgressStyle::with_template(shape).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Keeps the bar current, for ever.
async fn show(bar: Option<&ProgressBar>, tally: &RefCell<Tally>) -> std::convert::Infallible {
    let Some(bar) = bar else { return std::future::pending().await };
    let mut rate = Rate::new();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let tally = tally.borrow();
        bar.set_position(tally.bytes);
        let mut text =
            format!("{} events  {}/s", value::count(tally.answered()), value::count(rate.at(tally.answered())));
        if tally.rejected > 0 {
            text += &format!("  {} rejected", value::count(tally.rejected));
        }
        if let Some(why) = &tally.waiting {
            text += &format!("  waiting: {}", clean(why));
        }
        bar.set_message(text);
    }
}

/// Events per second, over the last seconds.
struct Rate {
    marks: std::collections::VecDeque<(Instant, u64)>,
}

impl Rate {
    fn new() -> Self {
        Self { marks: [(Instant::now(), 0)].into() }
    }

    fn at(&mut self, count: u64) -> u64 {
        let now = Instant::now();
        self.marks.push_back((now, count));
        while self.marks.len() > 2 && now.duration_since(self.marks[0].0) > Duration::from_secs(3) {
            self.marks.pop_front();
        }
        let (since, before) = self.marks[0];
        ((count - before) as f64 / now.duration_since(since).as_secs_f64().max(0.001)) as u64
    }
}

fn report(tally: &Tally, took: Duration, output: Output) -> Result<()> {
    if output == Output::Json {
        let rejected: Vec<Value> =
            tally.reasons.iter().map(|it| json!({"line": it.line, "code": it.code, "detail": it.detail})).collect();
        return screen::json(&json!({
            "accepted": tally.accepted, "duplicates": tally.duplicates, "rejected_count": tally.rejected,
            "rejected": rejected, "ids": tally.ids,
        }));
    }
    let paint = Paint::stderr();
    for it in tally.reasons.iter().take(SHOWN) {
        let code = paint.dim(&format!("[{}]", clean(&it.code)));
        screen::note(&format!("{} {} {code}", paint.red(&format!("line {}:", it.line)), clean(&it.detail)))?;
    }
    if tally.rejected > SHOWN as u64 {
        screen::note(&format!("… and {} more", value::count(tally.rejected - SHOWN as u64)))?;
    }
    let per_second = tally.answered() as f64 / took.as_secs_f64().max(0.001);
    let speed = match tally.answered() {
        0..1_000 => String::new(),
        _ => format!(" in {:.1} s ({}/s)", took.as_secs_f64(), value::count(per_second as u64)),
    };
    screen::line(&format!(
        "{} accepted, {} duplicates, {} rejected{speed}",
        value::count(tally.accepted),
        value::count(tally.duplicates),
        value::count(tally.rejected)
    ))?;
    match tally.ids.as_slice() {
        [id] if tally.answered() == 1 => {
            screen::note(&format!("see what becomes of it: bulkhead event show {}", clean(id)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_file_becomes_lines() {
        let lines = flattened("[{\"id\": 1},\n {\"id\": 2}]\n{\n\"id\": 3\n}").expect("because it is JSON");
        assert_eq!(String::from_utf8(lines).expect("because it is JSON"), "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n");
        assert!(flattened("{").is_err());
    }

    #[tokio::test]
    async fn flags_become_an_event() {
        let mut single = Single {
            kind: Some("a.b".into()),
            source: "/s".into(),
            id: Some("1".into()),
            subject: None,
            ordering_key: Some("k".into()),
            data: Some("{\"n\": 1.0}".into()),
            attributes: vec!["actor=me".into()],
        };
        let line = single.line().await.expect("because all flags are right");
        let event: Value = serde_json::from_slice(&line).expect("because it is JSON");
        assert_eq!(
            event,
            json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b", "partitionkey": "k", "actor": "me", "data": {"n": 1.0}})
        );
        single.data = Some("hello".into());
        let line = single.line().await.expect("because text is data too");
        let event: Value = serde_json::from_slice(&line).expect("because it is JSON");
        assert_eq!((&event["data"], &event["datacontenttype"]), (&json!("hello"), &json!("text/plain")));
        single.data = Some("{oops".into());
        assert!(matches!(single.line().await, Err(Error::Usage(_))));
    }

    #[test]
    fn the_bars_have_valid_shapes() {
        for length in [Some(10), None] {
            bar(length).finish_and_clear();
        }
    }
}
