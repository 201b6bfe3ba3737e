//! Appending: once, in order, durable.

use std::collections::HashSet;

use bulkhead_domain::event::Logged;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;

use super::world::World;
use super::world::at;
use crate::Error;
use crate::Result;
use crate::log::Appended;

pub async fn events_read_back_whole(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let plain = world.event(tenant, "plain");
    let mut rich = world.event(tenant, "rich");
    rich.event.subject = Some("order/7".into());
    rich.event.key = Some("7".into());
    rich.event.time = at(-5);
    rich.event.correlation = "first".into();
    rich.event.causation = Some("before".into());
    rich.event.content_type = "text/plain; charset=utf-8".into();
    rich.event.data = Bytes::from_static(&[0, 255, 10]);
    rich.event.attributes = vec![("a".into(), "1".into()), ("b".into(), "ü\"\\".into())];
    rich.lineage.hops = 3;
    rich.lineage.budget = 7;
    let mut empty = world.event(tenant, "empty");
    empty.event.subject = Some(String::new());
    empty.event.data = Bytes::new();
    let expected = world.append(vec![plain, rich, empty]).await?;
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        assert_eq!(world.batch(tenant, at(0)).await?.events, expected, "restarted: {restarted}");
        for event in &expected {
            let found = world.store.event_by_key(tenant, event.event.event_key()).await?;
            assert_eq!(found.as_ref(), Some(event));
        }
    }
    Ok(())
}

pub async fn the_same_event_is_accepted_once(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let event = world.event(tenant, "1");
    let answers = world.store.host_append(vec![event.clone(), world.event(tenant, "2"), event.clone()]).await?;
    let [Appended::Accepted(first), Appended::Accepted(second), Appended::Duplicate(again)] = answers[..] else {
        panic!("two are new and one is not: {answers:?}");
    };
    assert_eq!(first, again);
    let mut changed = event;
    changed.event.data = Bytes::from_static(b"other");
    let answers = world.store.host_append(vec![changed, world.event(tenant, "2")]).await?;
    assert_eq!(answers, [Appended::Duplicate(first), Appended::Duplicate(second)]);
    let events = world.batch(tenant, at(0)).await?.events;
    assert_eq!(events.len(), 2);
    assert_eq!(&events[0].event.data[..], b"{}", "the first one counts");
    Ok(())
}

pub async fn other_sources_and_tenants_have_ids_of_their_own(world: &mut World) -> Result<()> {
    let (a, b) = (world.tenant("a").await?, world.tenant("b").await?);
    let mut other = world.event(a, "1");
    other.event.source = "/other".into();
    let logged = world.append(vec![world.event(a, "1"), other, world.event(b, "1")]).await?;
    let places: HashSet<_> = logged.iter().map(|event| (event.shard, event.position)).collect();
    assert_eq!(places.len(), 3);
    Ok(())
}

pub async fn fifty_at_once_are_accepted_once(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let tasks: Vec<_> = (0..50)
        .map(|at| {
            let store = world.store.clone();
            // Alone, or among others: the race must not depend on how appends are gathered.
            let mut events = vec![world.event(tenant, "same")];
            if at % 2 == 0 {
                events.push(world.event(tenant, &format!("own-{at}")));
            }
            tokio::spawn(async move { store.host_append(events).await })
        })
        .collect();
    let (mut new, mut places) = (0, HashSet::new());
    for task in tasks {
        let answers = task.await.expect("because an append does not panic")?;
        match answers[0] {
            Appended::Accepted(place) => {
                new += 1;
                places.insert(place);
            }
            Appended::Duplicate(place) => _ = places.insert(place),
        }
        assert!(answers[1..].iter().all(|answer| matches!(answer, Appended::Accepted(_))));
    }
    assert_eq!((new, places.len()), (1, 1), "accepted once, and everybody is told where");
    assert_eq!(world.store.events_by_id(tenant, "same").await?.len(), 1);
    assert_eq!(world.batch(tenant, at(0)).await?.events.len(), 26);
    Ok(())
}

pub async fn positions_follow_the_order_of_the_append(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let mut last = None;
    for round in 0..5 {
        let events = (0..20).map(|at| world.event(tenant, &format!("{round}-{at}"))).collect();
        for event in world.append(events).await? {
            assert!(last.is_none_or(|last| event.position > last), "{:?} after {last:?}", event.position);
            last = Some(event.position);
        }
    }
    let ids: Vec<_> = world.batch(tenant, at(0)).await?.events.into_iter().map(|event| event.event.id).collect();
    let expected: Vec<_> = (0..5).flat_map(|round| (0..20).map(move |at| format!("{round}-{at}"))).collect();
    assert_eq!(ids, expected);
    Ok(())
}

pub async fn an_unknown_tenant_is_refused_and_nobody_else(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let nobody = TenantId(tenant.0 + 1_000);
    let tasks: Vec<_> = (0..20)
        .map(|at| {
            let store = world.store.clone();
            let event = world.event(if at % 2 == 0 { tenant } else { nobody }, &at.to_string());
            tokio::spawn(async move { (event.tenant, store.host_append(vec![event]).await) })
        })
        .collect();
    for task in tasks {
        let (of, answer) = task.await.expect("because an append does not panic");
        if of == tenant {
            assert!(matches!(answer?[..], [Appended::Accepted(_)]));
        } else {
            assert!(matches!(answer, Err(Error::NotFound { what: "tenant", .. })));
        }
    }
    let mixed = vec![world.event(tenant, "mixed"), world.event(nobody, "mixed")];
    assert!(matches!(world.store.host_append(mixed).await, Err(Error::NotFound { .. })));
    assert_eq!(world.store.events_by_id(tenant, "mixed").await?, [], "an append is taken as a whole or not at all");
    assert_eq!(world.batch(tenant, at(0)).await?.events.len(), 10);
    Ok(())
}

pub async fn more_than_one_statement_holds(world: &mut World) -> Result<()> {
    let (a, b) = (world.tenant("a").await?, world.tenant("b").await?);
    let events = (0..1_777).map(|at| world.event(if at % 3 == 0 { b } else { a }, &at.to_string())).collect();
    let logged = world.append(events).await?;
    world.restart().await;
    for (tenant, name) in [(a, "a"), (b, "b")] {
        let of_b = |event: &&Logged| event.event.id.parse::<u32>().is_ok_and(|at| at % 3 == 0);
        let expected: Vec<_> = logged.iter().filter(|event| of_b(event) == (tenant == b)).cloned().collect();
        assert_eq!(world.batch(tenant, at(0)).await?.events, expected, "tenant {name}");
    }
    Ok(())
}

pub async fn duplicates_are_known_after_a_restart(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let first = world.append(vec![world.event(tenant, "1")]).await?;
    world.restart().await;
    let answers = world.store.host_append(vec![world.event(tenant, "1"), world.event(tenant, "2")]).await?;
    assert_eq!(answers[0], Appended::Duplicate(first[0].position));
    assert!(matches!(answers[1], Appended::Accepted(place) if place > first[0].position));
    Ok(())
}
