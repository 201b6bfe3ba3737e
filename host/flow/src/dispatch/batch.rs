//! One batch of one tenant: routes its events, runs them, and writes down what happened as one commit.
//!
//! Runs to its end on a worker thread and touches the store only to read. Everything that it decides is in the
//! [`Commit`] that it returns; nothing has happened until the store applies that.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::Effect;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::Shard;
use bulkhead_domain::policy::rollout::Counts;
use bulkhead_domain::policy::verdict::Failure;
use bulkhead_domain::policy::verdict::OnFailure;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_domain::policy::verdict::Verdict;
use bulkhead_domain::policy::verdict::verdict;
use bulkhead_domain::rule::definition::Order;
use bulkhead_domain::rule::definition::Rule;
use bulkhead_sandbox::Plugin;
use bulkhead_sandbox::Sandbox;
use bulkhead_store::Store;
use bulkhead_store::log::NewEvent;
use bulkhead_store::recordings::Recorded;
use bulkhead_store::releases::Tally;
use bulkhead_store::work::Batch;
use bulkhead_store::work::Commit;
use bulkhead_store::work::Due;
use bulkhead_store::work::NewDelivery;
use bulkhead_store::work::RunRecord;
use bulkhead_store::work::RunState;
use bulkhead_store::work::TimerChange;
use bulkhead_store::work::Unfinished;
use bulkhead_store::work::UnfinishedChange;
use bulkhead_store::work::UsageDelta;
use bulkhead_store::work::Waiting;
use bulkhead_store::work::emitted;

use crate::dispatch::overlay::Overlay;
use crate::dispatch::pipeline::Ran;
use crate::dispatch::pipeline::Run;
use crate::dispatch::pipeline::Sessions;
use crate::dispatch::recorder;
use crate::dispatch::shadow;
use crate::dispatch::shadow::Sample;
use crate::preview::Did;
use crate::tenants::ActivePlugin;
use crate::tenants::Candidate;
use crate::tenants::TenantView;

/// Bytes of effects after which a batch ends early: what one transaction can hold without holding the others up.
const EFFECT_BYTES_MAX: usize = 4 << 20;
/// Rows of effects and runs, likewise.
const ROWS_MAX: usize = 4_000;

/// What all runs of a batch share.
pub struct Shared {
    /// The tenant as it was when the batch began.
    pub view: Arc<TenantView>,
    /// Where plugins run.
    pub sandbox: Sandbox,
    /// Where components are fetched from if they are not loaded.
    pub store: Store,
    /// Where calls to the store run.
    pub runtime: tokio::runtime::Handle,
    /// The time of all attempts of the batch.
    pub now: Timestamp,
    /// The host's own secret, from which ids of effects are derived.
    pub effect_secret: [u8; 32],
    /// Set when the host must stop at once.
    pub cancelled: Arc<AtomicBool>,
    /// How far an event may be from its first cause.
    pub hops_max: u16,
    /// After this long the batch ends with what it has.
    pub slice: Duration,
    /// How many shards there are.
    pub shards: u16,
    /// What may be recorded.
    pub recorder: recorder::Options,
}

impl Shared {
    /// The compiled plugin, from the cache or compiled anew.
    pub fn load(&self, active: &ActivePlugin) -> Result<Plugin, Failure> {
        let fetch = || {
            let component = self.store.component(self.view.tenant.id, &active.digest);
            match self.runtime.block_on(component) {
                Ok(Some(wasm)) => Ok(wasm),
                Ok(None) => Err(bulkhead_sandbox::Error::source(&active.digest, "it is not in the store")),
                Err(error) => Err(bulkhead_sandbox::Error::source(&active.digest, error.to_string())),
            }
        };
        self.sandbox.load(&active.digest, &fetch).map_err(|error| {
            tracing::error!(tenant = %self.view.tenant.name, plugin = %active.name, %error, "cannot load a plugin");
            Failure::new("host:load", "the plugin could not be loaded; the operator's log says why")
        })
    }
}

