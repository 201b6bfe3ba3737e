//! What a store holds: the budget of the instance, and what one call may reach while it runs.

use crate::capability::run::Run;
use crate::limits::Limiter;

use super::handles::Handles;
use super::http::Held;
use super::portable::Cas;
use super::wasi::Timers;

/// The data of a store.
pub(crate) struct Host {
    pub limiter: Limiter,
    pub timers: Timers,
    /// Comparisons that the guest began in this call.
    pub cas: Handles<Cas>,
    /// What it holds of requests and answers in this call.
    pub http: Held,
    run: Option<Run>,
}

impl Host {
    pub(crate) fn new(limiter: Limiter) -> Self {
        Self { limiter, timers: Timers::default(), cas: Handles::default(), http: Held::default(), run: None }
    }

    /// Hands the instance what it may reach in the call that begins.
    pub(crate) fn begin(&mut self, run: Run) {
        self.run = Some(run);
    }

    /// Takes it back when the call is over.
    pub(crate) fn end(&mut self) -> Option<Run> {
        self.cas.clear();
        self.http.clear();
        self.run.take()
    }

    /// What the present call may reach.
    pub(crate) fn run(&mut self) -> &mut Run {
        self.run.as_mut().expect("because guests only run within a call")
    }
}
