//! One call: its capabilities side by side, and the watch over it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::effect::Effect;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::recording::Read;

use super::Stop;
use super::clock::Clock;
use super::context::Context;
use super::effects::Effects;
use super::http::Http;
use super::log::Log;
use super::random::Random;
use super::redact::Redactor;
use super::state::State;
use super::tape::Tape;
use super::usage::Usage;
use crate::outbound::Outbound;
use crate::port::Call;
use crate::port::Setup;
use crate::port::StateReader;

/// What one call may reach. Made anew for each call; nothing of it outlives the call.
pub(crate) struct Run {
    pub setup: Arc<Setup>,
    pub redactor: Arc<Redactor>,
    pub context: Context,
    pub effects: Effects,
    pub state: State,
    pub log: Log,
    pub usage: Usage,
    pub random: Random,
    pub clock: Clock,
    pub http: Http,
    pub watch: Watch,
    /// What is read is kept here, if anything is to be kept.
    pub tape: Option<Arc<Tape>>,
}

impl Run {
    pub(crate) fn begin(
        setup: &Arc<Setup>,
        redactor: &Arc<Redactor>,
        call: &Call<'_>,
        way: Option<Arc<dyn Outbound>>,
        started: Instant,
    ) -> Self {
        let tape = (call.record.bytes > 0).then(|| Arc::new(Tape::new(Arc::clone(call.state), call.record.bytes)));
        let reader: Arc<dyn StateReader> = match &tape {
            Some(tape) => Arc::<Tape>::clone(tape),
            None => Arc::clone(call.state),
        };
        Self {
            context: Context::new(call.rule, call.attempt, call.event.data.clone(), call.event.is_json()),
            effects: Effects::new(call.seed, call.first_ordinal, call.now),
            state: State::new(setup.plugin, call.now, reader),
            log: Log::default(),
            usage: Usage::default(),
            random: Random::new(call.seed, call.attempt),
            clock: Clock::new(call.now),
            http: Http::new(way, call.seed),
            watch: Watch::begin(&setup.limits, Arc::clone(call.cancelled), started),
            setup: Arc::clone(setup),
            redactor: Arc::clone(redactor),
            tape,
        }
    }

    /// To be called at the entry of every host function.
    pub(crate) fn enter(&mut self) -> Result<(), Stop> {
        self.watch.count(self.setup.limits.host_calls)
    }

    /// Keeps something that was read, if anything is kept.
    pub(crate) fn keep(&self, read: impl FnOnce() -> Read) {
        if let Some(tape) = &self.tape {
            tape.keep(read());
        }
    }

    /// What it wants to happen, state writes last, and the ordinals taken.
    pub(crate) fn into_effects(effects: Effects, state: State) -> (Vec<Effect>, usize) {
        let (mut list, ordinals) = effects.into_parts();
        list.extend(state.into_writes().map(Effect::State));
        (list, ordinals)
    }
}

/// Ends a call that takes too long, calls too often, or is not wanted any more.
#[derive(Debug)]
pub(crate) struct Watch {
    started: Instant,
    time: Duration,
    paused: Duration,
    cancelled: Arc<AtomicBool>,
    host_calls: u32,
}

impl Watch {
    fn begin(limits: &Limits, cancelled: Arc<AtomicBool>, started: Instant) -> Self {
        Self { started, time: limits.time, paused: Duration::ZERO, cancelled, host_calls: 0 }
    }

    /// Calls into the host so far.
    pub(crate) fn host_calls(&self) -> u32 {
        self.host_calls
    }

    fn count(&mut self, limit: u32) -> Result<(), Stop> {
        if self.host_calls >= limit {
            return Err(Stop::HostCalls(limit));
        }
        self.host_calls += 1;
        Ok(())
    }

    /// So much of the time since the beginning was spent in waiting for others, and is not counted.
    pub(crate) fn pause(&mut self, paused: Duration) {
        self.paused = paused;
    }

    /// Looked at while the guest waits.
    pub(crate) fn check_cancelled(&self) -> Result<(), Stop> {
        if self.cancelled.load(Ordering::Relaxed) { Err(Stop::Cancelled) } else { Ok(()) }
    }

    /// Looked at on every tick while the guest runs, and after whatever may have blocked.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        self.check_cancelled()?;
        if self.started.elapsed().saturating_sub(self.paused) >= self.time {
            return Err(Stop::Wall(self.time));
        }
        Ok(())
    }
}
