//! Explanations: why a rule did or did not match an event.

use serde::Serialize;
use serde_json::Value as Json;

use crate::rule::condition::Condition;
use crate::rule::condition::Truth;
use crate::rule::definition::Rule;
use crate::rule::expression::Budget;
use crate::rule::index::EVENT_STEPS;
use crate::rule::pattern::Alternative;
use crate::rule::pattern::Leaf;
use crate::rule::pattern::Pattern;
use crate::rule::pattern::plan::Plan;
use crate::rule::pattern::shape::Shape;
use crate::rule::pattern::tree::Tree;
use crate::rule::scope::Scope;

/// How many characters of a value are shown.
const SHOWN: usize = 60;

/// What one condition of a rule said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it holds.
    pub holds: bool,
    /// What was asked and what the event has, for people.
    pub detail: String,
}

/// What every condition of a rule said about an event. A condition that the rule does not have is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The rule's name.
    pub rule: String,
    /// Whether the rule matches: it is enabled and all its conditions hold.
    pub matched: bool,
    /// Whether it is switched on.
    pub enabled: bool,
    /// `on`.
    pub types: Finding,
    /// `match`: whether it is met.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Finding>,
    /// `match`: one finding for each field, of the alternative that is met or else comes nearest.
    #[serde(rename = "fields", skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Finding>,
    /// `where`.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<Finding>,
}

/// Says of each condition of `rule` whether the event of `scope` meets it.
#[must_use]
pub fn explain(rule: &Rule, scope: &Scope<'_>) -> Explanation {
    let types = types(rule, scope);
    let (pattern, fields) = match rule.pattern() {
        Some(pattern) => {
            let (finding, fields) = explain_pattern(pattern, scope);
            (Some(finding), fields)
        }
        None => (None, Vec::new()),
    };
    let condition = rule.condition().map(|condition| explain_condition(condition, scope));
    let matched = rule.enabled()
        && types.holds
        && pattern.as_ref().is_none_or(|pattern| pattern.holds)
        && condition.as_ref().is_none_or(|condition| condition.holds);
    Explanation { rule: rule.name().to_owned(), matched, enabled: rule.enabled(), types, pattern, fields, condition }
}

fn types(rule: &Rule, scope: &Scope<'_>) -> Finding {
    let kind = &scope.event().kind;
    match rule.on().iter().find(|glob| glob.matches(kind)) {
        Some(glob) => Finding { holds: true, detail: format!("`{kind}` fits `{}`", glob.text()) },
        None => {
            let globs: Vec<String> = rule.on().iter().map(|glob| format!("`{}`", glob.text())).collect();
            Finding { holds: false, detail: format!("`{kind}` fits none of {}", globs.join(", ")) }
        }
    }
}

fn explain_pattern(pattern: &Pattern, scope: &Scope<'_>) -> (Finding, Vec<Finding>) {
    let shape = Shape::of(pattern);
    let tree = match scope.data() {
        Some(data) => Tree::with_data(scope.event(), &shape, data),
        None => Tree::of(scope.event(), &shape),
    };
    let mut budget = Budget::new(EVENT_STEPS);
    let mut nearest: Option<(bool, usize, Vec<Finding>)> = None;
    for alternative in &pattern.alternatives {
        let met = Plan::of(alternative, &shape).is_met(Some(&tree), &mut budget).unwrap_or(false);
        let fields: Vec<Finding> =
            alternative.leaves.iter().map(|leaf| explain_leaf(leaf, &shape, &tree, scope, &mut budget)).collect();
        let failing = fields.iter().filter(|finding| !finding.holds).count();
        let nearer = nearest.as_ref().is_none_or(|(known_met, known, _)| (!met, failing) < (!known_met, *known));
        if nearer {
            nearest = Some((met, failing, fields));
        }
    }
    let (met, failing, fields) = nearest.unwrap_or_default();
    let detail = match (met, failing) {
        (true, _) => "every field is as it should be".to_owned(),
        (false, 0) => {
            "every field is somewhere as it should be, but not together in one element of an array".to_owned()
        }
        (false, 1) => "one field is not as it should be".to_owned(),
        (false, failing) => format!("{failing} fields are not as they should be"),
    };
    (Finding { holds: met, detail }, fields)
}

fn explain_leaf(leaf: &Leaf, shape: &Shape, tree: &Tree<'_>, scope: &Scope<'_>, budget: &mut Budget) -> Finding {
    let alone = Plan::of(&Alternative { leaves: vec![leaf.clone()] }, shape);
    let holds = alone.is_met(Some(tree), budget).unwrap_or(false);
    let has = match value(&leaf.path, scope) {
        Some(value) => format!("the event has {}", shown(&value)),
        None => "the event does not have it".to_owned(),
    };
    Finding { holds, detail: format!("{leaf}: {has}") }
}

