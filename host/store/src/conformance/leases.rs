//! Leases: one owner of a shard at a time, and a fence against who comes late.

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::Position;

use super::world::World;
use crate::Result;
use crate::work::Committed;

const LONG: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(50);
/// How long a case waits for a lease that lasts [`SHORT`] to end.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn all_shards_are_free_at_first(world: &mut World) -> Result<()> {
    world.store.host_release("node").await?;
    let shards = world.store.host_shards();
    let some = world.store.host_acquire("a", LONG, 3).await?;
    assert_eq!(some.len(), 3);
    let rest = world.store.host_acquire("b", LONG, u16::MAX).await?;
    assert_eq!(rest.len(), usize::from(shards) - 3);
    assert!(rest.iter().all(|(shard, _)| some.iter().all(|(held, _)| held != shard)), "nobody shares a shard");
    Ok(())
}

pub async fn renewal_keeps_the_fence(world: &mut World) -> Result<()> {
    let held = world.store.host_acquire("node", LONG, u16::MAX).await?;
    assert_eq!(world.store.host_acquire("node", LONG, u16::MAX).await?, held);
    world.restart().await;
    let again = world.store.host_acquire("node", LONG, u16::MAX).await?;
    let greater = |(before, after): (&(_, _), &(_, _))| before.0 == after.0 && after.1 >= before.1;
    assert!(held.iter().zip(&again).all(greater), "no fence is ever less than it was");
    Ok(())
}

pub async fn another_node_waits_for_the_end(world: &mut World) -> Result<()> {
    let first: HashMap<_, _> = world.store.host_acquire("node", SHORT, u16::MAX).await?.into_iter().collect();
    let begin = Instant::now();
    let mut taken = HashMap::new();
    while taken.len() < first.len() {
        assert!(begin.elapsed() < PATIENCE, "leases end");
        taken.extend(world.store.host_acquire("other", LONG, u16::MAX).await?);
        tokio::task::yield_now().await;
    }
    assert!(taken.iter().all(|(shard, fence)| *fence > first[shard]), "a taken shard has a greater fence");
    assert_eq!(world.store.host_acquire("node", LONG, u16::MAX).await?, []);
    Ok(())
}

pub async fn a_released_shard_is_free_at_once(world: &mut World) -> Result<()> {
    assert_eq!(world.store.host_acquire("other", LONG, u16::MAX).await?, []);
    let before: HashMap<_, _> = world.store.host_acquire("node", LONG, u16::MAX).await?.into_iter().collect();
    world.store.host_release("node").await?;
    let taken = world.store.host_acquire("other", LONG, u16::MAX).await?;
    assert_eq!(taken.len(), before.len());
    assert!(taken.iter().all(|(shard, fence)| *fence > before[shard]));
    Ok(())
}

pub async fn a_takeover_fences_the_late_one(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let logged = world.append(vec![world.event(tenant, "1")]).await?;
    let late = world.commit_of(tenant, Position::ZERO, logged[0].position);
    world.store.host_release("node").await?;
    assert_eq!(world.store.commit(late.clone()).await?, Committed::Fenced, "who gave a shard back has lost it");
    let taken: HashMap<_, _> = world.store.host_acquire("other", LONG, u16::MAX).await?.into_iter().collect();
    assert_eq!(world.store.commit(late.clone()).await?, Committed::Fenced);
    let mut own = late;
    own.fence = taken[&own.shard];
    assert!(matches!(world.store.commit(own).await?, Committed::Done { .. }));
    Ok(())
}

pub async fn nodes_share_what_is_handed_over(world: &mut World) -> Result<()> {
    assert_eq!(world.store.host_nodes().await?, ["node"]);
    let shards = world.shards();
    let (kept, given) = shards.split_at(shards.len() / 2);
    world.store.host_hand_over("node", given).await?;
    world.store.host_hand_over("stranger", kept).await?;
    let taken: Vec<_> = world.store.host_acquire("other", LONG, u16::MAX).await?;
    assert_eq!(
        taken.iter().map(|(shard, _)| *shard).collect::<Vec<_>>(),
        given,
        "nobody gives away what is not theirs"
    );
    let held: Vec<_> = world.store.host_acquire("node", LONG, u16::MAX).await?;
    assert_eq!(held.iter().map(|(shard, _)| *shard).collect::<Vec<_>>(), kept);
    assert_eq!(world.store.host_nodes().await?, ["node", "other"]);
    world.store.host_release("node").await?;
    assert_eq!(world.store.host_nodes().await?, ["other"]);
    Ok(())
}
