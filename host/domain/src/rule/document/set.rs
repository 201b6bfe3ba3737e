//! Sets of rules: what holds between them.

use std::collections::HashMap;

use crate::rule::cycle;
use crate::rule::definition::Rule;
use crate::rule::document::RULES_MAX;
use crate::rule::document::fields::ReadRule;
use crate::rule::document::node::Content;
use crate::rule::document::node::Node;
use crate::rule::document::reader::Reader;

impl Reader<'_> {
    /// Reads all rules of all documents.
    pub fn set(&mut self, documents: &[Node]) -> Vec<Rule> {
        let mut read = Vec::new();
        for document in documents {
            self.part(document, &mut read);
        }
        self.check_number(documents, read.len());
        self.check_names(&read);
        if self.problems() == 0 {
            return self.check_cycles(read);
        }
        read.into_iter().map(|read| read.rule).collect()
    }

    /// A document of a set: `rules: […]`, a list of rules, or a rule.
    fn part(&mut self, node: &Node, read: &mut Vec<ReadRule>) {
        match &node.content {
            Content::Map(entries) if entries.iter().any(|(key, _)| key.text == "rules") => {
                if let Some(rules) = self.fields(node, &["rules"], "a set").and_then(|fields| fields.get("rules")) {
                    self.within("rules", |this| match &rules.content {
                        Content::List(items) => this.list(items, read),
                        _ if rules.is_null() => {}
                        _ => this.problem(rules.at, format!("`rules` must be a list; this is {}", rules.words()), None),
                    });
                }
            }
            Content::List(items) => self.list(items, read),
            Content::Map(_) | Content::Scalar(_) => read.extend(self.rule(node, None)),
        }
    }

    fn list(&mut self, items: &[Node], read: &mut Vec<ReadRule>) {
        for (at, item) in items.iter().enumerate() {
            read.extend(self.within_index(at, |this| this.rule(item, None)));
        }
    }

    fn check_number(&mut self, documents: &[Node], number: usize) {
        if number > RULES_MAX {
            let at = documents.first().map_or(0, |document| document.at);
            self.problem(at, format!("the set has {number} rules; the limit is {RULES_MAX}"), None);
        }
    }

    fn check_names(&mut self, read: &[ReadRule]) {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for rule in read {
            if let Some(at) = first.insert(rule.rule.name(), rule.name_at) {
                let (line, _) = self.place(at);
                let message = format!("a rule `{}` is in the set already, at line {line}", rule.rule.name());
                self.problem(rule.name_at, message, None);
            }
        }
    }

    fn check_cycles(&mut self, read: Vec<ReadRule>) -> Vec<Rule> {
        let places: HashMap<String, usize> = read
            .iter()
            .map(|read| (read.rule.name().to_owned(), read.emits_at.first().copied().unwrap_or(read.name_at)))
            .collect();
        let rules: Vec<Rule> = read.into_iter().map(|read| read.rule).collect();
        for cycle in cycle::find(&rules) {
            let at = cycle.rules.first().and_then(|name| places.get(name)).copied().unwrap_or_default();
            let hint = Some("a `match`, `where` or `when` on the way would end it".to_owned());
            self.problem(at, cycle.to_string(), hint);
        }
        rules
    }
}
