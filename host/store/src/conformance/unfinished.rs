//! Runs that wait: for their time, behind another, for a rule or plugin, for a person.

use std::collections::HashSet;

use bulkhead_domain::event::Logged;
use bulkhead_domain::id::RunId;

use super::world::ALL;
use super::world::World;
use super::world::at;
use super::world::end;
use super::world::put;
use super::world::unfinished;
use crate::Result;
use crate::work::BatchLimits;
use crate::work::Depth;
use crate::work::Held;
use crate::work::ParkedFilter;
use crate::work::RunState;
use crate::work::UnfinishedChange;
use crate::work::Waiting;

const RULE: &str = "rule";

/// Everything that is parked.
fn any() -> ParkedFilter {
    ParkedFilter::default()
}

fn pairs(pairs: &[(&str, &str)]) -> HashSet<(String, String)> {
    pairs.iter().map(|(rule, key)| ((*rule).to_owned(), (*key).to_owned())).collect()
}

pub async fn a_retry_comes_at_its_time(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let home = world.home(tenant);
    let events = world.append(vec![world.event(tenant, "1"), world.event(tenant, "2")]).await?;
    let run = unfinished(&events[0], RULE, Waiting::Retry(at(10)));
    world
        .change(tenant, vec![UnfinishedChange::Put(run.clone()), put(&events[1], RULE, Waiting::Retry(at(20)))])
        .await?;
    assert_eq!(world.due(tenant, at(9)).await?, [""; 0]);
    assert_eq!(world.store.host_due(at(9), &world.shards()).await?, (vec![], Some(at(10))));
    assert_eq!(world.store.host_due(at(10), &world.shards()).await?, (vec![(tenant, home)], Some(at(20))));
    let batch = world.batch(tenant, at(10)).await?;
    assert_eq!(batch.due.len(), 1);
    assert_eq!((&batch.due[0].run, &batch.due[0].event), (&run, &events[0]));
    assert_eq!(world.due(tenant, at(20)).await?, ["1", "2"]);
    // Another attempt fails, later; the other one is done.
    let mut again = run;
    again.attempts = 2;
    again.waiting = Waiting::Retry(at(40));
    again.reason = "again".into();
    world.change(tenant, vec![UnfinishedChange::Put(again.clone()), end(&events[1], RULE)]).await?;
    assert_eq!(world.due(tenant, at(39)).await?, [""; 0]);
    assert_eq!(world.batch(tenant, at(40)).await?.due[0].run, again);
    world.change(tenant, vec![end(&events[0], RULE)]).await?;
    assert_eq!(world.store.host_due(at(100), &world.shards()).await?, (vec![], None));
    Ok(())
}

pub async fn runs_of_a_key_wait_in_order(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let x = world.append_keyed(tenant, "x", &["x1", "x2", "x3"]).await?;
    let y = world.append_keyed(tenant, "y", &["y1"]).await?;
    let mut changes = vec![put(&x[0], RULE, Waiting::Retry(at(10)))];
    changes.extend(x[1..].iter().map(|event| put(event, RULE, Waiting::Blocked)));
    world.change(tenant, changes).await?;
    // A new event of the key learns that it has to wait, one of another key that it has not.
    let more = world.append_keyed(tenant, "x", &["x4"]).await?;
    world.append_keyed(tenant, "y", &["y2"]).await?;
    assert_eq!(world.batch(tenant, at(0)).await?.blocked, pairs(&[(RULE, "x")]));
    assert_eq!(world.due(tenant, at(9)).await?, [""; 0], "who is behind is not due before the first");
    assert_eq!(world.due(tenant, at(10)).await?, ["x1", "x2", "x3"], "the rest of the key follows its first");
    let two = BatchLimits { due: 2, ..ALL };
    let batch = world.store.read_batch(tenant, world.home(tenant), at(10), two).await?;
    assert_eq!(batch.due.iter().map(|due| &*due.event.event.id).collect::<Vec<_>>(), ["x1", "x2"]);
    // The first is done, the second fails: the third waits behind it.
    world
        .change(
            tenant,
            vec![end(&x[0], RULE), put(&x[1], RULE, Waiting::Retry(at(30))), put(&more[0], RULE, Waiting::Blocked)],
        )
        .await?;
    assert_eq!(world.due(tenant, at(29)).await?, [""; 0]);
    assert_eq!(world.due(tenant, at(30)).await?, ["x2", "x3", "x4"]);
    // The second is done: the third is due at once, and its shard is woken.
    let mut commit = world.commit(tenant).await?;
    commit.unfinished = vec![end(&x[1], RULE)];
    commit.now = at(31);
    let committed = world.store.commit(commit).await?;
    let home = world.home(tenant);
    assert!(matches!(&committed, crate::work::Committed::Done { woken, .. } if *woken == [home]), "{committed:?}");
    assert_eq!(world.due(tenant, at(31)).await?, ["x3", "x4"]);
    world.change(tenant, vec![end(&x[2], RULE), end(&more[0], RULE)]).await?;
    world.append_keyed(tenant, "x", &["x5"]).await?;
    assert!(world.batch(tenant, at(31)).await?.blocked.is_empty());
    assert_eq!(y.len(), 1);
    Ok(())
}

