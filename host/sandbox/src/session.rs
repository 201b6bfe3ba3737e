//! The calls of one batch to one plugin of one tenant.
//!
//! A session holds at most one instance. It makes it at the first call, gives it a fresh [`Run`] for each call, and
//! throws it away after anything but an orderly return: an instance that trapped, ran out of something or was
//! cancelled in the middle is never called again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::effect::Level;
use bulkhead_domain::event::Draft;
use bulkhead_domain::policy::limits::InstancePolicy;
use bulkhead_domain::policy::verdict::Failure;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_domain::recording::Duty;
use bulkhead_domain::recording::Place;
use bulkhead_domain::recording::Recording;
use wasmtime::Engine;
use wasmtime::Store;
use wasmtime::UpdateDeadline;

use crate::abi::host::Host;
use crate::abi::outcome;
use crate::abi::v0;
use crate::abi::v0::Verdict;
use crate::abi::v0::handler;
use crate::abi::v0::transformer;
use crate::capability::Refusal;
use crate::capability::check;
use crate::capability::random::Purpose;
use crate::capability::redact::Redactor;
use crate::capability::redact::escape;
use crate::capability::run::Run;
use crate::limits::HANDLES;
use crate::limits::Limiter;
use crate::limits::crossing;
use crate::outbound::Outbound;
use crate::plugin::Plugin;
use crate::port::Attempt;
use crate::port::Call;
use crate::port::Reads;
use crate::port::Setup;
use crate::recorder;

/// Calls that one instance serves: what leaks in a guest, leaks only for so long.
const CALLS_MAX: u32 = 1_000;
/// How long one instance serves.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Bytes of a reason that a guest gives.
const REASON_MAX: usize = 2 << 10;

/// Calls one plugin, with an instance that lives as long as the policy says. Never share it between tenants.
pub struct Session {
    engine: Engine,
    plugin: Plugin,
    setup: Arc<Setup>,
    redactor: Arc<Redactor>,
    way: Option<Arc<dyn Outbound>>,
    instance: Option<Instance>,
}

/// An instance that returned in order from every call so far.
struct Instance {
    store: Store<Host>,
    handler: Option<handler::Guest>,
    transformer: Option<transformer::Guest>,
    calls: u32,
    born: Instant,
}

/// What the guest gave back.
type Returned = Result<Vec<Draft>, v0::Failure>;

impl Session {
    pub(crate) fn new(engine: Engine, plugin: Plugin, setup: Arc<Setup>, way: Option<Arc<dyn Outbound>>) -> Self {
        let redactor = Arc::new(Redactor::new(&setup));
        Self { engine, plugin, setup, redactor, way, instance: None }
    }

    /// Takes new settings for the calls that follow (a warm session outlives a batch). The tenant and the plugin
    /// stay the same.
    pub fn renew(&mut self, setup: Arc<Setup>) {
        if setup.plugin != self.setup.plugin || setup.limits != self.setup.limits {
            self.instance = None;
        }
        self.redactor = Arc::new(Redactor::new(&setup));
        self.setup = setup;
    }

    /// Lets the plugin act on the event.
    pub fn handle(&mut self, call: &Call<'_>) -> Attempt {
        self.call(call, Duty::Handle)
    }

    /// Lets the plugin turn the event into others.
    pub fn transform(&mut self, call: &Call<'_>) -> Attempt {
        self.call(call, Duty::Transform)
    }

    /// A recording of a call that this session has just made, with what came of it. Nothing that `rules` or a secret
    /// forbids is in it.
    #[must_use]
    pub fn record(
        &self,
        call: &Call<'_>,
        duty: Duty,
        place: Place,
        attempt: &Attempt,
        rules: recorder::Rules<'_>,
    ) -> Recording {
        let made = recorder::Made { setup: &self.setup, digest: self.plugin.digest(), call, duty, place, attempt };
        recorder::record(made, &self.redactor, rules)
    }

