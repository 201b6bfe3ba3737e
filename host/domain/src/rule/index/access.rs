//! Access: how the patterns that may be met by an event are found among all.
//!
//! Every alternative of every pattern is filed once, under what is rarest in it: a text that its field must be, a
//! prefix, a range, or the type of the event. An event looks up what it is, and only what it finds is held against
//! it as a whole. So the work depends on the event and on what may match it, not on how many rules there are.

use std::collections::HashMap;
use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::rule::expression::Budget;
use crate::rule::expression::Fail;
use crate::rule::index::ranges::Ranges;
use crate::rule::pattern::Leaf;
use crate::rule::pattern::shape::Place;
use crate::rule::pattern::test::Test;
use crate::rule::pattern::test::fold;
use crate::rule::pattern::tree::Tree;

/// The number of an alternative.
pub type PlanId = u32;

/// What alternatives are filed under, for all fields.
#[derive(Debug, Default)]
pub struct Access {
    /// By place; nothing where nothing is filed.
    fields: Vec<Option<Box<Field>>>,
}

type ByText = HashMap<Box<str>, Vec<PlanId>, RandomState>;

/// What alternatives are filed under, for one field.
#[derive(Debug, Default)]
struct Field {
    texts: ByText,
    numbers: HashMap<u64, Vec<PlanId>, RandomState>,
    truths: [Vec<PlanId>; 2],
    nulls: Vec<PlanId>,
    /// By length, so that each length is looked up once.
    prefixes: Vec<(usize, ByText)>,
    suffixes: Vec<(usize, ByText)>,
    folded: ByText,
    ranges: Ranges,
    /// What can only be said to need some value.
    present: Vec<PlanId>,
}

/// A key that a test is filed under. Used to count first, and to file then.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    Text(String),
    Number(u64),
    Bool(bool),
    Null,
    Prefix(String),
    Suffix(String),
    Folded(String),
    Range,
    Present,
}

impl Key {
    /// How many of those filed under it an event that has the field finds, in quarters.
    pub const fn weight(&self) -> usize {
        match self {
            Self::Range => 1,
            _ => 4,
        }
    }
}

/// The keys of a leaf, one for each test; none if it may be met by an event that has no such field.
pub fn keys(leaf: &Leaf) -> Option<Vec<Key>> {
    let key = |test: &Test| match test {
        Test::Text(text) => Some(Key::Text(text.clone())),
        Test::Number(number) => Some(Key::Number(bits(*number))),
        Test::Bool(bool) => Some(Key::Bool(*bool)),
        Test::Null => Some(Key::Null),
        Test::Prefix(prefix) => Some(Key::Prefix(prefix.clone())),
        Test::Suffix(suffix) => Some(Key::Suffix(suffix.clone())),
        Test::IgnoreCase(folded) => Some(Key::Folded(folded.clone())),
        Test::Wildcard(pieces) => match pieces.as_slice() {
            [first, ..] if !first.is_empty() => Some(Key::Prefix(first.clone())),
            [.., last] if !last.is_empty() => Some(Key::Suffix(last.clone())),
            _ => Some(Key::Present),
        },
        Test::Numeric(_) => Some(Key::Range),
        Test::AnythingBut(_) | Test::Exists(true) => Some(Key::Present),
        Test::Exists(false) => None,
    };
    leaf.tests.iter().map(key).collect()
}

/// Equal numbers have equal bits, but for the two zeros.
fn bits(number: f64) -> u64 {
    if number == 0.0 { 0 } else { number.to_bits() }
}

impl Access {
    /// Files an alternative under the tests of one of its leaves.
    pub fn file(&mut self, plan: PlanId, leaf: &Leaf, keys: &[Key], place: Place) {
        let place = place as usize;
        if self.fields.len() <= place {
            self.fields.resize_with(place + 1, || None);
        }
        let field = self.fields[place].get_or_insert_default();
        for (key, test) in keys.iter().zip(&leaf.tests) {
            match key {
                Key::Text(text) => field.texts.entry(text.as_str().into()).or_default().push(plan),
                Key::Number(number) => field.numbers.entry(*number).or_default().push(plan),
                Key::Bool(bool) => field.truths[usize::from(*bool)].push(plan),
                Key::Null => field.nulls.push(plan),
                Key::Prefix(prefix) => by_length(&mut field.prefixes, prefix).push(plan),
                Key::Suffix(suffix) => by_length(&mut field.suffixes, suffix).push(plan),
                Key::Folded(folded) => field.folded.entry(folded.as_str().into()).or_default().push(plan),
                Key::Range => match test {
                    Test::Numeric(range) => field.ranges.insert(range, plan),
                    _ => field.present.push(plan),
                },
                Key::Present => field.present.push(plan),
            }
        }
    }

