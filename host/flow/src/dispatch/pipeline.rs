//! One run: an event through the steps of one rule. Decides nothing beyond the run: what follows from its outcome is
//! the batch's business.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_domain::effect::Delivery;
use bulkhead_domain::effect::Effect;
use bulkhead_domain::effect::EffectSeed;
use bulkhead_domain::effect::Level;
use bulkhead_domain::effect::LogLine;
use bulkhead_domain::event::Draft;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::RunId;
use bulkhead_domain::policy::verdict::Failure;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_domain::recording::Duty;
use bulkhead_domain::rule::condition::Condition;
use bulkhead_domain::rule::condition::Truth;
use bulkhead_domain::rule::definition::Rule;
use bulkhead_domain::rule::scope::Scope;
use bulkhead_domain::rule::step::Action;
use bulkhead_sandbox::Attempt;
use bulkhead_sandbox::Call;
use bulkhead_sandbox::Session;
use bulkhead_sandbox::StateReader;
use bulkhead_store::recordings::NewRecording;
use bytes::Bytes;

use crate::dispatch::batch::Shared;
use crate::dispatch::overlay::Overlay;
use crate::dispatch::recorder;
use crate::dispatch::recorder::Plan;
use crate::inbox::codec;
use crate::tenants::ActivePlugin;
use crate::tenants::Gone;

/// Documents that one run may have on its way at a time: what transformers split into.
const ITEMS_MAX: usize = 1_000;
/// Log lines and bytes kept of one run over all its steps.
const LOG_LINES_MAX: usize = 1_000;
const LOG_BYTES_MAX: usize = 64 << 10;

/// How a run went.
pub struct Ran {
    /// How it ended.
    pub outcome: Outcome,
    /// Its effects with the plugin that wants them (none: a step of the rule itself); state writes are in the overlay.
    pub effects: Vec<(Option<PluginId>, Effect)>,
    /// What its plugins wrote.
    pub logs: Vec<LogLine>,
    /// The last plugin called, and its version.
    pub plugin: Option<(String, u32)>,
    /// The plugin that it needs and that has no active version.
    pub missing: Option<String>,
    /// The versions of all plugins called.
    pub versions: BTreeMap<String, u32>,
    /// What each plugin used.
    pub used: BTreeMap<String, Used>,
    /// Calls that were recorded.
    pub recordings: Vec<NewRecording>,
}

/// What one plugin used in one run.
#[derive(Debug, Clone, Default)]
pub struct Used {
    /// Fuel.
    pub fuel: u64,
    /// Time.
    pub duration: Duration,
    /// What it counted itself.
    pub units: BTreeMap<String, f64>,
}

/// The sessions of a batch, by plugin and version.
pub type Sessions = BTreeMap<(String, u32), Session>;

/// One run under way.
pub struct Run<'a> {
    shared: &'a Shared,
    sessions: &'a mut Sessions,
    state: &'a Arc<Overlay>,
    rule: &'a Rule,
    event: &'a Logged,
    attempt: u32,
    /// The versions that it began with.
    begun: Option<&'a BTreeMap<String, u32>>,
    ran: Ran,
    log_bytes: usize,
}

/// A document on its way through the steps.
type Item<'a> = Cow<'a, Event>;

impl<'a> Run<'a> {
    /// A run that has not begun.
    pub fn new(
        shared: &'a Shared,
        sessions: &'a mut Sessions,
        state: &'a Arc<Overlay>,
        rule: &'a Rule,
        event: &'a Logged,
        attempt: u32,
    ) -> Self {
        let ran = Ran {
            outcome: Outcome::Done,
            effects: Vec::new(),
            logs: Vec::new(),
            plugin: None,
            missing: None,
            versions: BTreeMap::new(),
            used: BTreeMap::new(),
            recordings: Vec::new(),
        };
        Self { shared, sessions, state, rule, event, attempt, begun: None, ran, log_bytes: 0 }
    }

    /// It is a further attempt of a run that began with these versions.
    pub const fn begun_with(mut self, versions: &'a BTreeMap<String, u32>) -> Self {
        self.begun = Some(versions);
        self
    }

