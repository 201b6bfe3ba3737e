//! Retention: what is over and old goes with all that belongs to it, and nothing else does.

use std::collections::BTreeMap;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::TenantId;

use super::world::World;
use super::world::at;
use super::world::delivery;
use super::world::end;
use super::world::put;
use super::world::record;
use crate::Result;
use crate::deliveries::DeliveryQuery;
use crate::deliveries::DeliveryState;
use crate::deliveries::Settled;
use crate::deliveries::Settlement;
use crate::log::EventQuery;
use crate::upkeep::EXPIRED;
use crate::upkeep::Expiry;
use crate::upkeep::Mark;
use crate::upkeep::Retired;
use crate::work::ParkedFilter;
use crate::work::RunQuery;
use crate::work::RunState;
use crate::work::UsageDelta;
use crate::work::Waiting;

const RULE: &str = "rule";
const DAY: i64 = 86_400;

/// What cases write is old by then, also by the clock of a database; what is recorded `YOUNG` is not.
const LATER: Timestamp = at(1_000_000_000);
const YOUNG: Timestamp = at(2_000_000_000);

/// Keeps everything.
const KEEP: Expiry = Expiry { events: None, parked: None, usage: None, now: LATER };
/// Keeps no event that is over.
const EVENTS: Expiry = Expiry { events: Some(LATER), ..KEEP };

/// A whole pass; gives the sums of what it did.
async fn retire(world: &World, expiry: &Expiry) -> Result<Retired> {
    let (mut all, mut mark) = (Retired::default(), Some(Mark::default()));
    while let Some(at) = mark {
        let (some, next) = world.store.host_retire(expiry, at).await?;
        all.add(some);
        mark = next;
    }
    Ok(all)
}

async fn ids(world: &World, tenant: TenantId) -> Result<Vec<String>> {
    let query = EventQuery { ascending: true, limit: 1_000, ..EventQuery::default() };
    Ok(world.store.events(tenant, &query).await?.into_iter().map(|logged| logged.event.id).collect())
}

async fn settle(world: &World, tenant: TenantId, id: &str, settled: Settled) -> Result<()> {
    let (code, reason) = ("sink:status".to_owned(), "503".to_owned());
    world
        .store
        .host_settle(vec![Settlement { tenant, id: id.into(), settled, attempts: 1, code, reason, at: at(1) }])
        .await
}

pub async fn what_is_over_and_old_goes_with_all_that_belongs_to_it(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let old = world.append(["1", "2", "3"].map(|id| world.event(tenant, id)).to_vec()).await?;
    let mut commit = world.commit(tenant).await?;
    commit.runs = old.iter().map(|event| record(event, RULE, RunState::Done, 1)).collect();
    commit.deliveries = vec![delivery(&old[0], "d", "sink", None)];
    world.done(commit).await?;
    settle(world, tenant, "d", Settled::Delivered).await?;
    world.turn_over().await;
    let mut young = world.event(tenant, "young");
    young.recorded = YOUNG;
    let young = world.append(vec![young]).await?.remove(0);
    let mut commit = world.commit(tenant).await?;
    commit.runs = vec![record(&young, RULE, RunState::Done, 1)];
    commit.deliveries = vec![delivery(&young, "e", "sink", None)];
    world.done(commit).await?;
    assert_eq!(retire(world, &KEEP).await?, Retired::default());
    assert_eq!(retire(world, &Expiry { events: Some(Timestamp(0)), ..KEEP }).await?, Retired::default());
    let oldest = world.store.host_oldest_event().await?;

    let gone = retire(world, &EVENTS).await?;
    assert_eq!((gone.keys, gone.deliveries), (3, 1), "{gone:?}");
    assert_eq!(ids(world, tenant).await?, ["young"]);
    assert!(world.store.events_by_id(tenant, "1").await?.is_empty());
    assert!(world.store.event_by_key(tenant, old[1].event.event_key()).await?.is_none());
    let runs = world.store.runs(tenant, &RunQuery { limit: 10, ..RunQuery::default() }).await?;
    assert_eq!(runs.iter().map(|run| &*run.event_id).collect::<Vec<_>>(), ["young"]);
    let deliveries = world.store.deliveries(tenant, &DeliveryQuery { limit: 10, ..DeliveryQuery::default() }).await?;
    assert_eq!(deliveries.iter().map(|view| &*view.delivery.id).collect::<Vec<_>>(), ["e"]);
    assert!(world.store.host_oldest_event().await? > oldest, "the oldest is another one now");
    assert_eq!(retire(world, &EVENTS).await?, Retired::default());

    // It was forgotten, so it is new; and no position is given out twice.
    world.restart().await;
    let again = world.append(vec![world.event(tenant, "1")]).await?.remove(0);
    assert!(again.position > young.position);
    assert_eq!(ids(world, tenant).await?, ["young", "1"]);
    Ok(())
}

