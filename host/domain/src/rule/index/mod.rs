//! The index: all rules of a tenant, matched against an event at once.
//!
//! ```text
//! type ──types──▶ globs ─┬─▶ rules without `match` ──────────────────┐
//!                        └─▶ payload ──access──▶ patterns ──plan──▶ rules ─┴─▶ `where`
//! ```
//!
//! If the type interests no rule, nothing is parsed. If it does, the payload is read once, and only those parts that
//! some pattern or `where` asks about. Patterns are found by what is rarest in them, see `access`.
//!
//! The automaton that was to do this, `quamina`, took 41 s for a payload of 6 KB that held three arrays of numbers,
//! and gave up with a panic at 256 rules with `anything-but` or ranges on one field. It is the oracle of the tests.

mod access;
mod compile;
mod ranges;
pub(in crate::rule) mod types;

use std::collections::HashMap;
use std::fmt;

use crate::event::Event;
use crate::rule::condition::Truth;
use crate::rule::definition::Rule;
use crate::rule::expression::Budget;
use crate::rule::expression::Fail;
use crate::rule::expression::budget::EXPRESSION_STEPS;
use crate::rule::index::compile::Index;
use crate::rule::index::types::GlobId;
use crate::rule::pattern::tree::Tree;
use crate::rule::scope::Scope;

/// Steps for one event, all patterns and all `where` of a tenant together: some ten times what one expression may
/// take, or a tenth of a second at the very worst.
pub const EVENT_STEPS: u64 = 2_000_000;

/// What a rule set says about one event. All numbers are positions in [`RuleSet::rules`], ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routed {
    /// Rules that match.
    pub matched: Vec<usize>,
    /// Rules whose `where` asks for a field that the event does not have. They do not match.
    pub missing: Vec<usize>,
    /// Rules whose `where` took more steps than it may. They do not match, and should be switched off if this
    /// happens again and again.
    pub over_budget: Vec<usize>,
    /// Rules that were not looked at because the others had used up what one event may take. They do not match, and
    /// it is not their fault.
    pub starved: Vec<usize>,
    /// Rules whose `where` failed, and why. They do not match.
    pub errors: Vec<(usize, String)>,
}

impl Routed {
    /// True if no rule takes the event or would have to be told of it.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.matched.is_empty() && self.over_budget.is_empty() && self.starved.is_empty() && self.errors.is_empty()
    }
}

/// The rules of a tenant at one moment, indexed. Immutable: a change makes a new one.
pub struct RuleSet {
    number: i64,
    rules: Vec<Rule>,
    names: HashMap<String, usize>,
    index: Index,
}

impl fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuleSet {{ number: {}, rules: {} }}", self.number, self.rules.len())
    }
}

impl RuleSet {
    /// Indexes rules. Disabled ones are kept, and match nothing.
    #[must_use]
    pub fn compile(number: i64, rules: Vec<Rule>) -> Self {
        let names = rules.iter().enumerate().map(|(at, rule)| (rule.name().to_owned(), at)).collect();
        let index = Index::of(&rules);
        Self { number, rules, names, index }
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
        self.position(name).and_then(|at| self.rules.get(at))
    }

    /// The position of the rule of this name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Which rules match `event`. `scope` is the scope of the same event.
    #[must_use]
    pub fn route(&self, event: &Event, scope: &Scope<'_>) -> Routed {
        let globs = self.index.types.find(&event.kind);
        let mut routed = Routed::default();
        if globs.is_empty() {
            return routed;
        }
        let mut budget = Budget::new(EVENT_STEPS);
        let mut candidates: Vec<usize> =
            globs.iter().flat_map(|glob| &self.index.plain[*glob as usize]).copied().collect();
        if globs.iter().any(|glob| self.index.asked[*glob as usize]) {
            let tree = Tree::of(event, &self.index.shape);
            if self.patterns(&globs, &tree, &mut candidates, &mut budget).is_err() {
                routed.starved = self.index.undecided(&globs, &candidates);
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        let conditional = candidates.iter().any(|at| self.rules[*at].condition().is_some());
        let focused = (conditional && !scope.is_parsed()).then(|| self.index.focus.parse(event));
        let focused = focused.map(|data| Scope::focused(event, scope.tenant(), data));
        for at in candidates {
            self.condition(at, focused.as_ref().unwrap_or(scope), &mut budget, &mut routed);
        }
        routed.starved.sort_unstable();
        routed
    }

    /// Adds the rules whose types and patterns fit.
    fn patterns(
        &self,
        globs: &[GlobId],
        tree: &Tree<'_>,
        candidates: &mut Vec<usize>,
        budget: &mut Budget,
    ) -> Result<(), Fail> {
        let found = self.index.access.find(tree, budget)?;
        let typed = globs.iter().flat_map(|glob| &self.index.typed[*glob as usize]).copied();
        for filed in found.into_iter().chain(typed).map(|id| &self.index.plans[id as usize]) {
            budget.take(1)?;
            if filed.globs.iter().any(|glob| globs.contains(glob)) && filed.plan.is_met(Some(tree), budget)? {
                candidates.push(filed.rule);
            }
        }
        Ok(())
    }

    /// Asks a rule's `where`.
    fn condition(&self, at: usize, scope: &Scope<'_>, budget: &mut Budget, routed: &mut Routed) {
        let Some(condition) = self.rules[at].condition() else {
            routed.matched.push(at);
            return;
        };
        let given = budget.left().min(EXPRESSION_STEPS);
        let mut own = Budget::new(given);
        let truth = condition.evaluate_within(scope, &mut own);
        // Cannot fail: no more was given than was left.
        let _ = budget.take(usize::try_from(given - own.left()).unwrap_or(usize::MAX));
        match truth {
            Truth::Yes => routed.matched.push(at),
            Truth::No => {}
            Truth::MissingField(_) => routed.missing.push(at),
            Truth::Error(reason) => routed.errors.push((at, reason)),
            Truth::OverBudget if given < EXPRESSION_STEPS => routed.starved.push(at),
            Truth::OverBudget => routed.over_budget.push(at),
        }
    }
}

#[cfg(test)]
mod tests;
