use bulkhead_domain::effect::EffectSeed;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::event::Event;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_domain::recording::Duty;
use bulkhead_domain::recording::Ended;
use bulkhead_domain::recording::FORMAT;
use bulkhead_domain::recording::Held;
use bulkhead_domain::recording::Place;
use serde_json::json;

use super::*;

const P: PluginId = PluginId(7);

/// Calls the plugin `p` at its steps 1 and 2.
fn rule() -> Rule {
    let steps = json!([{"emit": "x"}, {"handle": {"plugin": "p"}}, {"handle": {"plugin": "p"}}]);
    Rule::from_stored(&json!({"name": "r", "on": "a", "steps": steps})).expect("because it is a rule")
}

fn value(key: &str, value: &str, version: Option<i64>) -> Read {
    let held = Held { value: value.to_owned().into(), expires: None, version };
    Read::State { key: key.to_owned(), held: Some(held) }
}

fn call(step: usize, reads: Vec<Read>, writes: &[&str]) -> Recording {
    let write = |key: &&str| {
        Effect::State(StateWrite { plugin: P, key: (*key).to_owned(), value: Some("new".into()), expires: None })
    };
    Recording {
        format: FORMAT,
        call: Place { run: String::new(), rule: "r".into(), step, item: 0, settings: 1 },
        plugin: "p".into(),
        version: "3".into(),
        digest: String::new(),
        duty: Duty::Handle,
        attempt: 2,
        now: Timestamp(50),
        seed: EffectSeed::from_bytes([0; 32]),
        first_ordinal: 0,
        event: Event {
            id: "e".into(),
            source: "/s".into(),
            kind: "a".into(),
            subject: None,
            time: Timestamp(0),
            key: None,
            correlation: "e".into(),
            causation: None,
            content_type: String::new(),
            data: bytes::Bytes::new(),
            attributes: Vec::new(),
        },
        grants: Default::default(),
        limits: Default::default(),
        instance: Default::default(),
        config: BTreeMap::from([("limit".into(), "1".into()), ("token".into(), format!("\"{REDACTED}\""))]),
        sinks: Default::default(),
        fresh: true,
        reads,
        cut: false,
        redacted: Default::default(),
        ended: Ended {
            outcome: Outcome::Done,
            drafts: Vec::new(),
            effects: writes.iter().map(write).collect(),
            logs: Vec::new(),
            logs_dropped: 0,
            usage: BTreeMap::new(),
            fuel: 0,
            memory: 0,
        },
    }
}

fn past(calls: Vec<Recording>) -> Past {
    Past::of(calls, &rule(), "p", |name| (name == "p").then_some(P))
}

fn known(past: &Past) -> Vec<(&str, Option<&[u8]>)> {
    let values = past.known.values.iter();
    let mut known: Vec<_> =
        values.map(|((_, key), held)| (key.as_str(), held.as_ref().map(|held| &held.value[..]))).collect();
    known.sort_unstable();
    known
}

#[test]
fn what_a_run_found_is_known_and_what_it_wrote_is_not() {
    let absent = Read::State { key: "b".into(), held: None };
    let first = call(1, vec![value("a", "1", Some(4)), absent, value("c", "batch", None)], &["a", "b", "d"]);
    // Sees what the first wrote.
    let second = call(2, vec![value("a", "new", None), value("d", "new", None), value("e", "5", Some(6))], &[]);
    let past = past(vec![second, first]);
    let expected: [(&str, Option<&[u8]>); 4] =
        [("a", Some(b"1")), ("b", None), ("c", Some(b"batch")), ("e", Some(b"5"))];
    assert_eq!(known(&past), expected);
    assert_eq!(past.attempt, Some((2, Timestamp(50))));
}

#[test]
fn of_a_call_whose_forerunner_is_not_recorded_only_what_was_committed_is_known() {
    let absent = Read::State { key: "b".into(), held: None };
    let page = Read::Keys { prefix: String::new(), after: None, limit: 9, keys: vec!["a".into()] };
    let past = past(vec![call(2, vec![value("a", "1", Some(4)), absent, value("c", "2", None), page], &[])]);
    assert_eq!(known(&past), [("a", Some(&b"1"[..]))]);
    assert!(past.known.listings.is_empty());
}

#[test]
fn what_was_taken_out_is_not_known() {
    let page = |keys: &[&str]| Read::Keys {
        prefix: keys[0].to_owned(),
        after: None,
        limit: 9,
        keys: keys.iter().map(|&key| key.to_owned()).collect(),
    };
    let mut recording = call(
        1,
        vec![value("a", &format!("x {REDACTED}"), Some(1)), value("b", "2", Some(1)), page(&["k"]), page(&[REDACTED])],
        &[],
    );
    recording.redacted.insert("state".into());
    let past = past(vec![recording]);
    assert_eq!(known(&past), [("b", Some(&b"2"[..]))]);
    assert_eq!(past.known.listings.keys().map(|asked| asked.1.as_str()).collect::<Vec<_>>(), ["k"]);
}

#[test]
fn settings_are_as_they_were_if_the_same_version_ran() {
    let past = past(vec![call(1, Vec::new(), &[])]);
    let now: BTreeMap<String, String> =
        [("limit", "2"), ("token", "\"t\""), ("new", "true")].map(|(name, value)| (name.into(), value.into())).into();
    let then = BTreeMap::from([("limit".to_owned(), Some("1".to_owned())), ("new".to_owned(), None)]);
    assert_eq!(past.settings_since("3", &now), then);
    assert!(past.settings_since("4", &now).is_empty());
    assert!(Past::default().settings_since("3", &now).is_empty());
}
