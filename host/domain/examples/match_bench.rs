//! How long matching takes: `cargo run --release -p bulkhead-domain --example match_bench`.
//!
//! Not a test: it prints, and somebody reads.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Event;
use bulkhead_domain::rule::Condition;
use bulkhead_domain::rule::Rule;
use bulkhead_domain::rule::RuleSet;
use bulkhead_domain::rule::Scope;
use bulkhead_domain::rule::document::Names;
use bulkhead_domain::rule::document::parse;
use serde_json::Value as Json;
use serde_json::json;

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

fn main() {
    println!("matching: ns/event for {SIZES:?} rules, one of which matches");
    matching("exact types", &|at, _| json!({"on": format!("type.t{at}")}), "type.t5", &order());
    matching("globs, all different", &|at, _| json!({"on": format!("type.t{at}.*")}), "type.t5.x", &order());
    matching("patterns on the same 3 fields", &same_fields, "t", &order());
    matching("patterns on 60 fields, all there", &sixty_fields, "t", &wide());
    matching("patterns on 60 fields, one there", &sixty_fields, "t", &json!({"f5": "v5", "x": order()}));
    matching("ranges on one field", &ranges, "t", &order());
    matching("prefixes on one field", &prefixes, "t", &order());
    matching("patterns, another type", &same_fields, "other", &order());
    matching("where alone, one rule of the type", &conditional, "type.t5", &order());
    matching("match on 3 fields and where", &both, "t", &order());
    conditions();
    loading();
    worst();
}

fn order() -> Json {
    let item = |at: usize| json!({"sku": format!("sku-{at:04}"), "qty": at, "price": 9.5 + at as f64});
    json!({
        "id": "o-000123", "total": 1200.5, "rate": 1.1, "channel": "web-shop", "note": "x".repeat(180),
        "customer": {"id": "c-5", "country": "DE", "name": "Somebody Someone", "email": "somebody@example.com"},
        "items": (0..12).map(item).collect::<Vec<_>>(),
    })
}

fn wide() -> Json {
    let value = |at: usize| if at == 5 { "v5".to_owned() } else { format!("other-{at}") };
    (0..60).map(|at| (format!("f{at}"), Json::from(value(at)))).collect::<serde_json::Map<_, _>>().into()
}

fn same_fields(at: usize, _: usize) -> Json {
    json!({"on": "t", "match": {"data": {
        "customer": {"id": [format!("c-{at}")], "country": ["DE", "FR"]}, "channel": [{"prefix": "web"}],
    }}})
}

fn sixty_fields(at: usize, _: usize) -> Json {
    let field = format!("f{}", at % 60);
    json!({"on": "t", "match": {"data": {field: [format!("v{at}")]}}})
}

fn ranges(at: usize, of: usize) -> Json {
    // Bands of prices, as for discounts; one holds 1,200.5.
    let width = 10_000.0 / of as f64;
    json!({"on": "t", "match": {"data": {"total": [{"numeric": [">=", at as f64 * width, "<", (at + 1) as f64 * width]}]}}})
}

fn prefixes(at: usize, _: usize) -> Json {
    let prefix = if at == 5 { "web".to_owned() } else { format!("app{at}") };
    json!({"on": "t", "match": {"data": {"channel": [{"prefix": prefix}]}}})
}

fn conditional(at: usize, _: usize) -> Json {
    json!({"on": format!("type.t{at}"), "where": "data.total >= 1000 && !has(data.test)"})
}

fn both(at: usize, of: usize) -> Json {
    let mut fields = same_fields(at, of);
    fields["where"] = json!("data.total >= 1000 && !has(data.test)");
    fields
}

fn rule(at: usize, fields: &Json) -> Rule {
    let mut document = json!({"name": format!("r{at}"), "steps": [{"emit": "x"}]});
    let target = document.as_object_mut().expect("because it is a map");
    target.extend(fields.as_object().expect("because it is a map").clone());
    let none = BTreeSet::new();
    parse(&document.to_string(), &Names { plugins: &none, sinks: &none }).expect("because it is a rule").value
}

