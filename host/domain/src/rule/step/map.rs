//! `map: { total: data.total * data.rate }`: builds a new payload.
//!
//! Texts are expressions, everything else stands for itself; maps and lists may nest. A field that the event does not
//! have fails the run, because a payload with a hole in it is worse than none; `data.?field` leaves the key out
//! instead.

use serde_json::Number;
use serde_json::Value as Json;

use crate::rule::expression::Budget;
use crate::rule::expression::Expression;
use crate::rule::expression::Fail;
use crate::rule::expression::Value;
use crate::rule::scope::Scope;

/// The largest payload that a step may build: no larger than one that may be published.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 10;
/// The deepest, for the same reason.
pub const PAYLOAD_DEPTH_MAX: usize = 64;

/// Why a payload could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// An expression asks for a field that the event does not have.
    #[error(
        "`map` key `{key}`: `{expression}` asks for `{field}`, which this event does not have; \
         an optional, written with `.?`, would leave the key out"
    )]
    MissingField {
        /// Where in the new payload.
        key: String,
        /// The expression.
        expression: String,
        /// The missing field.
        field: String,
    },
    /// An expression failed.
    #[error("`map` key `{key}`: `{expression}`: {reason}")]
    Failed {
        /// Where in the new payload.
        key: String,
        /// The expression.
        expression: String,
        /// Why.
        reason: String,
    },
    /// The expressions took more steps than a step may.
    #[error("`map` key `{key}`: `{expression}` takes more steps than it may")]
    OverBudget {
        /// Where in the new payload.
        key: String,
        /// The expression.
        expression: String,
    },
}

/// What a value of the new payload is made of.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::rule) enum Template {
    /// Stands for itself.
    Constant(Json),
    /// Evaluated.
    Expression(Expression),
    /// A list.
    List(Vec<Template>),
    /// A map.
    Map(Vec<(String, Template)>),
}

/// A template of a payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    pub(in crate::rule) entries: Vec<(String, Template)>,
}

impl Map {
    /// Builds the payload.
    pub fn apply(&self, scope: &Scope<'_>) -> Result<Json, EvalError> {
        let mut build = Build { scope, budget: Budget::default(), bytes: 0, path: Vec::new() };
        build.map(&self.entries)
    }
}

/// One payload in the making.
struct Build<'s> {
    scope: &'s Scope<'s>,
    budget: Budget,
    bytes: usize,
    path: Vec<String>,
}

impl<'s> Build<'s> {
    fn map(&mut self, entries: &'s [(String, Template)]) -> Result<Json, EvalError> {
        let mut map = serde_json::Map::new();
        for (key, template) in entries {
            self.path.push(key.clone());
            let value = self.template(template)?;
            self.path.pop();
            if let Some(value) = value {
                map.insert(key.clone(), value);
            }
        }
        Ok(Json::Object(map))
    }

