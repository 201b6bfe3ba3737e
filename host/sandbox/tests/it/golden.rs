//! Golden components: built with a released SDK, kept for ever, run by every version of the host. See
//! `tests/golden/README.md`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use bulkhead_domain::effect::Effect;
use bulkhead_domain::event::Draft;
use bulkhead_domain::event::Event;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_sandbox::Attempt;
use bulkhead_sandbox::Plugin;
use bulkhead_sandbox::Setup;
use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::lab;
use crate::lab::Bench;
use crate::lab::Memory;
use crate::toolchains;

/// Components as they are, and those that are packed because an interpreter is inside.
const ENDINGS: [&str; 2] = [".wasm", ".wasm.gz"];

/// The events that any of them may emit.
const EMIT: [&str; 3] = ["orders.*", "greetings.*", "totals.*"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// A component of the folder, such as `portable/portable`.
pub fn component(name: &str) -> Vec<u8> {
    let path = folder().join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below `folder` whose names end in one of these.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("because the folder can be read").path();
        if path.is_dir() {
            found.extend(files(&path, endings));
        } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every file that ends so is listed in `SHA256SUMS` with what it has, and every file that is listed is there.
#[track_caller]
pub fn assert_unchanged(folder: &Path, endings: &[&str]) {
    let list = std::fs::read_to_string(folder.join("SHA256SUMS")).expect("because there is a list");
    let listed: BTreeSet<(String, String)> = list
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(digest, name)| (name.trim_start_matches("./").to_owned(), format!("sha256:{digest}")))
        .collect();
    let found: BTreeSet<(String, String)> = files(folder, endings)
        .into_iter()
        .map(|path| {
            let bytes = std::fs::read(&path).expect("because it is there");
            let name = path.strip_prefix(folder).expect("because it is below").display().to_string();
            (name, bulkhead_sandbox::inspect::digest(&bytes))
        })
        .collect();
    assert!(!found.is_empty(), "nothing was found");
    assert_eq!(found, listed, "what was released never changes, and what is released is listed");
}

/// What a file holds, unpacked if need be.
fn unpacked(path: &Path) -> Vec<u8> {
    let stored = std::fs::read(path).expect("because it was listed");
    if path.extension().is_none_or(|extension| extension != "gz") {
        return stored;
    }
    let mut wasm = Vec::new();
    GzDecoder::new(stored.as_slice()).read_to_end(&mut wasm).expect("because it was packed whole");
    wasm
}

/// One line for each thing that the attempt said, wants to happen, passes on and counts, and one for how it failed.
fn told(attempt: &Attempt) -> Vec<String> {
    let data = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let draft = |draft: &Draft| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{} [{}] [{}] {}", draft.kind, text(&draft.subject), text(&draft.key), data(&draft.data))
    };
    let logs = attempt.logs.iter().map(|line| {
        let fields = line.fields.iter().map(|(name, value)| format!(" {name}={value}")).collect::<String>();
        format!("log {:?} {}{fields}", line.level, line.message)
    });
    let effects = attempt.effects.iter().map(|effect| match effect {
        Effect::Emit { draft: emitted, .. } => format!("emit {}", draft(emitted)),
        Effect::Deliver(delivery) => format!("deliver {} {}", delivery.sink, data(&delivery.body)),
        Effect::Schedule { name, due, draft: scheduled, .. } => {
            format!("schedule {} at {} {}", name.as_deref().unwrap_or_default(), due.0, draft(scheduled))
        }
        Effect::Cancel { timer, .. } => format!("cancel {timer}"),
        Effect::State(write) => {
            let value = write.value.as_ref().map_or("nothing".to_owned(), |value| data(value));
            let until = write.expires.map(|expires| format!(" until {}", expires.0)).unwrap_or_default();
            format!("state {} = {value}{until}", write.key)
        }
    });
    let drafts = attempt.drafts.iter().map(|passed| format!("pass {}", draft(passed)));
    let usage = attempt.usage.iter().map(|(unit, amount)| format!("count {amount} {unit}"));
    let failure = match &attempt.outcome {
        Outcome::Done => None,
        Outcome::Failed(failure) => Some(("fail", failure)),
        Outcome::Rejected(failure) => Some(("reject", failure)),
    };
    let failure = failure.map(|(how, failure)| match failure.after {
        Some(after) => format!("{how} {} {} after {after:?}", failure.code, failure.reason),
        None => format!("{how} {} {}", failure.code, failure.reason),
    });
    logs.chain(effects).chain(drafts).chain(usage).chain(failure).collect()
}