    /// Goes through the steps. A failed run keeps none of its effects.
    pub fn go(mut self) -> Ran {
        let mut items: Vec<Item<'a>> = vec![Cow::Borrowed(&self.event.event)];
        for (number, step) in self.rule.steps().iter().enumerate() {
            let mut next = Vec::with_capacity(items.len());
            for (place, item) in items.into_iter().enumerate() {
                match self.step(number, place, step.when.as_ref(), &step.action, item, &mut next) {
                    Ok(()) if next.len() <= ITEMS_MAX => {}
                    Ok(()) => {
                        let reason = format!("step {number} left more than {ITEMS_MAX} documents");
                        return self.fail(Outcome::Rejected(Failure::new("limit:documents", reason)));
                    }
                    Err(outcome) => return self.fail(outcome),
                }
            }
            items = next;
            if items.is_empty() {
                break;
            }
        }
        self.ran
    }

    fn fail(mut self, outcome: Outcome) -> Ran {
        self.ran.outcome = outcome;
        self.ran.effects.clear();
        self.ran
    }

    fn step(
        &mut self,
        number: usize,
        place: usize,
        when: Option<&Condition>,
        action: &Action,
        item: Item<'a>,
        next: &mut Vec<Item<'a>>,
    ) -> Result<(), Outcome> {
        if let Some(when) = when
            && !self.holds(number, when, &item)?
        {
            next.push(item);
            return Ok(());
        }
        let seed = || {
            let shared = self.shared;
            let event = self.event.event.event_key();
            EffectSeed::new(&shared.effect_secret, &shared.view.tenant.uid, event, self.rule.name(), number, place)
        };
        match action {
            Action::Map(map) => {
                let scope = Scope::new(&item, &self.shared.view.tenant.name);
                let value = map
                    .apply(&scope)
                    .map_err(|error| Outcome::Rejected(Failure::new("rule:map", format!("step {number}: {error}"))))?;
                next.push(Cow::Owned(with_json(&item, &value)));
            }
            Action::Redact(redact) => match Scope::new(&item, &self.shared.view.tenant.name).into_data() {
                None => next.push(item),
                Some(mut value) => {
                    redact.apply(&mut value);
                    next.push(Cow::Owned(with_json(&item, &value)));
                }
            },
            Action::Emit(emit) => {
                let draft = Draft { kind: emit.kind.clone(), ..draft_of(&item) };
                self.ran.effects.push((None, Effect::Emit { id: seed().id(0), draft }));
                next.push(item);
            }
            Action::Deliver(deliver) => {
                if !self.shared.view.sinks.contains_key(&deliver.sink) {
                    let reason =
                        format!("step {number} delivers to `{}`, which is no sink of this tenant", deliver.sink);
                    return Err(Outcome::Rejected(Failure::new("sink:missing", reason)));
                }
                let delivery = Delivery {
                    id: seed().id(0),
                    sink: deliver.sink.clone(),
                    content_type: "application/cloudevents+json".to_owned(),
                    body: Bytes::from(codec::to_json(&item)),
                    attributes: Vec::new(),
                };
                self.ran.effects.push((None, Effect::Deliver(delivery)));
                next.push(item);
            }
            Action::Handle(handle) => {
                let seed = seed();
                self.call(&handle.plugin, &item, seed, (number, place), Duty::Handle)?;
                next.push(item);
            }
            Action::Transform(transform) => {
                let seed = seed();
                let drafts = self.call(&transform.plugin, &item, seed, (number, place), Duty::Transform)?;
                next.extend(drafts.into_iter().map(|draft| Cow::Owned(with_draft(&item, draft))));
            }
        }
        Ok(())
    }

    fn holds(&self, number: usize, when: &Condition, item: &Event) -> Result<bool, Outcome> {
        match when.evaluate(&Scope::new(item, &self.shared.view.tenant.name)) {
            Truth::Yes => Ok(true),
            // A missing field is no match, as in `where`.
            Truth::No | Truth::MissingField(_) => Ok(false),
            Truth::Error(reason) => {
                Err(Outcome::Rejected(Failure::new("rule:error", format!("step {number}, `when`: {reason}"))))
            }
            Truth::OverBudget => {
                let reason = format!("step {number}, `when`: more steps than an expression may take");
                Err(Outcome::Rejected(Failure::new("rule:budget", reason)))
            }
        }
    }

