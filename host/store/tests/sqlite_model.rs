//! Append, dispatch, retries, redrive and discard against a model that is a list and a map.

mod common;

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_store::Store;
use bulkhead_store::conformance::Ground as _;
use bulkhead_store::log::Appended;
use bulkhead_store::log::NewEvent;
use bulkhead_store::recordings::Recorded;
use bulkhead_store::work::BatchLimits;
use bulkhead_store::work::Commit;
use bulkhead_store::work::Committed;
use bulkhead_store::work::ParkedFilter;
use bulkhead_store::work::Unfinished;
use bulkhead_store::work::UnfinishedChange;
use bulkhead_store::work::Waiting;
use bytes::Bytes;
use proptest::prelude::*;

use crate::common::OnDisk;

const RULE: &str = "rule";
const LEASE: Duration = Duration::from_secs(3_600);
const ALL: BatchLimits = BatchLimits { events: 1_000, bytes: 1 << 30, due: 1_000 };

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Done,
    Retry(i64),
    Parked,
}

#[derive(Debug, Clone)]
enum Step {
    /// Ids and keys; an id may have been used before, and then its first key counts.
    Append(Vec<(u8, Option<u8>)>),
    /// Works a batch off; runs end with these outcomes, over and over.
    Work(Vec<Outcome>),
    /// Works a batch off with a fence that is not the present one.
    Late,
    Redrive(Option<u8>),
    Discard(Option<u8>),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || prop_oneof![Just(None), (0..3_u8).prop_map(Some)];
    let outcome = prop_oneof![
        3 => Just(Outcome::Done),
        2 => (1..4_i64).prop_map(Outcome::Retry),
        2 => Just(Outcome::Parked),
    ];
    prop_oneof![
        4 => prop::collection::vec((any::<u8>().prop_map(|id| id % 60), key()), 1..6).prop_map(Step::Append),
        5 => prop::collection::vec(outcome, 1..6).prop_map(Step::Work),
        1 => Just(Step::Late),
        2 => key().prop_map(Step::Redrive),
        2 => key().prop_map(Step::Discard),
        1 => Just(Step::Restart),
    ]
}

#[derive(Debug, Clone)]
struct Run {
    id: String,
    key: Option<String>,
    waiting: Waiting,
}

#[derive(Debug, Default)]
struct Model {
    /// Accepted and not read, in order.
    new: Vec<String>,
    /// Where each accepted event is.
    accepted: BTreeMap<String, Position>,
    unfinished: BTreeMap<Position, Run>,
}

impl Model {
    fn chain<'m>(&'m self, key: &'m str) -> impl Iterator<Item = (&'m Position, &'m Run)> {
        self.unfinished.iter().filter(move |(_, run)| run.key.as_deref() == Some(key))
    }

    /// The first of a chain never waits for another.
    fn promote(&mut self, now: Timestamp) {
        let mut seen = HashSet::new();
        for run in self.unfinished.values_mut() {
            let first = run.key.as_ref().is_some_and(|key| seen.insert(key.clone()));
            if first && run.waiting == Waiting::Blocked {
                run.waiting = Waiting::Retry(now);
            }
        }
    }

    /// What is due: firsts by their time, each followed by what is blocked right behind it.
    fn due(&self, now: Timestamp) -> Vec<String> {
        let mut firsts: Vec<_> = self
            .unfinished
            .iter()
            .filter_map(|(position, run)| match run.waiting {
                Waiting::Retry(due) if due <= now => Some((due, *position, run)),
                _ => None,
            })
            .collect();
        firsts.sort_by_key(|(due, position, _)| (*due, *position));
        let mut due = Vec::new();
        for (_, position, run) in firsts {
            due.push(run.id.clone());
            if let Some(key) = &run.key {
                let behind = self.chain(key).filter(|(behind, _)| **behind > position);
                due.extend(
                    behind.take_while(|(_, run)| run.waiting == Waiting::Blocked).map(|(_, run)| run.id.clone()),
                );
            }
        }
        due
    }

    fn parked(&self, key: Option<&str>) -> Vec<Position> {
        let fits = |run: &Run| run.waiting == Waiting::Parked && (key.is_none() || run.key.as_deref() == key);
        self.unfinished.iter().filter(|(_, run)| fits(run)).map(|(position, _)| *position).collect()
    }
}