/// Whether this is what was told when the component was made. The words of the host are not the component's, so a line
/// that ends in `…` says only how it begins.
fn is_told(expected: &Value, found: &[String]) -> bool {
    let expected = expected.as_array().map(Vec::as_slice).unwrap_or_default();
    expected.len() == found.len()
        && expected.iter().zip(found).all(|(expected, found)| {
            let expected = expected.as_str().unwrap_or_default();
            expected.strip_suffix('…').map_or(expected == found, |beginning| found.starts_with(beginning))
        })
}

/// Runs a component over one case of its fixture; gives what it tells.
fn replay(plugin: &Plugin, case: &Value) -> Vec<String> {
    let text = |name: &str| case[name].as_str().unwrap_or_default();
    let entries = |name: &str| {
        let map = case[name].as_object().into_iter().flatten();
        map.map(|(key, value)| (key.clone(), value.to_string())).collect::<BTreeMap<_, _>>()
    };
    let event = Event { kind: text("type").into(), data: case["data"].to_string().into_bytes().into(), ..lab::event() };
    let setup = Setup {
        grants: Grants { emit: EMIT.map(str::to_owned).into(), ..lab::setup().grants },
        config: entries("config"),
        ..toolchains::setup()
    };
    let state = entries("state").into_iter().map(|(key, value)| (key, value.into())).collect();
    let bench = Bench { event, state: Arc::new(Memory(Mutex::new(state))), ..Bench::default() };
    let mut session = toolchains::SANDBOX.session(plugin, Arc::new(setup));
    let mut call = || match text("call") {
        "transform" => told(&session.transform(&bench.call())),
        "handle" => told(&session.handle(&bench.call())),
        other => panic!("`call` is `handle` or `transform`, and not `{other}`"),
    };
    let first = call();
    // A second call serves from the instance of the first one, if that one still lives.
    assert_eq!(call(), first);
    first
}

#[test]
fn components_of_every_released_sdk_do_what_they_did() {
    let components: Vec<PathBuf> =
        files(&folder(), &ENDINGS).into_iter().filter(|path| !path.starts_with(folder().join("portable"))).collect();
    let mut sdks = BTreeSet::new();
    for path in components {
        let (name, _) = path.to_str().and_then(|name| name.rsplit_once(".wasm")).expect("because it ends so");
        let fixture = std::fs::read_to_string(format!("{name}.json"))
            .unwrap_or_else(|error| panic!("{} has no fixture: {error}", path.display()));
        let cases: Vec<Value> = serde_json::from_str(&fixture).expect("because fixtures are lists of cases");
        assert!(!cases.is_empty(), "{name} has a fixture without a case");
        let wasm = Bytes::from(unpacked(&path));
        let plugin = toolchains::SANDBOX
            .load(&bulkhead_sandbox::inspect::digest(&wasm), &|| Ok(wasm.clone()))
            .unwrap_or_else(|error| panic!("{} is refused: {error:?}", path.display()));
        for case in cases {
            let found = replay(&plugin, &case);
            assert!(
                is_told(&case["told"], &found),
                "{}, over {case}:\n{:#}",
                path.display(),
                Value::from(found.clone())
            );
        }
        sdks.extend(path.parent().and_then(Path::file_name).map(std::ffi::OsStr::to_owned));
    }
    assert_eq!(sdks, ["js", "python", "rust"].map(Into::into).into(), "each SDK has its golden components");
}

#[test]
fn no_component_was_ever_changed() {
    assert_unchanged(&folder(), &ENDINGS);
}
