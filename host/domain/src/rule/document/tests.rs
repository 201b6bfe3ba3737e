//! Documents, by table: what they mean, and what they are refused for.

use serde_json::Value as Json;
use serde_json::json;

use super::*;
use crate::policy::verdict::OnFailure;
use crate::rule::Order;
use crate::rule::fixture::drawn;
use crate::rule::fixture::rule;
use crate::rule::fixture::with_names;
use crate::rule::step::Action;

const WHOLE: &str = r#"
name: flag-big-orders
description: Big orders are looked at twice.
on: [orders.created, "orders.updated.*"]
match:
  data: { customer: { country: [DE, FR] }, channel: [{ prefix: web }] }
where: data.total >= 1000 && !has(data.test)
order: key
steps:
  - map:
      order: data.id
      total_eur: data.total * data.rate
      fixed: 1
      nested: { list: [data.id, true] }
  - redact: [/customer/email]
  - transform: { plugin: enrich-order }
  - handle: { plugin: fraud-score, when: data.total_eur > 5000 }
  - emit: { type: orders.flagged }
  - deliver: { sink: crm }
retry: { attempts: 8, first: 1s, factor: 3, max: 1h }
on_failure: park
enabled: true
"#;

#[test]
fn a_whole_rule_is_read() {
    let rule = rule(WHOLE);
    assert_eq!(rule.name(), "flag-big-orders");
    assert_eq!(rule.description(), Some("Big orders are looked at twice."));
    assert_eq!(rule.on().iter().map(|glob| glob.text()).collect::<Vec<_>>(), ["orders.created", "orders.updated.*"]);
    assert_eq!(rule.order(), Order::Key);
    assert_eq!(rule.on_failure(), OnFailure::Park);
    assert_eq!(rule.retry().attempts, 8);
    assert_eq!(rule.retry().factor_percent, 300);
    assert!(rule.enabled());
    let words: Vec<&str> = rule.steps().iter().map(|step| step.action.word()).collect();
    assert_eq!(words, ["map", "redact", "transform", "handle", "emit", "deliver"]);
    assert_eq!(rule.plugins().collect::<Vec<_>>(), ["enrich-order", "fraud-score"]);
    assert_eq!(rule.sinks().collect::<Vec<_>>(), ["crm"]);
    assert_eq!(rule.steps()[3].when.as_ref().map(|when| when.source()), Some("data.total_eur > 5000"));
}

#[test]
fn what_is_stored_reads_back_the_same() {
    for text in [
        WHOLE,
        "name: a\non: a\nsteps: [{handle: fraud-score}]",
        "name: a\non: '**'\nwhere: true\nsteps:\n- {map: {when: data.x, y: null}, when: data.z}\n- emit: b\n",
        "name: a\non: a\nmatch: {$or: [{data: {x: [1]}}, {source: [{wildcard: 'a*'}]}]}\nsteps: [deliver: crm]\n",
        "{\"name\": \"a\", \"on\": [\"a\"], \"steps\": [{\"redact\": \"/x\"}, {\"emit\": {\"type\": \"b\", \"when\": \"data.y\"}}]}",
    ] {
        let rule = rule(text);
        let stored: Json = serde_json::from_str(&rule.document().to_string()).expect("because it was written as JSON");
        let back = Rule::from_stored(&stored).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(back, rule);
        assert_eq!(back.document(), rule.document());
        assert_eq!(format!("{:?}", back.steps()), format!("{:?}", rule.steps()));
        assert_eq!(back.pattern(), rule.pattern());
        assert_eq!((back.retry(), back.order(), back.enabled()), (rule.retry(), rule.order(), rule.enabled()));
    }
    let gone = Rule::from_stored(&json!({"name": "a", "on": ["a"], "steps": [{"handle": {"plugin": "gone"}}]}));
    assert!(gone.is_ok(), "names are not looked up again");
    let broken =
        Rule::from_stored(&json!({"name": "a", "on": ["a"], "steps": [{"emit": {"type": "b", "when": "1 +"}}]}));
    assert_eq!(
        broken.map(|_| ()).expect_err("because the expression is broken").to_string(),
        "stored rule `a`: steps[0].emit.when: the expression ends too early"
    );
}

