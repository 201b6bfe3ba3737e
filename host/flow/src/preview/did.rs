//! How a run went with one version, for comparing it with another; nothing comes of it.

use bulkhead_domain::comparison;
use bulkhead_domain::effect::Effect;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::policy::rollout::Counts;
use bulkhead_domain::policy::verdict::Outcome;

use crate::dispatch::pipeline::Ran;

/// How a run went.
pub struct Did {
    outcome: Outcome,
    effects: Vec<Effect>,
    writes: Vec<StateWrite>,
    /// What it came to in the plugin that is compared.
    pub counts: Counts,
}

impl Did {
    /// Of a run, with what it wrote to its state.
    #[must_use]
    pub fn new(ran: &Ran, plugin: &str, writes: Vec<StateWrite>) -> Self {
        let done = ran.outcome == Outcome::Done;
        let used = ran.used.get(plugin).cloned().unwrap_or_default();
        let effects = ran.effects.iter().map(|(_, effect)| effect.clone()).collect();
        // What is left of a failed run's steps never was.
        let writes = if done { writes } else { Vec::new() };
        Self { outcome: ran.outcome.clone(), effects, writes, counts: Counts::of(!done, used.fuel, used.duration) }
    }

    /// What is compared.
    #[must_use]
    pub fn ended(&self) -> comparison::Ended<'_> {
        comparison::Ended { outcome: &self.outcome, effects: &self.effects, writes: &self.writes }
    }
}