    /// Lets the plugin do what it is asked to.
    pub fn call(&mut self, call: &Call<'_>, duty: Duty) -> Attempt {
        let started = Instant::now();
        if call.record.fresh
            || self.setup.policy == InstancePolicy::Event
            || self.instance.as_ref().is_some_and(|instance| instance.is_worn(started))
        {
            self.instance = None;
        }
        let instantiated = self.instance.is_none();
        let run = Run::begin(&self.setup, &self.redactor, call, self.way.clone(), started);
        // Taken out: unless it comes back in order, it is dropped.
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => Instance::bare(&self.engine, &self.setup, started),
        };
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
            instance.arm(&self.setup, run);
            if instantiated {
                instance.instantiate(&self.plugin)?;
            }
            instance.serve(call, duty)
        }));
        let fuel = self.setup.limits.fuel.saturating_sub(instance.store.get_fuel().unwrap_or_default());
        let memory = instance.store.data().limiter.memory();
        let mut run = instance.store.data_mut().end();
        if let Some(Run { log, setup, redactor, .. }) = &mut run {
            log.flush(&setup.limits, redactor);
        }
        let returned = match result {
            Ok(Ok(returned)) => Ok(returned),
            Ok(Err(error)) => Err(outcome::failure(&error, run.as_ref(), &mut instance.store.data_mut().limiter)),
            Err(panic) => {
                tracing::error!(plugin = %self.plugin.digest(), panic = text_of(&*panic), "a host function panicked");
                Err(outcome::panicked())
            }
        };
        if returned.is_ok() && self.setup.policy != InstancePolicy::Event {
            self.instance = Some(instance);
        }
        let mut attempt = conclude(&self.setup, run, returned);
        attempt.fuel = fuel;
        attempt.memory = memory;
        attempt.instantiated = instantiated;
        attempt.duration = started.elapsed();
        attempt
    }
}

impl Instance {
    /// A store with its limits and nothing in it yet.
    fn bare(engine: &Engine, setup: &Setup, now: Instant) -> Self {
        let limiter = Limiter::new(setup.limits.memory, setup.limits.table_elements);
        let mut store = Store::new(engine, Host::new(limiter));
        store.limiter(|host| &mut host.limiter);
        store.set_hostcall_fuel(crossing(&setup.limits));
        store.set_max_component_handles(HANDLES);
        store.epoch_deadline_callback(|mut context| {
            context.data_mut().run().watch.check()?;
            Ok(UpdateDeadline::Continue(1))
        });
        Self { store, handler: None, transformer: None, calls: 0, born: now }
    }

    fn is_worn(&self, now: Instant) -> bool {
        self.calls >= CALLS_MAX || now.duration_since(self.born) >= AGE_MAX
    }

    /// Sets what bounds the call, before anything of the guest runs: a start section can loop, too.
    fn arm(&mut self, setup: &Setup, run: Run) {
        self.store.data_mut().begin(run);
        self.store.set_fuel(setup.limits.fuel).expect("because the engine counts fuel");
        self.store.set_epoch_deadline(1);
    }

    fn instantiate(&mut self, plugin: &Plugin) -> wasmtime::Result<()> {
        self.store.data_mut().run().random.begin(Purpose::Instance);
        let instance = plugin.instance().instantiate(&mut self.store)?;
        self.handler = plugin.handler().map(|guest| guest.load(&mut self.store, &instance)).transpose()?;
        self.transformer = plugin.transformer().map(|guest| guest.load(&mut self.store, &instance)).transpose()?;
        self.store.data_mut().run().random.begin(Purpose::Call);
        Ok(())
    }

    fn serve(&mut self, call: &Call<'_>, duty: Duty) -> wasmtime::Result<Returned> {
        self.calls += 1;
        let attributes = v0::attributes(call.event);
        let event = v0::event(call.event, &attributes);
        match (duty, &self.handler, &self.transformer) {
            (Duty::Handle, Some(guest), _) => Ok(guest.call_handle(&mut self.store, event)?.map(|()| Vec::new())),
            (Duty::Transform, _, Some(guest)) => {
                let drafts = guest.call_transform(&mut self.store, event)?;
                Ok(drafts.map(|drafts| drafts.into_iter().map(Draft::from).collect()))
            }
            // Rules are checked against a plugin's exports when they are saved; this is for a plugin that lost one.
            (duty, ..) => Ok(Err(v0::Failure {
                verdict: Verdict::Reject,
                reason: format!("the plugin has no {}", if duty == Duty::Handle { "handler" } else { "transformer" }),
                after_ms: None,
                attributes: Vec::new(),
            })),
        }
    }
}

