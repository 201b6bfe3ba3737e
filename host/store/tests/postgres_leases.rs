//! Several nodes on one database: who works on a shard, who takes over, and who comes too late.

mod postgres;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::Fence;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Shard;
use bulkhead_store::leases::Leases as _;
use bulkhead_store::log::Log as _;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::work::Committed;
use bulkhead_store::work::Work as _;
use postgres::ALL;
use postgres::LEASE;
use postgres::NOW;
use postgres::SHARDS;
use postgres::Server;
use postgres::commit_of;
use postgres::event;
use postgres::furnish::effects;
use postgres::furnish::furnish;
use postgres::home;
use postgres::tenant;
use postgres::until;

/// A lease that ends while the test looks on, and lasts long enough for a few calls on a busy machine.
const SHORT: Duration = Duration::from_millis(1_500);

async fn acquire(store: &Postgres, node: &str, ttl: Duration, at_most: u16) -> BTreeMap<Shard, Fence> {
    let held = store.host_acquire(node, ttl, at_most).await.expect("because the store answers");
    held.into_iter().collect()
}

fn all() -> BTreeSet<Shard> {
    (0..SHARDS).map(Shard).collect()
}

fn shards(held: &BTreeMap<Shard, Fence>) -> BTreeSet<Shard> {
    held.keys().copied().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_fell_silent_is_followed_and_its_late_commit_changes_nothing() {
    let server = Server::new();
    let (zombie, heir) = (server.connect().await, server.connect().await);
    let tenant = tenant(&zombie, "a").await;
    let shard = home(tenant);
    let old = acquire(&zombie, "zombie", LEASE, SHARDS).await;
    furnish(&zombie, tenant, old[&shard], "before").await.expect("because the store answers");
    let old = acquire(&zombie, "zombie", SHORT, SHARDS).await;
    let since = Instant::now();
    assert_eq!(shards(&old), all());
    zombie.host_append(vec![event(tenant, "1")]).await.expect("because the store answers");
    // It has read its batch, and is stopped before it commits.
    let batch = zombie.read_batch(tenant, shard, NOW, ALL).await.expect("because the store answers");
    let mut late = commit_of(tenant, old[&shard], &batch);
    effects(&mut late, &batch.events[0], PluginId(1), "late");
    assert_eq!(acquire(&heir, "heir", LEASE, SHARDS).await.len(), 0, "nothing is free before the lease has ended");
    until("the lease ends", || async { !acquire(&heir, "heir", LEASE, SHARDS).await.is_empty() }).await;
    let waited = since.elapsed();
    assert!(waited >= SHORT - Duration::from_millis(50), "not before its time: {waited:?}");
    assert!(waited < SHORT + Duration::from_secs(1), "as soon as it has ended: {waited:?}");
    let new = acquire(&heir, "heir", LEASE, SHARDS).await;
    assert_eq!(shards(&new), all());
    assert!(new.iter().all(|(shard, fence)| *fence > old[shard]), "fences grow");
    // Before and after the heir has worked the same batch off.
    for turn in ["first", "second"] {
        let before = server.dump();
        let committed = zombie.commit(late.clone()).await.expect("because the store answers");
        assert_eq!(committed, Committed::Fenced, "{turn}");
        assert_eq!(server.dump(), before, "{turn}: every row of every table is as it was");
        if turn == "first" {
            let batch = heir.read_batch(tenant, shard, NOW, ALL).await.expect("because the store answers");
            assert_eq!(batch.events.len(), late_events(&late, &batch), "the heir finds what the zombie had");
            let mut commit = commit_of(tenant, new[&shard], &batch);
            effects(&mut commit, &batch.events[0], PluginId(1), "heir");
            let committed = heir.commit(commit).await.expect("because the store answers");
            assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
        }
    }
    // It holds nothing, and what it gives back is not its own.
    assert_eq!(acquire(&zombie, "zombie", SHORT, SHARDS).await.len(), 0);
    zombie.host_hand_over("zombie", &[shard]).await.expect("because the store answers");
    zombie.host_release("zombie").await.expect("because the store answers");
    assert_eq!(acquire(&heir, "heir", LEASE, SHARDS).await, new);
    zombie.close().await;
    heir.close().await;
}

/// How many events a commit works off, if it begins where the batch does.
fn late_events(commit: &bulkhead_store::work::Commit, batch: &bulkhead_store::work::Batch) -> usize {
    let within = |event: &&bulkhead_domain::event::Logged| event.position <= commit.cursor_to;
    assert_eq!(commit.cursor_from, batch.cursor);
    batch.events.iter().filter(within).count()
}

/// A fence is as good as the lease it came with, also if nobody has taken the shard since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_was_given_back_takes_no_commit() {
    let server = Server::new();
    let store = server.connect().await;
    let tenant = tenant(&store, "a").await;
    let shard = home(tenant);
    let held = acquire(&store, "a", LEASE, SHARDS).await;
    store.host_append(vec![event(tenant, "1")]).await.expect("because the store answers");
    let batch = store.read_batch(tenant, shard, NOW, ALL).await.expect("because the store answers");
    let mut commit = commit_of(tenant, held[&shard], &batch);
    effects(&mut commit, &batch.events[0], PluginId(1), "word");
    store.host_hand_over("a", &[shard]).await.expect("because the store answers");
    let before = server.dump();
    assert_eq!(store.commit(commit.clone()).await.expect("because the store answers"), Committed::Fenced);
    assert_eq!(server.dump(), before);
    let again = acquire(&store, "a", LEASE, SHARDS).await;
    assert!(again[&shard] > held[&shard]);
    assert_eq!(store.commit(commit.clone()).await.expect("because the store answers"), Committed::Fenced);
    commit.fence = again[&shard];
    let committed = store.commit(commit).await.expect("because the store answers");
    assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
    store.close().await;
}

