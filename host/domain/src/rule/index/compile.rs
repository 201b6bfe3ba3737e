//! Compiling: every alternative of every pattern is filed under what is rarest in it.

use std::collections::HashMap;

use crate::rule::definition::Rule;
use crate::rule::focus::Focus;
use crate::rule::index::access::Access;
use crate::rule::index::access::Key;
use crate::rule::index::access::PlanId;
use crate::rule::index::access::keys;
use crate::rule::index::types::GlobId;
use crate::rule::index::types::Types;
use crate::rule::pattern::Alternative;
use crate::rule::pattern::Leaf;
use crate::rule::pattern::plan::Plan;
use crate::rule::pattern::shape::Place;
use crate::rule::pattern::shape::Shape;

/// The index of a rule set.
#[derive(Debug, Default)]
pub struct Index {
    pub types: Types,
    /// By glob: the rules without `match`.
    pub plain: Vec<Vec<usize>>,
    /// By glob: the alternatives that are filed under their types.
    pub typed: Vec<Vec<PlanId>>,
    /// By glob: whether any rule with `match` is on it.
    pub asked: Vec<bool>,
    pub shape: Shape,
    pub access: Access,
    pub plans: Vec<Filed>,
    pub focus: Focus,
}

/// An alternative and whose it is.
#[derive(Debug)]
pub struct Filed {
    pub rule: usize,
    pub globs: Box<[GlobId]>,
    pub plan: Plan,
}

/// An alternative before it is filed.
struct Unfiled<'r> {
    rule: usize,
    globs: Box<[GlobId]>,
    alternative: &'r Alternative,
    /// Its leaves that can be filed under.
    choices: Vec<(Place, &'r Leaf, Vec<Key>)>,
}

impl Index {
    pub fn of(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        let mut unfiled = Vec::new();
        for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.enabled()) {
            let globs: Box<[GlobId]> = rule.on().iter().map(|glob| index.types.insert(glob)).collect();
            index.grow();
            if let Some(condition) = rule.condition() {
                index.focus.add(condition.expression());
            }
            let Some(pattern) = rule.pattern() else {
                globs.iter().for_each(|glob| index.plain[*glob as usize].push(at));
                continue;
            };
            globs.iter().for_each(|glob| index.asked[*glob as usize] = true);
            for alternative in &pattern.alternatives {
                unfiled.push(index.unfiled(at, globs.clone(), alternative));
            }
        }
        index.file(unfiled);
        index.access.settle();
        index
    }

    fn grow(&mut self) {
        let globs = self.types.len();
        self.plain.resize(globs, Vec::new());
        self.typed.resize(globs, Vec::new());
        self.asked.resize(globs, false);
    }

    fn unfiled<'r>(&mut self, rule: usize, globs: Box<[GlobId]>, alternative: &'r Alternative) -> Unfiled<'r> {
        let mut choices = Vec::new();
        for leaf in &alternative.leaves {
            let place = self.shape.leaf(&leaf.path);
            if let Some(keys) = keys(leaf) {
                choices.push((place, leaf, keys));
            }
        }
        Unfiled { rule, globs, alternative, choices }
    }

    fn file(&mut self, unfiled: Vec<Unfiled<'_>>) {
        let mut by_key: HashMap<(Place, &Key), usize> = HashMap::new();
        let mut by_glob = vec![0_usize; self.types.len()];
        for alternative in &unfiled {
            for (place, _, keys) in &alternative.choices {
                for key in keys {
                    *by_key.entry((*place, key)).or_default() += 1;
                }
            }
            alternative.globs.iter().for_each(|glob| by_glob[*glob as usize] += 1);
        }
        let mut plans = Vec::with_capacity(unfiled.len());
        for alternative in &unfiled {
            let id = PlanId::try_from(plans.len()).unwrap_or(PlanId::MAX);
            let crowd = |place: Place, keys: &[Key]| -> usize {
                keys.iter().map(|key| by_key.get(&(place, key)).copied().unwrap_or_default() * key.weight()).sum()
            };
            let under_type: usize = alternative.globs.iter().map(|glob| by_glob[*glob as usize] * 4).sum();
            let best = alternative
                .choices
                .iter()
                .map(|(place, leaf, keys)| (crowd(*place, keys), *place, *leaf, keys))
                .min_by_key(|(crowd, ..)| *crowd)
                .filter(|(crowd, ..)| *crowd < under_type);
            match best {
                Some((_, place, leaf, keys)) => self.access.file(id, leaf, keys, place),
                None => alternative.globs.iter().for_each(|glob| self.typed[*glob as usize].push(id)),
            }
            plans.push(Filed {
                rule: alternative.rule,
                globs: alternative.globs.clone(),
                plan: Plan::of(alternative.alternative, &self.shape),
            });
        }
        self.plans = plans;
    }

    /// The rules with `match` that fit by type and are not among `decided`.
    pub fn undecided(&self, globs: &[GlobId], decided: &[usize]) -> Vec<usize> {
        let decided: std::collections::HashSet<usize> = decided.iter().copied().collect();
        let mut undecided: Vec<usize> = self
            .plans
            .iter()
            .filter(|filed| filed.globs.iter().any(|glob| globs.contains(glob)) && !decided.contains(&filed.rule))
            .map(|filed| filed.rule)
            .collect();
        undecided.sort_unstable();
        undecided.dedup();
        undecided
    }
}