/// What a batch did.
pub struct Done {
    /// To be applied, or not.
    pub commit: Commit,
    /// Events remain beyond what it worked off.
    pub more: bool,
    /// Sessions, for plugins whose instances are kept.
    pub sessions: Sessions,
    /// How long it computed.
    pub cost: Duration,
    /// Rules whose `where` took too long.
    pub over_budget: Vec<String>,
    /// What candidates came to, by plugin.
    pub tallies: BTreeMap<String, Tally>,
    /// Runs that shadows make again.
    pub samples: Vec<Sample>,
    /// How many runs were none of these, by plugin.
    pub left_out: BTreeMap<String, u64>,
}

/// A batch under way.
pub struct Execution {
    shared: Shared,
    state: Arc<Overlay>,
    sessions: Sessions,
    commit: Commit,
    /// Puts and ends apart: a run put behind another must be there when the end of that one wakes it.
    puts: Vec<UnfinishedChange>,
    ends: Vec<UnfinishedChange>,
    /// (rule, key) pairs behind which later runs must wait.
    blocked: HashSet<(String, String)>,
    usage: BTreeMap<(String, String), UsageDelta>,
    effect_bytes: usize,
    over_budget: Vec<String>,
    tallies: BTreeMap<String, Tally>,
    samples: Vec<Sample>,
    left_out: BTreeMap<String, u64>,
}

impl Execution {
    /// A batch that has not begun.
    #[must_use]
    pub fn new(shared: Shared, state: Arc<Overlay>, sessions: Sessions, shard: Shard, fence: Fence) -> Self {
        let commit = Commit {
            tenant: shared.view.tenant.id,
            shard,
            fence,
            cursor_from: Position::ZERO,
            cursor_to: Position::ZERO,
            now: shared.now,
            turn: None,
            settings: shared.view.tenant.settings,
            reads: Vec::new(),
            writes: Vec::new(),
            emits: Vec::new(),
            emits_unmatched: false,
            deliveries: Vec::new(),
            timers: Vec::new(),
            runs: Vec::new(),
            unfinished: Vec::new(),
            usage: Vec::new(),
            recordings: Recorded {
                new: Vec::new(),
                count_max: shared.recorder.count_max,
                bytes_max: shared.recorder.bytes_max,
            },
        };
        Self {
            shared,
            state,
            sessions,
            commit,
            puts: Vec::new(),
            ends: Vec::new(),
            blocked: HashSet::new(),
            usage: BTreeMap::new(),
            effect_bytes: 0,
            over_budget: Vec::new(),
            tallies: BTreeMap::new(),
            samples: Vec::new(),
            left_out: BTreeMap::new(),
        }
    }

    /// Works it off, as far as its slice goes. Always at least one event or due run.
    #[must_use]
    pub fn go(mut self, batch: &Batch) -> Done {
        let began = Instant::now();
        (self.commit.cursor_from, self.commit.cursor_to) = (batch.cursor, batch.cursor);
        self.commit.turn = Some(batch.turn);
        self.blocked.clone_from(&batch.blocked);
        let mut more = batch.more;
        let mut failed_keys = HashSet::new();
        for (at, due) in batch.due.iter().enumerate() {
            if at > 0 && self.full(began) {
                more = true;
                break;
            }
            self.due(due, &mut failed_keys);
        }
        for (at, event) in batch.events.iter().enumerate() {
            if (at > 0 || !batch.due.is_empty()) && self.full(began) {
                more = true;
                break;
            }
            self.event(event);
            self.commit.cursor_to = event.position;
        }
        self.commit.emits_unmatched = !more && self.emits_unmatched(began);
        (self.commit.reads, self.commit.writes) = self.state.take();
        self.commit.unfinished = self.puts;
        self.commit.unfinished.append(&mut self.ends);
        self.commit.usage = self.usage.into_values().collect();
        Done {
            commit: self.commit,
            more,
            sessions: self.sessions,
            cost: began.elapsed(),
            over_budget: self.over_budget,
            tallies: self.tallies,
            samples: self.samples,
            left_out: self.left_out,
        }
    }

