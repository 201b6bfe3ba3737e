//! Expressions against the evaluator of the `cel` crate.
//!
//! Where the crate gives a value, so must we, and the same. Where it fails we may be kinder: we mix types of numbers
//! and take what is no map for a map without fields. What we refuse when it is saved is not compared.

use std::collections::HashMap;
use std::sync::Arc;

use bulkhead_domain::rule::Condition;
use bulkhead_domain::rule::Scope;
use bulkhead_domain::rule::expression::Budget;
use bulkhead_domain::rule::expression::Expression;
use bulkhead_domain::rule::expression::Fail;
use bulkhead_domain::rule::expression::Value;
use bulkhead_domain::rule::expression::value::Key;
use proptest::prelude::*;
use serde_json::Value as Json;
use serde_json::json;

use crate::event;

fn payload() -> Json {
    json!({
        "i": 7, "n": -3, "d": 2.5, "w": 3.0, "big": 9_007_199_254_740_993_i64, "s": "abc", "t": "Grüße", "e": "",
        "b": true, "f": false, "z": null, "l": [3, 1, 2], "ls": ["a", "b", "abc"], "el": [], "em": {},
        "m": {"x": 1, "y": {"z": "deep"}, "l": [1, 2.5, "x"]},
        "items": [{"p": 1, "q": "a"}, {"p": 2.5, "q": "b"}, {"q": "c"}],
    })
}

fn theirs(json: &Json) -> cel::Value {
    match json {
        Json::Null => cel::Value::Null,
        Json::Bool(bool) => cel::Value::Bool(*bool),
        Json::Number(number) => match number.as_i64() {
            Some(int) => cel::Value::Int(int),
            None => cel::Value::Float(number.as_f64().expect("because it is a number")),
        },
        Json::String(text) => cel::Value::String(Arc::new(text.clone())),
        Json::Array(list) => cel::Value::List(Arc::new(list.iter().map(theirs).collect())),
        Json::Object(map) => {
            let key = |name: &String| cel::objects::Key::String(Arc::new(name.clone()));
            let map: HashMap<_, _> = map.iter().map(|(name, value)| (key(name), theirs(value))).collect();
            cel::Value::Map(cel::objects::Map { map: Arc::new(map) })
        }
    }
}

fn same(theirs: &cel::Value, ours: &Value<'_>) -> bool {
    match (theirs, ours) {
        (cel::Value::Null, Value::Null) => true,
        (cel::Value::Bool(one), Value::Bool(other)) => one == other,
        (cel::Value::Int(one), Value::Int(other)) => one == other,
        (cel::Value::UInt(one), Value::UInt(other)) => one == other,
        // A whole number without a sign that fits is `int` to us once it was calculated with.
        (cel::Value::UInt(one), Value::Int(other)) => i64::try_from(*one).is_ok_and(|one| one == *other),
        (cel::Value::Float(one), Value::Double(other)) => one == other || (one.is_nan() && other.is_nan()),
        (cel::Value::String(one), Value::Text(other)) => one.as_str() == other.as_str(),
        (cel::Value::List(one), other) => {
            other.size() == Some(one.len())
                && one.iter().enumerate().all(|(at, one)| other.element(at).is_some_and(|other| same(one, &other)))
        }
        (cel::Value::Map(one), other) => {
            other.size() == Some(one.map.len())
                && one.map.iter().all(|(key, one)| {
                    let key = match key {
                        cel::objects::Key::Int(int) => Key::Int(i128::from(*int)),
                        cel::objects::Key::Uint(uint) => Key::Int(i128::from(*uint)),
                        cel::objects::Key::Bool(bool) => Key::Bool(*bool),
                        cel::objects::Key::String(text) => Key::Text(text.as_str().into()),
                    };
                    other.entry(&key).is_some_and(|other| same(one, &other))
                })
        }
        // Optionals and types have no counterpart.
        (cel::Value::Opaque(_), _) => true,
        _ => false,
    }
}

fn agree(source: &str) -> Result<(), TestCaseError> {
    let Ok(expression) = Expression::compile(source) else { return Ok(()) };
    let program = cel::Env::stdlib().compile(source).expect("because we read it with the same parser");
    let mut context = cel::Context::with_env(Arc::new(cel::Env::stdlib()));
    let data = payload();
    context.add_variable_from_value("data", theirs(&data));
    let Ok(theirs) = program.execute(&context) else { return Ok(()) };
    let event = event("t", data.to_string());
    let scope = Scope::new(&event, "acme");
    let ours = expression.evaluate(&scope, &mut Budget::default());
    match ours {
        Ok(ours) => prop_assert!(same(&theirs, &ours), "{source}\ntheirs {theirs:?}\nours   {ours:?}"),
        // The crate appends anything that can be iterated over; CEL does not.
        Err(Fail::Impossible(reason)) if reason == "`+` cannot join a list and a map" => {}
        Err(fail) => prop_assert!(false, "{source}\ntheirs {theirs:?}\nours   {fail:?}"),
    }
    Ok(())
}