fn event(kind: &str, data: &Json) -> Event {
    Event {
        id: "0190a7b2-0000-7000-8000-000000000000".into(),
        source: "/shop".into(),
        kind: kind.into(),
        subject: Some("o-000123".into()),
        time: Timestamp(1_795_212_785_250_000),
        key: None,
        correlation: "0190a7b2-0000-7000-8000-000000000000".into(),
        causation: None,
        content_type: "application/json".into(),
        data: data.to_string().into(),
        attributes: vec![("category".into(), "retail".into())],
    }
}

/// The least mean of several batches.
fn time(mut body: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..10 {
        let (start, mut runs) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_millis(20) {
            (0..50).for_each(|_| body());
            runs += 50;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(runs));
    }
    best
}

fn matching(name: &str, fields: &dyn Fn(usize, usize) -> Json, kind: &str, data: &Json) {
    let event = event(kind, data);
    print!("{name:36} ({:4} bytes)", event.data.len());
    let mut compiled = Duration::ZERO;
    for size in SIZES {
        let rules: Vec<Rule> = (0..size).map(|at| rule(at, &fields(at, size))).collect();
        let start = Instant::now();
        let set = RuleSet::compile(1, rules);
        compiled = start.elapsed();
        let matched = set.route(&event, &Scope::new(&event, "acme")).matched.len();
        let nanos = time(|| {
            let scope = Scope::new(&event, "acme");
            black_box(set.route(&event, &scope));
        });
        print!("  {nanos:6.0} ({matched})");
    }
    println!("  compile of the largest {compiled:.0?}");
}

fn conditions() {
    println!("\nconditions: ns for context and evaluation, payload parsed before / by it");
    let event = event("t", &order());
    for source in [
        "data.total > 1000",
        "event.type == 't' && data.total > 1000 && data.customer.country.startsWith('D')",
        "!has(data.test) && data.customer.country in ['DE', 'FR']",
        "data.items.exists(i, i.qty > 10)",
        "data.items.all(i, i.price > 1 && i.sku.startsWith('sku'))",
        "data.items.filter(i, i.qty > 3).map(i, i.sku).size() > 2",
        "data.customer.email.matches('^[a-z]+@example')",
        "attributes.category == 'retail' && event.source == '/shop'",
    ] {
        let condition = Condition::parse(source).expect("because it is a condition");
        let parsed = Scope::new(&event, "acme");
        let _ = parsed.data();
        let before = time(|| {
            black_box(condition.evaluate(&parsed));
        });
        let by_it = time(|| {
            black_box(condition.evaluate(&Scope::new(&event, "acme")));
        });
        let compile = time(|| {
            black_box(Condition::parse(source).is_ok());
        });
        println!("{source:84} {before:6.0} / {by_it:6.0}   compile {compile:.0}");
    }
}

fn loading() {
    println!("\nloading 10,000 stored rules");
    for (name, fields) in [
        ("types only", json!({"on": "orders.created"})),
        ("match", same_fields(7, 1)),
        ("match and where", {
            let mut fields = same_fields(7, 1);
            fields["where"] = json!("data.total >= 1000 && !has(data.test)");
            fields
        }),
    ] {
        let stored = rule(1, &fields).document().clone();
        let start = Instant::now();
        let rules: Vec<Rule> =
            (0..10_000).map(|_| Rule::from_stored(&stored).expect("because it was stored")).collect();
        let read = start.elapsed();
        let start = Instant::now();
        black_box(RuleSet::compile(1, rules));
        println!("{name:20} read {read:7.1?}  compile {:7.1?}", start.elapsed());
    }
}