pub async fn a_run_behind_one_that_is_gone_becomes_due(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let x = world.append_keyed(tenant, "x", &["x1", "x2"]).await?;
    world.done(world.commit_of(tenant, bulkhead_domain::id::Position::ZERO, x[0].position)).await?;
    let mut commit = world.commit_of(tenant, x[0].position, x[0].position);
    commit.unfinished = vec![put(&x[0], RULE, Waiting::Parked)];
    world.done(commit).await?;
    // A batch saw the key blocked; before it commits, a person lets the parked run go.
    let batch = world.batch(tenant, at(0)).await?;
    assert_eq!(batch.blocked, pairs(&[(RULE, "x")]));
    assert_eq!(world.store.discard(tenant, &any(), at(1)).await?.0, 1);
    let mut commit = world.commit_of(tenant, batch.cursor, x[1].position);
    commit.unfinished = vec![put(&x[1], RULE, Waiting::Blocked)];
    commit.now = at(2);
    world.done(commit).await?;
    assert_eq!(world.due(tenant, at(2)).await?, ["x2"], "nobody waits for a run that is not there");
    Ok(())
}

pub async fn a_parked_run_holds_its_key_only(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let x = world.append_keyed(tenant, "x", &["x1", "x2"]).await?;
    let free = world.append(vec![world.event(tenant, "free1"), world.event(tenant, "free2")]).await?;
    world
        .change(
            tenant,
            vec![
                put(&x[0], RULE, Waiting::Parked),
                put(&x[1], RULE, Waiting::Blocked),
                put(&x[1], "other", Waiting::Retry(at(1))),
                put(&free[0], RULE, Waiting::Parked),
                put(&free[1], RULE, Waiting::Retry(at(1))),
            ],
        )
        .await?;
    let batch = world.batch(tenant, at(1_000)).await?;
    let due: Vec<_> = batch.due.iter().map(|due| (&*due.event.event.id, &*due.run.rule)).collect();
    assert_eq!(due, [("x2", "other"), ("free2", RULE)]);
    assert_eq!(batch.blocked, pairs(&[("other", "x"), (RULE, "x")]));
    Ok(())
}

pub async fn a_discarded_run_makes_room(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let x = world.append_keyed(tenant, "x", &["x1", "x2", "x3"]).await?;
    let mut changes = vec![put(&x[0], RULE, Waiting::Parked)];
    changes.extend(x[1..].iter().map(|event| put(event, RULE, Waiting::Blocked)));
    world.change(tenant, changes).await?;
    let (count, shards) = world.store.discard(tenant, &any(), at(5)).await?;
    assert_eq!((count, shards), (1, vec![world.home(tenant)]));
    assert_eq!(world.due(tenant, at(5)).await?, ["x2", "x3"]);
    let run = RunId::of(x[0].event.event_key(), RULE);
    let attempts = world.store.attempts(tenant, run).await?;
    assert_eq!(attempts.len(), 1, "that it was let go is written down");
    assert_eq!((attempts[0].state, &*attempts[0].code, attempts[0].ended), (RunState::Dropped, "plugin:trap", at(5)));
    assert_eq!(world.store.discard(tenant, &any(), at(6)).await?, (0, vec![]), "it is parked no more");
    Ok(())
}