struct Trial {
    ground: OnDisk,
    store: Store,
    tenant: TenantId,
    model: Model,
    now: Timestamp,
}

impl Trial {
    async fn begin() -> Self {
        let mut ground = OnDisk::new();
        let store = ground.open().await;
        let tenant = store.operator_create_tenant("ten_a", "a", Timestamp(0)).await.expect("because it is new").id;
        Self { ground, store, tenant, model: Model::default(), now: Timestamp(1_000) }
    }

    fn shard(&self) -> Shard {
        Shard::of(self.tenant, "", self.store.host_shards(), 1)
    }

    async fn take(&mut self, step: Step) {
        self.now = Timestamp(self.now.0 + 1);
        match step {
            Step::Append(events) => self.append(events).await,
            Step::Work(outcomes) => self.work(&outcomes, false).await,
            Step::Late => self.work(&[Outcome::Parked], true).await,
            Step::Redrive(key) => {
                let key = key.map(|key| key.to_string());
                let filter = ParkedFilter { key: key.clone(), ..ParkedFilter::default() };
                let (count, _) = self.store.redrive(self.tenant, &filter, self.now).await.expect("because it answers");
                let parked = self.model.parked(key.as_deref());
                assert_eq!(count, parked.len() as u64);
                for position in parked {
                    let run = self.model.unfinished.get_mut(&position).expect("because it is parked");
                    run.waiting = if run.key.is_some() { Waiting::Blocked } else { Waiting::Retry(self.now) };
                }
                self.model.promote(self.now);
            }
            Step::Discard(key) => {
                let key = key.map(|key| key.to_string());
                let filter = ParkedFilter { key: key.clone(), ..ParkedFilter::default() };
                let (count, _) = self.store.discard(self.tenant, &filter, self.now).await.expect("because it answers");
                let parked = self.model.parked(key.as_deref());
                assert_eq!(count, parked.len() as u64);
                self.model.unfinished.retain(|position, _| !parked.contains(position));
                self.model.promote(self.now);
            }
            Step::Restart => {
                self.ground.close().await;
                self.store = self.ground.open().await;
            }
        }
        self.compare().await;
    }

    async fn append(&mut self, events: Vec<(u8, Option<u8>)>) {
        let shard = self.shard();
        let new = events.iter().map(|(id, key)| NewEvent {
            tenant: self.tenant,
            shard,
            recorded: self.now,
            lineage: Lineage { hops: 0, budget: 1 },
            event: Event {
                id: id.to_string(),
                source: "/source".into(),
                kind: "test.happened".into(),
                subject: None,
                time: self.now,
                key: key.map(|key| key.to_string()),
                correlation: id.to_string(),
                causation: None,
                content_type: "application/json".into(),
                data: Bytes::from_static(b"{}"),
                attributes: Vec::new(),
            },
        });
        let answers = self.store.host_append(new.collect()).await.expect("because it answers");
        for ((id, _), answer) in events.iter().zip(answers) {
            let id = id.to_string();
            match (answer, self.model.accepted.get(&id)) {
                (Appended::Duplicate(position), Some(there)) => assert_eq!(position, *there, "event {id}"),
                (Appended::Accepted(position), None) => {
                    assert!(self.model.accepted.values().all(|before| *before < position), "positions grow");
                    self.model.accepted.insert(id.clone(), position);
                    self.model.new.push(id);
                }
                (answer, there) => panic!("event {id} is at {there:?}, and the answer was {answer:?}"),
            }
        }
    }