fn worst() {
    println!("\nthe worst an expression does to 256 KiB: ms, parsing excluded");
    let numbers = event("t", &json!({"a": vec![1; 100_000]}));
    let text = event("t", &json!({"s": "ab ".repeat(80_000), "a": vec![1; 1_000]}));
    let objects = event("t", &json!({"a": vec![json!({"x": "abc"}); 10_000]}));
    let keys: serde_json::Map<_, _> = (0..15_000).map(|at| (format!("key{at}"), Json::from(at))).collect();
    let map = event("t", &Json::from(keys));
    let doubling = format!("size([data.s]{}) > 0", ".map(x, x + x)".repeat(60));
    let list: Vec<String> = (0..240).map(|at| at.to_string()).collect();
    let literal = format!("[{0}].all(x, [{0}].all(y, x + y >= 0))", list.join(","));
    for (event, source) in [
        (&numbers, "data.a.all(x, data.a.all(y, x + y >= 0))"),
        (&numbers, "data.a.all(x, !(0 in data.a))"),
        (&numbers, "data.a.map(x, data.a.map(y, x)).size() > 0"),
        (&numbers, "data.a.all(x, data.a == data.a)"),
        (&numbers, "data.a.all(x, (data.a + data.a).size() > 0)"),
        (&numbers, "data.a.map(x, [x, [x], {'a': x}]).size() > 0"),
        (&objects, "data.a.all(x, x == {'x': 'abc'})"),
        (&objects, "data.a.all(x, data.a.exists(y, y == x && y != x))"),
        (&objects, "data.a.map(x, x.x + x.x).join('-').size() > 0"),
        (&map, "data.all(k, data[k] >= 0 && k in data)"),
        (&map, "data.all(k, data.all(l, data[k] + data[l] >= 0))"),
        (&text, "data.a.all(x, !data.s.contains('zz'))"),
        (&text, "data.a.all(x, data.s.replace('a', 'bb') != '')"),
        (&text, "data.s.split(' ').all(x, data.s.indexOf('z') < 0)"),
        (&text, "data.a.all(x, !data.s.matches('(a|b| )*z'))"),
        (&text, "data.a.all(x, !data.s.matches('[a-q][^u-z]{13}x'))"),
        (&text, "data.a.all(x, !data.s.matches('(.*)(.*)(.*)(.*)(.*)[^x]{40}y'))"),
        (&text, "data.a.all(x, data.s.substring(100000).size() > 0)"),
        (&text, "data.a.all(x, data.s < data.s + 'a')"),
        (&text, &doubling),
        (&text, &literal),
    ] {
        let condition = Condition::parse(source).unwrap_or_else(|problems| panic!("{source}: {}", problems[0]));
        let scope = Scope::new(event, "acme");
        let _ = scope.data();
        let start = Instant::now();
        let truth = condition.evaluate(&scope);
        let millis = start.elapsed().as_secs_f64() * 1e3;
        println!("{:66} {millis:7.2}  {truth:?}", source.chars().take(66).collect::<String>());
    }
    worst_patterns();
}

fn worst_patterns() {
    println!("\nthe worst 10,000 patterns do to 256 KiB: ms, reading included");
    let numbers =
        event("t", &json!({"a": (0..40_000).collect::<Vec<_>>(), "b": vec![1; 20_000], "c": vec![2; 20_000]}));
    let text = event("t", &json!({"a": "ab".repeat(120_000)}));
    let objects = event("t", &json!({"a": vec![json!({"x": 1, "y": 2}); 12_000]}));
    let empty = event("t", &json!({"a": "x", "rest": vec![json!({"k": [1, "x", {"l": null}]}); 9_000]}));
    type Case<'c> = (&'c str, &'c Event, &'c dyn Fn(usize) -> Json);
    let cases: [Case<'_>; 8] = [
        ("nothing but reading", &empty, &|at| json!({"a": [format!("v{at}")]})),
        ("three arrays of numbers", &numbers, &|at| json!({"a": [1], "b": [1], "c": [{"numeric": ["<", at]}]})),
        ("ranges over an array", &numbers, &|at| json!({"a": [{"numeric": [">", at]}], "b": [5]})),
        ("wildcards over a long text", &text, &|at| json!({"a": [{"wildcard": format!("*a{at}*b*")}]})),
        ("suffixes of a long text", &text, &|at| json!({"a": [{"suffix": format!("a{at}")}]})),
        ("anything-but over an array", &numbers, &|at| json!({"a": [{"anything-but": [at]}]})),
        ("maps in an array", &objects, &|at| json!({"a": {"x": [1], "y": [at + 10]}})),
        ("exists: false", &numbers, &|at| json!({"a": [{"exists": true}], format!("z{at}"): [{"exists": true}]})),
    ];
    for (name, event, pattern) in cases {
        let rules = (0..10_000).map(|at| rule(at, &json!({"on": "t", "match": {"data": pattern(at)}}))).collect();
        let set = RuleSet::compile(1, rules);
        let start = Instant::now();
        let routed = set.route(event, &Scope::new(event, "acme"));
        let millis = start.elapsed().as_secs_f64() * 1e3;
        println!("{name:30} {millis:7.2}  matched {}, starved {}", routed.matched.len(), routed.starved.len());
    }
}
