//! Values, problems and bounds, by table.

use serde_json::Value as Json;
use serde_json::json;

use super::*;
use crate::rule::fixture::event;
use crate::rule::step::map::EvalError;
use crate::rule::step::map::Map;
use crate::rule::step::map::Template;

fn order() -> Json {
    json!({
        "id": "o-7", "total": 1200, "rate": 0.5, "n": 7, "neg": -3, "big": 18_446_744_073_709_551_615_u64,
        "name": "Grüße", "vip": true, "none": null, "empty": [], "dash-ed": 1,
        "customer": {"country": "DE", "tags": ["a", "b"]},
        "items": [{"sku": "x", "qty": 2, "price": 9.5}, {"sku": "y", "qty": 5, "price": 1}, {"sku": "z", "qty": 1}],
    })
}

/// What an expression gives for the order above; an error as text.
fn evaluate(source: &str) -> Result<Option<Json>, String> {
    let expression = Expression::compile(source).unwrap_or_else(|problems| panic!("{source}: {problems:?}"));
    let event = event("orders.created", &order());
    let map = Map { entries: vec![("v".to_owned(), Template::Expression(expression))] };
    match map.apply(&Scope::new(&event, "acme")) {
        Ok(mut json) => Ok(json.as_object_mut().and_then(|map| map.remove("v"))),
        Err(EvalError::MissingField { field, .. }) => Err(format!("missing {field}")),
        Err(EvalError::Failed { reason, .. }) => Err(reason),
        Err(EvalError::OverBudget { .. }) => Err("over budget".to_owned()),
    }
}

fn check(source: &str, expected: impl Into<Json>) {
    assert_eq!(evaluate(source), Ok(Some(expected.into())), "{source}");
}

fn check_fails(source: &str, expected: &str) {
    match evaluate(source) {
        Err(reason) => assert!(reason.contains(expected), "{source}: {reason}"),
        Ok(value) => panic!("{source} gave {value:?}"),
    }
}

#[test]
fn literals_and_variables() {
    check("1", 1);
    check("-5", -5);
    check("12u", 12);
    check("1.5e3", 1500.0);
    check("0x1F", 31);
    check("'a\\n' + r'\\n'", "a\n\\n");
    check("true", true);
    check("null", Json::Null);
    check("[1, 'a', [true]]", json!([1, "a", [true]]));
    check("{'a': 1, 2: {'b': []}, true: null}", json!({"a": 1, "2": {"b": []}, "true": null}));
    check("tenant", "acme");
    check("event.id + event.source + event.type + event.subject", "e-1/shoporders.createdorder-7");
    check("event.time", "2026-11-20T22:13:05.250Z");
    check("event['correlation']", "e-1");
    check("size(event)", 6);
    check("attributes.category", "retail");
    check("'severity' in attributes && !('x' in attributes)", true);
    check("attributes.map(a, attributes[a])", json!(["retail", "info"]));
    check("data.customer", json!({"country": "DE", "tags": ["a", "b"]}));
    check("data.big", 18_446_744_073_709_551_615_u64);
    check("data['dash-ed']", 1);
    check("data.items[1].sku", "y");
    check("type(data.n) == int && type(data.rate) == double && type(data.items) == list", true);
    check("type(data.none) == null_type && type('') == string && type(data) == map", true);
}

#[test]
fn numbers_mix() {
    check("data.total * data.rate", 600.0);
    check("data.n + 1", 8);
    check("data.n / 2", 3);
    check("data.n / 2.0", 3.5);
    check("data.neg % 2", -1);
    check("-data.neg", 3);
    check("data.n == 7.0 && 7.0 == data.n && 7u == data.n", true);
    check("data.big > 9223372036854775807", true);
    check("9007199254740993 > 9007199254740992.0", true);
    check("9007199254740993 == 9007199254740992.0", false);
    check("1 < 1.5 && 1.5 > 1 && -1 < -0.5 && 2 >= 2.0", true);
    check("int('12') + int(3.9) + int(4u)", 19);
    check("uint(3) + 1u", 4);
    check("double('1.5') + double(1)", 2.5);
    check("string(1) + string(1.5) + string(true) + string('x')", "11.5truex");
    check("bool('true')", true);
    check("math.round(2.5) + math.floor(-0.5) + math.ceil(0.1)", 3.0);
    check("math.abs(-3) + math.least(1, 2) + math.greatest(1, 2.5)", 6.5);
    check_fails("1 / 0", "division by zero");
    check_fails("1 % 0", "division by zero");
    check_fails("9223372036854775807 * 9223372036854775807", "64 bits");
    check_fails("1.0 / 0.0", "not a number in JSON");
    check_fails("int('x')", "`x` is not a whole number");
    check_fails("int(1e300)", "not a whole number");
    check_fails("uint(-1)", "not a whole number");
    check_fails("1.5 % 2.0", "whole numbers");
}