#[test]
fn short_forms_are_spelt_out() {
    let rule = rule(
        "name: a\non: a\nsteps:\n- transform: enrich-order\n- handle: fraud-score\n- redact: /a\n- emit: b.c\n- deliver: crm\n  when: data.x == 1\n",
    );
    assert_eq!(
        rule.document()["steps"],
        json!([
            {"transform": {"plugin": "enrich-order"}},
            {"handle": {"plugin": "fraud-score"}},
            {"redact": ["/a"]},
            {"emit": {"type": "b.c"}},
            {"deliver": {"sink": "crm"}, "when": "data.x == 1"},
        ])
    );
    assert_eq!(rule.document()["on"], json!(["a"]));
    assert_eq!(rule.retry(), &crate::policy::retry::Retry::default());
}

#[test]
fn yaml_and_json_mean_the_same() {
    let yaml = rule(WHOLE);
    let json = rule(&yaml.document().to_string());
    assert_eq!(json, yaml);
    let pretty = serde_json::to_string_pretty(yaml.document()).expect("because it is JSON");
    assert_eq!(rule(&pretty), yaml);
    // Surrogates are JSON, and no YAML.
    let rule = rule(r#"{"name": "a", "on": "a", "description": "\ud83d\ude00", "steps": [{"emit": "b"}]}"#);
    assert_eq!(rule.description(), Some("😀"));
}

#[test]
fn aliases_repeat_within_reason() {
    let rule = rule("name: a\non: a\nsteps:\n- map: {x: &m {k: data.v}, y: *m}\n- emit: b\n");
    assert_eq!(rule.document()["steps"][0]["map"], json!({"x": {"k": "data.v"}, "y": {"k": "data.v"}}));
}

/// The document with `…` replaced, and then the problems.
fn problems(text: &str) -> Vec<Diagnostic> {
    with_names(|names| parse(text, names)).map(|checked| checked.value.document().clone()).expect_err(text)
}

/// The document's problems, as `line:column path: message (hint)`.
fn check(text: &str, expected: &[&str]) {
    let found: Vec<String> = problems(text)
        .into_iter()
        .map(|problem| {
            let hint = problem.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{}:{} {}: {}{hint}", problem.line, problem.column, problem.path, problem.message)
        })
        .collect();
    assert_eq!(found.len(), expected.len(), "{text}\n{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{text}\nfound    {found}\nexpected {expected}");
    }
}

#[test]
fn unknown_and_missing_fields() {
    check("", &["1:1 : the document is empty"]);
    check("hello", &["1:1 : a rule must be a map; this is a text"]);
    check("[1]", &["1:1 : a rule must be a map; this is a list"]);
    check("a: 1\n---\nb: 2", &["3:1 : one rule is expected here; this starts a second document"]);
    check(
        "nmae: a\nsteps: [emit: b]",
        &[
            "1:1 nmae: a rule has no field `nmae` (did you mean `name`?)",
            "1:1 : a rule needs a `name`",
            "1:1 : a rule needs `on`",
        ],
    );
    check("name: a\non: a", &["1:1 : a rule needs `steps`"]);
    check(
        "name: a\non: a\nsteps: [emit: b]\ncolour: red",
        &["4:1 colour: a rule has no field `colour` (known are `name`, `description`, `on`, `match`"],
    );
    check("name: a\nname: b\non: a\nsteps: [emit: b]", &["2:1 : `name` stands here for the second time"]);
    check("name: a\non: a\nsteps: [emit: b\n", &["4:1 : "]);
    check("name: a\n\ton: a", &["1:7 : while scanning a plain scalar, found a tab"]);
    check("? [a]\n: b", &["1:3 : a key must be a text; this is a list"]);
    check("name: !!int a\non: !x a\nsteps: [emit: b]", &["1:13 : tags", "2:8 : tags"]);
    check("<<: {a: 1}\nname: a\non: a\nsteps: [emit: b]", &["1:1 : merge keys are not supported"]);
}

