//! Timers: set and taken back by commits, fired once.

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;

use super::world::World;
use super::world::at;
use crate::Result;
use crate::work::TimerChange;

const PLUGIN: PluginId = PluginId(1);

fn set(world: &World, tenant: TenantId, id: &str, name: Option<&str>, due: Timestamp) -> TimerChange {
    let mut event = world.event(tenant, id);
    event.event.kind = format!("timer.{id}");
    event.event.subject = Some("subject".into());
    event.event.attributes = vec![("a".into(), "1".into())];
    event.lineage.hops = 2;
    TimerChange::Set { plugin: PLUGIN, name: name.map(str::to_owned), due, event }
}

fn cancel(plugin: PluginId, timer: &str) -> TimerChange {
    TimerChange::Cancel { plugin, timer: timer.to_owned() }
}

async fn change(world: &World, tenant: TenantId, timers: Vec<TimerChange>) -> Result<()> {
    let mut commit = world.commit(tenant).await?;
    commit.timers = timers;
    world.done(commit).await?;
    Ok(())
}

async fn ids(world: &World, tenant: TenantId) -> Result<Vec<String>> {
    Ok(world.store.timers(tenant, 100).await?.into_iter().map(|timer| timer.id).collect())
}

pub async fn a_timer_fires_once(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    change(world, tenant, vec![set(world, tenant, "t", Some("name"), at(60))]).await?;
    let timer = world.store.timers(tenant, 10).await?.remove(0);
    assert_eq!((&*timer.id, timer.name.as_deref(), timer.due, &*timer.kind), ("t", Some("name"), at(60), "timer.t"));
    let early = world.store.host_fire_timers(at(59), 100).await?;
    assert_eq!((early.count, early.woken, early.next_due), (0, vec![], Some(at(60))));
    let tasks = [world.store.clone(), world.store.clone()]
        .map(|store| tokio::spawn(async move { store.host_fire_timers(at(61), 100).await }));
    let mut count = 0;
    for task in tasks {
        let fired = task.await.expect("because firing does not panic")?;
        count += fired.count;
        assert_eq!(fired.woken.len() as u64, fired.count);
        assert_eq!(fired.next_due, None);
    }
    assert_eq!(count, 1);
    assert_eq!(ids(world, tenant).await?, [""; 0]);
    let events = world.batch(tenant, at(61)).await?.events;
    assert_eq!(events.len(), 1);
    let TimerChange::Set { event: mut expected, .. } = set(world, tenant, "t", None, at(0)) else {
        panic!("it is set")
    };
    expected.recorded = at(61);
    assert_eq!((&events[0].event, events[0].recorded), (&expected.event, expected.recorded));
    assert_eq!((events[0].shard, events[0].lineage), (expected.shard, expected.lineage));
    Ok(())
}

pub async fn a_name_replaces_and_cancels(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    change(world, tenant, vec![set(world, tenant, "1", Some("n"), at(10)), set(world, tenant, "2", None, at(20))])
        .await?;
    change(world, tenant, vec![set(world, tenant, "3", Some("n"), at(30))]).await?;
    assert_eq!(ids(world, tenant).await?, ["2", "3"], "the second of a name replaces the first");
    change(world, tenant, vec![set(world, tenant, "4", Some("n"), at(40)), set(world, tenant, "5", Some("n"), at(50))])
        .await?;
    assert_eq!(ids(world, tenant).await?, ["2", "5"], "also within one commit");
    change(world, tenant, vec![cancel(PluginId(2), "n"), cancel(PluginId(2), "2"), cancel(PLUGIN, "no")]).await?;
    assert_eq!(ids(world, tenant).await?, ["2", "5"], "a plugin takes back its own");
    change(world, tenant, vec![cancel(PLUGIN, "n"), cancel(PLUGIN, "2")]).await?;
    assert_eq!(ids(world, tenant).await?, [""; 0], "by name or id");
    let within = vec![
        set(world, tenant, "6", Some("n"), at(10)),
        cancel(PLUGIN, "n"),
        set(world, tenant, "7", None, at(10)),
        cancel(PLUGIN, "7"),
        cancel(PLUGIN, "m"),
        set(world, tenant, "8", Some("m"), at(10)),
    ];
    change(world, tenant, within).await?;
    assert_eq!(ids(world, tenant).await?, ["8"], "changes of a commit count in order");
    assert_eq!(world.store.host_fire_timers(at(100), 100).await?.count, 1);
    Ok(())
}

pub async fn timers_fire_after_a_restart(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    change(world, tenant, vec![set(world, tenant, "1", None, at(10)), set(world, tenant, "2", None, at(20))]).await?;
    world.restart().await;
    let fired = world.store.host_fire_timers(at(15), 100).await?;
    assert_eq!((fired.count, fired.next_due), (1, Some(at(20))));
    assert_eq!(fired.woken, [(tenant, world.home(tenant))]);
    world.restart().await;
    assert_eq!(world.store.host_fire_timers(at(15), 100).await?.count, 0, "what fired does not fire again");
    assert_eq!(world.store.host_fire_timers(at(20), 100).await?.count, 1);
    let events = world.batch(tenant, at(20)).await?.events;
    assert_eq!(events.iter().map(|event| &*event.event.id).collect::<Vec<_>>(), ["1", "2"]);
    Ok(())
}

pub async fn timers_fire_in_order_up_to_the_limit(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let timers = [(3, "c"), (1, "a"), (4, "d"), (2, "b")];
    change(world, tenant, timers.iter().map(|(due, id)| set(world, tenant, id, None, at(*due))).collect()).await?;
    assert_eq!(ids(world, tenant).await?, ["a", "b", "c", "d"], "soonest first");
    assert_eq!(world.store.timers(tenant, 2).await?.len(), 2);
    let first = world.store.host_fire_timers(at(3), 2).await?;
    assert_eq!((first.count, first.next_due), (2, Some(at(3))), "what is still due is next");
    assert_eq!(world.store.host_fire_timers(at(3), 2).await?.count, 1);
    let events = world.batch(tenant, at(3)).await?.events;
    assert_eq!(events.iter().map(|event| &*event.event.id).collect::<Vec<_>>(), ["a", "b", "c"]);
    Ok(())
}
