//! Tests of manifests.

use std::time::Duration;

use bulkhead_domain::policy::limits::InstancePolicy;
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

/// Wrong manifests, each with what its first fault must say, and whether a schema can tell.
const WRONG: &[(&str, &str, bool)] = &[
    ("", "missing field `plugin`", true),
    ("[plugin]", "missing field `name`", true),
    ("[plugin]\nname = 5", "expected a string", true),
    ("[plugin]\nname = \"A b\"", "is no name of a plugin", true),
    ("[plugin]\nname = \"a\"\n[plugins]", "did you mean `plugin`?", true),
    ("[plugin]\nname = \"a\"\nvresion = \"1\"", "did you mean `version`?", true),
    ("[plugin]\nname = \"a\"\n[grants]\nemits = []", "did you mean `emit`?", true),
    ("[plugin]\nname = \"a\"\n[grants]\nemit = \"orders.*\"", "expected a sequence", true),
    ("[plugin]\nname = \"a\"\n[grants]\nemit = [\"a..b\"]", "empty segment", true),
    ("[plugin]\nname = \"a\"\n[grants]\nemit = [\"ord*\"]", "whole segments", true),
    ("[plugin]\nname = \"a\"\n[grants]\nemit = [\"bulkhead.x\"]", "the host's own", false),
    ("[plugin]\nname = \"a\"\n[grants]\ndeliver = [\"CRM\"]", "is no name", true),
    ("[plugin]\nname = \"a\"\n[grants]\nsecrets = [\"*\"]", "is no name", true),
    ("[plugin]\nname = \"a\"\n[grants]\nhttp = [\"https://x/\"]", "is no host", true),
    ("[plugin]\nname = \"a\"\n[grants]\nschedule = \"yes\"", "expected a boolean", true),
    ("[plugin]\nname = \"a\"\n[grants]\nstate = { bytes = \"10 mib\" }", "is no size", true),
    ("[plugin]\nname = \"a\"\n[grants]\nstate = { size = 5 }", "is not known here", true),
    ("[plugin]\nname = \"a\"\n[limits]\ntime = \"fast\"", "is no duration", true),
    ("[plugin]\nname = \"a\"\n[recorder]\nsample = 1.5", "from 0 to 1", true),
    ("[plugin]\nname = \"a\"\n[recorder]\nredact = [\"a.b\"]", "write `/a/b`", true),
    ("[plugin]\nname = \"a\"\n[limits]\ntime = 250", "a duration such as", true),
    ("[plugin]\nname = \"a\"\n[limits]\nfuel = 0", "too little", true),
    ("[plugin]\nname = \"a\"\n[limits]\nmemory = 512", "too little", false),
    ("[plugin]\nname = \"a\"\n[limits]\ninstance = \"wram\"", "did you mean `warm`?", true),
    ("[plugin]\nname = \"a\"\n[config]\nx = { type = \"numbr\" }", "did you mean `number`?", true),
    ("[plugin]\nname = \"a\"\n[config]\nx = { default = 5 }", "missing field `type`", true),
    ("[plugin]\nname = \"a\"\n[config]\nx = { type = \"number\", default = \"5\" }", "must be a number", false),
    ("[plugin]\nname = \"a\"\n[build]\ncmd = \"make\"", "known here: command", true),
    ("[plugin]\nname = \"a\"\n[build]\nartefact = \"x.wasm\"", "did you mean `artifact`?", true),
    ("[plugin]\nname = \"a\"\n[build]\nwatch = \"src/**\"", "expected a sequence", true),
    ("[plugin]\nname = \"a\"\n[build]\nwatch = [\"src/***\"]", "src/***", false),
    ("[plugin]\nname = \"a\"\n[[subscribe]]\nonn = [\"a\"]", "did you mean `on`?", true),
    ("[plugin]\nname = \"a\"\n[[subscribe]]\non = []", "subscribe", true),
    ("[plugin]\nname = \"a\"\n[[subscribe]]\non = [\"a..b\"]", "empty segment", true),
    ("[plugin]\nname = \"a\"\n[[subscribe]]\non = [\"a\"]\norder = \"kye\"", "key", true),
    ("[plugin]\nname = \"a\"\n[[subscribe]]\non = [\"a\"]\nwhere = \"data.total >\"", "subscribe[0].where", false),
    ("[plugin]\nname = \"a\"\n[[subscribe]]\non = [\"a\"]\nname = \"B\"", "subscribe[0].name", true),
];

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&raw::schema::<Raw>()).expect("because it is a schema")
}

