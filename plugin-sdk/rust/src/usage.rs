//! Costs that only the plugin knows; they appear on the tenant's usage statement.

use crate::port;
use crate::refusal::Refusal;

/// Counts an amount of a unit: tokens, pages, cents.
pub fn count(unit: &str, amount: f64) -> Result<(), Refusal> {
    port::count(unit, amount)
}