    /// Whether it emitted something and no rule takes any of it, as far as its slice tells.
    fn emits_unmatched(&self, began: Instant) -> bool {
        let view = &self.shared.view;
        let unmatched = |new: &NewEvent| view.route(&new.event).is_quiet();
        let emits = &self.commit.emits;
        !emits.is_empty() && emits.iter().all(|new| began.elapsed() < self.shared.slice && unmatched(new))
    }

    fn full(&self, began: Instant) -> bool {
        let rows = self.commit.runs.len() + self.commit.emits.len() + self.commit.deliveries.len() + self.puts.len();
        began.elapsed() >= self.shared.slice
            || self.effect_bytes >= EFFECT_BYTES_MAX
            || rows >= ROWS_MAX
            || self.shared.cancelled.load(Ordering::Relaxed)
    }

    /// A run whose time has come again.
    fn due(&mut self, due: &Due, failed_keys: &mut HashSet<(String, String)>) {
        let run = &due.run;
        let key = run.key.clone().map(|key| (run.rule.clone(), key));
        if key.as_ref().is_some_and(|key| failed_keys.contains(key)) {
            // The one before it failed again just now: it stays behind it, as it is.
            return;
        }
        let view = Arc::clone(&self.shared.view);
        let left = match view.rules.rule(&run.rule) {
            None => {
                let reason = format!("rule `{}` does not exist any more; restore it, or discard the run", run.rule);
                self.park(&due.event, run, Failure::new("rule:missing", reason));
                false
            }
            Some(rule) => match view.holder(rule) {
                Some(plugin) => {
                    self.put(Unfinished { waiting: Waiting::Held, plugin, updated: self.shared.now, ..run.clone() });
                    false
                }
                None => self.run(rule, &due.event, run.key.as_deref(), run.lineage, Some(run)),
            },
        };
        if !left {
            failed_keys.extend(key);
        }
    }

    /// A new event: every rule that matches it gets a run.
    fn event(&mut self, event: &Logged) {
        let view = Arc::clone(&self.shared.view);
        let routed = view.route(&event.event);
        let share = event.lineage.share(routed.matched.len());
        for at in routed.matched {
            let rule = &view.rules.rules()[at];
            let key = match rule.order() {
                Order::None => None,
                Order::Key => event.event.ordering_key(),
            };
            let fresh = |waiting, plugin| Unfinished {
                position: event.position,
                event: event.event.event_key(),
                rule: rule.name().to_owned(),
                key: key.map(str::to_owned),
                waiting,
                attempts: 0,
                code: String::new(),
                reason: String::new(),
                plugin,
                lineage: share,
                rule_set: view.rules.number(),
                since: self.shared.now,
                updated: self.shared.now,
                pins: BTreeMap::new(),
            };
            if key.is_some_and(|key| self.blocked.contains(&(rule.name().to_owned(), key.to_owned()))) {
                let run = fresh(Waiting::Blocked, None);
                self.put(run);
            } else if let Some(plugin) = view.holder(rule) {
                let run = fresh(Waiting::Held, plugin);
                self.put(run);
            } else {
                self.run(rule, event, key, share, None);
            }
        }
        for at in routed.over_budget {
            let rule = &view.rules.rules()[at];
            self.over_budget.push(rule.name().to_owned());
            let reason = "`where` took more steps than an expression may take on this event";
            self.broken(rule, event, share, Failure::new("rule:budget", reason));
        }
        for (at, reason) in routed.errors {
            let rule = &view.rules.rules()[at];
            self.broken(rule, event, share, Failure::new("rule:error", format!("`where`: {reason}")));
        }
    }

    /// A rule that could not even be asked: its run is parked, never dropped.
    fn broken(&mut self, rule: &Rule, event: &Logged, share: Lineage, failure: Failure) {
        let ran = Ran {
            outcome: Outcome::Rejected(failure),
            effects: Vec::new(),
            logs: Vec::new(),
            plugin: None,
            missing: None,
            versions: BTreeMap::new(),
            used: BTreeMap::new(),
            recordings: Vec::new(),
        };
        self.end(rule, event, None, share, None, ran);
    }