pub async fn redriven_runs_begin_anew_in_order(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let x = world.append_keyed(tenant, "x", &["x1", "x2", "x3"]).await?;
    let free = world.append(vec![world.event(tenant, "free")]).await?;
    world
        .change(
            tenant,
            vec![
                put(&x[0], RULE, Waiting::Parked),
                put(&x[1], RULE, Waiting::Blocked),
                put(&x[2], RULE, Waiting::Parked),
                put(&free[0], RULE, Waiting::Parked),
            ],
        )
        .await?;
    let (count, shards) = world.store.redrive(tenant, &any(), at(5)).await?;
    assert_eq!((count, shards), (3, vec![world.home(tenant)]));
    let batch = world.batch(tenant, at(5)).await?;
    let due: Vec<_> = batch.due.iter().map(|due| (&*due.event.event.id, due.run.attempts)).collect();
    assert_eq!(due, [("x1", 0), ("x2", 1), ("x3", 0), ("free", 0)], "attempts are counted anew where it was parked");
    assert_eq!(world.store.redrive(tenant, &any(), at(5)).await?.0, 0);
    Ok(())
}

pub async fn filters_choose_what_is_redriven(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let events = world.append_keyed(tenant, "x", &["1"]).await?;
    let others = world.append_keyed(tenant, "y", &["2"]).await?;
    let variant = |event: &Logged, rule: &str, plugin: &str, code: &str| {
        let mut run = unfinished(event, rule, Waiting::Parked);
        run.plugin = Some(plugin.to_owned());
        run.code = code.to_owned();
        UnfinishedChange::Put(run)
    };
    let run = |event: &Logged, rule: &str| RunId::of(event.event.event_key(), rule);
    let cases = [
        (ParkedFilter { rule: Some("a".into()), ..any() }, 2),
        (ParkedFilter { key: Some("x".into()), ..any() }, 2),
        (ParkedFilter { plugin: Some("p".into()), ..any() }, 3),
        (ParkedFilter { code: Some("c2".into()), ..any() }, 1),
        (ParkedFilter { plugin: Some("p".into()), rule: Some("a".into()), ..any() }, 2),
        (ParkedFilter { rule: Some("no".into()), ..any() }, 0),
        (ParkedFilter { runs: vec![run(&events[0], "a"), run(&others[0], "b")], ..any() }, 2),
        (ParkedFilter { runs: vec![run(&events[0], "no")], ..any() }, 0),
        (ParkedFilter { runs: vec![run(&events[0], "a")], key: Some("y".into()), ..any() }, 0),
        (any(), 4),
    ];
    for (filter, expected) in cases {
        for discard in [false, true] {
            world
                .change(
                    tenant,
                    vec![
                        variant(&events[0], "a", "p", "c1"),
                        variant(&events[0], "b", "q", "c1"),
                        variant(&others[0], "a", "p", "c2"),
                        variant(&others[0], "b", "p", "c1"),
                    ],
                )
                .await?;
            let parked = world.store.parked(tenant, &filter, None, 100).await?;
            assert_eq!(parked.len(), expected, "{filter:?}");
            let (count, _) = match discard {
                true => world.store.discard(tenant, &filter, at(1)).await?,
                false => world.store.redrive(tenant, &filter, at(1)).await?,
            };
            assert_eq!(count, expected as u64, "{filter:?}, discard: {discard}");
            let due = world.due(tenant, at(1)).await?.len();
            assert_eq!(due, if discard { 0 } else { expected }, "{filter:?}, discard: {discard}");
            let left = world.store.parked(tenant, &any(), None, 100).await?;
            assert_eq!(left.len(), 4 - expected, "{filter:?}, discard: {discard}");
        }
    }
    Ok(())
}

pub async fn held_runs_are_resumed_in_order(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let x = world.append_keyed(tenant, "x", &["x1", "x2", "x3"]).await?;
    let of = |event: &Logged, rule: &str, plugin: &str, waiting| {
        let mut run = unfinished(event, rule, waiting);
        run.plugin = Some(plugin.to_owned());
        UnfinishedChange::Put(run)
    };
    let set_up = || {
        let mut changes: Vec<_> = x.iter().map(|event| of(event, RULE, "p", Waiting::Held)).collect();
        changes.push(of(&x[0], "other", "q", Waiting::Held));
        changes.push(of(&x[1], "other", "q", Waiting::Parked));
        changes
    };
    for (held, count, due) in [
        (Held::Rule(RULE.into()), 3, &["x1", "x2", "x3"][..]),
        (Held::Plugin("p".into()), 3, &["x1", "x2", "x3"]),
        (Held::Rule("other".into()), 1, &["x1"]),
        (Held::Plugin("q".into()), 1, &["x1"]),
        (Held::Rule("no".into()), 0, &[]),
    ] {
        world.change(tenant, set_up()).await?;
        assert_eq!(world.due(tenant, at(5)).await?, [""; 0]);
        assert_eq!(world.store.redrive(tenant, &ParkedFilter { rule: Some(RULE.into()), ..any() }, at(5)).await?.0, 0);
        assert_eq!(world.store.resume_held(tenant, &held, at(5)).await?.0, count, "{held:?}");
        assert_eq!(world.due(tenant, at(5)).await?, due, "{held:?}");
        let batch = world.batch(tenant, at(5)).await?;
        assert!(batch.due.iter().all(|due| due.run.attempts == 1), "attempts go on where they were");
    }
    Ok(())
}

