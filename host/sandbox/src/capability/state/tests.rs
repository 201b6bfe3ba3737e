//! The overlay against a plain map.

use super::*;
use crate::port::StateError;

const PLUGIN: PluginId = PluginId(1);

/// Committed state in a map.
struct Committed(BTreeMap<String, Held>);

impl StateReader for Committed {
    fn get(&self, plugin: PluginId, key: &str) -> Result<Option<Held>, StateError> {
        assert_eq!(plugin, PLUGIN);
        Ok(self.0.get(key).cloned())
    }

    fn keys(&self, _: PluginId, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateError> {
        let after = after.unwrap_or_default();
        let keys = self.0.keys().filter(|key| key.starts_with(prefix) && key.as_str() > after);
        Ok(keys.take(limit).cloned().collect())
    }
}

struct Broken;

impl StateReader for Broken {
    fn get(&self, _: PluginId, _: &str) -> Result<Option<Held>, StateError> {
        Err(StateError("the database is away".into()))
    }

    fn keys(&self, _: PluginId, _: &str, _: Option<&str>, _: usize) -> Result<Vec<String>, StateError> {
        Err(StateError("the database is away".into()))
    }
}

fn state(committed: &[(&str, &str)]) -> State {
    let held = |value: &str| Held { value: Bytes::copy_from_slice(value.as_bytes()), expires: None };
    let map = committed.iter().map(|(key, value)| ((*key).to_owned(), held(value))).collect();
    State::new(PLUGIN, Timestamp(1_000_000), Arc::new(Committed(map)))
}

fn get(state: &State, key: &str) -> Option<String> {
    let value = state.get(&Limits::default(), key).expect("because the key is fine");
    value.map(|value| String::from_utf8(value.to_vec()).expect("because the tests write text"))
}

#[test]
fn reads_see_the_run_s_own_writes_and_deletions() {
    let limits = Limits::default();
    let mut state = state(&[("a", "1"), ("b", "2")]);
    assert_eq!(get(&state, "a").as_deref(), Some("1"));
    state.set(&limits, "a".into(), b"3".to_vec(), None).expect("because it fits");
    state.delete(&limits, "b".into()).expect("because it fits");
    state.set(&limits, "c".into(), b"4".to_vec(), Some(500)).expect("because it fits");
    assert_eq!(get(&state, "a").as_deref(), Some("3"));
    assert_eq!(get(&state, "b"), None);
    let writes: Vec<_> = state.into_writes().collect();
    let write = |key: &str, value: Option<&'static str>, expires| StateWrite {
        plugin: PLUGIN,
        key: key.into(),
        value: value.map(Bytes::from_static_str),
        expires,
    };
    assert_eq!(
        writes,
        [write("a", Some("3"), None), write("b", None, None), write("c", Some("4"), Some(Timestamp(1_500_000)))]
    );
}

trait FromStatic {
    fn from_static_str(text: &'static str) -> Bytes;
}

impl FromStatic for Bytes {
    fn from_static_str(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }
}

#[test]
fn increments_count_from_nothing_from_text_and_from_themselves() {
    let limits = Limits::default();
    let mut state = state(&[("n", "41"), ("text", "many"), ("max", "9223372036854775807")]);
    let mut add = |key: &str, by| state.increment(&limits, key.into(), by);
    assert_eq!(add("n", 1).expect("because it is a number"), 42);
    assert_eq!(add("n", -2).expect("because it is a number"), 40);
    assert_eq!(add("new", 5).expect("because it is not there"), 5);
    assert!(matches!(add("text", 1), Err(Fault::Refused(Refusal::Invalid(_)))));
    assert!(matches!(add("max", 1), Err(Fault::Refused(Refusal::Invalid(_)))));
    assert_eq!(get(&state, "n").as_deref(), Some("40"));
}

#[test]
fn an_increment_does_not_make_a_counter_immortal() {
    let limits = Limits::default();
    let expires = Some(Timestamp(9_000_000));
    let held = Held { value: Bytes::from_static(b"1"), expires };
    let committed = Committed(BTreeMap::from([("window".to_owned(), held)]));
    let mut state = State::new(PLUGIN, Timestamp(0), Arc::new(committed));
    state.increment(&limits, "window".into(), 1).expect("because it is a number");
    let write = state.into_writes().next().expect("because it was written");
    assert_eq!((write.value.as_deref(), write.expires), (Some(&b"2"[..]), expires));
}

#[test]
fn listing_merges_the_overlay_at_every_page_size() {
    let limits = Limits::default();
    let committed: Vec<String> = (0..20).map(|number| format!("k/{number:02}")).collect();
    let pairs: Vec<(&str, &str)> = committed.iter().map(|key| (key.as_str(), "x")).collect();
    let mut state = state(&[&pairs[..], &[("j", "x"), ("l", "x")]].concat());
    for gone in ["k/00", "k/07", "k/08", "k/19", "k/never"] {
        state.delete(&limits, gone.into()).expect("because it fits");
    }
    for new in ["k/", "k/07a", "k/05", "k/99", "kk"] {
        state.set(&limits, new.into(), vec![], None).expect("because it fits");
    }
    let mut expected: Vec<String> = committed.clone();
    expected.retain(|key| !["k/00", "k/07", "k/08", "k/19"].contains(&key.as_str()));
    expected.extend(["k/".to_owned(), "k/07a".to_owned(), "k/99".to_owned()]);
    expected.sort();
    for size in 1..25 {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = state.keys(&limits, "k/", after.as_deref(), size).expect("because the reader works");
            assert!(page.keys.len() <= size as usize);
            seen.extend(page.keys);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, expected, "page size {size}");
    }
}