/// A manifest as an editor hands it to its validator.
fn as_json(text: &str) -> Value {
    let table: toml::Table = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    serde_json::to_value(table).expect("because these have no dates")
}

#[test]
fn wrong_manifests_are_refused_by_the_parser_and_by_the_schema() {
    let validator = validator();
    for (text, part, schema_tells) in WRONG {
        let faults = Manifest::parse(text).expect_err(text);
        let said = faults[0].to_string();
        assert!(said.contains(part), "{text}\n{said}");
        assert!(faults[0].line > 0 && faults[0].column > 0, "{said}");
        assert_eq!(!validator.is_valid(&as_json(text)), *schema_tells, "{text}");
    }
}

#[test]
fn a_fault_of_a_subscription_stands_at_its_key() {
    let text =
        "[plugin]\nname = \"a\"\n[[subscribe]]\non = [\"a\"]\n[[subscribe]]\non = [\"b\"]\nwhere = \"data.x >\"\n";
    let faults = Manifest::parse(text).expect_err("because the condition breaks off");
    assert_eq!((faults[0].line, faults[0].path.as_str()), (7, "subscribe[1].where"), "{}", faults[0]);
    let twice = "[plugin]\nname = \"a\"\n[[subscribe]]\non = [\"a\"]\n[[subscribe]]\non = [\"b\"]\nname = \"a\"\n";
    let faults = Manifest::parse(twice).expect_err("because both are called a");
    assert_eq!((faults[0].line, faults[0].path.as_str()), (7, "subscribe[1].name"), "{}", faults[0]);
}

#[test]
fn subscriptions_mean_rules() {
    let text = "[plugin]\nname = \"a\"\n[[subscribe]]\non = [\"x.*\"]\nwhere = \"data.n > 1\"\norder = \"key\"\n\
                [[subscribe]]\non = [\"y\"]\nmatch = { data = { k = [\"v\"] } }\n";
    let manifest = Manifest::parse(text).unwrap_or_else(|faults| panic!("{}", faults[0]));
    let rules: Vec<Value> = manifest.rules("b").collect();
    let steps = json!([{"handle": {"plugin": "b"}}]);
    assert_eq!(
        rules,
        [
            json!({"name": "b", "on": ["x.*"], "where": "data.n > 1", "order": "key", "steps": steps}),
            json!({"name": "b-2", "on": ["y"], "match": {"data": {"k": ["v"]}}, "steps": steps}),
        ]
    );
}

#[test]
fn the_manifests_of_examples_and_templates_are_right() {
    let validator = validator();
    assert!(validator.is_valid(&as_json(WHOLE)));
    let mut count = 0;
    for folder in ["../../example-plugins", "templates/plugin"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in std::fs::read_dir(&folder).expect("because it is there").flatten() {
            let Ok(text) = std::fs::read_to_string(entry.path().join("plugin.toml")) else { continue };
            let text = text.replace("{{ name }}", "my-plugin").replace("{{ module }}", "my_plugin");
            count += 1;
            Manifest::parse(&text).unwrap_or_else(|faults| panic!("{}: {}", entry.path().display(), faults[0]));
            let faults: Vec<String> = validator.iter_errors(&as_json(&text)).map(|error| error.to_string()).collect();
            assert!(faults.is_empty(), "{}: {faults:?}", entry.path().display());
        }
    }
    assert!(count > 1);
}
