//! What a tenant might try. The limits are generous in time, because the machine may be busy; that they hold at all is
//! the point: without a budget each of these would run for minutes, or for ever.

use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::event::Event;
use bulkhead_domain::rule::Condition;
use bulkhead_domain::rule::Rule;
use bulkhead_domain::rule::RuleSet;
use bulkhead_domain::rule::Scope;
use bulkhead_domain::rule::Truth;
use bulkhead_domain::rule::document::Names;
use bulkhead_domain::rule::document::parse;
use bulkhead_domain::rule::document::parse_set;
use bulkhead_domain::rule::explain::explain;
use proptest::prelude::*;
use serde_json::Value as Json;
use serde_json::json;

use crate::event;
use crate::rule;

/// A hundred times what it takes and more.
const PATIENCE: Duration = Duration::from_secs(2);

fn check(event: &Event, source: &str, expected: &Truth) {
    let condition = Condition::parse(source).unwrap_or_else(|problems| panic!("{source}: {}", problems[0]));
    let scope = Scope::new(event, "acme");
    let _ = scope.data();
    let start = Instant::now();
    assert_eq!(&condition.evaluate(&scope), expected, "{source}");
    assert!(start.elapsed() < PATIENCE, "{source} took {:?}", start.elapsed());
}

#[test]
fn expressions_end() {
    let numbers = event("t", json!({"a": vec![1; 100_000]}).to_string());
    check(&numbers, "data.a.all(x, data.a.all(y, x + y >= 0))", &Truth::OverBudget);
    check(&numbers, "data.a.map(x, data.a.map(y, x)).size() > 0", &Truth::OverBudget);
    check(&numbers, "data.a.all(x, data.a == data.a)", &Truth::OverBudget);
    check(&numbers, "data.a.all(x, !(0 in data.a))", &Truth::OverBudget);
    check(&numbers, "data.a.map(x, data.a + data.a).size() > 0", &Truth::OverBudget);
    // Neither `||`, `&&` nor `exists` turns running over the budget into an answer.
    check(&numbers, "data.a.all(x, data.a == data.a) || true", &Truth::OverBudget);
    check(&numbers, "data.a.all(x, data.a == data.a) && false", &Truth::OverBudget);
    check(&numbers, "[1].exists(z, data.a.all(x, data.a == data.a) || true)", &Truth::OverBudget);
    check(&numbers, "size(data.a) == 100000 && data.a[99999] == 1", &Truth::Yes);

    let text = event("t", json!({"s": "ab ".repeat(80_000), "a": vec![1; 1_000]}).to_string());
    let doubling = format!("size([data.s]{}) > 0", ".map(x, x + x)".repeat(60));
    check(&text, &doubling, &Truth::OverBudget);
    check(&text, &format!("size('a'{}) > 0", " + data.s".repeat(60)), &Truth::OverBudget);
    check(&text, "data.a.all(x, !data.s.contains('zz'))", &Truth::OverBudget);
    check(&text, "data.a.all(x, data.s.replace('a', 'bb') != '')", &Truth::OverBudget);
    check(&text, "data.a.all(x, !data.s.matches('[a-q][^u-z]{13}x'))", &Truth::OverBudget);
    check(&text, "data.a.all(x, !data.s.matches('(.*)(.*)(.*)(.*)(.*)[^x]{40}y'))", &Truth::OverBudget);
    check(&text, "data.s.matches('^(ab )*$')", &Truth::Yes);
    check(&text, "data.s.split(' ').join('-').size() == size(data.s)", &Truth::Yes);

    let list: Vec<String> = (0..240).map(|at| at.to_string()).collect();
    let literals = format!("[{0}].all(x, [{0}].all(y, x + y >= 0))", list.join(","));
    check(&text, &literals, &Truth::OverBudget);
}

#[test]
fn the_four_deep_loop_is_refused_when_it_is_saved() {
    let problems = Condition::parse("data.a.all(a, data.a.all(b, data.a.all(c, data.a.all(d, true))))");
    let problems = problems.map(|_| ()).expect_err("because it nests too deeply");
    assert!(problems[0].message.contains("inside 2 others"), "{}", problems[0]);
}

#[test]
fn patterns_end() {
    let check = |data: Json, pattern: &dyn Fn(usize) -> Json| {
        let rules: Vec<Rule> = (0..2_000)
            .map(|at| {
                let name = format!("r{at}");
                rule(&json!({"name": name, "on": "t", "match": {"data": pattern(at)}, "steps": [{"emit": "x"}]}))
            })
            .collect();
        let set = RuleSet::compile(1, rules);
        let event = event("t", data.to_string());
        let start = Instant::now();
        let routed = set.route(&event, &Scope::new(&event, "acme"));
        assert!(start.elapsed() < PATIENCE, "{} took {:?}", pattern(1), start.elapsed());
        routed
    };
    // Three arrays: 41 s for one such rule and 6 KB with a matcher that tries all combinations.
    let arrays = json!({"a": vec![1; 20_000], "b": vec![1; 20_000], "c": vec![1; 20_000]});
    let routed = check(arrays, &|at| json!({"a": [1], "b": [1], "c": [at + 2]}));
    assert_eq!((routed.matched.len(), routed.starved.len()), (0, 0));
    // More ranges over one array than one event may take: nobody is blamed.
    let routed =
        check(json!({"a": (0..40_000).collect::<Vec<_>>()}), &|at| json!({"a": [{"numeric": [">", at]}], "b": [1]}));
    assert_eq!(routed.starved.len(), 2_000);
    let routed = check(json!({"s": "ab".repeat(120_000)}), &|at| json!({"s": [{"wildcard": format!("*a{at}*b*")}]}));
    assert!(routed.matched.is_empty());
    let routed = check(json!({"s": "x"}), &|at| json!({"s": [{"anything-but": [at.to_string()]}]}));
    assert_eq!(routed.matched.len(), 2_000, "as many on one field as there are");
    let objects = json!({"a": vec![json!({"x": 1, "y": 2}); 10_000]});
    let routed = check(objects, &|at| json!({"a": {"x": [1], "y": [at + 3]}}));
    assert!(routed.matched.is_empty());
}