#[test]
fn wrong_types_and_values() {
    check("name: Flag Big\non: a\nsteps: [emit: b]", &["1:7 name: `Flag Big` is no name"]);
    check(
        "name: 5\non: a\nsteps: [emit: b]",
        &["1:7 name: `name` must be a text; this is a number (in quotes it is one: \"5\")"],
    );
    check("name: a\non: []\nsteps: [emit: b]", &["2:5 on: `on` has 1 to 64 types; this has 0"]);
    check(
        "name: a\non: [a..b, 'x*', '**.a.**', 3]\nsteps: [emit: b]",
        &[
            "2:6 on: `a..b` has an empty segment",
            "2:12 on: `x*` in `x*`: `*` and `**` stand for whole segments",
            "2:18 on: `**.a.**` has more than one `**`",
            "2:29 on: a type must be a text; this is a number",
        ],
    );
    check(
        "name: a\non: a\norder: keys\nsteps: [emit: b]",
        &["3:8 order: `order` must be `none` or `key`; this is `keys` (did you mean `key`?)"],
    );
    check(
        "name: a\non: a\non_failure: retry\nsteps: [emit: b]",
        &["3:13 on_failure: `on_failure` must be `park` or `drop`; this is `retry`"],
    );
    check(
        "name: a\non: a\nenabled: 'yes'\nsteps: [emit: b]",
        &["3:10 enabled: `enabled` must be true or false; this is a text"],
    );
    check(
        "name: a\non: a\ndescription: [x]\nsteps: [emit: b]",
        &["3:14 description: `description` must be a text; this is a list"],
    );
    check(
        "name: a\non: a\nwhere: [x]\nsteps: [emit: b]",
        &["3:8 where: a condition must be an expression; this is a list"],
    );
    check(
        "name: a\non: a\nretry: {attempts: 0, first: 1, factor: 0.5, max: 30d, jitter: 1}\nsteps: [emit: b]",
        &[
            "3:19 retry.attempts: `attempts` is a whole number from 1 to 50",
            "3:29 retry.first: `first` must be a duration (seconds are `1s`)",
            "3:40 retry.factor: `factor` is a number from 1 to 10",
            "3:50 retry.max: `max` must be from 10ms to 7d",
            "3:55 retry.jitter: `retry` has no field `jitter`",
        ],
    );
    check(
        "name: a\non: a\nretry: {first: 2h}\nsteps: [emit: b]",
        &["3:16 retry: `first` (2h) is longer than `max` (1h)"],
    );
    check("name: a\non: a\nretry: 5\nsteps: [emit: b]", &["3:8 retry: `retry` must be a map; this is a number"]);
}

#[test]
fn wrong_steps() {
    let check = |steps: &str, expected: &[&str]| check(&format!("name: a\non: a\nsteps:\n{steps}"), expected);
    check("  handle: x", &["4:3 steps: `steps` must be a list; this is a map (each step starts with `- `)"]);
    check("  []", &["4:3 steps: a rule has 1 to 32 steps; this has 0"]);
    check(&"- emit: b\n".repeat(33), &["4:3 steps: a rule has 1 to 32 steps; this has 33"]);
    check("- handle", &["4:3 steps[0]: a step is a map such as `handle: fraud-score`; this is a text"]);
    check("- when: data.x", &["4:3 steps[0]: a step is a map"]);
    check("- hanlde: x", &["4:3 steps[0]: there is no step `hanlde` (did you mean `handle`?)"]);
    check("- filter: x", &["4:3 steps[0]: there is no step `filter` (known are `map`, `redact`"]);
    check("- emit: b\n  deliver: crm", &["5:3 steps[0]: a step has one action; this is a second one"]);
    check(
        "- handle: fraudscore",
        &["4:11 steps[0].handle: there is no plugin `fraudscore` (did you mean `fraud-score`?)"],
    );
    check(
        "- handle: {plugin: other}",
        &["4:20 steps[0].handle.plugin: there is no plugin `other` (known are `enrich-order` and `fraud-score`)"],
    );
    check("- deliver: {sink: cmr}", &["4:19 steps[0].deliver.sink: there is no sink `cmr` (did you mean `crm`?)"]);
    check(
        "- deliver: {snik: crm}",
        &[
            "4:12 steps[0].deliver: `deliver` needs `sink`",
            "4:13 steps[0].deliver.snik: `deliver` has no field `snik` (did you mean `sink`?)",
        ],
    );
    check("- emit: {type: 'orders.*'}", &["4:16 steps[0].emit.type: `orders.*` is no type of an event"]);
    check("- emit: a b", &["4:9 steps[0].emit: `a b` is no type of an event"]);
    check(
        "- {emit: {type: b, when: data.x}, when: data.y}",
        &["4:26 steps[0]: `when` stands inside and beside the action"],
    );
    check("- redact: customer", &["4:11 steps[0].redact: `customer` is no JSON pointer"]);
    check("- redact: [/a, b]", &["4:16 steps[0].redact: `b` is no JSON pointer"]);
    check("- redact: []", &["4:11 steps[0].redact: `redact` takes 1 to 64 JSON pointers"]);
    check("- map: data.x", &["4:8 steps[0].map: `map` must be a map; this is a text"]);
    check("- map: {}", &["4:8 steps[0].map: `map` is empty"]);
    check("- map: {a: {b: [1, totl]}}", &["4:20 steps[0].map.a.b[1]: unknown variable `totl`"]);
    check(
        "- emit: {type: b, when: data.x = 1}\n- emit: {type: c, when: 5}\n- emit: {type: d, when: event.type}",
        &[
            "4:32 steps[0].emit.when: `=` is not expected here (in place of `=` write `==`)",
            "5:25 steps[1].emit.when: a condition must be an expression; this is a number",
            "6:25 steps[2].emit.when: a condition must be true or false; this is a text",
        ],
    );
}

