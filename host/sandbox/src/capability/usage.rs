//! Costs that only the plugin knows: tokens, pages, cents.

use std::collections::BTreeMap;

use super::Refusal;
use super::check;

/// Different units in one invocation: they become rows of the tenant's statement.
const UNITS_MAX: usize = 16;

/// What one call counted.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    counts: BTreeMap<String, f64>,
}

impl Usage {
    /// Adds to a unit.
    pub(crate) fn count(&mut self, unit: String, amount: f64) -> Result<(), Refusal> {
        check::name("the unit", &unit)?;
        if !amount.is_finite() || amount < 0.0 {
            return Err(Refusal::Invalid(format!("{amount} is no amount: it must be finite and not negative")));
        }
        if !self.counts.contains_key(&unit) && self.counts.len() == UNITS_MAX {
            return Err(Refusal::Limit(format!("more than {UNITS_MAX} units in one run")));
        }
        let count = self.counts.entry(unit).or_default();
        *count = (*count + amount).min(f64::MAX);
        Ok(())
    }

    pub(crate) fn into_counts(self) -> BTreeMap<String, f64> {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_amounts_count() {
        let mut usage = Usage::default();
        assert_eq!(usage.count("tokens".into(), 2.5), Ok(()));
        assert_eq!(usage.count("tokens".into(), 1.0), Ok(()));
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(usage.count("tokens".into(), bad), Err(Refusal::Invalid(_))), "{bad}");
        }
        assert!(usage.count("\n".into(), 1.0).is_err());
        for number in 1..UNITS_MAX {
            assert_eq!(usage.count(format!("unit{number}"), f64::MAX), Ok(()));
        }
        assert!(matches!(usage.count("one-more".into(), 1.0), Err(Refusal::Limit(_))));
        assert_eq!(usage.count("unit1".into(), f64::MAX), Ok(()), "a known unit still counts");
        let counts = usage.into_counts();
        assert_eq!(counts["tokens"].to_bits(), 3.5_f64.to_bits());
        assert!(counts["unit1"].is_finite());
    }
}