    fn call(
        &mut self,
        plugin: &str,
        item: &Event,
        seed: EffectSeed,
        (step, place): (usize, usize),
        duty: Duty,
    ) -> Result<Vec<Draft>, Outcome> {
        let shared = self.shared;
        let Some(active) = self.version(plugin) else {
            let reason = format!("plugin `{plugin}` does not exist in this tenant or has no active version");
            self.ran.missing = Some(plugin.to_owned());
            return Err(Outcome::Rejected(Failure::new("plugin:missing", reason)));
        };
        self.ran.plugin = Some((plugin.to_owned(), active.version));
        self.ran.versions.insert(plugin.to_owned(), active.version);
        let active = &*active;
        let named = (plugin.to_owned(), active.version);
        if !self.sessions.contains_key(&named) {
            let loaded = shared.load(active).map_err(Outcome::Failed)?;
            self.sessions.insert(named.clone(), shared.sandbox.session(&loaded, Arc::clone(&active.setup)));
        }
        let Some(session) = self.sessions.get_mut(&named) else {
            return Err(Outcome::Failed(Failure::new("host:session", "the session is gone")));
        };
        let run = RunId::of(self.event.event.event_key(), self.rule.name());
        let plan = Plan::new(&shared.recorder, active, run, self.attempt);
        let state: Arc<dyn StateReader> = Arc::clone(self.state) as Arc<dyn StateReader>;
        let call = Call {
            event: item,
            rule: self.rule.name(),
            attempt: self.attempt,
            now: shared.now,
            seed,
            first_ordinal: 0,
            state: &state,
            cancelled: &shared.cancelled,
            record: plan.record(),
        };
        let attempt = session.call(&call, duty);
        if plan.wants(&attempt.outcome, self.ran.recordings.len()) {
            let made =
                recorder::Made { session, plugin: active, call: &call, duty, step, item: place, attempt: &attempt };
            self.ran.recordings.push(recorder::record(shared, plan, self.event.position, &made));
        }
        self.account(plugin, &attempt);
        match attempt.outcome {
            Outcome::Done => {
                for effect in attempt.effects {
                    match effect {
                        Effect::State(write) => self.state.write(write),
                        effect => self.ran.effects.push((Some(active.id), effect)),
                    }
                }
                Ok(attempt.drafts)
            }
            outcome => Err(outcome),
        }
    }

    /// The version that the run began with, if it stays on it; else the one that new runs over its event use.
    fn version(&mut self, plugin: &str) -> Option<Cow<'a, ActivePlugin>> {
        let present = self.shared.view.version_for(plugin, &self.event.event)?;
        let begun = self.ran.versions.get(plugin).or_else(|| self.begun?.get(plugin)).copied();
        match begun.filter(|begun| *begun != present.version) {
            None => Some(Cow::Borrowed(present)),
            Some(begun) => match self.shared.view.version_begun(plugin, begun) {
                Ok(Some(begun)) => Some(Cow::Owned(ActivePlugin::clone(&begun))),
                Ok(None) => Some(Cow::Borrowed(present)),
                Err(Gone) => {
                    let message =
                        format!("began with version {begun}, which is out of use; goes on with {}", present.version);
                    let fields = vec![("plugin".to_owned(), plugin.to_owned())];
                    self.ran.logs.push(LogLine { level: Level::Info, message, fields });
                    Some(Cow::Borrowed(present))
                }
            },
        }
    }

    fn account(&mut self, plugin: &str, attempt: &Attempt) {
        let used = self.ran.used.entry(plugin.to_owned()).or_default();
        used.fuel += attempt.fuel;
        used.duration += attempt.duration;
        for (unit, amount) in &attempt.usage {
            *used.units.entry(unit.clone()).or_insert(0.0) += amount;
        }
        for line in &attempt.logs {
            self.log_bytes += line.message.len();
            if self.log_bytes > LOG_BYTES_MAX || self.ran.logs.len() >= LOG_LINES_MAX {
                break;
            }
            self.ran.logs.push(line.clone());
        }
    }
}

fn with_json(item: &Event, value: &serde_json::Value) -> Event {
    let mut event = item.clone();
    event.data = Bytes::from(value.to_string());
    if !event.is_json() {
        event.content_type = "application/json".to_owned();
    }
    event
}

/// What a transformer answered, with the identity of what it was given: steps that follow see one event.
fn with_draft(item: &Event, draft: Draft) -> Event {
    Event {
        id: item.id.clone(),
        source: item.source.clone(),
        kind: draft.kind,
        subject: draft.subject,
        time: item.time,
        key: draft.key,
        correlation: item.correlation.clone(),
        causation: item.causation.clone(),
        content_type: draft.content_type,
        data: draft.data,
        attributes: draft.attributes,
    }
}

fn draft_of(item: &Event) -> Draft {
    Draft {
        kind: item.kind.clone(),
        subject: item.subject.clone(),
        key: item.key.clone(),
        content_type: item.content_type.clone(),
        data: item.data.clone(),
        attributes: item.attributes.clone(),
    }
}