    /// One attempt. True if the run is over.
    fn run(
        &mut self,
        rule: &Rule,
        event: &Logged,
        key: Option<&str>,
        share: Lineage,
        before: Option<&Unfinished>,
    ) -> bool {
        let attempt = before.map_or(0, |run| run.attempts) + 1;
        let mut run = Run::new(&self.shared, &mut self.sessions, &self.state, rule, event, attempt);
        if let Some(before) = before {
            run = run.begun_with(&before.pins);
        }
        let mut ran = run.go();
        self.sample(rule, event, attempt, &ran);
        if ran.outcome == Outcome::Done
            && let Err(failure) = self.apply(rule, event, key, share, &ran.effects)
        {
            ran.outcome = Outcome::Rejected(failure);
            ran.effects.clear();
        }
        match ran.outcome {
            Outcome::Done => self.state.keep_run(),
            Outcome::Failed(_) | Outcome::Rejected(_) => self.state.discard_run(),
        }
        self.end(rule, event, key, share, before, ran)
    }

    /// Takes a successful run's effects over into the commit, if the causation budget covers them.
    fn apply(
        &mut self,
        rule: &Rule,
        event: &Logged,
        key: Option<&str>,
        share: Lineage,
        effects: &[(Option<PluginId>, Effect)],
    ) -> Result<(), Failure> {
        let descendants = effects
            .iter()
            .filter(|(_, effect)| matches!(effect, Effect::Emit { .. } | Effect::Schedule { .. }))
            .count();
        let lineage = match share.descend(descendants, self.shared.hops_max) {
            _ if descendants == 0 => share,
            Some(lineage) => lineage,
            None => return Err(self.over_causation(event, share, descendants)),
        };
        let source = format!("/bulkhead/rules/{}", rule.name());
        for (plugin, effect) in effects.iter().cloned() {
            match effect {
                Effect::State(write) => self.state.write(write),
                Effect::Emit { id, draft } => {
                    self.effect_bytes += draft.data.len();
                    let child = emitted(id, &source, draft, event, self.shared.now);
                    let new = self.new_event(child, lineage);
                    self.commit.emits.push(new);
                }
                Effect::Deliver(delivery) => {
                    self.effect_bytes += delivery.body.len();
                    self.commit.deliveries.push(NewDelivery {
                        delivery,
                        position: event.position,
                        rule: rule.name().to_owned(),
                        key: key.map(str::to_owned),
                        created: self.shared.now,
                    });
                }
                Effect::Schedule { id, name, due, draft } => {
                    self.effect_bytes += draft.data.len();
                    let child = emitted(id, &source, draft, event, due);
                    let event = self.new_event(child, lineage);
                    // Only plugins schedule; a rule has no step for it.
                    let plugin = plugin.unwrap_or(PluginId(0));
                    self.commit.timers.push(TimerChange::Set { plugin, name, due, event });
                }
                Effect::Cancel { plugin, timer } => self.commit.timers.push(TimerChange::Cancel { plugin, timer }),
            }
        }
        Ok(())
    }

    fn new_event(&self, event: bulkhead_domain::event::Event, lineage: Lineage) -> NewEvent {
        let tenant = self.shared.view.tenant.id;
        let shard = Shard::of(tenant, event.ordering_key().unwrap_or(&event.id), self.shared.shards, 1);
        NewEvent { tenant, shard, recorded: self.shared.now, lineage, event }
    }

    fn over_causation(&self, event: &Logged, share: Lineage, descendants: usize) -> Failure {
        let chain = self.shared.runtime.block_on(crate::dispatch::chain::describe(
            &self.shared.store,
            self.shared.view.tenant.id,
            event,
        ));
        let reason = if share.hops >= self.shared.hops_max {
            format!("the event is {} hops from its first cause, which is as far as it goes: {chain}", share.hops)
        } else {
            let left = share.budget;
            format!(
                "the run wants {descendants} events, but only {left} may still follow from its first cause: {chain}"
            )
        };
        Failure::new("limit:causation", reason)
    }

