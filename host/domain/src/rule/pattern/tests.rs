//! Every operator with its examples, as the reference page has them.

use serde_json::Value as Json;
use serde_json::json;

use crate::event::Event;
use crate::rule::RuleSet;
use crate::rule::Scope;
use crate::rule::fixture::event;
use crate::rule::fixture::rule;

/// Does an event with this payload meet `match: { data: … }`?
fn check(pattern: Json, data: Json, expected: bool) {
    check_event(json!({ "data": pattern }), event("t", &data), expected);
}

fn check_event(pattern: Json, event: Event, expected: bool) {
    let rule = rule(&json!({"name": "a", "on": "t", "match": pattern, "steps": [{"emit": "x"}]}).to_string());
    let set = RuleSet::compile(1, vec![rule]);
    let matched = !set.route(&event, &Scope::new(&event, "acme")).matched.is_empty();
    let shown = String::from_utf8_lossy(&event.data);
    assert_eq!(matched, expected, "{pattern} ~ {shown}");
}

#[test]
fn values() {
    check(json!({"x": ["DE", "FR"]}), json!({"x": "DE"}), true);
    check(json!({"x": ["DE", "FR"]}), json!({"x": "US"}), false);
    check(json!({"x": ["DE"]}), json!({"x": "de"}), false);
    check(json!({"x": ["DE"]}), json!({}), false);
    check(json!({"x": [5]}), json!({"x": 5.0}), true);
    check(json!({"x": [5]}), json!({"x": "5"}), false);
    check(json!({"x": [0]}), json!({"x": -0.0}), true);
    check(json!({"x": [true, null]}), json!({"x": null}), true);
    check(json!({"x": [true]}), json!({"x": false}), false);
    check(json!({"x": ["a\"b\\"]}), json!({"x": "a\"b\\"}), true);
    check(json!({"x": ["ü"]}), json!({"x": "ü"}), true);
    check(json!({"x.y": ["a"]}), json!({"x.y": "a"}), true);
    check(json!({"x.y": ["a"]}), json!({"x": {"y": "a"}}), false);
}

#[test]
fn all_fields_must_be_met() {
    check(json!({"x": ["a"], "y": {"z": [1]}}), json!({"x": "a", "y": {"z": 1}}), true);
    check(json!({"x": ["a"], "y": {"z": [1]}}), json!({"x": "a", "y": {"z": 2}}), false);
    check(json!({"x": ["a"], "y": {"z": [1]}}), json!({"x": "a"}), false);
}

#[test]
fn prefix() {
    check(json!({"x": [{"prefix": "web"}]}), json!({"x": "website"}), true);
    check(json!({"x": [{"prefix": "web"}]}), json!({"x": "Web"}), false);
    check(json!({"x": [{"prefix": "web"}]}), json!({"x": 5}), false);
    check(json!({"x": [{"prefix": "ü"}]}), json!({"x": "über"}), true);
    check(json!({"x": [{"prefix": "a"}]}), json!({"x": "ü"}), false);
}

#[test]
fn suffix() {
    check(json!({"x": [{"suffix": ".eu"}]}), json!({"x": "shop.eu"}), true);
    check(json!({"x": [{"suffix": ".eu"}]}), json!({"x": "shop.eu.com"}), false);
    check(json!({"x": [{"suffix": "ü"}]}), json!({"x": "xü"}), true);
}

#[test]
fn equals_ignore_case() {
    check(json!({"x": [{"equals-ignore-case": "Straße"}]}), json!({"x": "STRAßE"}), true);
    check(json!({"x": [{"equals-ignore-case": "de"}]}), json!({"x": "DE"}), true);
    check(json!({"x": [{"equals-ignore-case": "de"}]}), json!({"x": "DEU"}), false);
}

#[test]
fn wildcard() {
    check(json!({"x": [{"wildcard": "a*b"}]}), json!({"x": "a-long-b"}), true);
    check(json!({"x": [{"wildcard": "a*b"}]}), json!({"x": "ab"}), true);
    check(json!({"x": [{"wildcard": "a*b"}]}), json!({"x": "a"}), false);
    check(json!({"x": [{"wildcard": "*a*b*"}]}), json!({"x": "xxaxxbxx"}), true);
    check(json!({"x": [{"wildcard": "*a*a"}]}), json!({"x": "a"}), false);
    check(json!({"x": [{"wildcard": "a\\**"}]}), json!({"x": "a*x"}), true);
    check(json!({"x": [{"wildcard": "a\\**"}]}), json!({"x": "ax"}), false);
}

#[test]
fn anything_but() {
    check(json!({"x": [{"anything-but": ["a", "b"]}]}), json!({"x": "c"}), true);
    check(json!({"x": [{"anything-but": ["a", "b"]}]}), json!({"x": "a"}), false);
    check(json!({"x": [{"anything-but": "a"}]}), json!({"x": "b"}), true);
    check(json!({"x": [{"anything-but": [1, "a"]}]}), json!({"x": 1}), false);
    check(json!({"x": [{"anything-but": [1]}]}), json!({"x": null}), true);
    check(json!({"x": [{"anything-but": ["a"]}]}), json!({}), false);
    // Of an array one element must do.
    check(json!({"x": [{"anything-but": ["a"]}]}), json!({"x": ["a", "b"]}), true);
}