pub async fn thousands_are_redriven_in_one_call(world: &mut World) -> Result<()> {
    const COUNT: usize = 4_500;
    let tenant = world.tenant("a").await?;
    let events = (0..COUNT).map(|at| world.keyed(tenant, &at.to_string(), &(at % 7).to_string())).collect();
    let events = world.append(events).await?;
    world.change(tenant, events.iter().map(|event| put(event, RULE, Waiting::Parked)).collect()).await?;
    let (count, shards) = world.store.redrive(tenant, &any(), at(1)).await?;
    assert_eq!((count, shards), (COUNT as u64, vec![world.home(tenant)]));
    let batch = world.batch(tenant, at(1)).await?;
    assert_eq!(batch.due.len(), COUNT);
    for key in 0..7 {
        let of_key = |due: &&crate::work::Due| due.run.key.as_deref() == Some(&*key.to_string());
        let places: Vec<_> = batch.due.iter().filter(of_key).map(|due| due.event.position).collect();
        assert!(places.is_sorted(), "key {key} is in order");
    }
    Ok(())
}

pub async fn what_waits_is_known_after_a_restart(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let x = world.append_keyed(tenant, "x", &["x1", "x2"]).await?;
    let y = world.append_keyed(tenant, "y", &["y1"]).await?;
    world
        .change(
            tenant,
            vec![
                put(&x[0], RULE, Waiting::Retry(at(10))),
                put(&x[1], RULE, Waiting::Blocked),
                put(&y[0], RULE, Waiting::Parked),
            ],
        )
        .await?;
    world.restart().await;
    assert_eq!(world.due(tenant, at(10)).await?, ["x1", "x2"]);
    assert_eq!(world.store.host_due(at(10), &world.shards()).await?.0, [(tenant, world.home(tenant))]);
    world.append_keyed(tenant, "y", &["y2"]).await?;
    assert_eq!(world.batch(tenant, at(0)).await?.blocked, pairs(&[(RULE, "y")]));
    assert_eq!(world.store.redrive(tenant, &any(), at(1)).await?.0, 1);
    assert_eq!(world.due(tenant, at(1)).await?, ["y1"]);
    Ok(())
}

pub async fn depths_are_counted(world: &mut World) -> Result<()> {
    let (a, b) = (world.tenant("a").await?, world.tenant("b").await?);
    let idle = world.tenant("idle").await?;
    let events = world.append_keyed(a, "x", &["1", "2", "3", "4"]).await?;
    world
        .change(
            a,
            vec![
                put(&events[0], RULE, Waiting::Retry(at(1))),
                put(&events[1], RULE, Waiting::Blocked),
                put(&events[2], RULE, Waiting::Held),
                put(&events[3], RULE, Waiting::Parked),
            ],
        )
        .await?;
    world.append(vec![world.event(a, "5"), world.event(b, "1"), world.event(b, "2")]).await?;
    let mut depths = world.store.host_depths().await?;
    depths.retain(|depth| (depth.backlog, depth.waiting, depth.held, depth.parked) != (0, 0, 0, 0));
    depths.sort_unstable_by_key(|depth| depth.tenant);
    assert_eq!(
        depths,
        [
            Depth { tenant: a, backlog: 1, waiting: 2, held: 1, parked: 1 },
            Depth { tenant: b, backlog: 2, waiting: 0, held: 0, parked: 0 },
        ]
    );
    let backlog = |tenant, limit| world.store.backlog(tenant, limit);
    assert_eq!((backlog(a, 100).await?, backlog(b, 100).await?), (2, 2), "what is unread, and what is held");
    assert_eq!((backlog(a, 1).await?, backlog(a, 0).await?), (1, 0), "no further than asked for");
    assert_eq!(backlog(idle, 100).await?, 0);
    Ok(())
}
