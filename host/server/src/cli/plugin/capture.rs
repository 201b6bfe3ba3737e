//! `bulkhead plugin capture`: a recorded call of a host as a fixture for `bulkhead plugin test`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_domain::recording;
use bulkhead_domain::recording::REDACTED;
use bulkhead_domain::recording::Read;
use bulkhead_domain::recording::Recording;
use bulkhead_flow::inbox::codec;
use bytes::Bytes;
use clap::Args;
use serde_json::Map;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::plugin::recording::Which;
use crate::cli::screen;
use crate::fixture::Duty;
use crate::fixture::Fixture;
use crate::fixture::payload::Stored;
use crate::fixture::run::happened;

const EXAMPLES: &str = "Examples:
  bulkhead plugin capture RUN                      # writes tests/RUN.json
  bulkhead plugin capture RUN -o tests/big-order.json
  bulkhead plugin capture RUN -o -                 # to standard output
  bulkhead plugin capture RUN --force              # over a file that is there

The fixture expects what happened then. For a failure, change `expect` to what ought to happen.";

/// What is captured.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Capture {
    #[command(flatten)]
    which: Which,
    /// The file; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

impl Capture {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        let recording = self.which.fetch(client).await?;
        if recording.cut {
            return Err(Error::failed(
                "the recording is cut: the call read more, or larger things, than is kept of one",
            ));
        }
        let text = fixture(&recording)?.to_text();
        let file = self.output.unwrap_or_else(|| PathBuf::from(format!("tests/{}.json", self.which.run())));
        if file.as_os_str() == "-" {
            return screen::raw(text.as_bytes());
        }
        if let Some(folder) = file.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(|cause| Error::file(folder, "made", &cause))?;
        }
        write(&file, &text, self.force).await?;
        if !recording.redacted.is_empty() {
            let places: Vec<&str> = recording.redacted.iter().map(String::as_str).collect();
            screen::note(&format!("`{REDACTED}` stands for what was taken out of: {}", places.join(", ")))?;
        }
        if matches!(recording.ended.outcome, Outcome::Done) {
            return screen::line(&format!("{} written; `bulkhead plugin test` runs it", file.display()));
        }
        screen::line(&format!("{} written; it expects the failure", file.display()))?;
        screen::line("next: change `expect` to what ought to happen, mend the plugin, then bulkhead plugin test")
    }
}

/// A fixture may have been worked on by hand, so one that is there stays unless it is meant.
async fn write(file: &Path, text: &str, force: bool) -> Result<()> {
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create_new(!force).create(force).truncate(force);
    let opened = options.open(file).await;
    if opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
        let there = format!("{} is there already: --force replaces it, -o writes another file", file.display());
        return Err(Error::failed(there));
    }
    let written = async {
        let mut file = opened?;
        file.write_all(text.as_bytes()).await?;
        file.flush().await
    };
    written.await.map_err(|cause| Error::file(file, "written", &cause))
}

