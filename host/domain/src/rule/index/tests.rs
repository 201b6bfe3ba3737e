//! Rule sets.

use serde_json::json;

use super::*;
use crate::rule::fixture::event;
use crate::rule::fixture::rules;

/// The names of the rules that match.
fn matched(set: &RuleSet, event: &Event) -> Vec<String> {
    let routed = set.route(event, &Scope::new(event, "acme"));
    routed.matched.iter().map(|at| set.rules()[*at].name().to_owned()).collect()
}

#[test]
fn types_patterns_and_conditions_come_together() {
    let set = RuleSet::compile(
        7,
        rules(
            r"
- { name: exact, on: orders.created, steps: [deliver: crm] }
- { name: star, on: 'orders.*', steps: [deliver: crm] }
- { name: all, on: '**', steps: [deliver: crm] }
- { name: other, on: [a, b.c], steps: [deliver: crm] }
- { name: twice, on: [orders.created, 'orders.**'], steps: [deliver: crm] }
- { name: resting, on: '**', enabled: false, steps: [deliver: crm] }
- { name: german, on: 'orders.*', match: { data: { country: [DE] } }, steps: [deliver: crm] }
- { name: german-elsewhere, on: 'bills.*', match: { data: { country: [DE] } }, steps: [deliver: crm] }
- { name: big, on: '**', where: data.total > 100, steps: [deliver: crm] }
- { name: big-german, on: '**', match: { data: { country: [DE] } }, where: data.total > 100, steps: [deliver: crm] }
- { name: odd, on: '**', where: data.country > 1, steps: [deliver: crm] }
- { name: lacking, on: '**', where: data.absent == 1, steps: [deliver: crm] }
",
        ),
    );
    assert_eq!((set.number(), set.rules().len()), (7, 12));
    assert_eq!(set.position("all"), Some(2));
    assert_eq!(set.rule("absent").map(Rule::name), None);
    let order = event("orders.created", &json!({"country": "DE", "total": 200}));
    assert_eq!(matched(&set, &order), ["exact", "star", "all", "twice", "german", "big", "big-german"]);
    let routed = set.route(&order, &Scope::new(&order, "acme"));
    assert_eq!(routed.missing, [11]);
    assert_eq!(routed.errors, [(10, "`>` cannot compare a text with a number".to_owned())]);
    assert!(routed.over_budget.is_empty() && routed.starved.is_empty());
    let order = event("orders.paid.late", &json!({"country": "FR", "total": 1}));
    assert_eq!(matched(&set, &order), ["all", "twice"]);
    assert_eq!(matched(&set, &event("bills.x", &json!({"country": "DE"}))), ["all", "german-elsewhere"]);
}

#[test]
fn what_interests_nobody_is_not_parsed() {
    let set = RuleSet::compile(1, rules("- {name: a, on: x, where: data.y == 1, steps: [deliver: crm]}"));
    let event = event("other", &json!({"y": 1}));
    let scope = Scope::new(&event, "acme");
    assert_eq!(set.route(&event, &scope), Routed::default());
    assert!(!scope.is_parsed());
    let nothing = RuleSet::compile(1, Vec::new());
    assert_eq!(nothing.route(&event, &scope), Routed::default());
}

#[test]
fn a_rule_set_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<RuleSet>();
    shared::<Rule>();
}

#[test]
fn a_rule_that_takes_too_long_does_not_match_and_is_named() {
    let set = RuleSet::compile(
        1,
        rules(
            r"
- { name: heavy, on: x, where: 'data.a.all(i, data.a.all(j, i + j >= 0))', steps: [deliver: crm] }
- { name: light, on: x, where: 'size(data.a) > 0', steps: [deliver: crm] }
",
        ),
    );
    let event = event("x", &json!({"a": vec![1; 1_000]}));
    let routed = set.route(&event, &Scope::new(&event, "acme"));
    assert_eq!((routed.matched, routed.over_budget), (vec![1], vec![0]));
}

#[test]
fn what_comes_after_too_much_is_starved_and_not_to_blame() {
    let heavy = |at: usize| {
        format!("- {{name: r{at}, on: x, where: 'data.a.all(i, data.a.all(j, i + j >= 0))', steps: [deliver: crm]}}\n")
    };
    let set = RuleSet::compile(1, rules(&(0..30).map(heavy).collect::<String>()));
    let event = event("x", &json!({"a": vec![1; 1_000]}));
    let routed = set.route(&event, &Scope::new(&event, "acme"));
    assert_eq!(routed.over_budget, (0..10).collect::<Vec<_>>());
    assert_eq!(routed.starved, (10..30).collect::<Vec<_>>());
}