    fn template(&mut self, template: &'s Template) -> Result<Option<Json>, EvalError> {
        match template {
            Template::Constant(json) => Ok(Some(json.clone())),
            Template::Map(entries) => self.map(entries).map(Some),
            Template::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    self.path.push(at.to_string());
                    list.extend(self.template(item)?);
                    self.path.pop();
                }
                Ok(Some(Json::Array(list)))
            }
            Template::Expression(expression) => {
                let value = expression.evaluate(self.scope, &mut self.budget);
                value.and_then(|value| self.json(&value, self.path.len())).map_err(|fail| self.error(expression, fail))
            }
        }
    }

    fn error(&self, expression: &Expression, fail: Fail) -> EvalError {
        let (key, expression) = (self.path.join("."), expression.source().to_owned());
        match fail {
            Fail::Missing(field) => EvalError::MissingField { key, expression, field },
            Fail::Impossible(reason) => EvalError::Failed { key, expression, reason },
            Fail::OverBudget => EvalError::OverBudget { key, expression },
        }
    }

    /// The value as JSON; none for an optional without a value.
    fn json(&mut self, value: &Value<'_>, depth: usize) -> Result<Option<Json>, Fail> {
        if depth > PAYLOAD_DEPTH_MAX {
            return Err(Fail::Impossible(format!("the payload would nest deeper than {PAYLOAD_DEPTH_MAX}")));
        }
        self.weigh(2)?;
        let json = match value {
            Value::Null => Json::Null,
            Value::Bool(bool) => Json::Bool(*bool),
            Value::Int(int) => Json::from(*int),
            Value::UInt(uint) => Json::from(*uint),
            Value::Double(double) => match Number::from_f64(*double) {
                Some(number) => Json::Number(number),
                None => return Err(Fail::Impossible(format!("{double} is not a number in JSON"))),
            },
            Value::Text(text) => {
                self.weigh(text.as_str().len())?;
                Json::String(text.as_str().to_owned())
            }
            Value::Type(kind) => Json::String(kind.name().to_owned()),
            Value::Optional(None) => return Ok(None),
            Value::Optional(Some(inner)) => return self.json(inner, depth),
            Value::JsonList(_) | Value::List(_) => {
                let length = value.size().unwrap_or_default();
                let mut list = Vec::new();
                for element in (0..length).filter_map(|at| value.element(at)) {
                    list.extend(self.json(&element, depth + 1)?);
                }
                Json::Array(list)
            }
            Value::JsonMap(map) => {
                let entries = map.iter().map(|(name, value)| (name.clone(), Value::of(value)));
                self.object(entries, depth)?
            }
            Value::Map(map) => {
                let entries = map.iter().map(|(key, value)| (key.spelt(), value.clone()));
                self.object(entries, depth)?
            }
            Value::Attributes(pairs) => {
                let entries = pairs.iter().map(|(name, value)| (name.clone(), Value::text(value)));
                self.object(entries, depth)?
            }
            Value::Event(scope) => {
                let entries = scope.fields().map(|(field, value)| (field.name().to_owned(), value));
                self.object(entries, depth)?
            }
        };
        Ok(Some(json))
    }

    fn object<'v>(&mut self, entries: impl Iterator<Item = (String, Value<'v>)>, depth: usize) -> Result<Json, Fail> {
        let mut object = serde_json::Map::new();
        for (name, value) in entries {
            self.weigh(name.len())?;
            if let Some(value) = self.json(&value, depth + 1)? {
                object.insert(name, value);
            }
        }
        Ok(Json::Object(object))
    }

    /// Counts what the payload takes, as steps and as bytes.
    fn weigh(&mut self, bytes: usize) -> Result<(), Fail> {
        self.budget.take(1)?;
        self.budget.take_bytes(bytes)?;
        self.bytes += bytes;
        if self.bytes > PAYLOAD_BYTES_MAX {
            return Err(Fail::Impossible(format!("the payload would be larger than {PAYLOAD_BYTES_MAX} bytes")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rule::fixture::event;
    use crate::rule::fixture::rule;
    use crate::rule::step::Action;

    fn apply(map: &str, data: &Json) -> Result<Json, String> {
        let rule = rule(&format!("name: a\non: a\nsteps:\n- map: {map}\n- emit: x"));
        let Action::Map(map) = &rule.steps()[0].action else { panic!("the first step is a map") };
        map.apply(&Scope::new(&event("t", data), "acme")).map_err(|error| error.to_string())
    }

    fn check(map: &str, expected: Json) {
        let data = json!({"id": "o-7", "total": 10, "rate": 1.5, "items": [{"sku": "x"}, {"sku": "y"}]});
        assert_eq!(apply(map, &data), Ok(expected), "{map}");
    }

    fn check_fails(map: &str, data: &Json, expected: &str) {
        assert_eq!(apply(map, data), Err(expected.to_owned()), "{map}");
    }

    #[test]
    fn texts_are_expressions_and_the_rest_stands_for_itself() {
        check("{order: data.id, eur: data.total * data.rate}", json!({"order": "o-7", "eur": 15.0}));
        check(
            "{a: 1, b: 2.5, c: true, d: null, e: \"'EU'\"}",
            json!({"a": 1, "b": 2.5, "c": true, "d": null, "e": "EU"}),
        );
        check("{a: {b: [data.id, {c: data.total}, 7]}}", json!({"a": {"b": ["o-7", {"c": 10}, 7]}}));
        check(
            "{skus: 'data.items.map(i, i.sku)', all: data}",
            json!({"skus": ["x", "y"], "all": {
            "id": "o-7", "total": 10, "rate": 1.5, "items": [{"sku": "x"}, {"sku": "y"}]}}),
        );
        check(
            "{t: tenant, e: event.type, a: attributes}",
            json!({"t": "acme", "e": "t", "a": {"category": "retail", "severity": "info"}}),
        );
        check("{when: data.id}", json!({"when": "o-7"}));
    }

    #[test]
    fn what_is_missing_fails_and_what_is_optional_is_left_out() {
        check("{a: data.?absent, b: [data.?absent, data.?id], c: {d: data.?absent}}", json!({"b": ["o-7"], "c": {}}));
        check("{a: data.?id, b: data.?absent.orValue(0)}", json!({"a": "o-7", "b": 0}));
        check_fails(
            "{a: {b: [1, data.absent + 1]}}",
            &json!({}),
            "`map` key `a.b.1`: `data.absent + 1` asks for `data.absent`, which this event does not have; \
             an optional, written with `.?`, would leave the key out",
        );
        check_fails(
            "{a: data.x + 1}",
            &json!({"x": "y"}),
            "`map` key `a`: `data.x + 1`: `+` cannot join a text and a number",
        );
        check_fails(
            "{a: 1.0 / data.x}",
            &json!({"x": 0}),
            "`map` key `a`: `1.0 / data.x`: inf is not a number in JSON",
        );
    }

    #[test]
    fn the_new_payload_is_bounded() {
        let text = json!({"s": "x".repeat(200_000), "a": vec![1; 1_000]});
        check_fails(
            "{a: data.s, b: data.s}",
            &text,
            "`map` key `b`: `data.s`: the payload would be larger than 262144 bytes",
        );
        check_fails(
            "{a: 'data.a.map(x, data.a.map(y, y))'}",
            &text,
            "`map` key `a`: `data.a.map(x, data.a.map(y, y))` takes more steps than it may",
        );
        let deep = (0..64).fold(json!(1), |json, _| json!({ "a": json }));
        check_fails("{a: data}", &deep, "`map` key `a`: `data`: the payload would nest deeper than 64");
        assert!(apply("{a: data.a}", &deep).is_ok());
    }
}