/// What comes out of a call that ended in this way.
fn conclude(setup: &Setup, run: Option<Run>, returned: Result<Returned, Failure>) -> Attempt {
    let mut attempt = Attempt {
        outcome: Outcome::Done,
        drafts: Vec::new(),
        effects: Vec::new(),
        ordinals: 0,
        logs: Vec::new(),
        logs_dropped: 0,
        usage: std::collections::BTreeMap::new(),
        fuel: 0,
        duration: Duration::ZERO,
        memory: 0,
        host_calls: 0,
        instantiated: false,
        reads: Reads::default(),
    };
    let Some(Run { redactor, effects, state, mut log, usage, watch, tape, .. }) = run else {
        attempt.outcome = Outcome::Failed(returned.err().unwrap_or_else(outcome::panicked));
        return attempt;
    };
    attempt.outcome = match returned {
        Err(failure) => Outcome::Failed(failure),
        Ok(Err(failure)) => {
            if !failure.attributes.is_empty() {
                log.write(&setup.limits, &redactor, Level::Error, &failure.reason, &failure.attributes);
            }
            refused_by_guest(failure, &redactor)
        }
        Ok(Ok(drafts)) => match check_drafts(setup, &drafts) {
            Ok(()) => {
                attempt.drafts = drafts;
                (attempt.effects, attempt.ordinals) = Run::into_effects(effects, state);
                Outcome::Done
            }
            Err(failure) => Outcome::Rejected(failure),
        },
    };
    attempt.host_calls = watch.host_calls();
    attempt.reads = tape.map(|tape| tape.take()).unwrap_or_default();
    attempt.usage = usage.into_counts();
    (attempt.logs, attempt.logs_dropped) = log.into_parts();
    attempt
}

/// The guest's own verdict.
fn refused_by_guest(failure: v0::Failure, redactor: &Redactor) -> Outcome {
    let reason = escape(&redactor.redact(&failure.reason), REASON_MAX);
    let after = failure.after_ms.map(Duration::from_millis);
    match failure.verdict {
        Verdict::Retry => Outcome::Failed(Failure { code: "plugin:retry".into(), reason, after }),
        Verdict::Reject => Outcome::Rejected(Failure { code: "plugin:reject".into(), reason, after: None }),
    }
}

/// What a transformer passes on goes through the rest of the pipeline; it is held to what an emitted event is, save
/// for the grant.
fn check_drafts(setup: &Setup, drafts: &[Draft]) -> Result<(), Failure> {
    let limits = &setup.limits;
    if drafts.len() > limits.effects {
        let text = format!("the transformer made {} events of one; at most {} are taken", drafts.len(), limits.effects);
        return Err(Failure::new("limit:drafts", text));
    }
    let mut bytes = 0;
    for (at, draft) in drafts.iter().enumerate() {
        if let Err(refusal) = check::draft(draft) {
            let (Refusal::Denied(text) | Refusal::Limit(text) | Refusal::Invalid(text) | Refusal::NotFound(text)) =
                refusal;
            let text = format!("the transformer's event {} is not one: {text}", at + 1);
            return Err(Failure::new("plugin:draft", text));
        }
        bytes += check::draft_size(draft);
        if draft.data.len() > limits.effect_body || bytes > limits.effect_bytes {
            let text = format!(
                "the transformer's events are too large: one may have {} bytes, all together {}",
                limits.effect_body, limits.effect_bytes
            );
            return Err(Failure::new("limit:drafts", text));
        }
    }
    Ok(())
}

/// What a panic said, for the operator's log.
fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a text")
}
