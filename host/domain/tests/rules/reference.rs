//! The reference page: everything that it claims is tried.

use bulkhead_domain::event::Event;
use bulkhead_domain::rule::Rule;
use bulkhead_domain::rule::RuleSet;
use bulkhead_domain::rule::Scope;
use bulkhead_domain::rule::document::Names;
use bulkhead_domain::rule::document::parse;
use bulkhead_domain::rule::document::parse_set;
use bulkhead_domain::rule::glob::Glob;
use bulkhead_domain::rule::step::Action;
use serde_json::Value as Json;

use crate::event;

const PAGE: &str = include_str!("../../../../docs/rules.md");

/// The fenced blocks with this word after the fence.
fn blocks(fence: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = PAGE;
    while let Some((_, after)) = rest.split_once(&format!("```{fence}\n")) {
        let (block, after) = after.split_once("```").expect("because a block ends");
        found.push(block);
        rest = after;
    }
    found
}

/// The rows of the table below a line that starts like this, without backticks.
fn rows(header: &str) -> Vec<Vec<String>> {
    let lines = PAGE.lines().skip_while(|line| !line.starts_with(header)).skip(2);
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    // A bar inside backticks does not divide cells.
    let split = |line: &str| -> Vec<String> {
        line.trim_matches('|').replace("||", "\0").split('|').map(|text| cell(&text.replace('\0', "||"))).collect()
    };
    lines.take_while(|line| line.starts_with('|')).map(split).collect()
}

fn with_names<T>(body: impl FnOnce(&Names<'_>) -> T) -> T {
    let plugins = ["enrich-order", "fraud-score"].into_iter().map(ToOwned::to_owned).collect();
    let sinks = ["crm"].into_iter().map(ToOwned::to_owned).collect();
    body(&Names { plugins: &plugins, sinks: &sinks })
}

fn rule(text: &str) -> Rule {
    with_names(|names| parse(text, names)).unwrap_or_else(|problems| panic!("{text}\n{}", problems[0])).value
}

#[test]
fn rules_sets_and_steps_are_right() {
    let rules = blocks("yaml rule");
    assert_eq!(rules.len(), 3);
    for text in rules {
        let checked =
            with_names(|names| parse(text, names)).unwrap_or_else(|problems| panic!("{text}\n{}", problems[0]));
        assert!(checked.warnings.is_empty(), "{text}");
    }
    for text in blocks("yaml set") {
        assert!(with_names(|names| parse_set(text, names)).is_ok(), "{text}");
    }
    let steps = blocks("yaml steps");
    for action in ["map", "redact", "transform", "handle", "emit", "deliver"] {
        assert!(steps.iter().any(|step| step.contains(&format!("- {action}:"))), "{action} has an example");
    }
    for text in steps {
        rule(&format!("name: a\non: a\nsteps:\n{text}"));
    }
}

#[test]
fn wrong_documents_say_what_the_page_says() {
    let (wrong, said) = (blocks("yaml wrong"), blocks("text"));
    assert_eq!(wrong.len(), said.len());
    for (text, said) in wrong.into_iter().zip(said) {
        let problems = with_names(|names| parse(text, names)).map(|_| ()).expect_err(text);
        let drawn: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(drawn.join("\n"), said.trim_end());
    }
}

#[test]
fn globs_fit_what_they_should() {
    let rows = rows("| glob |");
    assert_eq!(rows.len(), 5);
    for row in rows {
        let glob = Glob::parse(&row[0]).expect("because it is a glob");
        assert!(glob.matches(&row[1]), "{row:?}");
        assert!(row[2].is_empty() || !glob.matches(&row[2]), "{row:?}");
    }
}

#[test]
fn tests_hold_for_what_they_should() {
    let rows = rows("| test |");
    assert_eq!(rows.len(), 13);
    for row in rows {
        let rule = rule(&format!("name: a\non: t\nmatch: {{ data: {{ x: [{}] }} }}\nsteps: [emit: x]", row[0]));
        let set = RuleSet::compile(1, vec![rule]);
        let holds = |value: &str| {
            let event = event("t", if value.is_empty() { "{}".to_owned() } else { format!("{{\"x\": {value}}}") });
            !set.route(&event, &Scope::new(&event, "acme")).matched.is_empty()
        };
        assert!(holds(&row[1]), "{row:?}");
        assert!(!holds(&row[2]), "{row:?}");
    }
}

#[test]
fn expressions_have_the_values_that_the_page_gives() {
    let sample: &'static str = blocks("json sample")[0];
    let event: Event = event("orders.created", sample);
    let rows = rows("| expression |");
    assert!(rows.len() > 20);
    for row in rows {
        let quoted = serde_json::to_string(&row[0]).expect("because it is a text");
        let rule = rule(&format!("name: a\non: a\nsteps: [{{ map: {{ v: {quoted} }} }}, {{ emit: x }}]"));
        let Action::Map(map) = &rule.steps()[0].action else { panic!("the first step is a map") };
        let value = map.apply(&Scope::new(&event, "acme")).unwrap_or_else(|error| panic!("{error}"));
        let expected: Json = serde_json::from_str(&row[1]).expect("because it is JSON");
        assert_eq!(value["v"], expected, "{row:?}");
    }
}