fn leaf() -> impl Strategy<Value = String> {
    let literals = ["0", "1", "-2", "7", "2.5", "3.0", "2u", "'a'", "'abc'", "''", "true", "false", "null", "[]", "{}"];
    let fields = [
        "data.i",
        "data.n",
        "data.d",
        "data.w",
        "data.big",
        "data.s",
        "data.t",
        "data.e",
        "data.b",
        "data.f",
        "data.z",
        "data.l",
        "data.ls",
        "data.m",
        "data.m.x",
        "data.m.y.z",
        "data.m.l",
        "data.items",
        "data.el",
        "data.em",
        "data.items[0]",
        "data.items[1].p",
        "data['s']",
        "data.absent",
        "data.l[0]",
        "data.l[9]",
        "data",
    ];
    prop_oneof![
        2 => prop::sample::select(literals.to_vec()).prop_map(str::to_owned),
        3 => prop::sample::select(fields.to_vec()).prop_map(str::to_owned),
    ]
}

/// `$` is an expression, in which `x` may stand for the element of a loop.
const FORMS: &[&str] = &[
    "($ + $)",
    "($ - $)",
    "($ * $)",
    "($ / $)",
    "($ % $)",
    "($ == $)",
    "($ != $)",
    "($ < $)",
    "($ <= $)",
    "($ > $)",
    "($ >= $)",
    "($ && $)",
    "($ || $)",
    "!($)",
    "-($)",
    "($ ? $ : $)",
    "($ in $)",
    "[$, $]",
    "{'k': $}",
    "{$: $}",
    "size($)",
    "($).size()",
    "($).contains($)",
    "($).startsWith($)",
    "($).endsWith($)",
    "int($)",
    "double($)",
    "string($)",
    "uint($)",
    "($)[$]",
    "[$][0]",
    "{'k': $}.k",
    "($).matches('^[a-z]+$')",
    "has(data.absent)",
    "has(data.m.x)",
    "has(data.z)",
    "optional.of($).hasValue()",
    "data.?absent.orValue($)",
    "data.?i.orValue($)",
    "data.m[?'x'].orValue($)",
    "[?data.?i, ?data.?absent]",
    "{?'a': data.?absent, 'b': $}",
];

const LOOPS: &[&str] = &[
    "data.l.all(x, $)",
    "data.ls.exists(x, $)",
    "data.items.exists_one(x, $)",
    "data.l.map(x, $)",
    "data.ls.filter(x, $)",
    "data.m.all(x, $)",
    "data.l.map(x, $, $)",
    "($).all(x, $)",
    "[$, $].map(x, $)",
    "data.items.filter(x, $).size()",
];

/// Puts expressions into the gaps of a form.
fn filled(form: &str, parts: &[String]) -> String {
    let mut parts = parts.iter();
    let pieces: Vec<&str> = form.split('$').collect();
    let mut text = pieces[0].to_owned();
    for piece in &pieces[1..] {
        text.push_str(parts.next().map_or("1", String::as_str));
        text.push_str(piece);
    }
    text
}

fn expression() -> impl Strategy<Value = String> {
    let inside = leaf().prop_recursive(3, 16, 3, |inner| {
        let bound = prop_oneof![2 => inner.clone(), 1 => Just("x".to_owned()), 1 => Just("x.p".to_owned())];
        let form = (prop::sample::select(FORMS.to_vec()), prop::collection::vec(inner, 3));
        let each = (prop::sample::select(LOOPS.to_vec()), prop::collection::vec(bound, 3));
        prop_oneof![
            4 => form.prop_map(|(form, parts)| filled(form, &parts)),
            1 => each.prop_map(|(form, parts)| filled(form, &parts)),
        ]
    });
    let form = (prop::sample::select(FORMS.to_vec()), prop::collection::vec(inside.clone(), 3));
    prop_oneof![1 => inside, 2 => form.prop_map(|(form, parts)| filled(form, &parts))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn as_the_crate(source in expression()) {
        agree(&source)?;
    }

    /// A condition that parses only what it looks at says the same as one that has the whole payload.
    #[test]
    fn as_with_the_whole_payload(one in expression(), other in expression()) {
        for source in [one.clone(), format!("{one} == {other}"), format!("has(data.m.x) && {one} != {other}")] {
            let Ok(condition) = Condition::parse(&source) else { continue };
            let event = event("t", payload().to_string());
            let whole = Scope::new(&event, "acme");
            let _ = whole.data();
            prop_assert_eq!(condition.evaluate(&Scope::new(&event, "acme")), condition.evaluate(&whole), "{}", source);
        }
    }

    /// Whatever the text is, it is read or refused.
    #[test]
    fn any_text_is_read_or_refused(source in r#"([a-z.(){}\[\]'"?:&|!=<>+*/% 0-9é-]|data|\.map\(x, ){0,60}"#) {
        let _ = Expression::compile(&source).map_err(|problems| {
            let end = source.chars().count();
            assert!(!problems.is_empty() && problems.iter().all(|problem| problem.offset <= end), "{problems:?}");
        });
    }
}
