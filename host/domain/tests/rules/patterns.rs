//! Patterns against a matcher that does the obvious, and against `quamina`, which has EventBridge's own meaning.

use bulkhead_domain::rule::RuleSet;
use bulkhead_domain::rule::Scope;
use proptest::prelude::*;
use quamina::Quamina;
use serde_json::Value as Json;
use serde_json::json;

use crate::event;
use crate::rule;

/// Whether the rule set's index finds a rule with this pattern.
fn ours(pattern: &Json, data: &Json) -> bool {
    let rules = vec![rule(&json!({"name": "a", "on": "t", "match": {"data": pattern}, "steps": [{"emit": "x"}]}))];
    let event = event("t", data.to_string());
    !RuleSet::compile(1, rules).route(&event, &Scope::new(&event, "acme")).matched.is_empty()
}

/// The obvious: a map must be met field by field, of an array one element must do.
fn naive(pattern: &Json, value: Option<&Json>) -> bool {
    match (pattern, value) {
        (Json::Array(tests), Some(Json::Array(elements))) => {
            tests.contains(&json!({"exists": true})) || elements.iter().any(|element| naive(pattern, Some(element)))
        }
        (Json::Array(tests), value) => tests.iter().any(|test| passes(test, value)),
        (Json::Object(_), Some(Json::Array(elements))) if !elements.is_empty() => {
            elements.iter().any(|element| naive(pattern, Some(element)))
        }
        (Json::Object(fields), value) => {
            fields.iter().all(|(name, pattern)| naive(pattern, value.and_then(|value| value.get(name))))
        }
        _ => false,
    }
}

fn passes(test: &Json, value: Option<&Json>) -> bool {
    let Json::Object(operator) = test else { return value.is_some_and(|value| same(test, value)) };
    let (name, wanted) = operator.iter().next().expect("because a test has an operator");
    let text = value.and_then(Json::as_str);
    match name.as_str() {
        "exists" => value.is_some() == wanted.as_bool().expect("because it is a truth"),
        "prefix" => text.is_some_and(|text| text.starts_with(wanted.as_str().expect("because it is a text"))),
        "suffix" => text.is_some_and(|text| text.ends_with(wanted.as_str().expect("because it is a text"))),
        "equals-ignore-case" => {
            text.is_some_and(|text| text.eq_ignore_ascii_case(wanted.as_str().expect("because it is a text")))
        }
        "wildcard" => {
            text.is_some_and(|text| like(wanted.as_str().expect("because it is a text").as_bytes(), text.as_bytes()))
        }
        "anything-but" => {
            let unwanted = wanted.as_array().expect("because it is a list");
            value.is_some_and(|value| !value.is_object() && !unwanted.iter().any(|unwanted| same(unwanted, value)))
        }
        _ => {
            let pairs = wanted.as_array().expect("because it is a list").chunks(2);
            value.and_then(Json::as_f64).is_some_and(|number| {
                pairs.into_iter().all(|pair| {
                    let end = pair[1].as_f64().expect("because it is a number");
                    match pair[0].as_str().expect("because it is a text") {
                        ">" => number > end,
                        ">=" => number >= end,
                        "<" => number < end,
                        "<=" => number <= end,
                        _ => number == end,
                    }
                })
            })
        }
    }
}

fn same(one: &Json, other: &Json) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn like(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| like(rest, &text[skip..])),
        Some((first, rest)) => text.split_first().is_some_and(|(byte, text)| byte == first && like(rest, text)),
    }
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("ab"), Just("abc"), Just("b"), Just("AB"), Just("ba"), Just("")].prop_map(str::to_owned)
}

fn some_word() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("ab"), Just("b"), Just("Ab")].prop_map(str::to_owned)
}

fn number() -> impl Strategy<Value = Json> {
    prop_oneof![(-2..4_i64).prop_map(Json::from), Just(json!(1.5)), Just(json!(2.0))]
}

fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![4 => word().prop_map(Json::from), 3 => number(), 1 => any::<bool>().prop_map(Json::from), 1 => Just(Json::Null)]
}

fn text_test() -> BoxedStrategy<Json> {
    prop_oneof![
        scalar(),
        some_word().prop_map(|word| json!({"prefix": word})),
        some_word().prop_map(|word| json!({"suffix": word})),
        some_word().prop_map(|word| json!({"equals-ignore-case": word})),
        prop_oneof![Just("a*"), Just("*b"), Just("a*b"), Just("*a*"), Just("*")]
            .prop_map(|text| json!({"wildcard": text})),
        prop::collection::vec(word(), 1..3).prop_map(|words| json!({"anything-but": words})),
    ]
    .boxed()
}

