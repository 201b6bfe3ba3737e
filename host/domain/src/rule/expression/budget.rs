//! The budget: how much work one evaluation may be.

use crate::rule::expression::Fail;

/// Steps of one expression. A step is a node evaluated, an element visited, or [`STEP_BYTES`] bytes touched; the
/// dearest measured is some 50 ns, so an expression ends within some 10 ms whatever the event holds. An ordinary
/// condition takes about ten steps.
pub const EXPRESSION_STEPS: u64 = 200_000;

/// How many bytes of text are a step.
pub const STEP_BYTES: usize = 32;

/// Steps that are left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    left: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(EXPRESSION_STEPS)
    }
}

impl Budget {
    /// This many steps.
    #[must_use]
    pub const fn new(steps: u64) -> Self {
        Self { left: steps }
    }

    /// How many are left.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// Takes steps, or fails if there are not as many.
    #[inline]
    pub fn take(&mut self, steps: usize) -> Result<(), Fail> {
        match self.left.checked_sub(steps as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(Fail::OverBudget)
            }
        }
    }

    /// Takes the steps for going over this many bytes.
    #[inline]
    pub fn take_bytes(&mut self, bytes: usize) -> Result<(), Fail> {
        self.take(bytes / STEP_BYTES)
    }
}