#[test]
fn problems_inside_expressions_are_placed() {
    let check = |wher: &str, expected: &str| {
        check(&format!("name: a\non: a\nsteps: [emit: b]\nwhere: {wher}"), &[expected]);
    };
    check("foo > 1", "4:8 where: unknown variable `foo`");
    check("data.x && foo", "4:18 where: unknown variable `foo`");
    check("\"data.x == 'é' && foo\"", "4:26 where: unknown variable `foo`");
    check("\"data.x == \\\"é\\\" && foo\"", "4:28 where: unknown variable `foo`");
    check("'data.x == ''é'' && foo'", "4:28 where: unknown variable `foo`");
    check("data.x\n  && foo", "5:6 where: unknown variable `foo`");
    check("|\n  data.x\n  && foo", "6:6 where: unknown variable `foo`");
    check("|\n    data.x &&\n      (data.y\n      || foo)", "7:10 where: unknown variable `foo`");
    check(">-\n  data.x\n  && foo", "6:6 where: unknown variable `foo`");
    check("|\n  data.x\n  &&", "6:5 where: the expression ends too early");
    check("data.x &&", "4:17 where: the expression ends too early");
    check(
        "size([data.x.all(a, data.y.all(b, data.z.all(c, true)))]) > 0",
        "4:49 where: `all` is inside 2 others already",
    );
}