    /// Writes down how an attempt ended. True if the run is over.
    fn end(
        &mut self,
        rule: &Rule,
        event: &Logged,
        key: Option<&str>,
        share: Lineage,
        before: Option<&Unfinished>,
        ran: Ran,
    ) -> bool {
        let attempt = before.map_or(0, |run| run.attempts) + 1;
        let id = RunId::of(event.event.event_key(), rule.name());
        let failure = match &ran.outcome {
            Outcome::Done => None,
            Outcome::Failed(failure) | Outcome::Rejected(failure) => Some(failure.clone()),
        };
        // What nobody could have run is set aside whatever the rule says: mending the rule or the plugin mends the run.
        let on_failure = match &failure {
            Some(failure) if never_dropped(&failure.code) => OnFailure::Park,
            _ => rule.on_failure(),
        };
        let verdict = verdict(&ran.outcome, attempt, rule.retry(), on_failure, id.to_string().as_bytes());
        let state = match verdict {
            Verdict::Commit => RunState::Done,
            Verdict::Retry(_) => RunState::Retrying,
            Verdict::Park => RunState::Parked,
            Verdict::Drop => RunState::Dropped,
        };
        let Failure { code, reason, .. } = failure.unwrap_or_else(|| Failure::new("", ""));
        self.account(rule, state, &ran);
        self.tally(state, &ran);
        let waiting = match verdict {
            Verdict::Retry(wait) => Some(Waiting::Retry(self.shared.now.after(wait))),
            Verdict::Park => Some(Waiting::Parked),
            Verdict::Commit | Verdict::Drop => None,
        };
        // They count as effects do, so that the transaction stays as small.
        self.effect_bytes += ran.recordings.iter().map(|new| new.body.len()).sum::<usize>();
        self.commit.recordings.new.extend(ran.recordings);
        self.commit.runs.push(RunRecord {
            position: event.position,
            event: event.event.event_key(),
            rule: rule.name().to_owned(),
            rule_set: self.shared.view.rules.number(),
            plugin: ran.plugin.clone(),
            state,
            attempt,
            code: code.clone(),
            reason: reason.clone(),
            fuel: ran.used.values().map(|used| used.fuel).sum(),
            duration: ran.used.values().map(|used| used.duration).sum(),
            ended: self.shared.now,
            effects: u32::try_from(ran.effects.len()).unwrap_or(u32::MAX),
            logs: ran.logs,
        });
        match waiting {
            Some(waiting) => self.put(Unfinished {
                position: event.position,
                event: event.event.event_key(),
                rule: rule.name().to_owned(),
                key: before.map_or_else(|| key.map(str::to_owned), |run| run.key.clone()),
                waiting,
                attempts: attempt,
                code,
                reason,
                // The one to mend: a redrive by plugin finds the run by it.
                plugin: ran.missing.or(ran.plugin.map(|(name, _)| name)),
                lineage: share,
                rule_set: before.map_or_else(|| self.shared.view.rules.number(), |run| run.rule_set),
                since: before.map_or(self.shared.now, |run| run.since),
                updated: self.shared.now,
                // Who redrives a parked run has mended something: it begins anew.
                pins: if waiting == Waiting::Parked { BTreeMap::new() } else { ran.versions },
            }),
            None if before.is_some() => {
                self.ends.push(UnfinishedChange::End { position: event.position, rule: rule.name().to_owned() });
            }
            None => {}
        }
        waiting.is_none()
    }

    fn put(&mut self, run: Unfinished) {
        if let Some(key) = &run.key {
            self.blocked.insert((run.rule.clone(), key.clone()));
        }
        self.puts.push(UnfinishedChange::Put(run));
    }

    /// Parks a due run that has no rule any more.
    fn park(&mut self, event: &Logged, run: &Unfinished, failure: Failure) {
        self.commit.runs.push(RunRecord {
            position: event.position,
            event: run.event,
            rule: run.rule.clone(),
            rule_set: self.shared.view.rules.number(),
            plugin: None,
            state: RunState::Parked,
            attempt: run.attempts + 1,
            code: failure.code.clone(),
            reason: failure.reason.clone(),
            fuel: 0,
            duration: Duration::ZERO,
            ended: self.shared.now,
            effects: 0,
            logs: Vec::new(),
        });
        let (now, attempts) = (self.shared.now, run.attempts + 1);
        let Failure { code, reason, .. } = failure;
        let pins = BTreeMap::new();
        self.put(Unfinished { waiting: Waiting::Parked, attempts, code, reason, updated: now, pins, ..run.clone() });
    }

