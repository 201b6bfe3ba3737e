//! Plans: an alternative of a pattern, ready to be held against a tree.

use crate::rule::expression::Budget;
use crate::rule::expression::Fail;
use crate::rule::pattern::Alternative;
use crate::rule::pattern::Leaf;
use crate::rule::pattern::shape::Place;
use crate::rule::pattern::shape::ROOT;
use crate::rule::pattern::shape::Shape;
use crate::rule::pattern::test::Test;
use crate::rule::pattern::tree::Tree;

/// What must hold at a place and below it.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Each must hold: more than one list of tests at a place comes from `$or` beside a leaf.
    tests: Vec<Vec<Test>>,
    fields: Vec<(Place, Plan)>,
}

impl Plan {
    /// Plans an alternative whose paths are in `shape`.
    #[must_use]
    pub fn of(alternative: &Alternative, shape: &Shape) -> Self {
        let mut plan = Self::default();
        for leaf in &alternative.leaves {
            plan.add(leaf, shape);
        }
        plan
    }

    /// Adds a leaf.
    pub fn add(&mut self, leaf: &Leaf, shape: &Shape) {
        let mut place = ROOT;
        let mut plan = self;
        for name in &leaf.path {
            let Some(next) = shape.field(place, name) else { return };
            place = next;
            let at = match plan.fields.iter().position(|(known, _)| *known == place) {
                Some(at) => at,
                None => {
                    plan.fields.push((place, Self::default()));
                    plan.fields.len() - 1
                }
            };
            plan = &mut plan.fields[at].1;
        }
        plan.tests.push(leaf.tests.clone());
    }

    /// Is it met by what is at its place?
    pub fn is_met(&self, tree: Option<&Tree<'_>>, budget: &mut Budget) -> Result<bool, Fail> {
        for tests in &self.tests {
            if !passes(tests, tree, budget)? {
                return Ok(false);
            }
        }
        if self.fields.is_empty() {
            return Ok(true);
        }
        match tree {
            Some(Tree::List(elements)) if !elements.is_empty() => {
                for element in elements {
                    if self.fields_are_met(element, budget)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            tree => self.fields_are_met(tree.unwrap_or(&Tree::Null), budget),
        }
    }

    fn fields_are_met(&self, tree: &Tree<'_>, budget: &mut Budget) -> Result<bool, Fail> {
        budget.take(1)?;
        if let Tree::List(elements) = tree
            && !elements.is_empty()
        {
            // An array within an array: its elements count as the outer one's.
            for element in elements {
                if self.fields_are_met(element, budget)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        for (place, plan) in &self.fields {
            if !plan.is_met(tree.field(*place), budget)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Does one of the tests hold for the value, or for an element of it?
fn passes(tests: &[Test], tree: Option<&Tree<'_>>, budget: &mut Budget) -> Result<bool, Fail> {
    let Some(tree) = tree else { return Ok(tests.iter().any(Test::holds_without)) };
    // An array is there, whatever it holds.
    if matches!(tree, Tree::List(_)) && tests.contains(&Test::Exists(true)) {
        return Ok(true);
    }
    if let Tree::List(elements) = tree {
        for element in elements {
            if passes(tests, Some(element), budget)? {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    for test in tests {
        if test.holds(tree, budget)? {
            return Ok(true);
        }
    }
    Ok(false)
}