fn number_test() -> BoxedStrategy<Json> {
    prop_oneof![
        number(),
        prop::collection::vec(number(), 1..3).prop_map(|numbers| json!({"anything-but": numbers})),
        (prop_oneof![Just(">"), Just(">="), Just("<"), Just("<="), Just("=")], -2..4_i64)
            .prop_map(|(sign, end)| json!({"numeric": [sign, end]})),
        // Not from 0: to the oracle 0 is greater than 0 if there is an upper end too.
        Just(json!({"numeric": [">", 1, "<=", 3]})),
    ]
    .boxed()
}

fn any_test() -> BoxedStrategy<Json> {
    let exists = any::<bool>().prop_map(|there| json!({"exists": there}));
    prop_oneof![5 => text_test(), 4 => number_test(), 1 => exists].boxed()
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("x"), Just("y"), Just("z")].prop_map(str::to_owned)
}

pub fn pattern() -> impl Strategy<Value = Json> {
    let leaf = prop::collection::vec(any_test(), 1..4).prop_map(Json::Array);
    let level = leaf.prop_recursive(3, 12, 3, |inner| {
        prop::collection::btree_map(name(), inner, 1..4)
            .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into())
    });
    prop::collection::btree_map(name(), level, 1..4)
        .prop_map(|fields| Json::from(fields.into_iter().collect::<serde_json::Map<_, _>>()))
        .prop_filter("too many stars", |pattern| pattern.to_string().matches('*').count() <= 32)
}

fn map_of(value: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    prop::collection::btree_map(name(), value, 0..4)
        .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into())
}

fn array_of(value: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    prop::collection::vec(value, 0..4).prop_map(Json::Array)
}

/// Anything within anything.
pub fn any_payload() -> impl Strategy<Value = Json> {
    let value =
        scalar().prop_recursive(4, 24, 4, |inner| prop_oneof![2 => map_of(inner.clone()), 1 => array_of(inner)]);
    map_of(value)
}

/// Fields `x`, `y`, `z` of the one kind and `m`, `n` of the other.
fn tidy_level(leaf: BoxedStrategy<Json>, inner: BoxedStrategy<Json>) -> BoxedStrategy<Json> {
    let leaves = prop::collection::btree_map(name(), leaf, 0..4);
    let below = prop::collection::btree_map(prop_oneof![Just("m".to_owned()), Just("n".to_owned())], inner, 0..3);
    (leaves, below)
        .prop_map(|(leaves, below)| leaves.into_iter().chain(below).collect::<serde_json::Map<_, _>>().into())
        .boxed()
}

/// What the oracle agrees on. Not texts, truths and nulls where there are numbers: to it `false` and `"a"` are less
/// than 0. Not maps where a leaf is asked about: to it they are something that is not nothing.
fn tidy_payload(scalar: BoxedStrategy<Json>) -> BoxedStrategy<Json> {
    let leaf = prop_oneof![3 => scalar.clone(), 1 => array_of(scalar)].boxed();
    let deepest = tidy_level(leaf.clone(), Just(json!({})).boxed());
    let deeper = tidy_level(leaf.clone(), prop_oneof![deepest.clone(), array_of(deepest)].boxed());
    tidy_level(leaf, prop_oneof![deeper.clone(), array_of(deeper)].boxed())
}

/// Without empty maps: to the oracle they ask for something else than nothing.
fn tidy_pattern(test: BoxedStrategy<Json>, fallback: Json) -> impl Strategy<Value = Json> {
    let leaf = prop::collection::vec(test, 1..4).prop_map(Json::Array).boxed();
    let deepest = tidy_level(leaf.clone(), Just(fallback).boxed());
    let deeper = tidy_level(leaf.clone(), deepest);
    tidy_level(leaf, deeper).prop_filter("empty, or too many stars", |pattern| {
        let text = pattern.to_string();
        !text.contains("{}") && text.matches('*').count() <= 32
    })
}

/// Whether the oracle finds the pattern. None if it refuses it as too complex.
fn quamina(pattern: &Json, data: &Json) -> Option<bool> {
    let mut quamina = Quamina::new();
    quamina.add_pattern(1, &pattern.to_string()).ok()?;
    Some(!quamina.matches_for_event(data.to_string().as_bytes()).expect("because it is JSON").is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn as_the_obvious_matcher(pattern in pattern(), data in any_payload()) {
        prop_assert_eq!(ours(&pattern, &data), naive(&pattern, Some(&data)));
    }

    #[test]
    fn as_quamina_for_texts(
        pattern in tidy_pattern(text_test(), json!({"x": ["a"]})),
        data in tidy_payload(word().prop_map(Json::from).boxed()),
    ) {
        if let Some(theirs) = quamina(&pattern, &data) {
            prop_assert_eq!(ours(&pattern, &data), theirs);
        }
    }

    #[test]
    fn as_quamina_for_numbers(
        pattern in tidy_pattern(number_test(), json!({"x": [1]})),
        data in tidy_payload(number().boxed()),
    ) {
        if let Some(theirs) = quamina(&pattern, &data) {
            prop_assert_eq!(ours(&pattern, &data), theirs);
        }
    }
}