#[test]
fn wrong_patterns() {
    let check = |pattern: &str, expected: &[&str]| {
        check(&format!("name: a\non: a\nsteps: [emit: b]\nmatch:\n{pattern}"), expected);
    };
    check("  x", &["5:3 match: `match` must be a map; this is a text"]);
    check("  {}", &["5:3 match: `match` is empty"]);
    check("  dta: {x: [1]}", &["5:3 match.dta: an event has no `dta` (did you mean `data`?)"]);
    check("  customer: {x: [1]}", &["5:3 match.customer: an event has no `customer` (known are `attributes`, `data`"]);
    check(
        "  data: {x: DE}",
        &["5:13 match.data.x: `x` needs a list of what it may be (one of several, or one: `x: [DE]`)"],
    );
    check("  data: {x: []}", &["5:13 match.data.x: an empty list matches nothing"]);
    check(
        "  data: {x: {prefix: a}}",
        &["5:14 match.data.x: `prefix` is a test and stands in a list (write `[{ prefix: … }]`)"],
    );
    check(
        "  data: {x: [[1]]}",
        &["5:14 match.data.x[0]: a test is a value or a map with one operator; this is a list"],
    );
    check("  data: {x: [{prefix: a, suffix: b}]}", &["5:14 match.data.x[0]: a test has exactly one operator"]);
    check(
        "  data: {x: [{prefx: a}]}",
        &["5:15 match.data.x[0].prefx: unknown operator `prefx` (did you mean `prefix`?)"],
    );
    check(
        "  data: {x: [{regex: a}]}",
        &["5:15 match.data.x[0].regex: unknown operator `regex` (`where: data.x.matches("],
    );
    check("  data: {x: [{prefix: 1}]}", &["5:23 match.data.x[0].prefix: `prefix` must be a text; this is a number"]);
    check("  data: {x: [{suffix: ''}]}", &["5:23 match.data.x[0].suffix: `suffix` must not be empty"]);
    check(
        "  data: {x: [{exists: 1}]}",
        &["5:23 match.data.x[0].exists: `exists` must be true or false; this is a number"],
    );
    check(
        "  data: {x: [{wildcard: 'a**b'}, {wildcard: a}, {wildcard: 'a\\b*'}]}",
        &[
            "5:25 match.data.x[0].wildcard: `wildcard` has two stars in a row",
            "5:45 match.data.x[1].wildcard: `wildcard` has no star",
            "5:60 match.data.x[2].wildcard: in `wildcard` a backslash stands before",
        ],
    );
    check(
        &format!("  data: {{x: [{{wildcard: '*{}'}}]}}", "a*".repeat(32)),
        &["5:3 match: `match` has 33 stars in `wildcard`; the limit is 32"],
    );
    check(
        "  data: {x: [{anything-but: {prefix: a}}]}",
        &["5:29 match.data.x[0].anything-but: `anything-but` takes values only, no operators"],
    );
    check(
        "  data: {x: [{anything-but: [true]}]}",
        &["5:30 match.data.x[0].anything-but: `anything-but` takes texts and numbers"],
    );
    check(
        "  data: {x: [{anything-but: []}]}",
        &["5:29 match.data.x[0].anything-but: `anything-but` takes 1 to 256 values"],
    );
    check("  data: {x: [{numeric: 5}]}", &["5:24 match.data.x[0].numeric: `numeric` is a list of comparisons"]);
    check("  data: {x: [{numeric: ['>']}]}", &["5:24 match.data.x[0].numeric: `numeric` is a list of comparisons"]);
    check("  data: {x: [{numeric: ['!=', 5]}]}", &["5:25 match.data.x[0].numeric: `numeric` compares by `=`"]);
    check("  data: {x: [{numeric: ['>', a]}]}", &["5:30 match.data.x[0].numeric: `>` needs a number; this is a text"]);
    check(
        "  data: {x: [{numeric: ['>', 1, '>', 2]}]}",
        &["5:33 match.data.x[0].numeric: `numeric` has one lower and one upper end"],
    );
    check(
        "  data: {x: [{numeric: ['>', 5, '<', 2]}]}",
        &["5:24 match.data.x[0].numeric: no number is within both ends"],
    );
    check("  type: {x: [1]}", &["5:9 match.type: `type` is a text, it has no fields"]);
    check("  attributes: [x]", &["5:15 match.attributes: `attributes` needs a map"]);
    check("  attributes: {x: {y: [1]}}", &["5:19 match.attributes.x: an attribute is a text, it has no fields"]);
    check("  $or: {data: {x: [1]}}", &["5:8 match.$or: `$or` needs a list of maps"]);
    check("  $or: [{data: {x: [1]}}]", &["5:8 match.$or: `$or` needs at least two maps"]);
    let many =
        (0..6).map(|at| format!("  {}: {{$or: [{{a{at}: [1]}}, {{b{at}: [1]}}]}}\n", ["data"][0])).collect::<String>();
    assert!(problems(&format!("name: a\non: a\nsteps: [emit: b]\nmatch:\n{many}")).len() >= 5, "keys repeat");
    let ors: Vec<String> = (0..6).map(|at| format!("k{at}: {{$or: [{{a: [1]}}, {{b: [1]}}]}}")).collect();
    check(&format!("  data: {{{}}}", ors.join(", ")), &["5:"]);
}

#[test]
fn documents_are_bounded() {
    check(
        &format!("name: a\n#{}", "x".repeat(300_000)),
        &["1:1 : the document is 300009 bytes long; the limit is 262144"],
    );
    check(&format!("name: {}", "[".repeat(100)), &["1:"]);
    let bomb = (1..20).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, at| {
        format!("{text}a{at}: &a{at} [{}]\n", vec![format!("*a{}", at - 1); 10].join(","))
    });
    check(&bomb, &["5:"]);
    check("a: &a [*a]", &["1:8 : an alias must not stand inside what it repeats"]);
    let many: Vec<String> = (0..600).map(|at| format!("k{at}: 1")).collect();
    check(&format!("name: a\non: a\nsteps: [{{map: {{{}}}}}]", many.join(", ")), &["3:"]);
    let long = "1".repeat(5_000);
    check(
        &format!("name: a\non: a\nsteps: [emit: b]\nwhere: \"{long}\""),
        &["4:9 where: the expression is 5000 bytes long"],
    );
    assert_eq!(problems(&"x".repeat(300_000)).len(), 1);
    let wrong: String = (0..500).map(|at| format!("x{at}: 1\n")).collect();
    assert_eq!(problems(&wrong).len(), 100, "no more than anybody reads");
}

#[test]
fn a_problem_draws_its_line() {
    let problems = problems("name: a\non: a\nsteps: [emit: b]\nwhere: data.total >= 1000 && hsa(data.test)\n");
    assert_eq!(
        drawn(&problems),
        "4:30: where: unknown function `hsa`\n\
         4 | where: data.total >= 1000 && hsa(data.test)\n\
         \x20 |                              ^\n\
         hint: did you mean `has`?"
    );
}

