//! Access: how the patterns that may be met by an event are found among all.
//!
//! Every alternative of every pattern is filed once, under what is rarest in it: a text that its field must be, a
//! prefix, a range, or the type of the event. An event looks up what it is, and only what it finds is held against
//! it as a whole. So the work depends on the event and on what may match it, not on how many rules there are.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::rule::expression::Budget;
use crate::rule::expression::Fail;
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
    fields: HashMap<Place, Field>,
}

type ByText = HashMap<Box<str>, Vec<PlanId>>;

/// What alternatives are filed under, for one field.
#[derive(Debug, Default)]
struct Field {
    texts: ByText,
    numbers: HashMap<u64, Vec<PlanId>>,
    truths: [Vec<PlanId>; 2],
    nulls: Vec<PlanId>,
    /// By length, so that each length is looked up once.
    prefixes: Vec<(usize, ByText)>,
    suffixes: Vec<(usize, ByText)>,
    folded: ByText,
    /// Ranges with a lower end, by it; and those with an upper end only.
    above: Vec<(f64, PlanId)>,
    below: Vec<(f64, PlanId)>,
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
    /// How much worse than an equal value it is at telling events apart, per alternative filed under it.
    pub const fn weight(&self) -> usize {
        match self {
            Self::Text(_) | Self::Number(_) | Self::Folded(_) => 1,
            Self::Prefix(_) | Self::Suffix(_) => 2,
            Self::Bool(_) | Self::Null | Self::Range => 4,
            Self::Present => 16,
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
        let field = self.fields.entry(place).or_default();
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
                    Test::Numeric(range) => match (range.above, range.below) {
                        (Some((end, _)), _) => field.above.push((end, plan)),
                        (None, Some((end, _))) => field.below.push((end, plan)),
                        (None, None) => field.present.push(plan),
                    },
                    _ => field.present.push(plan),
                },
                Key::Present => field.present.push(plan),
            }
        }
    }

    /// Puts everything in order. Called once, when all are filed.
    pub fn settle(&mut self) {
        for field in self.fields.values_mut() {
            field.above.sort_by(|one, other| one.0.total_cmp(&other.0));
            field.below.sort_by(|one, other| one.0.total_cmp(&other.0));
        }
    }

    /// The alternatives that the event may meet, each once.
    pub fn find(&self, tree: &Tree<'_>, budget: &mut Budget) -> Result<Vec<PlanId>, Fail> {
        let mut finding =
            Finding { access: self, found: Vec::new(), lists: HashSet::new(), ranges: HashMap::new(), budget };
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
            lengths.push((text.len(), HashMap::new()));
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
    /// Within arrays: how much of the ranges of a field was taken already, from the start and from the end.
    ranges: HashMap<Place, (usize, usize)>,
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
        if let Some(field) = access.fields.get(&place) {
            self.take(&field.present, within_array)?;
            self.scalar(place, field, value, within_array)?;
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

    fn scalar(&mut self, place: Place, field: &Field, value: &Tree<'_>, within_array: bool) -> Result<(), Fail> {
        match value {
            Tree::Null => self.take(&field.nulls, within_array),
            Tree::Bool(bool) => self.take(&field.truths[usize::from(*bool)], within_array),
            Tree::Text(text) => self.text(field, text, within_array),
            Tree::Number(number) => {
                if let Some(plans) = field.numbers.get(&bits(*number)) {
                    self.take(plans, within_array)?;
                }
                self.take_ranges(place, field, *number, within_array)
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

    /// Takes the ranges whose lower end is below the number, and those whose upper end is above it.
    fn take_ranges(&mut self, place: Place, field: &Field, number: f64, within_array: bool) -> Result<(), Fail> {
        let above = field.above.partition_point(|(end, _)| *end <= number);
        let below = field.below.partition_point(|(end, _)| *end < number);
        let mut taken = (0, field.below.len());
        if within_array {
            let known = self.ranges.entry(place).or_insert(taken);
            taken = *known;
            *known = (known.0.max(above), known.1.min(below));
        }
        let above = field.above.get(taken.0..above).unwrap_or_default();
        let below = field.below.get(below..taken.1).unwrap_or_default();
        self.budget.take((above.len() + below.len()) / 4)?;
        self.found.extend(above.iter().chain(below).map(|(_, plan)| *plan));
        Ok(())
    }
}