#[test]
fn a_page_is_never_larger_than_a_thousand() {
    let limits = Limits::default();
    let keys: Vec<String> = (0..1_500).map(|number| format!("{number:04}")).collect();
    let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "x")).collect();
    let state = state(&pairs);
    for limit in [0, 5_000, u32::MAX] {
        let page = state.keys(&limits, "", None, limit).expect("because the reader works");
        assert_eq!((page.keys.len(), page.next.as_deref()), (1_000, Some("0999")));
    }
    let rest = state.keys(&limits, "", Some("0999"), 0).expect("because the reader works");
    assert_eq!((rest.keys.len(), rest.next), (500, None));
}

#[test]
fn every_limit_is_kept() {
    let limits = Limits { state_writes: 3, state_bytes: 20, state_key: 4, state_value: 10, ..Limits::default() };
    let mut state = state(&[]);
    let limited = |answer: Result<(), Fault>| {
        assert!(matches!(answer, Err(Fault::Refused(Refusal::Limit(_)))), "{answer:?}");
    };
    limited(state.set(&limits, "12345".into(), vec![], None));
    limited(state.set(&limits, "k".into(), vec![0; 11], None));
    assert!(state.set(&limits, "a".into(), vec![0; 10], None).is_ok());
    limited(state.set(&limits, "b".into(), vec![0; 10], None));
    assert!(state.delete(&limits, "c".into()).is_ok());
    assert!(state.delete(&limits, "c".into()).is_ok());
    limited(state.delete(&limits, "d".into()));
    let invalid = |answer: Result<(), Fault>| {
        assert!(matches!(answer, Err(Fault::Refused(Refusal::Invalid(_)))), "{answer:?}");
    };
    invalid(state.set(&limits, String::new(), vec![], None));
    invalid(state.set(&limits, "a\0b".into(), vec![], None));
    invalid(state.set(&limits, "a".into(), vec![], Some(0)));
    invalid(state.keys(&limits, "\0", None, 1).map(drop));
}

#[test]
fn strange_keys_are_just_keys() {
    let limits = Limits::default();
    let mut state = state(&[]);
    for key in ["../b/k", "b:k", "%2e%2e", "a/../b", "\u{10ffff}", "' or 1=1 --"] {
        state.set(&limits, key.into(), key.as_bytes().to_vec(), None).expect("because it fits");
        assert_eq!(get(&state, key).as_deref(), Some(key));
    }
    assert_eq!(get(&state, "b/k"), None);
}

#[test]
fn a_reader_that_fails_ends_the_attempt() {
    let limits = Limits::default();
    let mut state = State::new(PLUGIN, Timestamp(0), Arc::new(Broken));
    assert!(matches!(state.get(&limits, "a"), Err(Fault::Stopped(Stop::State(_)))));
    assert!(matches!(state.increment(&limits, "a".into(), 1), Err(Fault::Stopped(Stop::State(_)))));
    assert!(matches!(state.keys(&limits, "", None, 1), Err(Fault::Stopped(Stop::State(_)))));
}