#[test]
fn a_rule_is_saved_under_its_name() {
    let parse = |name: &str, text: &str| with_names(|names| parse_as(name, text, names));
    let named = parse("a", "on: a\nsteps: [emit: b]").expect("because the name may be left out");
    assert_eq!(named.value.name(), "a");
    assert_eq!(named.value.document()["name"], "a");
    assert!(parse("a", "name: a\non: a\nsteps: [emit: b]").is_ok());
    let problems = parse("a", "name: b\non: a\nsteps: [emit: b]").map(|_| ()).expect_err("because names differ");
    assert_eq!(problems[0].message, "the rule is saved as `a`, but calls itself `b`");
}

#[test]
fn odd_things_are_warned_about() {
    let check = |text: &str, expected: &[&str]| {
        let checked = with_names(|names| parse(text, names)).unwrap_or_else(|problems| panic!("{}", drawn(&problems)));
        let found: Vec<String> = checked
            .warnings
            .iter()
            .map(|warning| format!("{}:{} {}: {}", warning.line, warning.column, warning.path, warning.message))
            .collect();
        assert_eq!(found, expected, "{text}");
    };
    check(WHOLE, &[]);
    check("name: a\non: a\nwhere: true\nsteps: [emit: b]", &["3:8 where: this condition always holds"]);
    check("name: a\non: a\nsteps: [{emit: b, when: false}]", &["3:25 steps[0].when: this condition never holds"]);
    check(
        "name: a\non: a\nsteps: [{redact: /x}]",
        &["3:10 steps[0]: nothing comes after this `redact`, so its result goes nowhere"],
    );
    check(
        "name: a\non: a\nmatch: {type: [b]}\nsteps: [emit: b]",
        &["3:1 : `match` wants a `type` that `on` never lets through"],
    );
    check(
        "name: a\non: a\nmatch: {attributes: {traceParent: [b]}}\nsteps: [emit: b]",
        &["3:22 match.attributes.traceParent: names of attributes are in lower case; this one never comes"],
    );
}

#[test]
fn sets_are_read_in_every_form() {
    let set = |text: &str| with_names(|names| parse_set(text, names));
    let one = |name: &str| format!("{{name: {name}, on: x.{name}, steps: [deliver: crm]}}");
    for text in [
        format!("rules: [{}, {}]", one("a"), one("b")),
        format!("[{}, {}]", one("a"), one("b")),
        format!("{}\n---\n{}\n", one("a"), one("b")),
        format!("---\n{}\n---\nrules:\n- {}\n", one("a"), one("b")),
    ] {
        let checked = set(&text).unwrap_or_else(|problems| panic!("{text}\n{}", drawn(&problems)));
        assert_eq!(checked.value.iter().map(Rule::name).collect::<Vec<_>>(), ["a", "b"], "{text}");
    }
    assert!(set("").expect("because an empty set is a set").value.is_empty());
    assert!(set("rules:").expect("because an empty set is a set").value.is_empty());
    let problems = set(&format!("rules:\n- {}\n- {}\n- {{name: c}}\n", one("a"), one("a")))
        .map(|_| ())
        .expect_err("because names repeat");
    assert_eq!(problems.len(), 3, "{}", drawn(&problems));
    assert_eq!(problems[0].message, "a rule `a` is in the set already, at line 2");
    assert_eq!(problems[1].path, "rules[2]");
    let problems = set("rules: 5").map(|_| ()).expect_err("because that is no list");
    assert_eq!(problems[0].message, "`rules` must be a list; this is a number");
}

#[test]
fn cycles_without_a_condition_are_refused() {
    let text = "- {name: a, on: x, steps: [emit: y]}\n- {name: b, on: 'y.**', steps: [{emit: x}]}\n";
    let problems = with_names(|names| parse_set(text, names)).map(|_| ()).expect_err("because they feed each other");
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].line, problems[0].column), (1, 28));
    assert_eq!(problems[0].message, "rules emit each other's types with no condition in between: `a` -> `b` -> `a`");
    assert!(matches!(
        crate::rule::fixture::rule("name: a\non: a\nsteps: [emit: b]").steps()[0].action,
        Action::Emit(_)
    ));
}

#[test]
fn ten_thousand_rules_are_the_most() {
    let rule = |at: usize| format!("- {{name: r{at}, on: x, steps: [deliver: crm]}}\n");
    let text: String = (0..10_001).map(rule).collect();
    let problems = with_names(|names| parse_set(&text, names)).map(|_| ()).expect_err("because there are too many");
    assert_eq!(problems[0].message, "the set has 10001 rules; the limit is 10000");
}
