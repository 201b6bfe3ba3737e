//! Cycles: rules that would feed each other for ever.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;

use crate::rule::definition::Rule;
use crate::rule::index::types::Types;
use crate::rule::step::Action;

/// Rules that emit each other's types with no condition on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    /// The rules' names, the first again at the end.
    pub rules: Vec<String>,
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rules.as_slice() {
            [only, _] => write!(f, "rule `{only}` emits a type that it is itself `on`, with no condition in between"),
            rules => {
                let names: Vec<String> = rules.iter().map(|name| format!("`{name}`")).collect();
                write!(f, "rules emit each other's types with no condition in between: {}", names.join(" -> "))
            }
        }
    }
}

impl std::error::Error for Cycle {}

/// Finds the cycles among enabled rules, one for each group of rules that feed each other.
///
/// Only `emit` steps count: what plugins emit is bounded at run time by the event's lineage.
#[must_use]
pub fn find(rules: &[Rule]) -> Vec<Cycle> {
    let graph = Graph::of(rules);
    let rule = |node: &usize| *node < rules.len();
    let mut groups: Vec<(usize, Vec<usize>)> = graph
        .groups()
        .into_iter()
        .filter_map(|group| Some((group.iter().copied().filter(rule).min()?, group)))
        .collect();
    groups.sort_unstable();
    let ways = groups.iter().filter_map(|(first, group)| graph.shortest(*first, group));
    ways.map(|way| Cycle { rules: way.into_iter().filter(rule).map(|at| rules[at].name().to_owned()).collect() })
        .collect()
}

/// Who feeds whom. Nodes are rules, then the types that they emit, then the globs that let types through: with
/// types and globs between them there are no more edges than words in the document.
struct Graph {
    edges: Vec<Vec<usize>>,
}

impl Graph {
    fn of(rules: &[Rule]) -> Self {
        let free = |rule: &Rule| rule.enabled() && rule.pattern().is_none() && rule.condition().is_none();
        let mut types = Types::default();
        let mut globs: Vec<Vec<usize>> = Vec::new();
        let mut kinds: HashMap<&str, usize> = HashMap::new();
        let mut emits: Vec<Vec<usize>> = vec![Vec::new(); rules.len()];
        for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| free(rule)) {
            for glob in rule.on() {
                let id = types.insert(glob) as usize;
                globs.resize(globs.len().max(id + 1), Vec::new());
                globs[id].push(at);
            }
            for step in rule.steps().iter().filter(|step| step.when.is_none()) {
                if let Action::Emit(emit) = &step.action {
                    let next = kinds.len();
                    emits[at].push(*kinds.entry(&emit.kind).or_insert(next));
                }
            }
        }
        let first_kind = rules.len();
        let first_glob = first_kind + kinds.len();
        let mut edges: Vec<Vec<usize>> =
            emits.into_iter().map(|kinds| kinds.into_iter().map(|kind| first_kind + kind).collect()).collect();
        edges.resize(first_glob, Vec::new());
        for (kind, at) in kinds {
            edges[first_kind + at] = types.find(kind).into_iter().map(|glob| first_glob + glob as usize).collect();
        }
        edges.extend(globs);
        Self { edges }
    }

    /// Groups of nodes that reach each other (Tarjan's algorithm, with its own stack in place of recursion).
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut search = Search {
            order: vec![usize::MAX; self.edges.len()],
            low: vec![usize::MAX; self.edges.len()],
            open: vec![false; self.edges.len()],
            path: Vec::new(),
            next: 0,
            groups: Vec::new(),
        };
        for node in 0..self.edges.len() {
            if search.order[node] == usize::MAX {
                search.from(node, &self.edges);
            }
        }
        search.groups
    }

    /// The shortest way from a node back to it, within a group.
    fn shortest(&self, start: usize, group: &[usize]) -> Option<Vec<usize>> {
        let mut came_from: HashMap<usize, usize> = HashMap::new();
        let inside: std::collections::HashSet<usize> = group.iter().copied().collect();
        let mut waiting = VecDeque::from([start]);
        while let Some(node) = waiting.pop_front() {
            for next in self.edges[node].iter().copied().filter(|next| inside.contains(next)) {
                if next == start {
                    let mut path = vec![start, node];
                    while let Some(before) = path.last().and_then(|last| came_from.get(last)) {
                        path.push(*before);
                    }
                    path.reverse();
                    return Some(path);
                }
                if let std::collections::hash_map::Entry::Vacant(entry) = came_from.entry(next) {
                    entry.insert(node);
                    waiting.push_back(next);
                }
            }
        }
        None
    }
}

