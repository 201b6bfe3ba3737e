//! Types: which globs of `on` fit a type, found without trying them one by one.
//!
//! Exact names are hashed. Globs with stars are a tree of segments; what follows a `**` is a second tree that is
//! walked from the end of the name, so that `**` need not be tried at every length.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::rule::glob::Glob;
use crate::rule::glob::Segment;

/// The number of a glob. The same text has the same number.
pub type GlobId = u32;

/// Numbered globs.
#[derive(Debug, Default)]
pub struct Types {
    ids: HashMap<String, GlobId>,
    exact: HashMap<String, GlobId, RandomState>,
    branches: Vec<Branch>,
}

#[derive(Debug, Default)]
struct Branch {
    exact: HashMap<Box<str>, usize, RandomState>,
    one: Option<usize>,
    /// Where the tree of what follows a `**` starts.
    any: Option<usize>,
    end: Option<GlobId>,
}

impl Types {
    /// Adds a glob and gives its number.
    pub fn insert(&mut self, glob: &Glob) -> GlobId {
        let text = glob.text();
        if let Some(id) = self.ids.get(&text) {
            return *id;
        }
        let id = GlobId::try_from(self.ids.len()).unwrap_or(GlobId::MAX);
        self.ids.insert(text.clone(), id);
        match glob.exact() {
            Some(name) => {
                self.exact.insert(name, id);
            }
            None => self.insert_branches(glob.segments(), id),
        }
        id
    }

    fn insert_branches(&mut self, segments: &[Segment], id: GlobId) {
        if self.branches.is_empty() {
            self.branches.push(Branch::default());
        }
        let mut at = 0;
        let any = segments.iter().position(|segment| *segment == Segment::Any);
        for segment in &segments[..any.unwrap_or(segments.len())] {
            at = self.follow(at, segment);
        }
        if let Some(any) = any {
            at = self.follow(at, &Segment::Any);
            for segment in segments[any + 1..].iter().rev() {
                at = self.follow(at, segment);
            }
        }
        self.branches[at].end = Some(id);
    }

    /// The branch below `at` for a segment, made if need be.
    fn follow(&mut self, at: usize, segment: &Segment) -> usize {
        let new = self.branches.len();
        let branch = &mut self.branches[at];
        let next = match segment {
            Segment::Exact(name) => *branch.exact.entry(name.as_str().into()).or_insert(new),
            Segment::One => *branch.one.get_or_insert(new),
            Segment::Any => *branch.any.get_or_insert(new),
        };
        if next == new {
            self.branches.push(Branch::default());
        }
        next
    }

    /// How many globs there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The numbers of all globs that fit `kind`, ascending.
    pub fn find(&self, kind: &str) -> Vec<GlobId> {
        let mut found: Vec<GlobId> = self.exact.get(kind).copied().into_iter().collect();
        if !self.branches.is_empty() {
            let names: Vec<&str> = kind.split('.').collect();
            self.walk(0, &names, &mut found);
            found.sort_unstable();
        }
        found
    }

    fn walk(&self, at: usize, names: &[&str], found: &mut Vec<GlobId>) {
        let branch = &self.branches[at];
        if let Some(any) = branch.any {
            self.walk_back(any, names, found);
        }
        let Some((first, rest)) = names.split_first() else {
            found.extend(branch.end);
            return;
        };
        for next in [branch.exact.get(*first).copied(), branch.one].into_iter().flatten() {
            self.walk(next, rest, found);
        }
    }

    /// After a `**`: from the end of the name, and whatever is left over is the `**`'s.
    fn walk_back(&self, at: usize, names: &[&str], found: &mut Vec<GlobId>) {
        let branch = &self.branches[at];
        found.extend(branch.end);
        let Some((last, rest)) = names.split_last() else { return };
        for next in [branch.exact.get(*last).copied(), branch.one].into_iter().flatten() {
            self.walk_back(next, rest, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment() -> impl Strategy<Value = String> {
        prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("*".to_owned()), Just("**".to_owned())]
    }

    proptest! {
        /// The tree finds exactly the globs that fit.
        #[test]
        fn as_one_by_one(
            globs in prop::collection::vec(prop::collection::vec(segment(), 1..5), 1..30),
            kind in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..6),
        ) {
            let kind = kind.join(".");
            let globs: Vec<Glob> = globs.iter().filter_map(|glob| Glob::parse(&glob.join(".")).ok()).collect();
            let mut types = Types::default();
            let ids: Vec<GlobId> = globs.iter().map(|glob| types.insert(glob)).collect();
            let found = types.find(&kind);
            for (glob, id) in globs.iter().zip(ids) {
                prop_assert_eq!(glob.matches(&kind), found.contains(&id), "{} ~ {}", glob.text(), &kind);
            }
            prop_assert!(found.is_sorted_by(|one, other| one < other));
        }
    }
}
