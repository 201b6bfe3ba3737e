//! Which calls of plugins are recorded, and what becomes of a recording: it goes into the batch's commit.
//!
//! Every call that fails is recorded, whatever it had read by then. Of runs that are done a part is, chosen by the run's
//! id before anything is called, so that their calls get instances of their own; so do retries, which mostly fail again.

use bulkhead_domain::id::RunId;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_domain::recording::Duty;
use bulkhead_domain::recording::Place;
use bulkhead_sandbox::Attempt;
use bulkhead_sandbox::Call;
use bulkhead_sandbox::Record;
use bulkhead_sandbox::Rules;
use bulkhead_sandbox::Session;
use bulkhead_store::recordings::NewRecording;
use bulkhead_store::recordings::Recorder;

use crate::dispatch::batch::Shared;
use crate::tenants::ActivePlugin;

/// Calls of one run of which a recording is kept; a transformer can make a thousand documents of one event.
const CALLS_MAX: usize = 8;

/// What the operator allows.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which part of successful runs is recorded, from 0 to 1, if the manifest asks for no less.
    pub sample: f64,
    /// Bytes of one recording; with 0 nothing is recorded.
    pub bytes: usize,
    /// Recordings of failures that a tenant keeps, and as many of successes.
    pub count_max: u32,
    /// Bytes of each kind.
    pub bytes_max: u64,
}

impl Options {
    /// Nothing is recorded.
    pub const OFF: Self = Self { sample: 0.0, bytes: 0, count_max: 0, bytes_max: 0 };
}

impl Default for Options {
    /// As many as a person looks through; a recording has about 2 KiB beside its event.
    fn default() -> Self {
        Self { sample: 0.01, bytes: 256 << 10, count_max: 250, bytes_max: 8 << 20 }
    }
}

/// What is recorded of one call.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    run: RunId,
    sampled: bool,
    bytes: usize,
    attempt: u32,
}

impl Plan {
    /// For a call of `plugin` in a run.
    #[must_use]
    pub fn new(options: &Options, plugin: &ActivePlugin, run: RunId, attempt: u32) -> Self {
        let bytes = if plugin.recorder.off { 0 } else { options.bytes };
        Self { run, sampled: bytes > 0 && plugin.recorder.samples(run, options.sample), bytes, attempt }
    }

    /// What the sandbox has to keep.
    #[must_use]
    pub fn record(&self) -> Record {
        Record { bytes: self.bytes, fresh: self.bytes > 0 && (self.sampled || self.attempt > 1) }
    }

    /// Whether the call is recorded after all, in a run that has so many recordings.
    #[must_use]
    pub fn wants(&self, outcome: &Outcome, recorded: usize) -> bool {
        match outcome {
            Outcome::Done => self.sampled && recorded < CALLS_MAX,
            // What failed for want of something of the host's own fails otherwise elsewhere.
            Outcome::Failed(failure) | Outcome::Rejected(failure) => {
                self.bytes > 0 && !failure.code.starts_with("host:")
            }
        }
    }
}

/// A call that was made.
pub struct Made<'a> {
    /// By which session.
    pub session: &'a Session,
    /// Of which plugin.
    pub plugin: &'a ActivePlugin,
    /// With what.
    pub call: &'a Call<'a>,
    /// Asking what.
    pub duty: Duty,
    /// At which step, from 0.
    pub step: usize,
    /// With which document there, from 0.
    pub item: usize,
    /// What came of it.
    pub attempt: &'a Attempt,
}

/// Its recording.
#[must_use]
pub fn record(shared: &Shared, plan: Plan, position: bulkhead_domain::id::Position, made: &Made<'_>) -> NewRecording {
    let Made { session, plugin, call, duty, step, item, attempt } = *made;
    let place = Place {
        run: plan.run.to_string(),
        rule: call.rule.to_owned(),
        step,
        item,
        settings: shared.view.tenant.settings,
    };
    let rules = Rules { redact: &plugin.recorder.redact, bytes: plan.bytes };
    let recording = session.record(call, duty, place, attempt, rules);
    let code = match &attempt.outcome {
        Outcome::Done => String::new(),
        Outcome::Failed(failure) | Outcome::Rejected(failure) => failure.code.clone(),
    };
    metrics::counter!("bulkhead_recordings_total", "of" => if code.is_empty() { "success" } else { "failure" })
        .increment(1);
    NewRecording {
        of: Recorder {
            position,
            event: plan.run.event,
            rule: call.rule.to_owned(),
            attempt: call.attempt,
            step: u32::try_from(step).unwrap_or(u32::MAX),
            item: u32::try_from(item).unwrap_or(u32::MAX),
            plugin: plugin.name.clone(),
            version: plugin.version,
            code,
            recorded: shared.now,
        },
        body: serde_json::to_vec(&recording).expect("because a recording is plain data").into(),
    }
}