#[test]
fn texts() {
    check("size(data.name) + size('') + data.name.size()", 10);
    check("data.name.contains('üß') && data.name.startsWith('Gr') && data.name.endsWith('e')", true);
    check("data.name.matches('^G.{3}e$') && matches(data.id, '[0-9]+')", true);
    check("data.name.matches('^[A-Z]+$')", false);
    check("'AbÜ'.lowerAscii() + 'ab'.upperAscii()", "abÜAB");
    check("' x '.trim()", "x");
    check("'a-b-c'.replace('-', '+')", "a+b+c");
    check("'a,b'.split(',')", json!(["a", "b"]));
    check("['a', 'b'].join('-') + ['c'].join()", "a-bc");
    check("data.name.substring(2) + data.name.substring(0, 2)", "üßeGr");
    check("data.name.indexOf('ß') + 'a'.indexOf('b')", 2);
    check("'a' < 'b' && 'a' <= 'a' && 'B' < 'a'", true);
    check_fails("'a'.substring(2)", "beyond the text");
    check_fails("'abc'.substring(2, 1)", "before the start");
    check_fails("data.n.contains('x')", "cannot take a number");
    check_fails("'a'.split('')", "separator");
    check_fails("data.name < data.n", "cannot compare a text with a number");
    check_fails("data.name + data.n", "cannot join a text and a number");
}

#[test]
fn logic_forgives_errors_that_do_not_matter() {
    check("true || data.absent", true);
    check("data.absent == 1 || true", true);
    check("false && data.absent", false);
    check("data.absent == 1 && false", false);
    check("data.vip ? 1 : data.absent", 1);
    check("!data.vip", false);
    check("data.items.exists(i, i.price > 9)", true);
    check("data.items.all(i, i.price > 5)", false);
    check_fails("data.absent == 1 || false", "missing data.absent");
    check_fails("data.items.all(i, i.price > 0)", "missing price");
    check_fails("data.n && true", "a number stands where true or false is needed");
    check_fails("data.n ? 1 : 2", "a number stands");
}

#[test]
fn missing_fields_are_missing_and_optionals_forgive_them() {
    check_fails("data.absent", "missing data.absent");
    check_fails("data.customer.zip.code", "missing data.customer.zip.code");
    check_fails("data.name.first", "missing data.name.first");
    check_fails("data.items[9]", "missing [9]");
    check_fails("data['absent']", "missing [absent]");
    check_fails("attributes.absent", "missing absent");
    check_fails("event.key", "missing event.key");
    check("has(data.vip) && has(data.none) && has(event.subject) && has(attributes.category)", true);
    check("has(data.absent) || has(data.a.b.c) || has(event.key) || has(data.name.first)", false);
    check("data.?vip.orValue(false)", true);
    check("data.?absent.orValue('x')", "x");
    check("data.?absent.?deeper.orValue(1)", 1);
    check("data.?customer.country.orValue('x')", "DE");
    check("data.absent.?deeper.hasValue()", false);
    check("data.items[?9].hasValue() || data[?'absent'].hasValue()", false);
    check("data.?absent.or(data.?n).value()", 7);
    check("optional.of(1).hasValue() && !optional.none().hasValue()", true);
    check("[?data.?absent, ?data.?n]", json!([7]));
    check("{?'a': data.?absent, ?'b': data.?n}", json!({"b": 7}));
    assert_eq!(evaluate("data.?absent"), Ok(None), "an optional without a value leaves its key out");
    check("data.?n", 7);
    check_fails("data.?absent.value()", "missing the value");
    check_fails("data.n.orValue(1)", "needs an optional value");
    // Sides of a lazy call are not evaluated for nothing.
    check("data.?n.orValue(data.absent)", 7);
}

