//! Ranges: which of many ranges hold a number, without trying all.
//!
//! Ranges are ordered by their lower end, and above them stands a tree of the greatest upper ends: a half of the
//! ranges whose upper ends are all too low is left out at once.

use crate::rule::expression::Budget;
use crate::rule::expression::Fail;
use crate::rule::index::access::PlanId;
use crate::rule::pattern::test::Range;

/// Many ranges. Ends count as within: the test itself tells.
#[derive(Debug, Default)]
pub struct Ranges {
    /// Lower end, upper end, whose it is; by lower end once settled.
    ranges: Vec<(f64, f64, PlanId)>,
    /// The greatest upper end of the ranges below each node; node `n` has the children `2n` and `2n + 1`.
    greatest: Vec<f64>,
}

impl Ranges {
    /// Adds a range.
    pub fn insert(&mut self, range: &Range, plan: PlanId) {
        let lower = range.above.map_or(f64::NEG_INFINITY, |(end, _)| end);
        let upper = range.below.map_or(f64::INFINITY, |(end, _)| end);
        self.ranges.push((lower, upper, plan));
    }

    /// Puts everything in order. Called once, when all are in.
    pub fn settle(&mut self) {
        self.ranges.sort_by(|one, other| one.0.total_cmp(&other.0));
        let leaves = self.ranges.len().next_power_of_two();
        self.greatest = vec![f64::NEG_INFINITY; leaves * 2];
        for (at, (_, upper, _)) in self.ranges.iter().enumerate() {
            self.greatest[leaves + at] = *upper;
        }
        for node in (1..leaves).rev() {
            self.greatest[node] = self.greatest[node * 2].max(self.greatest[node * 2 + 1]);
        }
    }

    /// Adds whose ranges hold the number.
    pub fn find(&self, number: f64, found: &mut Vec<PlanId>, budget: &mut Budget) -> Result<(), Fail> {
        let begun = self.ranges.partition_point(|(lower, ..)| *lower <= number);
        if begun == 0 { Ok(()) } else { self.below(1, 0, self.greatest.len() / 2, begun, number, found, budget) }
    }

    /// The node of `width` ranges from `start`, of which those before `begun` have begun.
    #[expect(clippy::too_many_arguments, reason = "a walk down a tree carries where it is and what it looks for")]
    fn below(
        &self,
        node: usize,
        start: usize,
        width: usize,
        begun: usize,
        number: f64,
        found: &mut Vec<PlanId>,
        budget: &mut Budget,
    ) -> Result<(), Fail> {
        if start >= begun || self.greatest[node] < number {
            return Ok(());
        }
        if width == 1 {
            budget.take(1)?;
            found.push(self.ranges[start].2);
            return Ok(());
        }
        let half = width / 2;
        self.below(node * 2, start, half, begun, number, found, budget)?;
        self.below(node * 2 + 1, start + half, half, begun, number, found, budget)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_one_by_one(ends in prop::collection::vec((-5..5_i8, -5..5_i8, 0..4_u8), 0..20), number in -6..6_i8) {
            let number = f64::from(number);
            let mut ranges = Ranges::default();
            let mut expected = Vec::new();
            for (at, (one, other, open)) in ends.into_iter().enumerate() {
                let (lower, upper) = (f64::from(one.min(other)), f64::from(one.max(other)));
                let range = Range {
                    above: (open & 1 == 0).then_some((lower, true)),
                    below: (open & 2 == 0).then_some((upper, true)),
                };
                let plan = PlanId::try_from(at).expect("because there are few");
                ranges.insert(&range, plan);
                if range.contains(number) {
                    expected.push(plan);
                }
            }
            ranges.settle();
            let mut found = Vec::new();
            ranges.find(number, &mut found, &mut Budget::default()).expect("because there are few");
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
