//! The index against asking each rule by itself.

use bulkhead_domain::rule::Rule;
use bulkhead_domain::rule::RuleSet;
use bulkhead_domain::rule::Scope;
use bulkhead_domain::rule::explain::explain;
use proptest::prelude::*;
use serde_json::Value as Json;
use serde_json::json;

use crate::event;
use crate::patterns::any_payload;
use crate::patterns::pattern;
use crate::rule;

fn types() -> impl Strategy<Value = Json> {
    let glob = prop::sample::select(vec!["a", "a.b", "a.*", "**", "*.b", "a.**.c", "b", "a.b.c"]);
    prop::collection::vec(glob, 1..3).prop_map(|globs| json!(globs))
}

fn condition() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![
        3 => Just(None),
        2 => prop::sample::select(vec![
            "data.x == 1", "has(data.x) && data.y != 'a'", "data.?x.?y.orValue(1) == 1", "size(data) > 1",
            "data.x.exists(i, i == 'a')", "data.z.x.y > 0 || data.x == 'a'", "'x' in data", "data.y < 3",
            "type(data.x) == list && data.x[0] == 'a'", "data['y'] == 'a'", "tenant == 'acme' && data.x != null",
        ]).prop_map(Some),
    ]
}

/// A rule's types, pattern, further alternative, condition, and whether it is enabled.
type Parts = (Json, Option<Json>, Option<Json>, Option<&'static str>, bool);

fn parts() -> impl Strategy<Value = Parts> {
    (
        types(),
        prop::option::of(pattern()),
        prop::option::weighted(0.2, pattern()),
        condition(),
        prop::bool::weighted(0.9),
    )
}

fn built(at: usize, (on, pattern, other, condition, enabled): Parts) -> Rule {
    let mut document = json!({"name": format!("r{at}"), "on": on, "enabled": enabled, "steps": [{"emit": "x"}]});
    match (pattern, other) {
        (Some(one), Some(other)) => document["match"] = json!({"$or": [{"data": one}, {"data": other}]}),
        (Some(one), None) => document["match"] = json!({"data": one, "source": ["/shop"]}),
        (None, _) => {}
    }
    if let Some(condition) = condition {
        document["where"] = json!(condition);
    }
    rule(&document)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn as_one_by_one(
        rules in prop::collection::vec(parts(), 1..40),
        events in prop::collection::vec((prop::sample::select(vec!["a", "a.b", "a.b.c", "b", "c.b"]), any_payload()), 1..6),
    ) {
        let rules: Vec<Rule> = rules.into_iter().enumerate().map(|(at, parts)| built(at, parts)).collect();
        let set = RuleSet::compile(1, rules);
        for (kind, data) in events {
            let event = event(kind, data.to_string());
            let scope = Scope::new(&event, "acme");
            let expected: Vec<usize> = (0..set.rules().len())
                .filter(|at| explain(&set.rules()[*at], &Scope::new(&event, "acme")).matched)
                .collect();
            let routed = set.route(&event, &scope);
            prop_assert_eq!(&routed.matched, &expected, "{} {}", kind, data);
            prop_assert!(!scope.is_parsed(), "the caller's scope is left alone");
            // With a payload that is parsed already the answer is the same.
            let _ = scope.data();
            prop_assert_eq!(set.route(&event, &scope), routed);
        }
    }
}