#[test]
fn numeric() {
    check(json!({"x": [{"numeric": [">=", 1, "<", 5]}]}), json!({"x": 1}), true);
    check(json!({"x": [{"numeric": [">=", 1, "<", 5]}]}), json!({"x": 5}), false);
    check(json!({"x": [{"numeric": [">", 0, "<=", 2]}]}), json!({"x": 0}), false);
    check(json!({"x": [{"numeric": ["<", 0]}]}), json!({"x": false}), false);
    check(json!({"x": [{"numeric": ["<", 0]}]}), json!({"x": "a"}), false);
    check(json!({"x": [{"numeric": ["=", 3e2]}]}), json!({"x": 300}), true);
    check(json!({"x": [{"numeric": [">", -1.5]}]}), json!({"x": -1}), true);
}

#[test]
fn exists() {
    check(json!({"x": [{"exists": true}]}), json!({"x": null}), true);
    check(json!({"x": [{"exists": true}]}), json!({"x": {"y": 1}}), true);
    check(json!({"x": [{"exists": true}]}), json!({"x": []}), true);
    check(json!({"x": [{"exists": true}]}), json!({"y": 1}), false);
    check(json!({"x": [{"exists": false}]}), json!({"y": 1}), true);
    check(json!({"x": [{"exists": false}]}), json!({"x": []}), false);
    check(json!({"x": {"y": [{"exists": false}]}}), json!({}), true);
    check(json!({"x": {"y": [{"exists": false}]}}), json!({"x": 5}), true);
    check(json!({"x": [{"exists": false}, "a"]}), json!({"x": "a"}), true);
}

#[test]
fn either() {
    let pattern = json!({"$or": [{"x": [1]}, {"y": {"z": [2]}}], "w": [3]});
    check(pattern.clone(), json!({"w": 3, "x": 1}), true);
    check(pattern.clone(), json!({"w": 3, "y": {"z": 2}}), true);
    check(pattern.clone(), json!({"w": 3, "x": 2}), false);
    check(pattern, json!({"x": 1}), false);
    // Both at once, as a leaf and below.
    check(json!({"x": ["a", {"exists": true}], "$or": [{"x": {"y": [1]}}, {"z": [1]}]}), json!({"x": {"y": 1}}), true);
}

#[test]
fn arrays() {
    check(json!({"tags": ["new"]}), json!({"tags": ["old", "new"]}), true);
    check(json!({"tags": ["new"]}), json!({"tags": []}), false);
    check(json!({"tags": ["new"]}), json!({"tags": [["new"]]}), true);
    let items = json!({"items": {"sku": ["x"], "qty": [{"numeric": [">", 1]}]}});
    check(items.clone(), json!({"items": [{"sku": "x", "qty": 1}, {"sku": "x", "qty": 2}]}), true);
    // Not one field here and the other there.
    check(items, json!({"items": [{"sku": "x", "qty": 1}, {"sku": "y", "qty": 2}]}), false);
}

#[test]
fn the_event_itself() {
    let about = |pattern, expected| check_event(pattern, event("t", &json!({"x": 1})), expected);
    about(json!({"type": ["t"], "source": [{"prefix": "/sh"}], "subject": [{"exists": true}]}), true);
    about(json!({"source": ["/other"]}), false);
    about(json!({"attributes": {"category": ["retail"]}}), true);
    about(json!({"attributes": {"category": ["other"]}}), false);
    about(json!({"attributes": {"absent": [{"exists": false}]}, "data": {"x": [1]}}), true);
    check_event(json!({"subject": [{"exists": false}]}), Event { subject: None, ..event("t", &json!(1)) }, true);
    check_event(json!({"data": [5]}), event("t", &json!(5)), true);
    check_event(json!({"data": [{"exists": true}]}), event("t", &json!({})), true);
}

#[test]
fn a_payload_that_is_not_json_is_not_there() {
    for data in [&b"{\"x\": 1"[..], b"{\"x\": 1} ", b"\xff", b"", b"{\"x\": 1}, \"type\": 1}"] {
        let broken = |content_type: &str| Event {
            data: bytes::Bytes::copy_from_slice(data),
            content_type: content_type.to_owned(),
            ..event("t", &json!(1))
        };
        let sound = data == b"{\"x\": 1} ";
        check_event(json!({"data": {"x": [1]}}), broken("application/json"), sound);
        check_event(json!({"data": {"x": [{"exists": false}]}}), broken("application/json"), !sound);
        check_event(json!({"data": {"x": [1]}}), broken("text/plain"), false);
    }
    // Of a field that comes twice the last counts.
    let twice = Event { data: bytes::Bytes::from_static(b"{\"x\": 1, \"x\": 2}"), ..event("t", &json!(1)) };
    check_event(json!({"data": {"x": [1]}}), twice.clone(), false);
    check_event(json!({"data": {"x": [2]}}), twice, true);
}