    /// Puts everything in order. Called once, when all are filed.
    pub fn settle(&mut self) {
        for field in self.fields.iter_mut().flatten() {
            field.ranges.settle();
        }
    }

    /// The alternatives that the event may meet, each once.
    pub fn find(&self, tree: &Tree<'_>, budget: &mut Budget) -> Result<Vec<PlanId>, Fail> {
        let mut finding = Finding { access: self, found: Vec::new(), lists: HashSet::new(), budget };
        if !self.fields.is_empty() {
            finding.fields(tree, false)?;
        }
        let mut found = finding.found;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

fn by_length<'f>(lengths: &'f mut Vec<(usize, ByText)>, text: &str) -> &'f mut Vec<PlanId> {
    let at = match lengths.iter().position(|(length, _)| *length == text.len()) {
        Some(at) => at,
        None => {
            lengths.push((text.len(), HashMap::default()));
            lengths.len() - 1
        }
    };
    lengths[at].1.entry(text.into()).or_default()
}

/// One search.
struct Finding<'a, 'b> {
    access: &'a Access,
    found: Vec<PlanId>,
    /// Within arrays: the lists that were taken already, because an array may hold the same value a thousand times.
    lists: HashSet<*const PlanId>,
    budget: &'b mut Budget,
}

impl Finding<'_, '_> {
    fn fields(&mut self, tree: &Tree<'_>, within_array: bool) -> Result<(), Fail> {
        let Tree::Map(fields) = tree else { return Ok(()) };
        for (place, value) in fields {
            self.value(*place, value, within_array)?;
        }
        Ok(())
    }

    fn value(&mut self, place: Place, value: &Tree<'_>, within_array: bool) -> Result<(), Fail> {
        self.budget.take(1)?;
        let access = self.access;
        if let Some(Some(field)) = access.fields.get(place as usize) {
            self.take(&field.present, within_array)?;
            self.scalar(field, value, within_array)?;
        }
        match value {
            Tree::List(elements) => {
                for element in elements {
                    self.value(place, element, true)?;
                }
                Ok(())
            }
            other => self.fields(other, within_array),
        }
    }

    fn scalar(&mut self, field: &Field, value: &Tree<'_>, within_array: bool) -> Result<(), Fail> {
        match value {
            Tree::Null => self.take(&field.nulls, within_array),
            Tree::Bool(bool) => self.take(&field.truths[usize::from(*bool)], within_array),
            Tree::Text(text) => self.text(field, text, within_array),
            Tree::Number(number) => {
                if let Some(plans) = field.numbers.get(&bits(*number)) {
                    self.take(plans, within_array)?;
                }
                field.ranges.find(*number, &mut self.found, self.budget)
            }
            Tree::List(_) | Tree::Map(_) => Ok(()),
        }
    }

    fn text(&mut self, field: &Field, text: &str, within_array: bool) -> Result<(), Fail> {
        if !field.texts.is_empty() {
            self.budget.take_bytes(text.len())?;
            if let Some(plans) = field.texts.get(text) {
                self.take(plans, within_array)?;
            }
        }
        for (length, prefixes) in &field.prefixes {
            self.budget.take(1)?;
            if let Some(plans) = text.get(..*length).and_then(|start| prefixes.get(start)) {
                self.take(plans, within_array)?;
            }
        }
        for (length, suffixes) in &field.suffixes {
            self.budget.take(1)?;
            let end = text.len().checked_sub(*length).and_then(|start| text.get(start..));
            if let Some(plans) = end.and_then(|end| suffixes.get(end)) {
                self.take(plans, within_array)?;
            }
        }
        if !field.folded.is_empty() {
            self.budget.take_bytes(text.len() * 4)?;
            if let Some(plans) = field.folded.get(fold(text).as_str()) {
                self.take(plans, within_array)?;
            }
        }
        Ok(())
    }

    /// Takes a list; within arrays only once.
    fn take(&mut self, plans: &[PlanId], within_array: bool) -> Result<(), Fail> {
        if plans.is_empty() || (within_array && !self.lists.insert(plans.as_ptr())) {
            return Ok(());
        }
        self.budget.take(plans.len() / 4)?;
        self.found.extend_from_slice(plans);
        Ok(())
    }
}