/// What each node would hold if it asks for its share and hands over what is beyond it.
async fn settle(nodes: &[(&str, &Postgres)]) -> Vec<BTreeMap<Shard, Fence>> {
    let live = nodes[0].1.host_nodes().await.expect("because the store answers").len().max(1);
    let share = usize::from(SHARDS).div_ceil(live);
    for (name, store) in nodes {
        let held = acquire(store, name, LEASE, u16::try_from(share).expect("because shards are few")).await;
        let beyond: Vec<Shard> = held.keys().skip(share).copied().collect();
        if !beyond.is_empty() {
            store.host_hand_over(name, &beyond).await.expect("because the store answers");
        }
    }
    let mut shares = Vec::new();
    for (name, store) in nodes {
        shares.push(acquire(store, name, LEASE, u16::try_from(share).expect("because shards are few")).await);
    }
    shares
}

fn sizes(shares: &[BTreeMap<Shard, Fence>]) -> Vec<usize> {
    let together: BTreeSet<Shard> = shares.iter().flat_map(|held| held.keys().copied()).collect();
    let count: usize = shares.iter().map(BTreeMap::len).sum();
    assert_eq!((together, count), (all(), usize::from(SHARDS)), "each shard is held once");
    let mut sizes: Vec<usize> = shares.iter().map(BTreeMap::len).collect();
    sizes.sort_unstable();
    sizes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_come_and_go_share_evenly() {
    let server = Server::new();
    let (a, b, c) = (server.connect().await, server.connect().await, server.connect().await);
    let alone = acquire(&a, "a", LEASE, SHARDS).await;
    assert_eq!(shards(&alone), all());
    // Each that comes has made itself known before anybody gives.
    assert_eq!(acquire(&b, "b", LEASE, SHARDS).await.len(), 0);
    let two = settle(&[("a", &a), ("b", &b)]).await;
    assert_eq!(sizes(&two), [8, 8]);
    assert!(two[0].iter().all(|(shard, fence)| alone[shard] == *fence), "who keeps a shard keeps its fence");
    assert!(two[1].iter().all(|(shard, fence)| alone[shard] < *fence), "who gets one has a greater fence");
    assert_eq!(acquire(&c, "c", LEASE, SHARDS).await.len(), 0);
    assert_eq!(a.host_nodes().await.expect("because the store answers"), ["a", "b", "c"]);
    let three = settle(&[("a", &a), ("b", &b), ("c", &c)]).await;
    assert_eq!(sizes(&three), [4, 6, 6]);
    // One leaves in order: all it had is free at once.
    b.host_release("b").await.expect("because the store answers");
    assert_eq!(c.host_nodes().await.expect("because the store answers"), ["a", "c"]);
    let rest = settle(&[("a", &a), ("c", &c)]).await;
    assert_eq!(sizes(&rest), [8, 8]);
    // One dies: its shards come when its lease has ended, and not before.
    acquire(&c, "c", Duration::from_millis(300), SHARDS).await;
    until("the dead one's shards are taken", || async { acquire(&a, "a", LEASE, SHARDS).await.len() == 16 }).await;
    assert_eq!(a.host_nodes().await.expect("because the store answers"), ["a"]);
    for store in [a, b, c] {
        store.close().await;
    }
}

/// Many nodes that start at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_never_hold_the_same_shard() {
    let server = Server::new();
    let store = server.connect().await;
    let mut nodes = Vec::new();
    for number in 0..8_usize {
        let store = store.clone();
        nodes.push(tokio::spawn(async move {
            let name = format!("node {number}");
            let mut seen = Vec::new();
            for round in 0..10_usize {
                let held = acquire(&store, &name, LEASE, 1 + ((number + round) % 4) as u16).await;
                let given: Vec<Shard> = held.keys().take(round % 3).copied().collect();
                store.host_hand_over(&name, &given).await.expect("because the store answers");
                seen.extend(held);
            }
            (name, seen)
        }));
    }
    let mut holders: BTreeMap<(Shard, Fence), BTreeSet<String>> = BTreeMap::new();
    for node in nodes {
        let (name, seen) = node.await.expect("because it does not panic");
        for held in seen {
            holders.entry(held).or_default().insert(name.clone());
        }
    }
    assert!(holders.len() > usize::from(SHARDS), "shards went around");
    assert!(holders.values().all(|names| names.len() == 1), "a fence has one holder: {holders:?}");
    store.close().await;
}
