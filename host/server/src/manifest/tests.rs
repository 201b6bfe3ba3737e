//! Tests of manifests.

use std::time::Duration;

use serde_json::json;

use super::*;

const WHOLE: &str = r#"
[plugin]
name = "fraud-score"
version = "1.4.0"

[grants]
emit = ["orders.*"]
deliver = ["crm"]
http = ["api.example.com"]
secrets = ["crm-token"]
schedule = true
state = { bytes = "10MiB" }

[config]
threshold = { type = "number", default = 5 }
name = { type = "string", required = true }

[config.prices]
type = "object"
default = { a = 1.5 }

[limits]
time = "250ms"
memory = "32MiB"
instance = "event"

[build]
command = "cargo build"
artifact = "x.wasm"
watch = ["src/**"]
"#;

fn manifest() -> Manifest {
    Manifest::parse(WHOLE).expect("because it is right")
}

#[test]
fn a_whole_manifest_reads_and_reads_back_from_the_store() {
    let manifest = manifest();
    assert_eq!(manifest.plugin.name, "fraud-score");
    assert!(manifest.grants.may_emit("orders.flagged") && manifest.grants.schedule);
    assert_eq!(manifest.state_bytes, 10 << 20);
    assert_eq!(manifest.limits.time, Some(Duration::from_millis(250)));
    assert_eq!((manifest.limits.memory, manifest.limits.instance), (Some(32 << 20), InstancePolicy::Event));
    assert_eq!(manifest.config["prices"].default, json!({"a": 1.5}));
    let stored = serde_json::to_value(&manifest).expect("because it is plain data");
    // What dispatch reads of it.
    assert_eq!(serde_json::from_value::<LimitRequest>(stored["limits"].clone()).ok(), Some(manifest.limits.clone()));
    assert_eq!(stored["config"]["threshold"]["default"], 5);
    assert_eq!(serde_json::from_value::<Manifest>(stored).expect("because it is ours"), manifest);
}

#[test]
fn faults_have_a_place_and_a_hint() {
    let check = |text: &str, line: usize, path: &str, part: &str| {
        let faults = Manifest::parse(text).expect_err(text);
        let fault = &faults[0];
        let whole = format!("{} {}", fault.message, fault.hint.clone().unwrap_or_default());
        assert_eq!((fault.line, fault.path.as_str()), (line, path), "{fault:?}");
        assert!(whole.contains(part), "{whole}");
        assert!(fault.excerpt.contains('^'), "{fault:?}");
    };
    let plugin = "[plugin]\nname = \"a\"\n";
    check("[plugin]\nnmae = \"a\"", 2, "plugin.nmae", "did you mean `name`?");
    check(&format!("{plugin}[grants]\nemits = []"), 4, "grants.emits", "did you mean `emit`?");
    check(&format!("{plugin}[grant]\n"), 3, "grant", "did you mean `grants`?");
    check("[plugin]\nname = \"A b\"", 2, "plugin.name", "is no name of a plugin");
    check(&format!("{plugin}[grants]\nemit = [\"a..b\"]"), 4, "grants.emit", "empty segment");
    check(&format!("{plugin}[grants]\nemit = [\"bulkhead.x\"]"), 4, "grants.emit", "the host's own");
    check(&format!("{plugin}[grants]\nhttp = [\"https://x/\"]"), 4, "grants.http", "without scheme");
    check(&format!("{plugin}[limits]\ntime = \"fast\""), 4, "limits.time", "is no duration");
    check(&format!("{plugin}[limits]\ninstance = \"wram\""), 4, "limits.instance", "did you mean `warm`?");
    check(
        &format!("{plugin}[config]\nx = {{ type = \"number\", default = \"5\" }}"),
        4,
        "config.x",
        "must be a number",
    );
    check(&format!("{plugin}[config]\nx = {{ type = \"numbr\" }}"), 4, "config.x.type", "did you mean `number`?");
}

#[test]
fn settings_are_checked_against_what_is_declared() {
    let manifest = manifest();
    let check = |config: Value, expected: &[(&str, &str)]| {
        let config = config.as_object().expect("because it is an object").clone();
        let wrong = manifest.check_config(&config);
        let found: Vec<(&str, &str)> =
            wrong.iter().map(|wrong| (wrong.name.as_str(), wrong.message.as_str())).collect();
        assert_eq!(found, expected, "{config:?}");
    };
    check(json!({"name": "x", "threshold": 7.5, "prices": {}}), &[]);
    check(json!({"threshold": "7"}), &[("threshold", "it must be a number"), ("name", "it is required")]);
    check(json!({"name": "x", "treshold": 1}), &[("treshold", "its manifest declares no such setting")]);
    let wrong = manifest.check_config(json!({"name": "x", "treshold": 1}).as_object().expect("an object"));
    assert_eq!(wrong[0].hint.as_deref(), Some("did you mean `threshold`?"));
}

#[test]
fn the_examples_manifests_are_right() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../example-plugins");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("because the examples are there").flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path().join("plugin.toml")) else { continue };
        count += 1;
        Manifest::parse(&text).unwrap_or_else(|faults| panic!("{}: {faults:?}", entry.path().display()));
    }
    assert!(count > 0);
}