struct Search {
    order: Vec<usize>,
    low: Vec<usize>,
    open: Vec<bool>,
    path: Vec<usize>,
    next: usize,
    groups: Vec<Vec<usize>>,
}

impl Search {
    fn from(&mut self, start: usize, edges: &[Vec<usize>]) {
        let mut calls = vec![(start, 0)];
        self.enter(start);
        while let Some((node, edge)) = calls.pop() {
            match edges[node].get(edge).copied() {
                Some(next) => {
                    calls.push((node, edge + 1));
                    if self.order[next] == usize::MAX {
                        self.enter(next);
                        calls.push((next, 0));
                    } else if self.open[next] {
                        self.low[node] = self.low[node].min(self.order[next]);
                    }
                }
                None => {
                    if let Some((parent, _)) = calls.last() {
                        self.low[*parent] = self.low[*parent].min(self.low[node]);
                    }
                    self.leave(node);
                }
            }
        }
    }

    fn enter(&mut self, node: usize) {
        self.order[node] = self.next;
        self.low[node] = self.next;
        self.open[node] = true;
        self.next += 1;
        self.path.push(node);
    }

    fn leave(&mut self, node: usize) {
        if self.low[node] != self.order[node] {
            return;
        }
        let mut group = Vec::new();
        while let Some(member) = self.path.pop() {
            self.open[member] = false;
            group.push(member);
            if member == node {
                break;
            }
        }
        // Rules only reach rules through types and globs, so a group of one is no cycle.
        if group.len() > 1 {
            self.groups.push(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::fixture::rule;

    /// Rules as `name, on, emits, further fields`.
    fn check(rules: &[(&str, &str, &str, &str)], expected: &[&str]) {
        let rules: Vec<Rule> = rules
            .iter()
            .map(|(name, on, emits, more)| {
                rule(&format!("name: {name}\non: '{on}'\nsteps: [{{emit: {emits}}}]\n{more}"))
            })
            .collect();
        let found: Vec<String> = find(&rules).iter().map(|cycle| cycle.rules.join(" ")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn only_what_has_no_condition_is_a_cycle() {
        check(&[("a", "x", "y", ""), ("b", "y", "z", "")], &[]);
        check(&[("a", "x", "x", "")], &["a a"]);
        check(&[("a", "**", "x.y", "")], &["a a"]);
        check(&[("a", "x.*", "x.y.z", "")], &[]);
        check(&[("a", "x", "y", ""), ("b", "y", "x", "")], &["a b a"]);
        check(&[("a", "x", "y", ""), ("b", "y", "z", ""), ("c", "z", "x", ""), ("d", "z", "q", "")], &["a b c a"]);
        // The shortest way is shown, and one for each group.
        check(&[("a", "x", "y", ""), ("b", "y", "x", ""), ("c", "x", "y", "")], &["a b a"]);
        check(&[("a", "x", "x", ""), ("b", "y", "y", ""), ("c", "x", "y", "")], &["a a", "b b"]);
        // A condition anywhere on the way ends it.
        check(&[("a", "x", "y", ""), ("b", "y", "x", "where: data.n < 3")], &[]);
        check(&[("a", "x", "y", "match: {data: {n: [1]}}"), ("b", "y", "x", "")], &[]);
        check(&[("a", "x", "{type: x, when: data.n < 3}", "")], &[]);
        check(&[("a", "x", "x", "enabled: false")], &[]);
    }

    #[test]
    fn many_rules_are_looked_at_quickly() {
        let rules: Vec<Rule> = (0..3_000)
            .map(|at| rule(&format!("name: r{at}\non: '**'\nsteps: [{{emit: t{at}}}, {{emit: u{at}}}]")))
            .collect();
        assert_eq!(find(&rules).len(), 1);
    }

    #[test]
    fn a_cycle_says_which_rules() {
        let cycle = |rules: &[&str]| Cycle { rules: rules.iter().map(ToString::to_string).collect() }.to_string();
        assert_eq!(cycle(&["a", "a"]), "rule `a` emits a type that it is itself `on`, with no condition in between");
        assert_eq!(
            cycle(&["a", "b", "a"]),
            "rules emit each other's types with no condition in between: `a` -> `b` -> `a`"
        );
    }
}