    /// Keeps a run to be made again by a shadow of one of its plugins.
    fn sample(&mut self, rule: &Rule, event: &Logged, attempt: u32, ran: &Ran) {
        let view = Arc::clone(&self.shared.view);
        let is_shadowed = |(plugin, version): &(&String, &u32)| {
            let active = view.plugins.get(*plugin).is_some_and(|active| active.version == **version);
            let has = |shadow: &Candidate| shadow.terms.slice.has(shadow.plugin.id, &event.event);
            active && view.shadows.get(*plugin).is_some_and(has)
        };
        let Some((plugin, _)) = ran.versions.iter().find(is_shadowed) else { return };
        // A further attempt saw what the ones before left behind; and a batch has no time to copy much.
        if attempt > 1 || self.samples.len() >= shadow::SAMPLES_MAX {
            return self.left_out(plugin);
        }
        self.samples.push(Sample {
            plugin: plugin.clone(),
            rule: rule.name().to_owned(),
            event: event.clone(),
            now: self.shared.now,
            state: self.state.found(),
            did: Did::new(ran, plugin, self.state.written()),
        });
    }

    fn left_out(&mut self, plugin: &str) {
        *self.left_out.entry(plugin.to_owned()).or_default() += 1;
    }

    /// Counts an attempt for the candidates of the plugins that it called.
    fn tally(&mut self, state: RunState, ran: &Ran) {
        for (plugin, version) in &ran.versions {
            let Some(canary) = self.shared.view.canaries.get(plugin) else { continue };
            let tally = self.tallies.entry(plugin.clone()).or_default();
            let is_candidate = *version == canary.plugin.version;
            let used = ran.used.get(plugin);
            let at_fault = state != RunState::Done && ran.plugin.as_ref().is_some_and(|(last, _)| last == plugin);
            let counts = if is_candidate { &mut tally.candidate } else { &mut tally.active };
            let (fuel, time) = used.map_or((0, Duration::ZERO), |used| (used.fuel, used.duration));
            counts.add(&Counts::of(at_fault, fuel, time));
        }
    }

    fn account(&mut self, rule: &Rule, state: RunState, ran: &Ran) {
        for (plugin, used) in &ran.used {
            let entry = usage_line(&mut self.usage, plugin, rule.name());
            entry.fuel += used.fuel;
            entry.micros += u64::try_from(used.duration.as_micros()).unwrap_or(u64::MAX);
            // What a failed attempt counted was never used by anybody.
            if state == RunState::Done {
                for (unit, amount) in &used.units {
                    *entry.units.entry(unit.clone()).or_insert(0.0) += amount;
                }
            }
        }
        let last = ran.plugin.as_ref().map_or("", |(name, _)| name);
        let entry = usage_line(&mut self.usage, last, rule.name());
        entry.attempts += 1;
        entry.done += u64::from(state == RunState::Done);
        entry.failed += u64::from(state != RunState::Done);
        let count =
            |wanted: fn(&Effect) -> bool| ran.effects.iter().filter(|(_, effect)| wanted(effect)).count() as u64;
        entry.emitted += count(|effect| matches!(effect, Effect::Emit { .. }));
        entry.deliveries += count(|effect| matches!(effect, Effect::Deliver(_)));
    }
}

fn usage_line<'a>(
    usage: &'a mut BTreeMap<(String, String), UsageDelta>,
    plugin: &str,
    rule: &str,
) -> &'a mut UsageDelta {
    usage.entry((plugin.to_owned(), rule.to_owned())).or_insert_with(|| UsageDelta {
        plugin: plugin.to_owned(),
        rule: rule.to_owned(),
        ..UsageDelta::default()
    })
}

/// Codes of failures that are no fault of the event: a person mends the cause and redrives.
fn never_dropped(code: &str) -> bool {
    code.starts_with("rule:") || matches!(code, "plugin:missing" | "sink:missing" | "limit:causation")
}
