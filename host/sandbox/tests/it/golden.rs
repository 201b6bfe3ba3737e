//! Golden components: built with a released SDK, kept for ever, run by every version of the host. See
//! `tests/golden/README.md`.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use bulkhead_domain::effect::Effect;
use bulkhead_domain::event::Draft;
use bulkhead_domain::event::Event;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_sandbox::Attempt;
use bulkhead_sandbox::Setup;
use serde_json::Value;

use crate::lab;
use crate::lab::Bench;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// A component of the folder, such as `portable/portable`.
pub fn component(name: &str) -> Vec<u8> {
    let path = folder().join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below `folder` whose names end so.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("because the folder can be read").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every file that ends so is listed in `SHA256SUMS` with what it has, and every file that is listed is there.
#[track_caller]
pub fn assert_unchanged(folder: &Path, ending: &str) {
    let list = std::fs::read_to_string(folder.join("SHA256SUMS")).expect("because there is a list");
    let listed: BTreeSet<(String, String)> = list
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(digest, name)| (name.trim_start_matches("./").to_owned(), format!("sha256:{digest}")))
        .collect();
    let found: BTreeSet<(String, String)> = files(folder, ending)
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

/// One line for each thing that the attempt wants to happen, and one for each document that it passes on.
fn told(attempt: &Attempt) -> Vec<String> {
    let data = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let draft = |draft: &Draft| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{} [{}] [{}] {}", draft.kind, text(&draft.subject), text(&draft.key), data(&draft.data))
    };
    let effects = attempt.effects.iter().map(|effect| match effect {
        Effect::Emit { draft: emitted, .. } => format!("emit {}", draft(emitted)),
        Effect::Deliver(delivery) => format!("deliver {} {}", delivery.sink, data(&delivery.body)),
        Effect::Schedule { draft: scheduled, .. } => format!("schedule {}", draft(scheduled)),
        Effect::Cancel { timer, .. } => format!("cancel {timer}"),
        Effect::State(write) => {
            format!("state {} = {}", write.key, write.value.as_ref().map_or("nothing".to_owned(), |value| data(value)))
        }
    });
    let drafts = attempt.drafts.iter().map(|passed| format!("pass {}", draft(passed)));
    let usage = attempt.usage.iter().map(|(unit, amount)| format!("count {amount} {unit}"));
    effects.chain(drafts).chain(usage).collect()
}

/// Runs a component over the event of its fixture; what it tells beside what it told when it was made.
fn replay(path: &Path) {
    let fixture = std::fs::read_to_string(path.with_extension("json"))
        .unwrap_or_else(|error| panic!("{} has no fixture: {error}", path.display()));
    let fixture: Value = serde_json::from_str(&fixture).expect("because fixtures are JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let event =
        Event { kind: text(&fixture["type"]), data: fixture["data"].to_string().into_bytes().into(), ..lab::event() };
    let config = fixture["config"].as_object().into_iter().flatten();
    let mut setup =
        Setup { config: config.map(|(name, value)| (name.clone(), value.to_string())).collect(), ..lab::setup() };
    // Components with an engine inside begin slowly; the clock is not what is tested.
    setup.limits.time = std::time::Duration::from_secs(20);
    let wasm = std::fs::read(path).expect("because it was listed");
    let plugin = lab::load(&wasm);
    let mut session = lab::SANDBOX.session(&plugin, Arc::new(setup));
    let bench = Bench { event, ..Bench::default() };
    // A second call serves from the instance of the first one.
    for _ in 0..2 {
        let attempt = match plugin.exports().transformer {
            true => session.transform(&bench.call()),
            false => session.handle(&bench.call()),
        };
        assert_eq!(attempt.outcome, Outcome::Done, "{}", path.display());
        let expected: Vec<String> = fixture["told"].as_array().into_iter().flatten().map(text).collect();
        let found = told(&attempt);
        assert_eq!(
            found,
            expected,
            "{}:\n{}",
            path.display(),
            serde_json::to_string_pretty(&found).unwrap_or_default()
        );
    }
}

#[test]
fn components_of_every_released_sdk_do_what_they_did() {
    let components: Vec<PathBuf> =
        files(&folder(), "wasm").into_iter().filter(|path| !path.starts_with(folder().join("portable"))).collect();
    assert!(!components.is_empty(), "no component was found");
    for path in components {
        replay(&path);
    }
}

#[test]
fn no_component_was_ever_changed() {
    assert_unchanged(&folder(), "wasm");
}
