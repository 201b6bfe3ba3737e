//! The test host: settings, the state that lives on, and the call of a plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::attempt::Attempt;
use super::run::Run;
use super::store::Store;
use crate::draft::Draft;
use crate::event::{Event, Payload};
use crate::failure::Failure;
use crate::refusal::Refusal;
use crate::timestamp::Timestamp;

/// When a test begins: 2026-01-01T00:00:00Z. `Host::advance` moves on from here.
pub const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// What a test can have refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `effects::emit`
    Emit,
    /// `effects::deliver`
    Deliver,
    /// `effects::schedule` and `cancel`
    Schedule,
    /// `context::secret`
    Secret,
    /// `state::get` and `keys`
    ReadState,
    /// `state::set`, `delete` and `increment`
    WriteState,
    /// `usage::count`
    CountUsage,
}

/// A host in memory for one plugin of one tenant.
#[derive(Debug, Clone)]
pub struct Host {
    settings: Settings,
    state: Store,
    now: Timestamp,
    attempt: u32,
}

/// What does not change during a run.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub plugin: String,
    pub config: BTreeMap<String, serde_json::Value>,
    pub secrets: BTreeMap<String, String>,
    /// None is: every sink exists.
    pub sinks: Option<BTreeSet<String>>,
    pub refusals: Vec<(Call, Refusal)>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A host where everything is granted, every sink exists, and nothing has a value yet.
    pub fn new() -> Self {
        let settings = Settings { plugin: "plugin".to_owned(), ..Settings::default() };
        Self { settings, state: Store::default(), now: START, attempt: 1 }
    }

    /// Gives a setting a value. Panics if it has no JSON form.
    #[must_use]
    #[track_caller]
    pub fn with_config(mut self, name: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("because a setting has a JSON form");
        self.settings.config.insert(name.to_owned(), value);
        self
    }

    /// Gives a secret a value.
    #[must_use]
    pub fn with_secret(mut self, name: &str, value: &str) -> Self {
        self.settings.secrets.insert(name.to_owned(), value.to_owned());
        self
    }

    /// These sinks exist, and no others.
    #[must_use]
    pub fn with_sinks<const N: usize>(mut self, names: [&str; N]) -> Self {
        self.settings.sinks = Some(names.map(str::to_owned).into());
        self
    }

    /// Puts a value in state. Panics if it has no JSON form.
    #[must_use]
    #[track_caller]
    pub fn with_state(mut self, key: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_vec(&value).expect("because a value in state has a JSON form");
        self.state.set(key, value, None);
        self
    }

    /// Refuses every call of a kind.
    #[must_use]
    pub fn refusing(mut self, call: Call, refusal: Refusal) -> Self {
        self.settings.refusals.push((call, refusal));
        self
    }

    /// Which attempt the next runs are.
    #[must_use]
    pub fn at_attempt(mut self, number: u32) -> Self {
        self.attempt = number;
        self
    }

    /// Moves the clock.
    pub fn advance(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    /// The time of the next run.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Runs a handler over an event, as the host would.
    pub fn handle<T: Payload, E>(&mut self, handler: fn(Event<T>) -> Result<(), E>, event: Event) -> Run
    where
        Failure: From<E>,
    {
        self.run(event, handler)
    }

    /// Runs a transformer over an event, as the host would.
    pub fn transform<T: Payload, E>(
        &mut self,
        transformer: fn(Event<T>) -> Result<Vec<Draft>, E>,
        event: Event,
    ) -> Run<Vec<Draft>>
    where
        Failure: From<E>,
    {
        self.run(event, transformer)
    }

    /// A value in state. Panics if it is of another type.
    #[track_caller]
    pub fn state<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let value = self.state.get(key, self.now)?;
        Some(serde_json::from_slice(&value).expect("because the test knows the type of the value"))
    }

    /// The bytes of a value in state.
    pub fn state_bytes(&self, key: &str) -> Option<Vec<u8>> {
        self.state.get(key, self.now)
    }

    /// The keys in state, in order.
    pub fn state_keys(&self) -> Vec<String> {
        self.state.keys("", None, self.now)
    }

    fn run<T: Payload, R, E>(&mut self, event: Event, call: impl FnOnce(Event<T>) -> Result<R, E>) -> Run<R>
    where
        Failure: From<E>,
    {
        let mut seed = DefaultHasher::new();
        (&event.source, &event.id, self.attempt).hash(&mut seed);
        let attempt = Attempt {
            settings: self.settings.clone(),
            state: self.state.clone(),
            now: self.now,
            number: self.attempt,
            data: event.data.to_vec(),
            random: seed.finish(),
            effects: 0,
            record: Run::empty(),
        };
        let (result, attempt) = attempt.run(|| T::of(event).and_then(|event| Ok(call(event)?)));
        if result.is_ok() {
            self.state = attempt.state;
        }
        Run::recorded(result, attempt.record)
    }
}
