//! What there is to do: batches and the backlog.

use bulkhead_domain::id::Position;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;

use super::world::ALL;
use super::world::World;
use super::world::at;
use super::world::put;
use crate::Error;
use crate::Result;
use crate::catalogue::TenantState;
use crate::work::BatchLimits;
use crate::work::Waiting;

pub async fn a_batch_begins_at_the_cursor(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let batch = world.batch(tenant, at(0)).await?;
    assert_eq!((batch.cursor, batch.events.len(), batch.due.len(), batch.more), (Position::ZERO, 0, 0, false));
    assert!(batch.blocked.is_empty());
    let logged = world.append((0..6).map(|at| world.event(tenant, &at.to_string())).collect()).await?;
    world.done(world.commit_of(tenant, Position::ZERO, logged[2].position)).await?;
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        let batch = world.batch(tenant, at(0)).await?;
        assert_eq!((batch.cursor, &batch.events[..]), (logged[2].position, &logged[3..]), "restarted: {restarted}");
        assert!(!batch.more);
    }
    world.done(world.commit_of(tenant, logged[2].position, logged[5].position)).await?;
    let batch = world.batch(tenant, at(0)).await?;
    assert_eq!((batch.cursor, batch.events.len()), (logged[5].position, 0));
    Ok(())
}

pub async fn a_batch_keeps_its_limits(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let hundred = |id: &str| {
        let mut new = world.event(tenant, id);
        new.event.data = Bytes::from(vec![b'a'; 100]);
        new
    };
    world.append((0..10).map(|at| hundred(&at.to_string())).collect()).await?;
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        for (limits, expected, more) in [
            (BatchLimits { events: 4, ..ALL }, 4, true),
            (BatchLimits { events: 10, ..ALL }, 10, false),
            (BatchLimits { events: 11, ..ALL }, 10, false),
            (BatchLimits { bytes: 350, ..ALL }, 3, true),
            (BatchLimits { bytes: 300, events: 2, ..ALL }, 2, true),
            (BatchLimits { bytes: 1_000, ..ALL }, 10, false),
        ] {
            let batch = world.store.read_batch(tenant, world.home(tenant), at(0), limits).await?;
            assert_eq!((batch.events.len(), batch.more), (expected, more), "{limits:?}, restarted: {restarted}");
        }
    }
    Ok(())
}

pub async fn a_large_event_is_read_by_itself(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let mut large = world.event(tenant, "large");
    large.event.data = Bytes::from(vec![b'a'; 1 << 20]);
    let logged = world.append(vec![large, world.event(tenant, "small")]).await?;
    let limits = BatchLimits { bytes: 1_000, ..ALL };
    let batch = world.store.read_batch(tenant, world.home(tenant), at(0), limits).await?;
    assert_eq!((&batch.events[..], batch.more), (&logged[..1], true));
    world.change(tenant, logged.iter().map(|event| put(event, "rule", Waiting::Retry(at(1)))).collect()).await?;
    let batch = world.store.read_batch(tenant, world.home(tenant), at(1), limits).await?;
    assert_eq!(batch.due.len(), 1, "what is due keeps to the same limit");
    assert_eq!(batch.due[0].event, logged[0]);
    Ok(())
}

pub async fn the_backlog_has_every_lane(world: &mut World) -> Result<()> {
    let mut expected = Vec::new();
    for number in 0..150 {
        let tenant = world.tenant(&format!("t{number}")).await?;
        world.append(vec![world.event(tenant, "1")]).await?;
        expected.push((tenant, world.home(tenant)));
    }
    let idle = world.tenant("idle").await?;
    let mut backlog = world.store.host_backlog(at(0), &world.shards()).await?;
    backlog.sort_unstable();
    assert_eq!(backlog, expected, "without a cap");
    let (done, waiting) = (expected[0].0, expected[1].0);
    world.done(world.commit(done).await?).await?;
    let event = world.batch(waiting, at(0)).await?.events.remove(0);
    world.change(waiting, vec![put(&event, "rule", Waiting::Retry(at(10)))]).await?;
    let backlog = world.store.host_backlog(at(9), &world.shards()).await?;
    assert_eq!(backlog.len(), 148);
    assert!(backlog.iter().all(|(tenant, _)| ![done, waiting, idle].contains(tenant)));
    let backlog = world.store.host_backlog(at(10), &world.shards()).await?;
    assert!(backlog.contains(&expected[1]), "what is due is work, too");
    Ok(())
}

pub async fn a_node_asks_for_its_own_shards_and_tenants_at_work(world: &mut World) -> Result<()> {
    let (a, paused) = (world.tenant("a").await?, world.tenant("paused").await?);
    for tenant in [a, paused] {
        let logged = world.append(vec![world.event(tenant, "1"), world.event(tenant, "2")]).await?;
        let retries = [(&logged[0], 1), (&logged[1], 5)];
        world.change(tenant, retries.map(|(event, due)| put(event, "rule", Waiting::Retry(at(due)))).to_vec()).await?;
        world.append(vec![world.event(tenant, "3")]).await?;
    }
    world.store.set_tenant_state(paused, TenantState::Paused).await?;
    let (home, all) = (world.home(a), world.shards());
    let others: Vec<_> = all.iter().copied().filter(|shard| *shard != home).collect();
    assert_eq!(world.store.host_due(at(1), &all).await?, (vec![(a, home)], Some(at(5))));
    assert_eq!(world.store.host_due(at(0), &all).await?, (vec![], Some(at(1))));
    assert_eq!(world.store.host_due(at(1), &others).await?, (vec![], None));
    assert_eq!(world.store.host_backlog(at(0), &all).await?, [(a, home)]);
    assert_eq!(world.store.host_backlog(at(1), &others).await?, []);
    world.store.set_tenant_state(paused, TenantState::Active).await?;
    assert_eq!(world.store.host_backlog(at(0), &all).await?.len(), 2);
    assert_eq!(world.store.host_due(at(9), &all).await?.0.len(), 2);
    Ok(())
}

pub async fn the_backlog_is_known_after_a_restart(world: &mut World) -> Result<()> {
    let (open, done) = (world.tenant("open").await?, world.tenant("done").await?);
    world.append(vec![world.event(open, "1"), world.event(done, "1")]).await?;
    world.done(world.commit(done).await?).await?;
    world.restart().await;
    assert_eq!(world.store.host_backlog(at(0), &world.shards()).await?, [(open, world.home(open))]);
    Ok(())
}

pub async fn an_unknown_tenant_has_no_batch(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let nobody = TenantId(tenant.0 + 1_000);
    let batch = world.store.read_batch(nobody, world.home(nobody), at(0), ALL).await;
    assert!(matches!(batch, Err(Error::NotFound { what: "tenant", .. })));
    let commit = world.commit_of(nobody, Position::ZERO, Position::ZERO);
    assert!(matches!(world.store.commit(commit).await, Err(Error::NotFound { what: "tenant", .. })));
    Ok(())
}