pub async fn what_is_not_over_stays(world: &mut World) -> Result<()> {
    let (tenant, other) = (world.tenant("a").await?, world.tenant("b").await?);
    world.append(vec![world.event(other, "unread")]).await?;
    let waits = [
        ("retried", Waiting::Retry(at(10))),
        ("blocked", Waiting::Blocked),
        ("held", Waiting::Held),
        ("parked", Waiting::Parked),
    ];
    let mut events = Vec::new();
    for (id, waiting) in waits {
        let key = if id == "blocked" { "retried" } else { id };
        let event = world.append_keyed(tenant, key, &[id]).await?.remove(0);
        world.change(tenant, vec![put(&event, RULE, waiting)]).await?;
        events.push(event);
        world.turn_over().await;
    }
    for id in ["pending", "stuck"] {
        let event = world.append(vec![world.event(tenant, id)]).await?.remove(0);
        let mut commit = world.commit(tenant).await?;
        commit.deliveries = vec![delivery(&event, id, "sink", None)];
        world.done(commit).await?;
        world.turn_over().await;
    }
    settle(world, tenant, "stuck", Settled::Parked).await?;
    let all = ["retried", "blocked", "held", "parked", "pending", "stuck"];

    assert_eq!(retire(world, &EVENTS).await?, Retired::default());
    assert_eq!(ids(world, tenant).await?, all);
    assert_eq!(ids(world, other).await?, ["unread"]);
    assert_eq!(world.due(tenant, at(10)).await?, ["retried", "blocked"]);

    // One after another is over: that one goes.
    world.change(other, vec![]).await?;
    world.change(tenant, events.iter().map(|event| end(event, RULE)).collect()).await?;
    settle(world, tenant, "pending", Settled::Delivered).await?;
    assert_eq!(retire(world, &EVENTS).await?.keys, 6);
    assert_eq!(ids(world, tenant).await?, ["stuck"]);
    assert_eq!(ids(world, other).await?, [""; 0]);
    assert_eq!(world.store.drop_deliveries(tenant, None, None, at(2)).await?, 1);
    let gone = retire(world, &EVENTS).await?;
    assert_eq!((gone.keys, gone.deliveries), (1, 1));
    assert_eq!(ids(world, tenant).await?, [""; 0]);
    Ok(())
}

pub async fn runs_parked_for_too_long_are_dropped(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let x = world.append_keyed(tenant, "x", &["x1", "x2"]).await?;
    let rest = world.append(["held", "retried", "again"].map(|id| world.event(tenant, id)).to_vec()).await?;
    let mut again = super::world::unfinished(&rest[2], RULE, Waiting::Parked);
    again.updated = YOUNG;
    world
        .change(
            tenant,
            vec![
                put(&x[0], RULE, Waiting::Parked),
                put(&x[1], RULE, Waiting::Blocked),
                put(&rest[0], RULE, Waiting::Held),
                put(&rest[1], RULE, Waiting::Retry(at(50))),
                crate::work::UnfinishedChange::Put(again),
            ],
        )
        .await?;
    let parked = |before, now| Expiry { parked: Some(before), now, ..KEEP };
    assert_eq!(retire(world, &parked(at(0), at(9))).await?, Retired::default(), "it was parked at that moment");
    let gone = retire(world, &parked(at(1), at(9))).await?;
    assert_eq!((gone.expired_runs, gone.woken), (1, vec![(tenant, world.home(tenant))]));
    assert_eq!(world.due(tenant, at(9)).await?, ["x2"], "who was behind it goes on");
    let left = world.store.parked(tenant, &ParkedFilter::default(), None, 10).await?;
    assert_eq!(left.iter().map(|run| &*run.event_id).collect::<Vec<_>>(), ["again"], "it was parked later");
    let query = RunQuery { position: Some(x[0].position), limit: 10, ..RunQuery::default() };
    let run = world.store.runs(tenant, &query).await?.remove(0);
    let record = run.record.expect("because its end was recorded");
    assert_eq!((record.state, &*record.code, record.ended), (RunState::Dropped, EXPIRED, at(9)));
    assert!(record.reason.contains("plugin:trap: it trapped"), "{}", record.reason);
    assert!(run.unfinished.is_none());

    world.restart().await;
    assert_eq!(retire(world, &parked(at(1), at(9))).await?, Retired::default());
    let next = world.append(vec![world.event(tenant, "next")]).await?.remove(0);
    assert!(next.position > Position(rest[2].position.0));
    Ok(())
}