#[test]
fn lists_and_maps() {
    check("data.items.map(i, i.sku)", json!(["x", "y", "z"]));
    check("data.items.map(i, i.qty > 1, i.qty * 2)", json!([4, 10]));
    check("data.items.filter(i, i.qty > 1).size()", 2);
    check("data.items.exists_one(i, i.qty == 5) && data.items.existsOne(i, i.qty == 5)", true);
    check("data.items.exists_one(i, i.qty > 1)", false);
    check("data.empty.all(x, false) && !data.empty.exists(x, true)", true);
    check("data.customer.all(k, k.size() > 3)", true);
    check("{'a': 1, 'b': 2}.map(k, k)", json!(["a", "b"]));
    check("'b' in data.customer.tags && !(1 in data.customer.tags)", true);
    check("1 in [3, 2, 1.0] && 2 in {1: 'a', 2: 'b'} && 'country' in data.customer", true);
    check("{1: 'a', 2: 'b'}[data.items[0].qty]", "b");
    check("{1: 'a'}[1.0] + {1u: 'b'}[1]", "ab");
    check("size(data.items) + size(data.customer) + size([1]) + size({})", 6);
    check("[1] + data.customer.tags", json!([1, "a", "b"]));
    check("data.customer.tags == ['a', 'b'] && data.customer == {'country': 'DE', 'tags': ['a', 'b']}", true);
    check("{'a': 1} == {'a': 1.0} && {'a': 1} != {'b': 1} && [1] != [1, 2] && data != [] && null == data.none", true);
    check("data.items.map(i, data.items.filter(j, j.qty > i.qty).size())", json!([1, 0, 2]));
    check_fails("{data.name: 1, 'Grüße': 2}", "same key twice");
    check_fails("{data.customer: 1}", "cannot be a key");
    check_fails("data.n.all(x, true)", "a loop needs a list or a map");
    check_fails("1 in data.name", "`in` needs a list or a map");
    check_fails("data.items['x']", "has no element");
}

/// The first problem of an expression that is refused: its column from 1, its message, its hint.
fn refused(source: &str) -> (usize, String, String) {
    let problems = Expression::compile(source).map(|_| ()).expect_err(source);
    let first = problems.into_iter().next().expect("because a refusal has a problem");
    (first.offset + 1, first.message, first.hint.unwrap_or_default())
}

fn check_refused(source: &str, column: usize, message: &str, hint: &str) {
    let found = refused(source);
    assert_eq!(found.0, column, "{source}: {found:?}");
    assert!(found.1.contains(message), "{source}: {found:?}");
    assert!(found.2.contains(hint), "{source}: {found:?}");
}

#[test]
fn syntax_errors_speak_plainly() {
    check_refused("", 1, "empty", "");
    check_refused("data.a + ", 10, "ends too early", "");
    check_refused("data.total > > 3", 14, "`>` is not expected here", "");
    check_refused("data.a and data.b", 8, "`and` is not expected here", "in place of `and` write `&&`");
    check_refused("not data.a", 5, "`data` is not expected here", "in place of `not` write `!`");
    check_refused("data.a = 1", 8, "`=` is not expected here", "write `==`");
    check_refused("data.a === 1", 10, "`=` is not expected here", "in place of `===` write `==`");
    check_refused("data.a <> 1", 9, "`>` is not expected here", "write `!=`");
    check_refused("(data.a", 8, "`)` is missing at the end", "");
    check_refused("data.a)", 7, "`)` is not expected here", "");
    check_refused("data.a == 'x", 11, "a text without an end", "");
    check_refused("size(", 6, "ends too early", "");
    check_refused("a ? b", 6, "ends too early", "");
    check_refused("99999999999999999999", 1, "invalid int literal", "");
    check_refused("if", 1, "reserved", "");
}

#[test]
fn unknown_names_are_refused_with_what_was_meant() {
    check_refused("dat.total > 1", 1, "unknown variable `dat`", "did you mean `data`?");
    check_refused("1 + total", 5, "unknown variable `total`", "`data.total`");
    check_refused("event.data.x", 7, "`event` has no field `data`", "the payload is `data`");
    check_refused("event.sorce == ''", 7, "`event` has no field `sorce`", "did you mean `event.source`?");
    check_refused("event.?sorce.hasValue()", 6, "`event` has no field", "");
    check_refused("has(event.tpye)", 11, "`event` has no field", "did you mean `event.type`?");
    check_refused("data.a.startWith('x')", 8, "unknown function `startWith`", "did you mean `startsWith`?");
    check_refused("data.a.length() > 1", 8, "unknown function `length`", "did you mean `size`?");
    check_refused("now() > 1", 1, "unknown function `now`", "known are all, bool, contains");
    check_refused("data.a.math()", 8, "unknown function `math`", "");
    check_refused("'é' + foo(1)", 7, "unknown function `foo`", "");
    check_refused("data.a.repeat(9)", 8, "unknown function `repeat`", "");
}