    /// Works a batch off as dispatch does; late, nothing of it may be seen.
    async fn work(&mut self, outcomes: &[Outcome], late: bool) {
        let shard = self.shard();
        let held = self.store.host_acquire("node", LEASE, u16::MAX).await.expect("because it answers");
        let mut fence = held.iter().find(|(of, _)| *of == shard).expect("because all shards are held").1;
        let batch = self.store.read_batch(self.tenant, shard, self.now, ALL).await.expect("because it answers");
        let (mut changes, mut failed) = (Vec::new(), HashSet::new());
        let mut outcomes = outcomes.iter().cycle();
        let mut left = BTreeMap::new();
        let blocked: HashSet<&str> = batch.blocked.iter().map(|(_, key)| key.as_str()).collect();
        let due = batch.due.iter().map(|due| (&due.event, true));
        for (event, was_due) in due.chain(batch.events.iter().map(|event| (event, false))) {
            let key = event.event.ordering_key();
            let waits = key.is_some_and(|key| failed.contains(key) || (!was_due && blocked.contains(key)));
            let waiting = match (waits, was_due) {
                (true, true) => continue,
                (true, false) => Some(Waiting::Blocked),
                (false, _) => match outcomes.next().expect("because they go on for ever") {
                    Outcome::Done => None,
                    Outcome::Retry(wait) => Some(Waiting::Retry(Timestamp(self.now.0 + wait))),
                    Outcome::Parked => Some(Waiting::Parked),
                },
            };
            if let Some(waiting) = waiting {
                failed.extend(key);
                changes.push(UnfinishedChange::Put(unfinished(event, waiting, self.now)));
            } else if was_due {
                changes.push(UnfinishedChange::End { position: event.position, rule: RULE.into() });
            }
            left.insert(event.position, (event.clone(), waiting));
        }
        if late {
            fence.0 -= 1;
        }
        let to = batch.events.last().map_or(batch.cursor, |event| event.position);
        let commit = Commit {
            tenant: self.tenant,
            shard,
            fence,
            cursor_from: batch.cursor,
            cursor_to: to,
            now: self.now,
            turn: None,
            settings: i64::MAX,
            reads: Vec::new(),
            writes: Vec::new(),
            emits: Vec::new(),
            emits_unmatched: false,
            deliveries: Vec::new(),
            timers: Vec::new(),
            runs: Vec::new(),
            unfinished: changes,
            usage: Vec::new(),
            recordings: Recorded::default(),
        };
        let committed = self.store.commit(commit).await.expect("because it answers");
        if late {
            return assert_eq!(committed, Committed::Fenced);
        }
        assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
        self.model.new.clear();
        for (position, (event, waiting)) in left {
            match waiting {
                None => _ = self.model.unfinished.remove(&position),
                Some(waiting) => {
                    let key = event.event.ordering_key().map(str::to_owned);
                    self.model.unfinished.insert(position, Run { id: event.event.id, key, waiting });
                }
            }
        }
        self.model.promote(self.now);
    }

    async fn compare(&self) {
        let batch = self.store.read_batch(self.tenant, self.shard(), self.now, ALL).await.expect("because it answers");
        let new: Vec<_> = batch.events.iter().map(|event| event.event.id.clone()).collect();
        assert_eq!(new, self.model.new, "new events");
        let due: Vec<_> = batch.due.iter().map(|due| due.event.event.id.clone()).collect();
        assert_eq!(due, self.model.due(self.now), "what is due of {:?}", self.model.unfinished);
        for key in batch.events.iter().filter_map(|event| event.event.ordering_key()) {
            let blocked = batch.blocked.contains(&(RULE.to_owned(), key.to_owned()));
            assert_eq!(blocked, self.model.chain(key).next().is_some(), "whether key {key} is blocked");
        }
        let parked = self.store.parked(self.tenant, &ParkedFilter::default(), None, 1_000).await;
        assert_eq!(parked.expect("because it answers").len(), self.model.parked(None).len(), "what is parked");
    }
}

fn unfinished(event: &Logged, waiting: Waiting, now: Timestamp) -> Unfinished {
    Unfinished {
        position: event.position,
        event: event.event.event_key(),
        rule: RULE.into(),
        key: event.event.ordering_key().map(str::to_owned),
        waiting,
        attempts: 1,
        code: "code".into(),
        reason: "reason".into(),
        plugin: None,
        lineage: Lineage { hops: 0, budget: 1 },
        rule_set: 1,
        since: now,
        updated: now,
        pins: std::collections::BTreeMap::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Runtime::new().expect("because the machine has threads");
        runtime.block_on(async {
            let mut trial = Trial::begin().await;
            for step in steps {
                trial.take(step).await;
            }
            trial.ground.close().await;
        });
    }
}