/// A thread has 2 MiB by default; the parser and the evaluator recurse, and must do with half of it.
#[test]
fn deep_expressions_do_not_overflow_the_stack() {
    let mut sources = vec![
        format!("1{}", "+1".repeat(599)),
        format!("a{}", ".a".repeat(599)),
        format!("data{}", ".a".repeat(60)),
        format!("a{}", "[0]".repeat(299)),
        format!("data.a{}", "[0]".repeat(60)),
        format!("{}true", "!".repeat(599)),
        format!("{}1", "-".repeat(599)),
        format!("true{}", "||true".repeat(299)),
        format!("true{}", "?true:true".repeat(20)),
        format!("a{}", ".f()".repeat(199)),
        format!("1{}", "<1".repeat(599)),
        "(".repeat(600),
        "f(".repeat(300),
        "?".repeat(600),
        "a?".repeat(300),
    ];
    for (open, close) in [("(", ")"), ("[", "]"), ("{'a':", "}"), ("size(", ")"), ("[1].all(x,", ")"), ("!(", ")")] {
        sources.push(format!("{}true{}", open.repeat(24), close.repeat(24)));
        sources.push(format!("{0}true{1} == {0}true{1}", open.repeat(24), close.repeat(24)));
    }
    let deep = (0..120).fold(json!(1), |json, at| if at % 2 == 0 { json!({ "a": json }) } else { json!([json]) });
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
        let event = event("t", json!({"a": deep, "b": deep}).to_string());
        for source in sources {
            if let Ok(condition) = Condition::parse(&source) {
                let _ = condition.evaluate(&Scope::new(&event, "acme"));
            }
        }
        let same = Condition::parse("data.a == data.b").expect("because it is a condition");
        assert_eq!(same.evaluate(&Scope::new(&event, "acme")), Truth::Yes);
    });
    thread.expect("because there is memory").join().expect("because nothing panics");
}

/// A set with everything in it.
fn everything() -> RuleSet {
    let rules = [
        json!({"name": "a", "on": "**", "match": {"data": {"a": {"b": [{"prefix": "x"}, {"numeric": [">", 1]}]}, "c": [{"exists": false}]}}}),
        json!({"name": "b", "on": "**", "where": "data.a.b > 1 || has(data.c)"}),
        json!({"name": "c", "on": "**", "where": "size(data) > 0"}),
        json!({"name": "d", "on": "**", "match": {"data": [{"exists": true}]}}),
    ];
    let mut rules = rules.to_vec();
    rules.iter_mut().for_each(|rule| rule["steps"] = json!([{"emit": "x.y"}]));
    RuleSet::compile(1, rules.iter().map(rule).collect())
}

fn survive(data: &[u8]) {
    let event = event("t", data.to_vec());
    let scope = Scope::new(&event, "acme");
    let set = everything();
    let routed = set.route(&event, &scope);
    for rule in set.rules() {
        let _ = explain(rule, &scope);
    }
    drop(routed);
}

#[test]
fn deep_payloads_do_not_overflow_the_stack() {
    for open in ["[", "{\"a\":", "[[{\"a\":{\"b\":"] {
        survive(open.repeat(50_000).as_bytes());
        let close = if open.contains('{') { "}" } else { "]" };
        survive(format!("{}1{}", open.repeat(20_000), close.repeat(20_000)).as_bytes());
        survive(format!("{{\"z\": {}1{}, \"a\": {{\"b\": 2}}}}", open.repeat(120), close.repeat(120)).as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..60)) {
        survive(&data);
    }

    #[test]
    fn anything_like_json_is_survived(data in r#"(\{|\}|\[|\]|"a"|"b"|:|,|1|-|e9|null|true|"\\ud800"|"x| ){0,20}"#) {
        survive(data.as_bytes());
    }

    /// A text is a document or it has problems, and a problem draws a line that there is.
    #[test]
    fn any_text_is_read_or_refused(
        text in r#"((name|on|where|match|steps|map|emit|retry|data|enabled)(: | :|:\n  )|a|[0-9]|- |\[|\]|\{|\}|'|"|&a|\*a|\||>|\n|\n  |, |#|!|\?|\t|é){0,30}"#,
    ) {
        let none = std::collections::BTreeSet::new();
        let names = Names { plugins: &none, sinks: &none };
        for result in [parse(&text, &names).map(|_| ()), parse_set(&text, &names).map(|_| ())] {
            for problem in result.err().unwrap_or_default() {
                prop_assert!(problem.line >= 1 && problem.column >= 1, "{text:?} {problem:?}");
                prop_assert!(problem.line <= text.split('\n').count() + 1, "{text:?} {problem:?}");
            }
        }
    }
}