#[test]
fn wrong_calls_and_kinds_are_refused() {
    check_refused("size(data.a, 1)", 1, "`size` is called as `size(a)`", "");
    check_refused("contains('a', 'b')", 1, "called as `x.contains(a)`", "");
    check_refused("data.x.all(i)", 8, "`all` is called as `list.all(x, …)`", "");
    check_refused("data.x.map(i)", 8, "`map` is called as", "");
    check_refused("data.x.all(1, true)", 12, "needs a name for the element", "");
    check_refused("data.x.all(data, true)", 12, "`data` is a variable already", "");
    check_refused("has(data)", 1, "`has` needs a field", "");
    check_refused("data.x.matches(data.y)", 16, "must be written out", "");
    check_refused("data.x.matches('(')", 16, "the pattern is not usable: unclosed group", "");
    check_refused("data.x.matches('(?=a)')", 16, "look-around", "");
    check_refused(&format!("data.x.matches('{}')", "a".repeat(257)), 16, "the limit is 256", "");
    check_refused("data.x.matches('(\\\\w{100}){100}')", 16, "not usable", "");
    check_refused("'a' && true", 1, "`&&` needs true or false; this is a text", "");
    check_refused("!1", 2, "`!` needs true or false; this is a number", "");
    check_refused("1 + 'a'", 3, "cannot join a number and a text", "`string(…)`");
    check_refused("event.type > 5", 12, "`>` cannot compare a text with a number", "");
    check_refused("event.type == 5", 12, "a text never equals a number", "");
    check_refused("[1] * 2", 1, "`*` needs numbers; this is a list", "");
    check_refused("'x' in event.type", 8, "`in` needs a list or a map", "contains");
    check_refused("tenant.name", 1, "`.name` needs a map; this is a text", "");
    check_refused("size(1)", 6, "`size` needs a text, a list or a map", "");
    check_refused("data.?x && true", 1, "this is an optional value", "orValue");
    check_refused("[?data.x, ?1]", 12, "`?` needs an optional value", "");
    check_refused("b'abc'", 1, "bytes are not supported", "");
    check_refused("Foo{a: 1}", 4, "not supported", "");
    check_refused("{'a': 1, 'a': 2}", 10, "in the map already", "");
    check_refused("-'a'", 2, "`-` needs a number", "");
    check_refused("data.x > null", 10, "`>` needs numbers or texts; this is null", "");
}

#[test]
fn all_problems_come_together() {
    let problems = Expression::compile("foo(1) + bar + data.x.matches('(')").expect_err("because much is wrong");
    let offsets: Vec<usize> = problems.iter().map(|problem| problem.offset).collect();
    assert_eq!(offsets, [0, 9, 30]);
}

#[test]
fn size_and_nesting_are_bounded() {
    check_refused(&"1".repeat(5_000), 1, "the limit is 4096", "plugin");
    check_refused(&format!("1{}", "+1".repeat(700)), 1_202, "more than 600 operators", "plugin");
    check_refused(&format!("{}1{}", "(".repeat(25), ")".repeat(25)), 25, "brackets nest deeper than 24", "");
    check_refused(&format!("1{}", "+1".repeat(100)), 70, "nests deeper than 64", "");
    check_refused(&format!("[{}1]", "1,".repeat(550)), 1_000, "more than 500 parts", "");
    check_refused(
        "data.a.all(a, data.a.all(b, data.a.all(c, data.a.all(d, true))))",
        36,
        "`all` is inside 2 others already",
        "plugin",
    );
    // Brackets in texts and comments are none.
    check(&format!("size('{}')", "(".repeat(100)), 100);
    check(&format!("1 // {}\n + 1", "(".repeat(100)), 2);
    check(&format!("size(r'\\') + size('''{}\\'''')", "[".repeat(100)), 102);
}