/// What the event has at a path. In an array of maps: the values of all of them.
fn value(path: &[String], scope: &Scope<'_>) -> Option<Json> {
    let (root, rest) = path.split_first()?;
    let event = scope.event();
    match root.as_str() {
        "type" => Some(Json::from(event.kind.as_str())),
        "source" => Some(Json::from(event.source.as_str())),
        "subject" => event.subject.as_deref().map(Json::from),
        "attributes" => {
            let name = rest.first()?;
            let found = event.attributes.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| Json::from(value.as_str()))
        }
        _ => below(scope.data()?, rest),
    }
}

fn below(json: &Json, path: &[String]) -> Option<Json> {
    let Some((first, rest)) = path.split_first() else { return Some(json.clone()) };
    match json {
        Json::Object(map) => below(map.get(first)?, rest),
        Json::Array(list) => {
            let values: Vec<Json> = list.iter().filter_map(|element| below(element, path)).collect();
            if values.is_empty() { None } else { Some(Json::Array(values)) }
        }
        _ => None,
    }
}

fn shown(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn explain_condition(condition: &Condition, scope: &Scope<'_>) -> Finding {
    let source = condition.source();
    let (holds, detail) = match condition.evaluate(scope) {
        Truth::Yes => (true, format!("`{source}` holds")),
        Truth::No => (false, format!("`{source}` does not hold")),
        Truth::MissingField(field) => (false, format!("`{source}` asks for `{field}`, which the event does not have")),
        Truth::Error(reason) => (false, format!("`{source}` failed: {reason}")),
        Truth::OverBudget => (false, format!("`{source}` took more steps than it may")),
    };
    Finding { holds, detail }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rule::fixture::event;
    use crate::rule::fixture::rule;

    fn check(text: &str, expected: &[&str]) {
        let rule = rule(&format!("name: a\nsteps: [deliver: crm]\n{text}"));
        let data = json!({"country": "US", "total": 5, "long": "x".repeat(100), "items": [{"s": 1, "q": 2}, {"s": 2, "q": 1}]});
        let event = event("orders.created", &data);
        let explanation = explain(&rule, &Scope::new(&event, "acme"));
        let findings = [Some(explanation.types), explanation.pattern]
            .into_iter()
            .flatten()
            .chain(explanation.fields)
            .chain(explanation.condition);
        let found: Vec<String> =
            findings.map(|finding| format!("{} {}", if finding.holds { "+" } else { "-" }, finding.detail)).collect();
        assert_eq!(found, expected, "{text}");
        assert_eq!(explanation.matched, explanation.enabled && found.iter().all(|finding| finding.starts_with('+')));
    }

    #[test]
    fn every_condition_says_why() {
        check("on: orders.*", &["+ `orders.created` fits `orders.*`"]);
        check("on: [a, b.c]", &["- `orders.created` fits none of `a`, `b.c`"]);
        check("on: '**'\nenabled: false", &["+ `orders.created` fits `**`"]);
        check(
            "on: '**'\nmatch: {data: {country: [DE, FR], total: [{numeric: ['>', 3]}]}}\nwhere: data.total > 10",
            &[
                "+ `orders.created` fits `**`",
                "- one field is not as it should be",
                "- `data.country` is \"DE\" or \"FR\": the event has \"US\"",
                "+ `data.total` is > 3: the event has 5",
                "- `data.total > 10` does not hold",
            ],
        );
        check(
            "on: '**'\nmatch: {source: [/shop], attributes: {x: [{exists: false}]}, data: {y: {z: [{prefix: a}]}}}",
            &[
                "+ `orders.created` fits `**`",
                "- one field is not as it should be",
                "+ `attributes.x` is not there: the event does not have it",
                "- `data.y.z` is a text that starts with \"a\": the event does not have it",
                "+ `source` is \"/shop\": the event has \"/shop\"",
            ],
        );
        check(
            "on: '**'\nmatch: {$or: [{data: {total: [1], country: [1]}}, {data: {total: [{anything-but: 5}]}}]}",
            &[
                "+ `orders.created` fits `**`",
                "- one field is not as it should be",
                "- `data.total` is anything but 5: the event has 5",
            ],
        );
        check(
            "on: '**'\nmatch: {data: {items: {s: [1], q: [1]}}}",
            &[
                "+ `orders.created` fits `**`",
                "- every field is somewhere as it should be, but not together in one element of an array",
                "+ `data.items.q` is 1: the event has [2,1]",
                "+ `data.items.s` is 1: the event has [1,2]",
            ],
        );
        check(
            "on: '**'\nmatch: {data: {long: [{wildcard: '*y'}]}}\nwhere: data.absent > 1",
            &[
                "+ `orders.created` fits `**`",
                "- one field is not as it should be",
                &format!("- `data.long` is like \"*y\": the event has \"{}…", "x".repeat(59)),
                "- `data.absent > 1` asks for `data.absent`, which the event does not have",
            ],
        );
        check(
            "on: '**'\nwhere: data.country > 1",
            &["+ `orders.created` fits `**`", "- `data.country > 1` failed: `>` cannot compare a text with a number"],
        );
    }
}