/// The call as a fixture.
fn fixture(recording: &Recording) -> Result<Fixture> {
    let event: Map<String, Value> = serde_json::from_slice(&codec::to_json(&recording.event))
        .map_err(|cause| Error::failed(format!("the recorded event is none: {cause}")))?;
    // Settings are JSON texts, unless something was taken out of them.
    let setting = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
    let mut state = BTreeMap::new();
    let mut secrets = BTreeMap::new();
    for read in &recording.reads {
        match read {
            Read::State { key, held: Some(recording::Held { value, expires, .. }) } => {
                state.insert(key.clone(), Stored::new(value.clone(), *expires));
            }
            Read::State { held: None, .. } | Read::Http { .. } => {}
            Read::Keys { keys, .. } => {
                for key in keys {
                    state.entry(key.clone()).or_insert_with(|| Stored::new(Bytes::new(), None));
                }
            }
            Read::Secret { name } => _ = secrets.insert(name.clone(), REDACTED.to_owned()),
        }
    }
    let duty = match recording.duty {
        recording::Duty::Handle => Duty::Handle,
        recording::Duty::Transform => Duty::Transform,
    };
    let seed = blake3::Hash::from_bytes(*recording.seed.as_bytes());
    Ok(Fixture {
        description: format!("captured from {}, attempt {}", recording.call.run, recording.attempt),
        call: Some(duty),
        config: recording.config.iter().map(|(name, text)| (name.clone(), setting(text))).collect(),
        state,
        secrets,
        sinks: Some(recording.sinks.clone()),
        now: Some(codec::rfc3339(recording.now)),
        seed: Some(seed.to_hex().to_string()),
        attempt: recording.attempt,
        rule: Some(recording.call.rule.clone()),
        expect: Some(happened(&recording.ended, recording.now)),
        ..Fixture::of(event)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bulkhead_domain::clock::Timestamp;
    use bulkhead_domain::effect::EffectSeed;
    use bulkhead_domain::event::Event;
    use bulkhead_domain::policy::grants::Grants;
    use bulkhead_domain::policy::limits::InstancePolicy;
    use bulkhead_domain::policy::limits::Limits;
    use bulkhead_domain::policy::verdict::Failure;
    use bulkhead_domain::recording::Ended;
    use bulkhead_domain::recording::FORMAT;
    use bulkhead_domain::recording::Place;

    use super::*;

    fn recording() -> Recording {
        let place = Place { run: "run_1".into(), rule: "flag".into(), step: 0, item: 0, settings: 1 };
        let held = recording::Held { value: Bytes::from_static(b"5"), expires: None, version: Some(3) };
        Recording {
            format: FORMAT,
            call: place,
            plugin: "p".into(),
            version: "2".into(),
            digest: "sha256:0".into(),
            duty: recording::Duty::Handle,
            attempt: 2,
            now: Timestamp(1_795_176_000_123_456),
            seed: EffectSeed::from_bytes([7; 32]),
            first_ordinal: 0,
            event: Event {
                id: "e".into(),
                source: "/shop".into(),
                kind: "orders.created".into(),
                subject: None,
                time: Timestamp(1_795_176_000_000_000),
                key: None,
                correlation: "e".into(),
                causation: None,
                content_type: "application/json".into(),
                data: Bytes::from_static(b"{\"total\":5}"),
                attributes: Vec::new(),
            },
            grants: Grants::default(),
            limits: Limits::default(),
            instance: InstancePolicy::Batch,
            config: BTreeMap::from([("threshold".into(), "10".into())]),
            sinks: BTreeSet::new(),
            fresh: true,
            reads: vec![
                Read::Keys { prefix: "k".into(), after: None, limit: 9, keys: vec!["k1".into(), "k2".into()] },
                Read::State { key: "k2".into(), held: Some(held) },
                Read::State { key: "none".into(), held: None },
                Read::Secret { name: "token".into() },
            ],
            cut: false,
            redacted: BTreeSet::new(),
            ended: Ended {
                outcome: Outcome::Rejected(Failure::new("plugin:reject", "no")),
                drafts: Vec::new(),
                effects: Vec::new(),
                logs: Vec::new(),
                logs_dropped: 0,
                usage: BTreeMap::new(),
                fuel: 1,
                memory: 1,
            },
        }
    }

    #[test]
    fn a_recording_becomes_a_fixture_that_reads_back() {
        let text = fixture(&recording()).expect("because it is whole").to_text();
        let read = Fixture::parse(&text).expect("because it is ours");
        assert_eq!(read.event["data"], serde_json::json!({"total": 5}));
        assert_eq!((read.attempt, read.rule.as_deref()), (2, Some("flag")));
        assert_eq!(read.config["threshold"], serde_json::json!(10));
        assert_eq!(read.state.keys().collect::<Vec<_>>(), ["k1", "k2"], "what was not there is not there");
        assert_eq!(read.secrets["token"], REDACTED);
        assert_eq!(read.seed.as_deref(), Some("07".repeat(32).as_str()));
        let expect = read.expect.expect("because it says what happened");
        assert_eq!(expect.failure.and_then(|why| why.code).as_deref(), Some("plugin:reject"));
    }

    #[tokio::test]
    async fn a_fixture_that_is_there_is_replaced_only_by_force() {
        let folder = tempfile::tempdir().expect("because there is a temporary folder");
        let file = folder.path().join("run_1.json");
        write(&file, "the long first one", false).await.expect("because it is not there");
        let error = write(&file, "second", false).await.expect_err("because it is there");
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(std::fs::read_to_string(&file).expect("because it is there"), "the long first one");
        write(&file, "third", true).await.expect("because it is meant");
        assert_eq!(std::fs::read_to_string(&file).expect("because it is there"), "third");
    }
}