pub async fn deliveries_parked_for_too_long_are_dropped(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let event = world.append(vec![world.event(tenant, "1")]).await?.remove(0);
    let mut commit = world.commit(tenant).await?;
    let line = [("first", Some("k")), ("second", Some("k")), ("free", None), ("arrived", None)];
    commit.deliveries = line.iter().map(|(id, key)| delivery(&event, id, "sink", *key)).collect();
    world.done(commit).await?;
    settle(world, tenant, "first", Settled::Parked).await?;
    settle(world, tenant, "free", Settled::Parked).await?;
    settle(world, tenant, "arrived", Settled::Delivered).await?;
    let parked = |before| Expiry { parked: Some(before), now: at(9), ..KEEP };
    assert_eq!(retire(world, &parked(at(1))).await?, Retired::default());
    assert_eq!(retire(world, &parked(at(2))).await?.expired_deliveries, 2);
    let views = world.store.deliveries(tenant, &DeliveryQuery { limit: 10, ..DeliveryQuery::default() }).await?;
    let states: BTreeMap<_, _> = views.iter().map(|view| (&*view.delivery.id, (view.state, &*view.code))).collect();
    let dropped = (DeliveryState::Dropped, EXPIRED);
    assert_eq!((states["first"], states["free"]), (dropped, dropped));
    assert_eq!((states["second"].0, states["arrived"].0), (DeliveryState::Pending, DeliveryState::Delivered));
    let reason = views.iter().find(|view| view.delivery.id == "free").map(|view| view.reason.clone());
    assert!(reason.is_some_and(|reason| reason.contains("sink:status: 503")));
    let (due, _) = world.store.host_due_deliveries(at(9), 10, &world.shards(), &[], &[]).await?;
    assert_eq!(due.iter().map(|due| &*due.delivery.id).collect::<Vec<_>>(), ["second"], "who was behind it goes on");
    Ok(())
}

pub async fn usage_of_old_days_goes(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    for day in 0..3 {
        let mut commit = world.commit(tenant).await?;
        commit.now = at(day * DAY);
        commit.usage = vec![UsageDelta {
            plugin: "p".into(),
            rule: RULE.into(),
            attempts: 1,
            units: BTreeMap::from([("tokens".to_owned(), 1.5)]),
            ..UsageDelta::default()
        }];
        world.done(commit).await?;
    }
    let gone = retire(world, &Expiry { usage: Some(at(2 * DAY)), ..KEEP }).await?;
    assert_eq!(gone, Retired { usage: 4, ..Retired::default() }, "a line and a unit of each of two days");
    let days = world.store.usage(tenant, at(0).day(), at(3 * DAY).day()).await?;
    assert_eq!(days.iter().map(|line| line.day).collect::<Vec<_>>(), [at(2 * DAY).day()]);
    Ok(())
}

pub async fn more_than_a_slice_goes(world: &mut World) -> Result<()> {
    let (tenant, other) = (world.tenant("a").await?, world.tenant("b").await?);
    for chunk in 0..3 {
        let event = |at| world.event(if at % 3 == 0 { other } else { tenant }, &format!("{chunk}-{at}"));
        world.append((0..500).map(event).collect()).await?;
    }
    world.change(tenant, vec![]).await?;
    let held = world.store.tail(other, Position::ZERO, None, 1).await?.events.remove(0);
    world.change(other, vec![put(&held, RULE, Waiting::Held)]).await?;
    world.turn_over().await;
    let gone = retire(world, &EVENTS).await?;
    if gone.segments == 0 && gone.keys == 0 {
        // One that is not over keeps its whole segment.
        world.change(other, vec![end(&held, RULE)]).await?;
        assert_eq!(retire(world, &EVENTS).await?.keys, 1_500);
    } else {
        assert_eq!(gone.keys, 1_499);
        assert_eq!(ids(world, other).await?, std::slice::from_ref(&held.event.id));
        world.change(other, vec![end(&held, RULE)]).await?;
        assert_eq!(retire(world, &EVENTS).await?.keys, 1);
    }
    assert_eq!((ids(world, tenant).await?, ids(world, other).await?), (vec![], vec![]));
    Ok(())
}
